"""The program around melvoc: keeping its state out of melvoc's calls, and where warnings point."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_BORN_IN = os.getpid()
_NOT_THE_CALLER = ("melvoc", "torch", "contextlib", "functools")


class Shared(ABC):
    """A setting of the whole process that is another while any call is inside; the last one out puts it back.

    A forked child has the calls of the thread that forked, and no others: if there are none, it puts the setting back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.RLock(), 0
        self._before: Any = None
        self._mine = threading.local()  # of which `depth` are this thread's
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._forked)

    def _hold(self) -> None:
        self._lock.acquire()  # nobody is on the way in or out at a fork

    def _release(self) -> None:
        self._lock.release()

    def _forked(self) -> None:
        before, self._lock, self._inside = self._inside, threading.RLock(), getattr(self._mine, "depth", 0)
        if before and not self._inside:
            self.put_back(self._before)

    @abstractmethod
    def change(self) -> Any:
        """Set it; returns the old value."""

    @abstractmethod
    def put_back(self, before: Any) -> None:
        """Set the old value."""

    def wanted(self, unset: Callable[[], bool]) -> bool:
        """Whether a call needs it: another one is inside, for which it may be set, or it is not set anyway."""
        with self._lock:  # so that none comes or goes in between
            return self._inside > 0 or unset()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = self.change()
            self._inside += 1
            self._mine.depth = getattr(self._mine, "depth", 0) + 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._mine.depth -= 1
            self._inside -= 1
            if not self._inside:
                self.put_back(self._before)


class _OneThread(Shared):
    """Limits torch to one thread.

    Torch's own threads (OpenMP's) do not survive a fork: if the parent had used them, the child's first parallel
    operation waits for them forever.
    """

    def change(self) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        return before

    def put_back(self, before: Any) -> None:
        torch.set_num_threads(before)


class _Float32(Shared):
    """Sets torch's default type, which other threads of the host see for as long."""

    def change(self) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        return before

    def put_back(self, before: Any) -> None:
        torch.set_default_dtype(before)


def _has_autocast(kind: str) -> bool:
    """Whether this torch has autocast for a kind of device."""
    try:
        torch.is_autocast_enabled(kind)
    except RuntimeError:
        return False
    return True


_ONE_THREAD, _FLOAT32 = _OneThread(), _Float32()
_AUTOCASTS = tuple(filter(_has_autocast, ("cpu", "cuda", "mps")))


def _shields() -> list[AbstractContextManager[Any]]:
    """What keeps the host's state out of a call; nothing, for a host that has set nothing."""
    found: list[AbstractContextManager[Any]] = [_ONE_THREAD] if os.getpid() != _BORN_IN else []
    if _FLOAT32.wanted(lambda: torch.get_default_dtype() != torch.float32):
        found.append(_FLOAT32)
    if torch.empty(0).device.type != "cpu":  # torch 2.4's get_default_device fails, and knows no `with torch.device`
        found.append(torch.device("cpu"))
    found += [torch.autocast(kind, enabled=False) for kind in _AUTOCASTS if torch.is_autocast_enabled(kind)]
    return found


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A call of melvoc's that computes with torch: what the host has set for torch does not reach into it.

    That is its default type and device, autocast, and, in a process that was forked after melvoc's import, the number
    of threads, which is one for the call's own duration.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        shields = _shields()
        if not shields:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for shield in shields:
                stack.enter_context(shield)
            return function(*args, **kwargs)

    return guarded


@contextmanager
def drawing(device: torch.device, seed: int) -> Iterator[None]:
    """Draw random numbers of a seed from torch; the caller's go on afterwards as if nothing had been drawn.

    torch's numbers are the whole process's: another thread that draws meanwhile draws the same ones.
    """
    cuda, mps = device.type == "cuda", device.type == "mps"
    before = torch.mps.get_rng_state() if mps else None
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if mps:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if before is not None:
                torch.mps.set_rng_state(before)


class Line(NamedTuple):
    """A line of code that a warning shows, and what its module was warned of already."""

    file: str
    number: int
    module: str
    warned: dict[Any, Any]


LINE: ContextVar[Line | None] = ContextVar("melvoc.host.LINE", default=None)  # set where a thread works for a call


def calling_line() -> Line:
    """The line outside melvoc and torch whose call led here; in a thread that works for a call, that call's."""
    if line := LINE.get():
        return line
    frame = sys._getframe(0)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_CALLER:
        frame = frame.f_back
    names = frame.f_globals
    warned = names.setdefault("__warningregistry__", {})
    return Line(frame.f_code.co_filename, frame.f_lineno, names.get("__name__", "<unknown>"), warned)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside melvoc and torch whose call led here."""
    line = calling_line()
    warnings.warn_explicit(message, category, line.file, line.number, line.module, line.warned)
