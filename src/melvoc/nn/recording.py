"""The steps of a stream, recorded.

A small piece keeps a processor busy for less time than it takes to launch the hundreds of kernels of a network. A
recording launches them all at once, but it fixes every shape and address. A stream has such a steady state: once it has
begun, each piece of n samples leaves a state of the same shape. So after a few equal pieces the step is recorded, with
its state in buffers that it reads at its beginning and writes at its end. No mel is ever padded to fit: a piece of
another size, or the last one, runs directly, and where the state keeps its shape the recording stays in use after it.
When a stream has ended, the next one through the same nodes goes on with its recording.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor

from melvoc.nn.graph import Machine
from melvoc.nn.state import Cell

Step = Callable[[], Tensor]

ATTEMPTS = 2  # recordings per stream; one that keeps changing its pieces runs directly


class Recorder(ABC):
    """Makes steps fast.

    Attributes:
        name: what it makes, for a warning.
        runs: whether recording a step runs it. If so, a piece is recorded while it runs; if not, a step is rehearsed.
        repeats: equal pieces before a recording, at least 2: one call after another, not a coincidence.
    """

    name: str
    runs: bool
    repeats: int

    @abstractmethod
    def fits(self, x: Tensor) -> bool:
        """Whether pieces like x are worth a recording."""

    @abstractmethod
    def record(self, step: Step) -> Step:
        """Record a step, running it or not as `runs` says.

        Args:
            step: launches the same kernels on the same addresses whenever it is called, and has been run before.

        Returns:
            A function that runs it again and returns its output, in a buffer that the next run overwrites.
        """

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy, as part of a step."""
        target.copy_(source)

    def given(self, output: Tensor) -> Tensor:
        """What becomes of a step's output: a copy, unless its receiver is done with it before the next step."""
        return output.clone()

    def on(self, x: Tensor) -> AbstractContextManager[Any]:
        """A context in which the device of x is the current one."""
        return nullcontext()


