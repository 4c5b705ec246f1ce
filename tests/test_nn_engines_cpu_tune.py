"""The measurements behind the cost model, with a clock that the tests hold."""

from __future__ import annotations

import itertools

import pytest

from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.engines.cpu.transform import Transform
from melvoc.nn.engines.cpu.tune import ROWS_IN_CACHE, ROWS_STREAMED, TILES, TRANSFORM, Only, measure

RUN = 1e-3  # seconds that each run takes on the tests' clock


class Clock:
    """Says how long the next run takes; each run looks twice."""

    def __init__(self, lengths: list[float]) -> None:
        self.lengths, self.now, self.looks = itertools.cycle(lengths), 0.0, 0

    def __call__(self) -> float:
        self.looks += 1
        if self.looks % 2 == 0:
            self.now += next(self.lengths)
        return self.now


def test_costs_follow_from_the_times() -> None:
    costs = measure(Clock([RUN, RUN, 3 * RUN]), repeats=1)
    assert costs.multiply == pytest.approx(RUN / (ROWS_IN_CACHE * 96 * 96 * 7))
    pairs = 768 * 768 * 11
    assert costs.stream == pytest.approx(max(0.0, RUN - ROWS_STREAMED * pairs * costs.multiply) / (4 * pairs))
    known = TILES * 256 * 256 * 37 * costs.multiply + 4 * 256 * 256 * 37 * costs.stream
    assert costs.element == pytest.approx((3 * RUN - known) / (TILES * 8 * 64 * (37 + 13)))


def test_the_least_of_several_runs_counts() -> None:
    lengths = [3 * RUN, RUN, 2 * RUN, 5 * RUN]
    lengths = [*lengths, *lengths, *(3 * length for length in lengths)]
    several, one = measure(Clock(lengths), repeats=4), measure(Clock([RUN, RUN, 3 * RUN]), repeats=1)
    assert one.element > 0
    for name in ("multiply", "stream", "element"):
        assert getattr(several, name) == pytest.approx(getattr(one, name))


def test_a_clock_that_stands_still_gives_costs_of_nothing() -> None:
    assert measure(lambda: 0.0, repeats=1) == CostModel(multiply=0.0, stream=0.0, element=0.0)


def test_a_product_that_outruns_its_weights_streams_for_nothing() -> None:
    lengths = [RUN, 1e-9, RUN]
    assert measure(Clock(lengths), repeats=1).stream == 0.0


@pytest.mark.parametrize("way", [None, TRANSFORM])
def test_what_is_measured_runs_one_way(way: Transform | None) -> None:
    assert Only(way=way).choose(11, 1, 1, 96, 96, 1, 9999) is way


@pytest.mark.parametrize("value", [-1e-12, float("nan"), float("inf"), "fast", None, True, 1])
def test_costs_are_seconds(value: object) -> None:
    with pytest.raises(ValueError, match="stream=.*, but it is a number of seconds"):
        CostModel(stream=value)
