"""The program around melvoc: keeping its state out of melvoc's calls, and where warnings point."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_BORN_IN = os.getpid()
_NOT_THE_CALLER = ("melvoc", "torch", "contextlib", "functools")


class _OneThread:
    """Limits torch to one thread while any call of this process is inside.

    Torch's own threads (OpenMP's) do not survive a fork: if the parent had used them, the child's first parallel
    operation waits for them forever.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.get_num_threads()
                torch.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_num_threads(self._before)


_ONE_THREAD = _OneThread()


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Make a melvoc call that computes with torch safe in a process that was forked after melvoc was imported.

    There it limits torch to one thread while it runs, and restores the old number afterwards.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if os.getpid() == _BORN_IN:
            return function(*args, **kwargs)
        with _ONE_THREAD:
            return function(*args, **kwargs)

    return guarded


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside melvoc and torch whose call led here."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_CALLER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
