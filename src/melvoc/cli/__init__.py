"""The command line: arguments in, library calls, text out. The only part of melvoc that prints.

A user's mistake or a bad file gives one line on stderr and exit code 2; of several files, a line for each that is bad
and exit code 1. Warnings come after the work, and never with an error. Ctrl-C gives exit code 130 and SIGTERM 143;
neither leaves a half-written file.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO

from melvoc import __version__
from melvoc.errors import MelvocError, clipped

FAILED = 2  # the exit code of an error, beside which nothing else stands on stderr


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, and with options that are added when they are needed.

    Attributes:
        later: adds the options; None if there is nothing to add.
    """

    later: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *arguments: Any, **named: Any) -> Any:
        """Add the options, then parse."""
        if self.later is not None:
            later, self.later = self.later, None
            later(self)
        return super().parse_known_args(*arguments, **named)

    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        raise MelvocError(f"{message}; see `{self.prog} --help`")


class Terminated(BaseException):
    """SIGTERM arrived: half-written files are removed on the way out, as with Ctrl-C."""


def build_parser() -> Parser:
    """The parser of all commands."""
    from melvoc.cli import demo, doctor, evaluation, exporting, mels, models, train, vocode

    parser = Parser(prog="melvoc", description="Mel spectrograms to sound.")
    parser.add_argument("--version", action="version", version=f"melvoc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for module in (models, vocode, mels, evaluation, exporting, train, demo, doctor):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments. None: the process's.

    Returns:
        The exit code: 0, 1 where some of several inputs failed, 2 for an error, 130 for Ctrl-C, 143 for SIGTERM.
    """
    with _open_streams(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            with interruptible():
                arguments = build_parser().parse_args(argv)
                code = int(arguments.run(arguments))
                with standard_output():
                    pass  # what is left in its buffer
        except KeyboardInterrupt:
            return _say("interrupted; nothing half-written was left", 130)
        except Terminated:
            return _say("terminated; nothing half-written was left", 143)
        except BrokenPipeError:
            sys.stdout = _nowhere()  # or the interpreter would fail to flush it at exit
            return 0
        except Exception as error:
            return _say(described(error), FAILED)
        for warning in caught if code != FAILED else ():
            if "melvoc" in (warning.filename or "") or issubclass(warning.category, UserWarning):
                print(f"melvoc: warning: {line_of(str(warning.message))}", file=sys.stderr)
        return code


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM into an exception, and lose neither it nor Ctrl-C; an application's own handler of SIGTERM stays.

    Python drops an exception that rises in a finaliser or in a callback from C (LLVM's, while a kernel compiles): the
    signal is then raised once more, a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers: dict[type[BaseException], signal.Signals] = {
        KeyboardInterrupt: signal.SIGINT,
        Terminated: signal.SIGTERM,
    }
    timers: list[threading.Timer] = []

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if number := numbers.get(unraisable.exc_type):
            timers.append(threading.Timer(0.02, signal.raise_signal, [number]))
            timers[-1].start()
        else:
            others(unraisable)

    others, sys.unraisablehook = sys.unraisablehook, dropped
    unhandled = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if unhandled:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        if unhandled:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = others


def tell(text: str) -> None:
    """Print a line about work that goes on, also where nobody reads it (any more) or it cannot be written: what counts
    are the files (`melvoc train ... | head`)."""
    try:
        print(clipped(text), flush=True)
    except OSError:
        sys.stdout = _nowhere()


@contextmanager
def standard_output() -> Iterator[None]:
    """Write to standard output, at once.

    Raises:
        BrokenPipeError: nobody reads any more.
        MelvocError: it cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = _nowhere()
        advice = "is it closed?" if error.errno == errno.EBADF else "is there room on the disk?"
        raise MelvocError(f"standard output: cannot be written ({error.strerror}); {advice}") from error


@contextmanager
def _open_streams() -> Iterator[None]:
    """Give the process the standard streams that a caller has closed, while a command runs: a complaint may go nowhere,
    and so may what `tell` says, but no other output."""
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    unwritable = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if "stdout" in closed:
        sys.stdout = unwritable
    if "stderr" in closed:
        sys.stderr = _nowhere()
    try:
        yield
    finally:
        for name in closed:
            setattr(sys, name, None)
        with suppress(OSError):  # what could not be written
            unwritable.close()


def _nowhere() -> TextIO:
    return open(os.devnull, "w")  # noqa: PTH123 - as long as the process lives


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def described(error: Exception) -> str:
    """What went wrong, for a person; an error that melvoc did not anticipate is raised if MELVOC_DEBUG is set."""
    if isinstance(error, MelvocError):
        return line_of(_spelled(str(error)))
    if os.environ.get("MELVOC_DEBUG"):
        raise error
    return line_of(f"{type(error).__name__}: {error} (MELVOC_DEBUG=1 shows where)")


_OPTIONS = {"allow_unverified=True": "--allow-unverified", "revision=": "--revision", "refine=0": "--refine 0"}


def _spelled(text: str) -> str:
    """A message with the command line's options in place of Python's arguments."""
    for argument, option in _OPTIONS.items():
        text = re.sub(rf"\b{argument}(?=[ ,;.)]|$)", option, text)
    return text


def line_of(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())


def _say(text: str, code: int) -> int:
    print(f"melvoc: error: {text}", file=sys.stderr)
    return code
