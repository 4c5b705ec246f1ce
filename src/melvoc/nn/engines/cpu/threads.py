"""Kernels on several threads, without a runtime of their own.

Numba's parallel mode aborts in a forked child and with two callers. Here each kernel is serial and takes its jobs from
a shared counter; the caller runs it, and so do helpers, as many as `torch.set_num_threads` allows. With one thread
there are no helpers. After a fork the child makes its own.

The caller takes jobs from the front, every other helper from the back, and jobs are numbered in the order of time,
except for products that go slot by slot. So a signal's beginning stays with one processor from kernel to kernel and its
end with another: what they wrote is in their own caches, which need not be shared (the processors of a virtual machine
may be on different chips).

A network is hundreds of kernels of about 50 microseconds, less than it takes to wake a thread. So a helper that has run
one watches for the next in compiled code, without Python's lock, before it sleeps. Nothing is promised to a helper: one
that comes late finds the gate closed. A second caller finds the team busy and runs alone.

    caller                                       helper i
    writes the task                              watches the gate
    opens the gate: next run, `helpers` may enter
    takes jobs from the front                    i < may enter, and a run it has not seen: inside + 1 (compare and swap)
      ...                                        takes jobs from the back (odd i: from the front)
    no job is left: closes the gate              no job is left: inside - 1
    waits until nobody is inside                 watches the gate
    returns                                      nothing for long, and no caller: sleeps until its bell rings

The gate is one word, so that entering and closing cannot cross:

    bits 16 to 63: number of the run | bits 8 to 15: how many may enter | bits 0 to 7: how many are inside

| gate | may enter | inside | until |
| :-- | :-- | :-- | :-- |
| idle | 0 | 0 | the caller opens it |
| open | helpers | 0 to helpers | the caller has no job left and closes it |
| draining | 0 | 1 to helpers | the last helper leaves |

| helper | asleep[i] | until |
| :-- | :-- | :-- |
| watching | 0 | it enters; or WATCH breaths without a run while there is no caller: asleep |
| inside | 0 | no job is left: watching |
| asleep | 1 | a caller sets it to 0 and rings its bell: watching. One that saw 0 just before does without this helper |
"""

from __future__ import annotations

import ctypes
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from melvoc.nn.engines.cpu.atomics import (
    add_word,
    breathe,
    call,
    exchange_word,
    load_word,
    mask_word,
    store_word,
)
from melvoc.nn.engines.cpu.compile import Kernel, Record, routine

SHARED = 10_000  # vector operations (about 3 microseconds) that make a helper worthwhile
PATIENCE = 4000  # breaths (about 100 microseconds) until a caller that waits for helpers lets others run
WATCH = 4 * PATIENCE  # until a helper without work sleeps: longer than Python takes between two kernels
MOST_HELPERS = 250
LINE = 128  # bytes: what processors fetch at a time, so that no one waits for a neighbour

# A task in memory: the counter (jobs taken from the front and, from bit 32 on, from the back), then on separate lines
# the kernel's address, the number of arguments, arguments; at the end, if it is part of a tape, its helpers.
TASK_BYTES = 4 * LINE
HELPERS = TASK_BYTES - 8
# A team in memory: the gate, whether there is a caller, its task, and for each helper whether it sleeps.
CALLER, TASK, ASLEEP = LINE, LINE + 8, 2 * LINE
TEAM_BYTES = ASLEEP + 8 * (MOST_HELPERS + 1)


@routine
def take_part(place: int) -> None:
    """Run the task at a place until no job is left: from the front, or, at the place after it, from the back."""
    task, side = place & ~1, place & 1
    call(load_word(task + LINE), task + LINE + 16, load_word(task + LINE + 8), side)


@routine
def shared(team: int, helpers: int, task: int, give_way: int, patience: int) -> None:
    """Run a task with `helpers` helpers; return when all are done. Whoever calls this is the team's caller.

    `give_way` is the address of the system's function that yields, called in a long wait.
    """
    store_word(team + TASK, task)
    store_word(team, (((load_word(team) >> 16) + 1) << 16) | (helpers << 8))
    take_part(task)
    mask_word(team, ~0xFF00)
    waited = 0
    while load_word(team) & 0xFF != 0:
        breathe()
        waited += 1
        if waited > patience and give_way != 0:
            call(give_way, 0, 0, 0)


@routine
def together(team: int, helpers: int, task: int, give_way: int, patience: int) -> None:
    """Run a task with `helpers` helpers, or alone if the team has another caller; return when all are done."""
    if exchange_word(team + CALLER, 0, 1) == 0:
        take_part(task)
        return
    shared(team, helpers, task, give_way, patience)
    store_word(team + CALLER, 0)


@routine
def in_a_row(team: int, helpers: int, tasks: int, count: int, give_way: int, patience: int) -> None:
    """Run `count` consecutive tasks, each with the helpers that it may have, up to `helpers`."""
    mine = 0
    if helpers > 0:
        mine = exchange_word(team + CALLER, 0, 1)
    for number in range(count):
        task = tasks + number * TASK_BYTES
        store_word(task, 0)
        wanted = min(helpers, load_word(task + HELPERS))
        if mine == 1 and wanted > 0:
            shared(team, wanted, task, give_way, patience)
        else:
            take_part(task)
    if mine == 1:
        store_word(team + CALLER, 0)


