"""The steps of a stream as one call: a step's kernels and their arguments, run again without Python."""

from __future__ import annotations

from torch import Tensor

from melvoc.nn.engines.cpu.memory import POOL, Pool, Workspace
from melvoc.nn.engines.cpu.rows import SCALED, move
from melvoc.nn.engines.cpu.threads import TEAM, Tasks
from melvoc.nn.engines.cpu.weights import Budget
from melvoc.nn.recording import Recorder, Step

MOST_FRAMES = 256  # of a piece, in all rows
MOST_WORK = 1_000_000_000  # multiply-adds, a step's weights times frames; above that, Python's share is negligible


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
        held = (pool, buffers, tape)

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
