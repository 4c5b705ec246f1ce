"""Which way to convolve: a cost model of the machine, in seconds."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from melvoc.nn.engines.cpu.transform import TRANSFORMS, Transform

SLOT_BYTES = 256 * 1024  # of a core's second-level cache, for slots of convolutions in one go
# Such a convolution runs at least this many tiles at a time, so that each weight it fetches is used that often. Their
# slots may take more than SLOT_BYTES, up to 1.3 MB at 192 channels.
LEAST_TILES = 12
WORTH = 0.95  # at most this much of the time of the way chosen so far, for one with larger weights
IN_CACHE = 0.45  # cost of an element of slots that stay in the cache, relative to one that goes through memory


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """What a convolution costs.

    Attributes:
        multiply: seconds per multiply-add of a product, all threads together.
        stream: seconds per byte of weights that come from memory.
        element: seconds per element that a transform reads or writes, where its slots do not stay in a core's cache.

    Raises:
        ValueError: a cost that is not a number of seconds.
    """

    multiply: float = 1.2e-11
    stream: float = 3e-11
    element: float = 3e-10

    def __post_init__(self) -> None:
        for name in ("multiply", "stream", "element"):
            value = getattr(self, name)
            if type(value) is not float or not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r}, but it is a number of seconds, a float of 0 or more")

    def direct(self, taps: int, inputs: int, outputs: int, rows: int) -> float:
        """The cost of a direct convolution of `rows` rows in total, between blocks of eight channels."""
        pairs = 64 * inputs * outputs * taps
        return rows * pairs * self.multiply + 4 * pairs * self.stream

    def transformed(self, transform: Transform, rate: int, inputs: int, outputs: int, tiles: int) -> float:
        """The cost of one by transforms, for `tiles` tiles in total."""
        pairs = 64 * inputs * outputs * transform.products
        moved = tiles * 8 * (inputs + outputs) * (transform.products + transform.size / 2)
        element = self.element * (IN_CACHE if cached_tiles(transform, rate, inputs, outputs) else 1.0)
        return tiles * pairs * self.multiply + 4 * pairs * self.stream + moved * element

    def choose(
        self, taps: int, dilation: int, rate: int, inputs: int, outputs: int, batch: int, rows: int
    ) -> Transform | None:
        """The cheapest way to `rows` rows of output per batch entry; None for the direct one.

        The outputs are those of all `rate` phases. Larger weights must be worth it: see WORTH.
        """
        return _choose(self, taps, dilation, rate, inputs, outputs, batch, rows)


@functools.lru_cache(maxsize=4096)
def _choose(
    costs: CostModel, taps: int, dilation: int, rate: int, inputs: int, outputs: int, batch: int, rows: int
) -> Transform | None:
    best, chosen = costs.direct(taps, inputs, outputs, batch * rows), None
    for transform in TRANSFORMS:
        if transform.taps == taps:
            tiles = batch * dilation * -(-rows // (dilation * transform.outputs))
            cost = costs.transformed(transform, rate, inputs, outputs, tiles)
            if cost < WORTH * best:
                best, chosen = cost, transform
    return chosen


def cached_tiles(transform: Transform, rate: int, inputs: int, outputs: int) -> int:
    """How many tiles to convolve at a time so that their slots stay in a core's cache.

    0 where that costs more than it saves: for each such number of tiles, all weights come from a larger cache, while
    their slots do not go there and back. Also 0 for upsampling, whose outputs are several signals.
    """
    if rate > 1 or inputs * outputs > LEAST_TILES * (inputs + outputs):
        return 0
    many = SLOT_BYTES // (32 * transform.products * (inputs + outputs))
    return max(LEAST_TILES, many // LEAST_TILES * LEAST_TILES)
