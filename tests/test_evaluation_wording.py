"""The sentence on top says what it rests on, and never rests on one figure."""

from __future__ import annotations

import pytest
from evaluations import metric, table
from test_evaluation_ranking import MEL, MOS, PESQ, around

from melvoc.evaluation.ranking import Table, judge, means
from melvoc.evaluation.wording import grounds, headline, label, listed, shortened, shown
from melvoc.metrics import Metric

SPEEDS = {("a", 0): 2.0, ("b", 0): 31.4}


def said(figures: dict[str, dict[str, list[float]]], metrics: list[Metric], *, speech: bool = False) -> tuple[str, str]:
    rows = table(figures)
    verdict = judge(Table(rows), metrics, speech=speech)
    names = shortened(list(figures))
    average = means(Table(rows), [entry.name for entry in metrics])
    return headline(verdict, SPEEDS, names), grounds(verdict, average, metrics, names)


def test_a_clear_choice_has_its_grounds_and_what_they_cannot_hear() -> None:
    head, why = said(
        {
            "a": {"multi_scale_mel": around(1.0), "pesq": around(3.5)},
            "b": {"multi_scale_mel": around(2.0), "pesq": around(2.5)},
        },
        [MEL, PESQ],
    )
    assert head == "Use a."
    assert why == (
        "The leading figure, the multi_scale_mel: 1.000 for a against 2.000 for b, a difference of 1.000 give or take "
        "0.000 over 5 files. It cannot hear what multi_scale_mel misses. Of the other figures, 1 agrees."
    )


def test_contradictions_are_named_with_what_they_cannot_hear() -> None:
    head, why = said(
        {"a": {"pesq": around(3.9), "distillmos": around(3.9)}, "b": {"pesq": around(3.2), "distillmos": around(4.3)}},
        [PESQ, MOS],
        speech=True,
    )
    assert head == "Try b first, but listen to a as well: the figures disagree."
    assert (
        "Of the other figures, 1 says the opposite. The opposite: the pesq, which cannot hear what pesq misses." in why
    )


def test_equals_are_left_to_the_ear_and_to_speed() -> None:
    close = {"multi_scale_mel": around(1.01, jitter=0.2), "pesq": around(3.01, jitter=0.3)}
    head, why = said({"a": {"multi_scale_mel": around(1.0), "pesq": around(3.0)}, "b": close}, [MEL, PESQ])
    assert head == (
        "a is ahead, but these 5 files cannot tell it from b: choose by ear, measure more files, or take the fastest, "
        "b (31.4 times real time)."
    )
    assert "1.000 for a against 1.050 for b" in why
    assert "over 5 files, which is within the spread." in why
    assert "None of the others (1) can tell the two apart." in why


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, "No figure could be computed"),
        ({"a": {"pesq": [3.0, 3.0]}}, "Only a was measured"),
        ({"a": {"pesq": [3.0, 3.1]}, "b": {"pesq": [2.0, 2.2]}}, "the only figure there is, which is not enough"),
        ({"a": {"pesq": [3.0], "x": [1.0]}, "b": {"pesq": [2.0], "x": [2.0]}}, "which may be chance"),
    ],
)
def test_too_little_to_choose_by(figures: dict[str, dict[str, list[float]]], words: str) -> None:
    metrics = [entry for entry in (PESQ, metric("x")) if any(entry.name in row for row in figures.values())]
    assert words in said(figures, metrics)[0]


def test_names_are_as_short_as_they_can_be() -> None:
    given = ["runs/a/generator.safetensors", "runs/b/generator.safetensors", "griffinlim", "hf://me/voc"]
    assert list(shortened(given).values()) == ["a/generator", "b/generator", "griffinlim", "hf://me/voc"]
    assert shortened(["x/v1.safetensors"]) == {"x/v1.safetensors": "v1"}
    assert shortened(["v1.safetensors", "v1"])["v1.safetensors"] == "v1.safetensors"
    assert shortened(["x/griffinlim.safetensors", "griffinlim"])["x/griffinlim.safetensors"] == "x/griffinlim"
    assert label(("x/v1", 4), {"x/v1": "v1"}) == "v1 with refine=4"


def test_numbers_and_lists() -> None:
    assert [shown(value) for value in (0.12345, -3.2, 45.678, 1234.5)] == ["0.123", "-3.200", "45.7", "1234"]
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_one_file_of_many_is_not_said_to_be_the_only_one() -> None:
    rows = table({"a": {"multi_scale_mel": around(1.0), "pesq": around(3.5)}})
    rows += table({"b": {"multi_scale_mel": [2.0], "pesq": [2.5]}})
    head = headline(judge(Table(rows), [MEL, PESQ], speech=False), SPEEDS, shortened(["a", "b"]), 5)
    assert head == (
        "a is ahead on the only one of 5 files that every candidate got through, which may be chance: see what failed, "
        "and listen."
    )


def test_what_is_nearer_0_the_better_differs_in_magnitude() -> None:
    loudness = metric("loudness", "nearer 0")
    _, why = said({"a": {"loudness": [5.0, -5.0] * 2}, "b": {"loudness": [0.5, 0.5] * 2}}, [loudness])
    assert "0.500 for b against 0.000 for a, a difference in magnitude of 4.500" in why