class RecordingMachine(Machine):
    """Runs another machine, and after a few equal pieces its recording.

    Args:
        machine: the other machine, in its state before the first piece.
        recorder: makes a step fast.
        shelf: of streams through the same nodes with the same weights; None: each makes its own recording.
    """

    parts = ("machine",)

    def __init__(self, machine: Machine, recorder: Recorder, shelf: Shelf | None = None) -> None:
        self.machine = machine
        self._recorder, self._shelf = recorder, shelf
        self._recording: Recording | None = None
        self._seen: object = None
        self._before: list[object] | None = None  # the state's sizes after the previous piece, if they were taken
        self._repeats = 1  # equal pieces so far; each but the first left the state's shape as it was
        self._attempts = ATTEMPTS

    @torch.inference_mode()
    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples; see `Machine`."""
        if last:
            y = self.machine(x, last)
            if self._recording and self._shelf:
                y = y.clone()  # it may be a buffer of the recording, which another thread may take at once
                self._shelf.put(self._recording)
            return y
        if not self._recording and self._shelf and (found := self._shelf.take(self.machine, x)):
            self._recording, self.machine = found, found.machine
        if self._recording and self._recording.fits(x):
            return self._recording(x)
        kind = (tuple(x.shape), x.dtype)
        repeated, self._seen = kind == self._seen, kind
        if not (self._recording or (repeated and self._attempts and self._recorder.fits(x))):
            self._before, self._repeats = None, 1
            return self.machine(x, last)
        if not self._recording and self._recorder.runs and self._repeats >= self._recorder.repeats:
            self._record(x)
            if self._recording:
                return self._recording.first()
        before = self._before or sizes(self.machine)
        y = self.machine(x, last)
        self._before = sizes(self.machine)
        steady = self._before == before
        if self._recording:
            if steady:
                self._recording.adopt()
            else:
                self._recording, self._repeats = None, 1
        else:
            self._repeats = self._repeats + 1 if steady else 1
            if self._repeats >= self._recorder.repeats and not self._recorder.runs:
                self._record(x)
        return y

    def fork(self) -> Self:
        """A copy with its own state, and without a recording."""
        twin = super().fork()
        for cell in twin.machine.cells() if self._recording else ():  # a recording writes into the state
            if isinstance(value := cell.get(), Tensor):
                cell.put(value.clone())
        twin._recording, twin._attempts, twin._shelf = None, 0, None
        return twin

    def _record(self, x: Tensor) -> None:
        self._attempts -= 1
        try:
            self._recording = Recording(self.machine, x, self._recorder)
        except Exception as error:  # what cannot be recorded still runs
            self._attempts = 0
            warn_of_failure("stream", self._recorder, error)


class Recording:
    """A recorded step of a machine in its steady state.

    One that did not run is rehearsed before it is used: two steps of it must give what two steps of a fork give.

    Args:
        machine: one whose state keeps its shape from piece to piece; from now on, its state is in buffers.
        x: a piece like those to come, or the next one (where the recorder runs it).
        recorder: makes the step fast.

    Attributes:
        machine: that one.

    Raises:
        RuntimeError: the recording differs from the machine.
    """

    def __init__(self, machine: Machine, x: Tensor, recorder: Recorder) -> None:
        self.machine, self._recorder = machine, recorder
        self._input = x.clone()
        cells = list(machine.cells())
        before = [cell.get() for cell in cells]
        self._sizes = sizes(machine)
        self._tensors = [cell for cell in cells if isinstance(cell.get(), Tensor)]
        self._buffers = [cell.get().clone() for cell in self._tensors]
        try:
            with recorder.on(x):
                expected = None if recorder.runs else self._expected()
                self._attach()
                self._replay = recorder.record(self._step)
                counted = [(cell, value) for cell, value in zip(cells, before, strict=True) if cell.counts]
                self._counts = [(cell, cell.get() - value) for cell, value in counted]
                if expected is not None:
                    self._rehearse(expected)
        except BaseException:
            _restore(cells, before)
            raise
        if not recorder.runs:
            _restore(cells, before)
            self.adopt()

    def _expected(self) -> Tensor:
        """What two steps give, computed by a fork."""
        twin = self.machine.fork()
        return [twin(self._input, False) for _ in range(2)][-1]

    def _rehearse(self, expected: Tensor) -> None:
        recorded = [self._replay().clone() for _ in range(2)][-1]
        if recorded.shape != expected.shape or not torch.allclose(recorded, expected, rtol=1e-3, atol=1e-3):
            raise RuntimeError("the recorded step does not give what the direct one gives")

    def first(self) -> Tensor:
        """What the step gave while it was recorded."""
        return self._recorder.given(self._output)

    def fits(self, x: Tensor) -> bool:
        """Whether x is a piece like the recorded one."""
        return x.shape == self._input.shape and x.dtype == self._input.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """The machine's next step."""
        with self._recorder.on(x):
            self._input.copy_(x)
            for cell, count in self._counts:  # Python does not run, and positions go on all the same
                cell.put(cell.get() + count)
            return self._recorder.given(self._replay())

    def suits(self, machine: Machine) -> bool:
        """Whether the state of another machine through the same nodes is as large as the recorded one."""
        return sizes(machine) == self._sizes

    def take_over(self, machine: Machine) -> None:
        """Go on from its state."""
        for own, other in zip(self.machine.cells(), machine.cells(), strict=True):
            own.put(other.get())
        self.adopt()

    def adopt(self) -> None:
        """Take over the state after a step that the machine made directly."""
        for cell, buffer in zip(self._tensors, self._buffers, strict=True):
            if (tensor := cell.get()) is not buffer:
                self._recorder.copy(tensor, buffer)
        self._attach()

    def _attach(self) -> None:
        for cell, buffer in zip(self._tensors, self._buffers, strict=True):
            cell.put(buffer)

    def _step(self) -> Tensor:
        self._output = self.machine(self._input, False)
        if sizes(self.machine) != self._sizes:
            raise RuntimeError("the state did not keep its sizes")
        self.adopt()
        return self._output


class Shelf:
    """The recording of a stream that has ended, for the next one through the same nodes with the same weights."""

    def __init__(self) -> None:
        self._recordings: list[Recording] = []  # one at most; lists are safe between threads

    def put(self, recording: Recording) -> None:
        """Leave a recording here, instead of the one before."""
        self._recordings = [recording]

    def take(self, machine: Machine, x: Tensor) -> Recording | None:
        """The recording, going on from the state of a machine, if it is for pieces like x and such a state."""
        try:
            recording = self._recordings.pop()
        except IndexError:
            return None
        if not recording.fits(x) or not recording.suits(machine):
            self._recordings.append(recording)
            return None
        recording.take_over(machine)
        return recording


def warn_of_failure(what: str, recorder: Recorder, error: Exception) -> None:
    """Say that something runs without a recording."""
    warnings.warn(
        f"this {what} runs without {recorder.name}, which failed ({type(error).__name__}: {error}): the same sound, "
        "with a higher latency",
        RuntimeWarning,
        stacklevel=4,
    )


def sizes(machine: Machine) -> list[object]:
    """What stays as it is in a steady state: the sizes of all cells but those that count."""
    return [cell.size() for cell in machine.cells() if not cell.counts]


def _restore(cells: list[Cell], values: list[Any]) -> None:
    for cell, value in zip(cells, values, strict=True):
        cell.put(value)