@routine
def help_out(team: int, index: int, patience: int) -> None:
    """Take part in every run, until there has been no caller for a while."""
    last, waited = 0, 0
    while waited < patience or load_word(team + CALLER) == 1:
        gate = load_word(team)
        if (gate >> 8) & 0xFF > index and gate >> 16 != last and exchange_word(team, gate, gate + 1) == 1:
            take_part(load_word(team + TASK) + ((index + 1) & 1))
            add_word(team, -1)
            last, waited = gate >> 16, 0
        else:
            breathe()
            waited += 1
    store_word(team + ASLEEP + 8 * index, 1)


class Memory:
    """Words that compiled code knows by address, all 0."""

    def __init__(self, size: int) -> None:
        self._bytes = np.zeros(size + LINE, np.uint8)
        start = -self._bytes.ctypes.data % LINE
        self.view = self._bytes[start : start + size].data
        self.address = int(self._bytes.ctypes.data) + start


class Tasks:
    """Consecutive tasks in memory."""

    def __init__(self, count: int) -> None:
        self._memory = Memory(count * TASK_BYTES)
        self._helpers = self._memory.view.cast("q")
        self.address, self.count = self._memory.address, count

    def set(self, number: int, kernel: Kernel[Any], jobs: int, arguments: tuple[int, ...], helpers: int = 0) -> int:
        """Set task `number` to these jobs and flat arguments, with the counter at 0; returns its address."""
        place = number * TASK_BYTES
        address = self.address + place
        kernel.layout.pack_into(self._memory.view, place, 0, kernel.address, kernel.count, address, jobs, *arguments)
        self._helpers[(place + HELPERS) // 8] = helpers
        return address


@dataclass(frozen=True)
class Launch:
    """A kernel that was run.

    Attributes:
        kernel: which one.
        jobs: how many.
        arguments: the others, flat.
        helpers: how many it may have.
        kept: what must stay alive for it to run again.
    """

    kernel: Kernel[Any]
    jobs: int
    arguments: tuple[int, ...]
    helpers: int
    kept: object


class Caller(threading.local):
    """What belongs to a thread that runs kernels: the current task, and the tape that records them, if any."""

    def __init__(self) -> None:
        self.task = Tasks(1)
        self.tape: list[Launch] | None = None
        self.spoilt = False


def _give_way() -> int:
    """The address of the function with which a thread yields its processor to another."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """Helper threads, made when they are first needed and again in a forked child."""

    def __init__(self) -> None:
        self._caller = Caller()
        self._give_way = _give_way()
        self._forget()
        if hasattr(os, "register_at_fork"):  # a parent's threads are not there in its child
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._memory = Memory(TEAM_BYTES)
        self._asleep = self._memory.view[ASLEEP:].cast("q")
        self._bells: list[queue.SimpleQueue[None]] = []

    def _work(self, index: int, memory: Memory, bell: queue.SimpleQueue[None]) -> None:
        while True:
            help_out(memory.address, index, WATCH)
            bell.get()

    def _wake(self, helpers: int) -> None:
        """Wake helpers that sleep, and start missing ones. They come as soon as they can, perhaps after the run."""
        for index in range(min(helpers, len(self._bells))):
            if self._asleep[index]:
                self._asleep[index] = 0
                self._bells[index].put(None)
        if len(self._bells) < helpers:
            with self._lock, suppress(RuntimeError):  # no more threads on this system: the existing ones do it
                help_out(self._memory.address, MOST_HELPERS, 0)  # compiled before they all need it
                while len(self._bells) < helpers:
                    bell: queue.SimpleQueue[None] = queue.SimpleQueue()
                    given = (len(self._bells), self._memory, bell)
                    threading.Thread(target=self._work, args=given, name="melvoc-cpu", daemon=True).start()
                    self._bells.append(bell)

    def run(
        self, kernel: Kernel[Record], jobs: int, arguments: Record, *, vectors: int = 2 * SHARED, kept: object = None
    ) -> None:
        """Run all jobs of a kernel and return when they are done.

        Args:
            kernel: takes its jobs' counter, their number, and the arguments.
            jobs: how many there are.
            arguments: the kernel's record.
            vectors: about how many vector operations there are in total; too few are not worth a helper.
            kept: what an argument is the address of, if nothing else keeps it forever.
        """
        caller, flat = self._caller, kernel.flat(arguments)
        task = caller.task.set(0, kernel, jobs, flat)
        most = min(jobs, vectors // SHARED, MOST_HELPERS + 1) - 1
        if caller.tape is not None:
            caller.tape.append(Launch(kernel, jobs, flat, most, kept))
        helpers = min(torch.get_num_threads() - 1, most)
        if helpers > 0:
            self._wake(helpers)
            together(self._memory.address, helpers, task, self._give_way, PATIENCE)
        else:
            take_part(task)

    @contextmanager
    def writing_down(self) -> Iterator[list[Launch]]:
        """A list of what this thread runs within the context.

        Raises:
            RuntimeError: it did something that a list of kernels does not capture.
        """
        caller = self._caller
        tape: list[Launch] = []
        caller.tape, caller.spoilt = tape, False
        try:
            yield tape
        finally:
            caller.tape = None
        if caller.spoilt:
            raise RuntimeError("weights were prepared while recording")

    def spoil(self) -> None:
        """Mark what this thread does now as not recordable."""
        self._caller.spoilt = True

    def run_again(self, tasks: Tasks) -> None:
        """Run tasks one after the other, without Python in between, so that helpers stay awake."""
        helpers = min(torch.get_num_threads() - 1, MOST_HELPERS)
        if helpers > 0:
            self._wake(helpers)
        in_a_row(self._memory.address, helpers, tasks.address, tasks.count, self._give_way, PATIENCE)


TEAM = Team()
