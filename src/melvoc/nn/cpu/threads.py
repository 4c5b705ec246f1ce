"""Serial kernels on several threads, without a runtime of their own.

Numba's parallel mode aborts in a forked child and with two callers. Here each kernel is serial and takes its jobs from
a shared counter; the caller runs it, and so do helpers, as many as `torch.set_num_threads` allows. With one thread
there are no helpers. After a fork the child makes its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch

from melvoc.nn.forks import after_fork

SHARED = 60_000  # vector operations (some 20 microseconds) from which on helpers pay


class Task:
    """A kernel to run once more, on a helper; `wait` gives its end, or its error."""

    def __init__(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.error: BaseException | None = None
        self.over = False
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        """On the helper."""
        try:
            self.function(*self.arguments)
        except BaseException as error:  # handed to the caller
            self.error = error
        finally:
            self.over = True
            self.done.release()

    def wait(self) -> None:
        """On the caller. Ctrl-C waits too: the helper still writes where the caller will put something else."""
        interrupted = None
        while not self.over:  # an interrupt may come just after the lock was acquired
            try:
                self.done.acquire()
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted or self.error:
            raise interrupted or self.error  # type: ignore[misc]


class Counter(threading.local):
    """The shared counter of the kernel that this thread runs: one at a time, so one a thread is enough."""

    def __init__(self) -> None:
        self._value = np.zeros(1, dtype=np.int64)
        self.address = int(self._value.ctypes.data)

    def __call__(self) -> Self:
        """The counter, at 0."""
        self._value[0] = 0
        return self


class Team:
    """Helper threads, made when they are first needed and again in a forked child."""

    def __init__(self) -> None:
        self._counter = Counter()
        self._lock = threading.Lock()
        self._forget()
        after_fork(self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._helpers = 0

    def _work(self, tasks: queue.SimpleQueue[Task]) -> None:
        while True:
            tasks.get().run()

    def _ready(self, helpers: int) -> None:
        if self._helpers >= helpers:
            return
        with self._lock:
            while self._helpers < helpers:
                threading.Thread(target=self._work, args=(self._tasks,), name="melvoc-cpu", daemon=True).start()
                self._helpers += 1

    def run(self, function: Callable[..., None], jobs: int, *arguments: int | float, vectors: int = SHARED) -> None:
        """Run all jobs of a kernel, `function(counter_address, jobs, *arguments)`, and return when they are done.

        Args:
            function: the kernel.
            jobs: how many there are.
            *arguments: the kernel's.
            vectors: about how many vector operations they are in all; too few are not worth a helper.
        """
        counter = self._counter()
        everything = (counter.address, jobs, *arguments)
        helpers = min(torch.get_num_threads(), jobs) - 1 if vectors >= SHARED else 0
        if helpers > 0:
            self._ready(helpers)
        tasks = [Task(function, everything) for _ in range(helpers)]
        for task in tasks:
            self._tasks.put(task)
        try:
            function(*everything)
        finally:
            for task in tasks:
                task.wait()


TEAM = Team()
