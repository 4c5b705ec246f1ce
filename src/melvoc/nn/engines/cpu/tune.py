"""Three measurements that tell the cost model what this machine is like.

Each is the fastest of several runs of the convolutions that the model describes, with torch's current threads.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from melvoc.nn.engines.cpu.conv import Convolution
from melvoc.nn.engines.cpu.memory import Workspace, floats, zeros
from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.engines.cpu.transform import Fourier, Transform
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.engines.cpu.weights import Budget
from melvoc.nn.layers import Conv1d

REPEATS = 60
ROWS_IN_CACHE = 3072  # of a product whose weights (250 KB) stay in a core's cache
ROWS_STREAMED = 6  # of one that waits for its weights
STREAMED_LAYERS = 4  # of 26 MB of weights each, in turn: more than caches hold
TILES = 120  # of one by transforms, whose slots (9 MB) do not stay in a core's cache
TRANSFORM = Fourier(11, 26)


@dataclass(frozen=True, kw_only=True)
class Only(CostModel):
    """Always chooses the same way, whatever it costs.

    Attributes:
        way: a transform, or None for the direct one.
    """

    way: Transform | None = None

    def choose(
        self, taps: int, dilation: int, rate: int, inputs: int, outputs: int, batch: int, rows: int
    ) -> Transform | None:
        return self.way


def measure(timer: Callable[[], float] = time.perf_counter, repeats: int = REPEATS) -> CostModel:
    """Measure the costs of this machine, in a few seconds.

    Args:
        timer: seconds since any fixed time.
        repeats: of each measurement; the fastest one counts.
    """
    with torch.inference_mode():
        seconds = _seconds(None, 96, 7, ROWS_IN_CACHE, 1, timer, repeats)
        multiply = seconds / (ROWS_IN_CACHE * 96 * 96 * 7)
        seconds = _seconds(None, 768, 11, ROWS_STREAMED, STREAMED_LAYERS, timer, repeats)
        pairs = 768 * 768 * 11
        stream = max(0.0, seconds - ROWS_STREAMED * pairs * multiply) / (4 * pairs)
        seconds = _seconds(TRANSFORM, 256, 11, TILES * TRANSFORM.outputs, 1, timer, repeats)
        known = CostModel(multiply=multiply, stream=stream, element=0.0).transformed(TRANSFORM, 1, 32, 32, TILES)
        moved = CostModel(multiply=0.0, stream=0.0, element=1.0).transformed(TRANSFORM, 1, 32, 32, TILES)
        return CostModel(multiply=multiply, stream=stream, element=max(0.0, seconds - known) / moved)


def _seconds(
    way: Transform | None,
    channels: int,
    taps: int,
    rows: int,
    layers: int,
    timer: Callable[[], float],
    repeats: int,
) -> float:
    """Seconds of a convolution: the least of several runs of several layers in turn."""
    workspace, budget, costs = Workspace(), Budget(limited=False), Only(way=way)
    window = zeros(1, channels // LANES, rows + taps - 1, LANES)
    out = floats(1, channels // LANES, rows, LANES)
    made = [Convolution(_zeros(channels, taps), costs, budget) for _ in range(layers)]
    for convolution in made:
        convolution.run(window, out, None, workspace)  # compiles, prepares weights
    taken = []
    for convolution in itertools.islice(itertools.cycle(made), repeats):
        start = timer()
        convolution.run(window, out, None, workspace)
        taken.append(timer() - start)
    return min(taken)


def _zeros(channels: int, taps: int) -> Conv1d:
    with torch.device("meta"):
        layer = Conv1d(channels, channels, taps, bias=False)
    layer.weight = torch.nn.Parameter(zeros(1, 1, 1).expand(layer.weight.shape), requires_grad=False)
    return layer
