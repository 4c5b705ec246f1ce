"""The steps of a stream as one call: a step's kernels and their arguments, run again without Python.

So does a whole signal of a length that comes again and again. It needs no state: its machine has seen nothing before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from melvoc.nn.engines.cpu.memory import POOL, Pool, Workspace
from melvoc.nn.engines.cpu.rows import SCALED, move
from melvoc.nn.engines.cpu.threads import TEAM, Tasks
from melvoc.nn.engines.cpu.weights import Budget
from melvoc.nn.forks import ForkLock
from melvoc.nn.graph import Machine
from melvoc.nn.recording import Recorder, Step, warn_of_failure

MOST_FRAMES = 400  # of a piece, in all rows
MOST_WORK = 30_000_000_000  # multiply-adds, a step's weights times frames; above that, Python's share is negligible


class TapeRecorder(Recorder):
    """Records the kernels of a machine over rows.

    Args:
        workspace: the machine's.
        budget: of its weights.
    """

    name, runs, repeats = "a recording of its kernels", True, 2

    def __init__(self, workspace: Workspace, budget: Budget) -> None:
        self._workspace, self._budget = workspace, budget

    def fits(self, x: Tensor) -> bool:
        """Small pieces of a network that keeps its prepared weights."""
        frames = x.shape[0] * x.shape[2]
        return not self._budget.limited and 0 < frames <= MOST_FRAMES and frames * self._budget.plain <= MOST_WORK

    def record(self, step: Step) -> Step:
        """Run a step in memory of its own, and record its kernels; see `Recorder.record`."""
        pool = Pool(large=0, most_free=2**30)
        with POOL.replaced(pool), self._workspace.afresh() as buffers, TEAM.writing_down() as tape:
            output = step()
        tasks = Tasks(len(tape))
        for number, launch in enumerate(tape):
            tasks.set(number, launch.kernel, launch.jobs, launch.arguments, launch.helpers)
        held = (pool, buffers, tape, step)  # the step has the machine, and with it the weights

        def replay() -> Tensor:
            assert held  # the memory that the tasks point to
            TEAM.run_again(tasks)
            return output

        return replay

    def given(self, output: Tensor) -> Tensor:
        """The output itself: a border is done with it before the next step."""
        return output

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy with a kernel."""
        move(SCALED, source, target)


class Whole:
    """Runs whole signals, and those of a size that has come several times in a row from a recording.

    Args:
        recorder: records a run; its output is for one thread at a time.
    """

    def __init__(self, recorder: TapeRecorder) -> None:
        self._recorder = recorder
        self._lock = ForkLock()
        self._shape: tuple[int, ...] | None = None  # of the latest signal
        self._repeats = 0
        self._enough: float = recorder.repeats  # repeats before a recording
        self._recording: tuple[Tensor, Step] | None = None  # its input, and what runs it

    def __call__(self, opened: Callable[[], Machine], x: Tensor, receive: Callable[[Tensor], Tensor]) -> Tensor:
        """Run a whole signal.

        Args:
            opened: opens a machine for the nodes that this belongs to.
            x: the signal.
            receive: takes the output, which it may not keep.

        Returns:
            What `receive` makes of the output.
        """
        if not self._recorder.fits(x) or not self._lock.acquire(blocking=False):
            return receive(opened()(x, True))
        try:
            return receive(self._output(opened, x))
        finally:
            self._lock.release()

    def _output(self, opened: Callable[[], Machine], x: Tensor) -> Tensor:
        if self._recording and self._recording[0].shape == x.shape:
            own, replay = self._recording
            move(SCALED, x, own)
            return replay()
        self._repeats = self._repeats + 1 if x.shape == self._shape else 1
        self._shape = tuple(x.shape)
        if self._repeats <= self._enough:
            return opened()(x, True)
        self._enough *= 2  # where sizes keep changing, recordings become rare
        expected = opened()(x, True)
        try:
            self._recording = self._recorded(opened(), x, expected)
        except Exception as error:  # what cannot be recorded still runs
            self._recording, self._enough = None, math.inf
            warn_of_failure("vocoder", self._recorder, error)
        return expected

    def _recorded(self, machine: Machine, x: Tensor, expected: Tensor) -> tuple[Tensor, Step]:
        """Record a run with silence, and hold a run with x against what was expected."""
        own = torch.zeros_like(x)
        replay = self._recorder.record(lambda: machine(own, True))
        move(SCALED, x, own)
        if not torch.allclose(replay(), expected, rtol=0, atol=0, equal_nan=True):
            raise RuntimeError("the recorded run does not give what the direct one gives")
        return own, replay
