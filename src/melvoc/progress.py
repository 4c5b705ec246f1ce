"""Progress of calls that take long, and how a program cancels them.

`progress(stage, done, total)` is called in the thread that called melvoc, first with done = 0 before any work, then for
each block of it and at least once a second, and at the end with done = total. What it raises cancels the call, and
reaches the caller as it is; nothing half-written is left.
"""

from __future__ import annotations

import contextvars
import ctypes
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from melvoc.errors import OptionError, quoted
from melvoc.host import LINE, calling_line

R = TypeVar("R")
Progress = Callable[[str, int, int], object]
Report = Callable[[int], object]

# Every stage, and what it counts. A stage whose total is 1 only shows that it goes on.
STAGES = {
    "find": "1: what there is: on the Hub, or in the folders of a training run",
    "wait": "1: another process is downloading the same file",
    "download": "bytes",
    "convert": "1: a download is verified and becomes a melvoc file",
    "check": "1: a cached file is looked at",
    "load": "1",
    "compile": "1: kernels are compiled, weights prepared",
    "synthesise": "mel frames, of all rows that run one after the other; samples of the sound in resynthesize",
    "evaluate": "copies: each file by each vocoder with each refinement",
    "read": "files, when training begins",
    "prepare": "1: networks and the run's folder, when training begins",
    "validate": "held-out files",
    "write": "1: a checkpoint or a generator",
    "compare": "held-out files, when training ends: the result beside Griffin-Lim",
}
_TICK = 0.5  # seconds between two calls while nothing else happens
_PATIENCE = 2.0  # seconds that interrupted work gets to end
_HERE = threading.local()


class Cancelled(BaseException):
    """Ends the work of a call whose progress function has raised, or whose token says so. Only who cancels sees it."""


@dataclass
class Token:
    """Ends what runs under it, from another thread.

    Attributes:
        cancelled: set it, and every call under this token ends at its next checkpoint.
    """

    cancelled: bool = False


@contextmanager
def under(token: Token) -> Iterator[None]:
    """Let a token end what this thread does in the block."""
    before, _HERE.work = getattr(_HERE, "work", None), token
    try:
        yield
    finally:
        _HERE.work = before


class _Work(threading.Thread, Generic[R]):
    """Work in a thread of its own, with the caller's context."""

    def __init__(self, work: Callable[[Report], R]) -> None:
        super().__init__(name="melvoc", daemon=True)
        self.reports: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.cancelled = False
        self.result: R | None = None
        self.error: BaseException | None = None
        self._work, self._context = work, contextvars.copy_context()
        self._context.run(LINE.set, calling_line())
        self._modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        self._stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None

    def run(self) -> None:
        """Do the work; None ends the reports."""
        _HERE.work = self
        try:
            self.result = self._context.run(self._as_the_caller)
        except BaseException as error:
            self.error = error
        finally:
            self.reports.put(None)

    def _as_the_caller(self) -> R:
        """The work with what torch keeps for each thread."""
        inference, gradients = self._modes
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(inference))
            stack.enter_context(torch.set_grad_enabled(gradients))
            if self._stream is not None:
                stack.enter_context(torch.cuda.stream(self._stream))
            return self._work(self._report)

    def _report(self, done: int) -> None:
        checkpoint()
        self.reports.put(done)

    def cancel(self, *, interrupt: bool) -> None:
        """End the work: at its next checkpoint, or wherever it is."""
        self.cancelled = True
        end = time.monotonic() + _PATIENCE
        while interrupt and self.is_alive() and time.monotonic() < end:
            # What waits for a network notices only when it stops waiting. Sent again: a finaliser may drop it.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident or 0), ctypes.py_object(Cancelled))
            self.join(_TICK)
        if not interrupt:
            self.join()


def watched(
    progress: Progress | None,
    stage: str,
    total: int,
    work: Callable[[Report], R],
    *,
    measure: Callable[[], int] | None = None,
    interrupt: bool = False,
) -> R:
    """Do one stage of work and report it.

    Without a progress function the work is simply called. With one it runs in a thread of its own, in the caller's
    context, while this thread reports; an exception of either ends both.

    Args:
        progress: the function, or None.
        stage: one of `STAGES`.
        total: of what the stage counts, at least 1.
        work: is given a function that takes how much is done, to be called after each block.
        measure: says how much is done, where the work itself cannot.
        interrupt: whether the work may be ended anywhere, as by Ctrl-C: work that changes nothing of this process. If
            it does not end within two seconds, since it waits for a network, the caller no longer waits for it.

    Returns:
        What the work returns.
    """
    if progress is None:
        return work(lambda done: checkpoint())  # of a call around this one, perhaps
    progress(stage, 0, total)
    thread, done = _Work(work), 0
    thread.start()
    try:
        while True:
            try:
                said = thread.reports.get(timeout=_TICK)
            except queue.Empty:
                said = done if measure is None else measure()
            if said is None:
                break
            done = max(done, min(said, total))
            progress(stage, done, total)
        if thread.error is None and done < total:
            progress(stage, total, total)
    except BaseException:
        thread.cancel(interrupt=interrupt)
        raise
    thread.join()
    if thread.error is not None:
        raise thread.error
    return thread.result  # type: ignore[return-value]


def checkpoint() -> None:
    """End here if this call was cancelled; for long loops that have no blocks to report, a plugin's too."""
    work = getattr(_HERE, "work", None)
    if work is not None and work.cancelled:
        raise Cancelled


def check_progress(progress: Any) -> None:
    """Check that a progress function can be called.

    Raises:
        OptionError: it cannot.
    """
    if progress is not None and not callable(progress):
        raise OptionError(f"progress={quoted(progress)}, but it is a function of (stage, done, total), or None")
