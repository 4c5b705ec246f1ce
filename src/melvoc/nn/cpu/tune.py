"""Three measurements that tell the cost model what this machine is like.

Each is the least of several runs of the kernels that the model is about, with the threads that torch may use now.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch

from melvoc.nn.cpu.conv import ZEROS, Convolution, slot_step
from melvoc.nn.cpu.memory import Workspace, floats, zeros
from melvoc.nn.cpu.plan import CostModel
from melvoc.nn.cpu.rows import constant, steps
from melvoc.nn.cpu.threads import TEAM
from melvoc.nn.cpu.tiles import slots_to_rows, tiles_to_slots
from melvoc.nn.cpu.transform import TRANSFORMS, Fourier, Transform
from melvoc.nn.cpu.vector import LANES
from melvoc.nn.cpu.weights import Budget
from melvoc.nn.layers import Conv1d

REPEATS = 60
ROWS_IN_CACHE = 3072  # of a product whose weights (250 KB) stay in a core's cache
ROWS_STREAMED = 6  # of one that waits for its weights
STREAMED_LAYERS = 4  # of 26 MB of weights each, in turn: more than caches hold
TILES = 96


class Direct(CostModel):
    """Chooses no transform."""

    def choose(self, taps: int, dilation: int, inputs: int, outputs: int, batch: int, rows: int) -> Transform | None:
        return None


def measure(timer: Callable[[], float] = time.perf_counter, repeats: int = REPEATS) -> CostModel:
    """The costs of this machine, in a few seconds.

    Args:
        timer: seconds from some beginning.
        repeats: of each measurement, of which the least counts.
    """
    with torch.inference_mode():
        pairs, seconds = _direct(96, 7, ROWS_IN_CACHE, 1, timer, repeats)
        multiply = seconds / (ROWS_IN_CACHE * pairs)
        pairs, seconds = _direct(768, 11, ROWS_STREAMED, STREAMED_LAYERS, timer, repeats)
        stream = max(0.0, seconds - ROWS_STREAMED * pairs * multiply) / (4 * pairs)
        return CostModel(multiply=multiply, stream=stream, element=_element(Fourier(11, 24), 24, timer, repeats))


def _least(runs: list[Callable[[], None]], timer: Callable[[], float], repeats: int) -> float:
    for run in runs:
        run()  # compiles, prepares weights
    taken = []
    for run in itertools.islice(itertools.cycle(runs), repeats):
        start = timer()
        run()
        taken.append(timer() - start)
    return min(taken)


def _direct(
    channels: int, taps: int, rows: int, layers: int, timer: Callable[[], float], repeats: int
) -> tuple[int, float]:
    """Multiply-adds a row, and seconds, of direct convolutions."""
    workspace, budget, costs = Workspace(), Budget(limited=False), Direct()
    window = zeros(1, channels // LANES, rows + taps - 1, LANES)
    out = floats(1, channels // LANES, rows, LANES)

    def run_of(convolution: Convolution) -> Callable[[], None]:
        return lambda: convolution.run(window, out, None, workspace)

    made = [Convolution(_zeros(channels, taps), costs, budget) for _ in range(layers)]
    return channels * channels * taps, _least([run_of(convolution) for convolution in made], timer, repeats)


def _zeros(channels: int, taps: int) -> Conv1d:
    with torch.device("meta"):
        layer = Conv1d(channels, channels, taps, bias=False)
    layer.weight = torch.nn.Parameter(zeros(1, 1, 1).expand(layer.weight.shape), requires_grad=False)
    return layer


def _element(transform: Transform, blocks: int, timer: Callable[[], float], repeats: int) -> float:
    """Seconds an element of the transforms of so many blocks of channels and back."""
    rows = TILES * transform.outputs
    step = slot_step(blocks * TILES)
    window = zeros(1, blocks, rows + transform.taps - 1, LANES)
    out = floats(1, blocks, rows, LANES)
    slots = zeros(transform.products * step // 4)
    nothing, ones = ZEROS.data_ptr(), constant(1.0).address

    def run() -> None:
        TEAM.run(
            tiles_to_slots, 4 * blocks, transform.size, transform.outputs, blocks, 1, 1, TILES, TILES // 4,
            *steps(window), window.shape[2], slots.data_ptr(), step,
        )  # fmt: skip
        bias = zeros(blocks * LANES)
        TEAM.run(
            slots_to_rows, 4 * blocks, TRANSFORMS.index(transform), transform.outputs, blocks, 1, 1, 1, TILES,
            TILES // 4, slots.data_ptr(), step, *steps(out), rows, bias.data_ptr(), nothing, 0, 0, 0, ones, ones,
        )  # fmt: skip

    moved = TILES * LANES * 2 * blocks * (transform.products + transform.size / 2)
    return _least([run], timer, repeats) / moved
