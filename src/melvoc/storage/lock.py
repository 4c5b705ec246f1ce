"""One process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from melvoc.progress import Progress, checkpoint, watched
from melvoc.storage.cache import cache_errors

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def locked(path: Path, progress: Progress | None = None) -> Iterator[None]:
    """Hold a lock, and leave no file of it; while another process holds it, wait and say so.

    Args:
        path: of the lock's file; its folder must exist.
        progress: told of the waiting ("wait").

    Raises:
        DownloadError: the folder cannot be written.
    """
    from filelock import FileLock

    lock = FileLock(path, thread_local=False)  # waited for in one thread, released in another
    try:
        if not _acquired(lock, timeout=0):
            watched(progress, "wait", 1, lambda _: _wait(lock))
        yield
    finally:
        if lock.is_locked:  # so it is nobody else's yet; Windows refuses, and removes it with the lock
            with suppress(OSError):
                path.unlink()
        lock.release()


def _wait(lock: BaseFileLock) -> None:
    while not _acquired(lock, timeout=0.5):
        checkpoint()


def _acquired(lock: BaseFileLock, *, timeout: float) -> bool:
    from filelock import Timeout

    with cache_errors(Path(lock.lock_file).parent):
        try:
            lock.acquire(timeout=timeout)
        except Timeout:  # an OSError
            return False
    return True
