"""Locks in processes that fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any


class ForkLock:
    """A lock that is open in a forked child, which does not have the thread that may have held it in the parent.

    That thread may have stopped anywhere inside, so that what the lock guards is whole at each step.

    Args:
        reentrant: whether the thread that has it may take it again.
    """

    def __init__(self, *, reentrant: bool = False) -> None:
        self._make: Callable[[], Any] = threading.RLock if reentrant else threading.Lock
        self.renew()
        _FORK_LOCKS.add(self)

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; False if another has it, and `blocking` is too."""
        return bool(self._lock.acquire(blocking))

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def renew(self) -> None:
        """Be open."""
        self._lock = self._make()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()


_FORK_LOCKS: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _open_locks() -> None:
    for lock in list(_FORK_LOCKS):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
