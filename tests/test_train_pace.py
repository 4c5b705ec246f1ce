"""When a run ends: by its steps or by the clock, over pauses and sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import tiny_config

from melvoc.train import pace as module
from melvoc.train.pace import Pace, learning_rates


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def pace(self, stored: dict[str, Any] | None = None, **ends: Any) -> Pace:
        base = {"steps": None} | ends
        return Pace(tiny_config(Path("x"), checkpoint_every=None, **base).resolved(), self.now, stored)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_steps_alone_end_a_run_without_minutes(clock: Clock) -> None:
    pace = clock.pace(steps=4)
    clock.now += 1e6
    assert [pace.reached(step) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert clock.pace(steps=0).reached(0) == 1.0


def test_minutes_end_before_the_step_that_would_not_fit(clock: Clock) -> None:
    pace = clock.pace(minutes=1)
    clock.now += 20
    pace.stepped(5.0)
    assert pace.reached(1) == pytest.approx(20 / 57)  # 5% are for the comparison
    clock.now += 31.9
    assert pace.reached(1) == pytest.approx(51.9 / 57)
    clock.now += 0.2
    assert pace.reached(1) == 1.0


def test_what_a_checkpoint_took_is_kept_free_at_the_end(clock: Clock) -> None:
    pace = clock.pace(minutes=1)
    with pace.costing("validate"):
        clock.now += 4
    with pace.costing("save"):
        clock.now += 4
    clock.now += 22
    assert pace.reached(9) == pytest.approx(30 / (57 - 10))


def test_whichever_comes_first_ends_it(clock: Clock) -> None:
    pace = clock.pace(minutes=1, steps=10)
    assert pace.reached(5) == 0.5
    clock.now += 50
    assert pace.reached(5) == pytest.approx(50 / 57)


def test_pauses_do_not_count_and_sessions_do(clock: Clock) -> None:
    pace = clock.pace(minutes=1)
    clock.now += 10
    pace.rest()
    clock.now += 1000
    assert pace.seconds == 10
    assert pace.to_dict()["seconds"] == 10, "what is saved in a pause has none of it"
    pace.go_on()
    clock.now += 5
    assert pace.seconds == 15
    again = clock.pace(pace.to_dict(), minutes=1)
    clock.now += 5
    assert again.seconds == 20
    clock.now += 40
    assert again.reached(3) == 1.0
    assert clock.pace(again.to_dict(), minutes=1).reached(3) == 1.0, "a run that is over has nothing left"
    assert clock.pace(again.to_dict(), minutes=2).reached(3) == pytest.approx(60 / 114)


def test_a_slow_loop_counts(clock: Clock) -> None:
    pace = clock.pace(minutes=1)
    clock.now += 10
    pace.rest()
    clock.now += 7
    pace.work()
    assert pace.seconds == 17


def test_a_part_that_its_checkpoint_would_fill_is_passed_over(clock: Clock) -> None:
    pace = clock.pace(minutes=10)
    with pace.costing("validate"):
        clock.now += 30
    assert not pace.due(0.05, 0.11)
    clock.now += 300
    assert pace.due(0.19, 0.21)
    assert not pace.due(0.21, 0.29), "no part is over"
    assert not pace.due(0.29, 0.31), "the last was a moment ago"
    assert pace.due(0.31, 1.0)


def test_what_is_left_is_told_by_whatever_comes_first(clock: Clock) -> None:
    pace = clock.pace(minutes=1, steps=100)
    for _ in range(3):
        clock.now += 2
        pace.stepped(2.0)
    assert (pace.left(3), pace.steps_in_all(3), pace.speed()) == (54, 3 + 51 // 2, 0.5)
    assert (pace.left(90), pace.steps_in_all(90)) == (20, 100)


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_cosine_falls_to_a_hundredth(one: float, other: float) -> None:
    config = tiny_config(Path("x"), schedule="cosine").resolved()
    early, late = (learning_rates(config, 0, 10, reached)[1] for reached in sorted((one, other)))
    assert 2e-6 * (1 - 1e-9) <= late <= early <= 2e-4
    assert learning_rates(config, 0, 10, 0.0)[1] == 2e-4
    assert learning_rates(config, 0, 10, 1.0)[1] == pytest.approx(2e-6)
