"""Memory that kernels read and write: reused, and of their type whatever torch's defaults are."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 2**17  # floats
MOST_FREE = 8  # per size


def floats(*shape: int) -> Tensor:
    """An uninitialised tensor of the kernels' type and device, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def zeros(*shape: int) -> Tensor:
    """The same, filled with zeros."""
    return floats(*shape).zero_()


class Lease(np.ndarray):
    """Memory of the pool that a tensor holds; it goes back when no tensor holds it any longer."""


class Pool:
    """Memory for large signals, reused.

    The C library's own fragments when megabytes of many sizes come and go, and grows to several times what is in use;
    or it gives them back to the system at once, and each page is zeroed again.

    Args:
        large: number of floats from which memory comes from the pool.
        most_free: arrays per size that are kept for later.
    """

    def __init__(self, large: int = LARGE, most_free: int = MOST_FREE) -> None:
        self._large, self._most_free = large, most_free
        self._free: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._here = Instead()

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised tensor."""
        if self._here.pool is not None:
            return self._here.pool.empty(*shape)
        size = math.prod(shape)
        if size < self._large:
            return floats(*shape)
        step = 1 << max(0, size.bit_length() - 4)
        size_class = -(-size // step) * step  # at most an eighth more
        free = self._free.setdefault(size_class, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size_class, np.float32)
        lease = memory[:size].view(Lease)
        weakref.finalize(lease, self._give, free, memory).atexit = False
        return torch.from_numpy(lease).view(shape)

    def _give(self, free: list[np.ndarray[Any, Any]], memory: np.ndarray[Any, Any]) -> None:
        """Without a lock: this may happen at any point of any thread."""
        if len(free) < self._most_free:
            free.append(memory)

    @contextmanager
    def replaced(self, pool: Pool) -> Iterator[None]:
        """Within the context, this thread's memory comes from another pool."""
        self._here.pool = pool
        try:
            yield
        finally:
            self._here.pool = None


class Instead(threading.local):
    """Another pool, in this thread."""

    pool: Pool | None = None


POOL = Pool()


class Workspace(threading.local):
    """Buffers that a thread reuses; the contents of one last until the next `take` of its name."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised buffer `[*shape]`."""
        size = 1
        for length in shape:
            size *= length
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self.buffers[name] = floats(size + size // 8)
        return buffer[:size].view(shape)

    @contextmanager
    def replaced(self, buffers: dict[str, Tensor]) -> Iterator[None]:
        """Within the context, this thread takes from other buffers."""
        own, self.buffers = self.buffers, buffers
        try:
            yield
        finally:
            self.buffers = own
