"""Serial kernels on several threads, without a runtime of their own.

Numba's parallel mode aborts in a forked child and with two callers. Here each kernel is serial and takes its jobs from
a shared counter; the caller runs it, and so do helpers, as many as `torch.set_num_threads` allows. With one thread
there are no helpers. After a fork the child makes its own.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class Task:
    """A kernel to run once more, on a helper; `wait` gives its end, or its error."""

    def __init__(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        """On the helper."""
        try:
            self.function(*self.arguments)
        except BaseException as error:  # handed to the caller
            self.error = error
        finally:
            self.done.release()

    def wait(self) -> None:
        """On the caller."""
        self.done.acquire()
        if self.error is not None:
            raise self.error


class Team:
    """Helper threads, made when they are first needed and again in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

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

    def run(self, function: Callable[..., None], jobs: int, *arguments: int | float) -> None:
        """Run all jobs of a kernel, `function(counter_address, jobs, *arguments)`, and return when they are done."""
        counter = np.zeros(1, dtype=np.int64)
        everything = (counter.ctypes.data, jobs, *arguments)
        helpers = min(torch.get_num_threads(), jobs) - 1
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
