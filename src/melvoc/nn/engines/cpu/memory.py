"""Memory that kernels read and write: reused, and of their type whatever torch's defaults are."""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 2**15  # floats, of 128 KB: what the C library asks the system for each time
MOST_FREE = 8  # per size
MOST_BYTES = 2**28  # per size, but for one
HUGE = 2**21  # bytes of a large page, on most machines


def taken(x: Tensor) -> bool:
    """Whether kernels take a signal: floats on the CPU, of which no gradient is wanted."""
    wanted = torch.is_grad_enabled() and x.requires_grad
    return x.dtype == torch.float32 and x.device.type == "cpu" and not wanted


def floats(*shape: int) -> Tensor:
    """An uninitialised tensor of the kernels' type and device, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def zeros(*shape: int) -> Tensor:
    """The same, filled with zeros."""
    return floats(*shape).zero_()


def settled(x: Tensor) -> Tensor:
    """Floats in large pages of memory, where the system has such, or as they are.

    Weights are read from end to end in every call, and what the processor fetches ahead ends with a page.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)  # of Linux
    size = x.numel() * x.element_size()
    if advice is None or size < HUGE:
        return x
    memory = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    space = np.frombuffer(memory, np.uint8)
    start = -int(space.ctypes.data) % HUGE
    with suppress(OSError):  # a kernel without
        memory.madvise(advice, start, size // HUGE * HUGE)  # the rest would be most of a page of nothing
    own = torch.from_numpy(space[start : start + size].view(np.float32)).view(x.shape)
    own.copy_(x)
    return own


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
        if len(free) < min(self._most_free, max(1, MOST_BYTES // memory.nbytes)):
            free.append(memory)

    def clear(self) -> None:
        """Give what is free back to the system."""
        for free in list(self._free.values()):
            free.clear()

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


class Buffer(threading.local):
    """Memory that a thread reuses: what is in it lasts until the same thread takes it again."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._kept: list[Tensor] | None = None

    def take(self, *shape: int) -> Tensor:
        """An uninitialised tensor `[*shape]`."""
        size = 1
        for length in shape:
            size *= length
        if self._memory is None or self._memory.numel() < size:
            self._memory = floats(size + size // 8)
            if self._kept is not None:
                self._kept.append(self._memory)
        return self._memory[:size].view(shape)

    @property
    def size(self) -> int:
        """Floats that this thread's memory has."""
        return 0 if self._memory is None else self._memory.numel()

    @contextmanager
    def afresh(self, kept: list[Tensor]) -> Iterator[None]:
        """Within the context, this thread takes new memory; all of it is added to `kept`, also what is outgrown."""
        before, self._memory, self._kept = self._memory, None, kept
        try:
            yield
        finally:
            self._memory, self._kept = before, None


class Workspace:
    """The buffers that the machines of an engine share, because none is in use when a machine returns.

    Attributes:
        windows: what a convolution reads; two, because one is read while that of the next convolution is written.
        inputs: a window in a transform's slots, from its transform to the products.
        outputs: what the products make of it, until it is transformed back.
        weights: prepared ones that are not kept, until the next group of panels.
    """

    def __init__(self) -> None:
        self.windows = (Buffer(), Buffer())
        self.inputs, self.outputs, self.weights = Buffer(), Buffer(), Buffer()

    @contextmanager
    def afresh(self) -> Iterator[list[Tensor]]:
        """Within the context, this thread's buffers take new memory; gives the list of all of it."""
        kept: list[Tensor] = []
        with ExitStack() as stack:
            for buffer in (*self.windows, self.inputs, self.outputs, self.weights):
                stack.enter_context(buffer.afresh(kept))
            yield kept
