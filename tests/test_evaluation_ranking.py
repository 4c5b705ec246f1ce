"""Which vocoder is chosen from tables of made-up figures."""

from __future__ import annotations

import math

import pytest
from evaluations import metric, table
from hypothesis import given
from hypothesis import strategies as st

from melvoc.evaluation.ranking import Table, difference, goodness, judge, means, merits

MEL, PESQ, MOS = metric("multi_scale_mel"), metric("pesq", "higher"), metric("distillmos", "higher", reference=False)
SPREAD = [0.00, 0.03, -0.02, 0.01, -0.02]  # of files, the same for every vocoder


def around(middle: float, jitter: float = 0.0) -> list[float]:
    """One figure of five files; with jitter the differences to another vocoder spread too."""
    return [middle + offset + jitter * (-1) ** number for number, offset in enumerate(SPREAD)]


def test_the_leading_figure_and_the_others_agree() -> None:
    rows = table(
        {
            "good": {"multi_scale_mel": around(1.0), "pesq": around(3.5)},
            "bad": {"multi_scale_mel": around(2.0), "pesq": around(2.5)},
        }
    )
    verdict = judge(Table(rows), [MEL, PESQ], speech=False)
    assert (verdict.kind, verdict.choice, verdict.rival) == ("clear", ("good", 0), ("bad", 0))
    assert (verdict.leader, verdict.agree, verdict.against) == ("multi_scale_mel", ("pesq",), ())


def test_speech_is_led_by_the_figure_without_a_reference() -> None:
    """The figures of five clips of LJSpeech that the issue begins with."""
    rows = table(
        {
            "griffinlim": {"multi_scale_mel": around(1.59), "pesq": around(3.89), "distillmos": around(3.90)},
            "v1": {"multi_scale_mel": around(1.28), "pesq": around(3.18), "distillmos": around(4.30)},
        }
    )
    verdict = judge(Table(rows), [MEL, PESQ, MOS], speech=True)
    assert (verdict.choice, verdict.leader) == (("v1", 0), "distillmos")
    assert (verdict.agree, verdict.against) == (("multi_scale_mel",), ("pesq",))
    assert judge(Table(rows), [PESQ, MOS], speech=True).kind == "split", "the only other figure says the opposite"
    assert judge(Table(rows), [MEL, PESQ, MOS], speech=False).leader == "multi_scale_mel"
    assert judge(Table(rows), [PESQ], speech=True).leader == "pesq", "what there is leads"


def test_equals_are_decided_by_the_other_figures() -> None:
    rows = table(
        {
            "first": {"multi_scale_mel": around(1.00), "pesq": around(2.5)},
            "second": {"multi_scale_mel": around(1.01, jitter=0.2), "pesq": around(3.5)},
        }
    )
    verdict = judge(Table(rows), [MEL, PESQ], speech=False)
    assert (verdict.kind, verdict.choice, verdict.equals) == ("clear", ("second", 0), (("first", 0),))
    rows = [row | {"onset": 0.1 * number * (-1) ** (number // 2)} for number, row in enumerate(rows)]
    verdict = judge(Table(rows), [MEL, PESQ, metric("onset")], speech=False)
    assert (verdict.kind, verdict.agree) == ("close", ("pesq",)), "one of two is no majority"


def test_differences_within_the_spread_over_files_are_close() -> None:
    rows = table(
        {
            "first": {"multi_scale_mel": around(1.00), "pesq": around(3.0)},
            "second": {"multi_scale_mel": around(1.01, jitter=0.2), "pesq": around(3.01, jitter=0.3)},
        }
    )
    verdict = judge(Table(rows), [MEL, PESQ], speech=False)
    assert (verdict.kind, verdict.choice, verdict.equals) == ("close", ("first", 0), (("second", 0),))


def test_a_minority_of_the_others_does_not_decide_between_equals() -> None:
    """The first three clips of LJSpeech, HiFi-GAN V1 and V2: 2 figures for V1, 1 for V2, and 9 that cannot tell."""
    names = [f"m{number}" for number in range(12)]
    first = {"distillmos": around(4.24)} | {name: around(1.0) for name in names}
    second = {"distillmos": around(4.15, jitter=0.3)} | {name: around(1.0, jitter=0.1) for name in names}
    second |= {"m0": around(2.0), "m1": around(2.0), "m2": around(0.5)}
    verdict = judge(Table(table({"v1": first, "v2": second})), [MOS, *map(metric, names)], speech=True)
    assert (verdict.kind, verdict.choice, len(verdict.agree), len(verdict.against)) == ("close", ("v1", 0), 2, 1)


def test_one_figure_of_many_is_no_disagreement() -> None:
    """Of three equals the first is chosen, for it is ahead of the third; one figure of twelve prefers the second."""
    names = [f"m{number}" for number in range(12)]
    first = {"multi_scale_mel": around(1.0)} | {name: around(1.0) for name in names}
    second = {"multi_scale_mel": around(1.0, jitter=0.3)} | {name: around(1.0, jitter=0.1) for name in names}
    third = {"multi_scale_mel": around(1.1, jitter=0.4)} | {name: around(1.0, jitter=0.1) for name in names}
    third |= {name: around(1.05) for name in names[1:5]}
    rows = table({"first": first, "second": second | {"m0": around(0.5)}, "third": third})
    verdict = judge(Table(rows), [MEL, *map(metric, names)], speech=False)
    assert (verdict.choice, verdict.rival) == (("first", 0), ("second", 0))
    assert (verdict.agree, verdict.against) == ((), ("m0",))
    assert verdict.kind == "close"


def test_the_interval_is_students_and_paired() -> None:
    rows = table({"a": {"pesq": [3.0, 1.0, 2.0]}, "b": {"pesq": [2.9, 0.7, 1.8]}})
    found = difference(Table(rows), PESQ, ("a", 0), ("b", 0))
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.margin == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)  # t of 2 degrees of freedom
    assert found.sign == 0
    assert difference(Table(rows), PESQ, ("a", 0), ("c", 0)) is None


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([], "nothing"),
        (table({"a": {"pesq": [None]}, "b": {"pesq": [2.0]}}), "nothing"),
        (table({"a": {"pesq": [3.0, 3.1]}}), "one candidate"),
        (table({"a": {"pesq": [3.0]}, "b": {"pesq": [2.0]}}), "one figure"),
        (table({"a": {"pesq": [3.0], "multi_scale_mel": [1]}, "b": {"pesq": [2], "multi_scale_mel": [2]}}), "one file"),
    ],
)  # fmt: skip
def test_what_there_is_too_little_of(rows: list[dict[str, float]], kind: str) -> None:
    names = {name for row in rows for name in row}
    assert judge(Table(rows), [entry for entry in (MEL, PESQ) if entry.name in names], speech=False).kind == kind


def test_nobody_gains_by_a_file_that_was_left_out() -> None:
    rows = table({"a": {"pesq": [4.0, None]}, "b": {"pesq": [4.0, 1.0]}})
    assert means(Table(rows), ["pesq"]) == {("a", 0): {"pesq": 4.0}, ("b", 0): {"pesq": 4.0}}


def test_each_refinement_is_a_candidate() -> None:
    rows = table({"a": {"pesq": [3.0]}}) + table({"a": {"pesq": [3.5]}}, refine=4)
    assert Table(rows).candidates == [("a", 0), ("a", 4)]
    assert judge(Table(rows), [PESQ], speech=False).choice == ("a", 4)


def test_which_way_is_better() -> None:
    assert goodness(0.5, metric("x", "lower")) < goodness(0.1, metric("x", "lower"))
    assert goodness(0.5, metric("x", "higher")) > goodness(0.1, metric("x", "higher"))
    assert goodness(-0.5, metric("x", "nearer 0")) < goodness(0.1, metric("x", "nearer 0"))


@given(st.lists(st.tuples(*[st.floats(-5, 5) for _ in range(4)]), min_size=1, max_size=6), st.permutations(["a", "b"]))
def test_the_order_of_rows_changes_nothing_but_ties(values: list[tuple[float, ...]], order: list[str]) -> None:
    columns = list(zip(*values, strict=True))
    figures = {
        "a": {"multi_scale_mel": columns[0], "pesq": columns[1]},
        "b": {"multi_scale_mel": columns[2], "pesq": columns[3]},
    }
    verdict = judge(Table(table({name: figures[name] for name in order})), [MEL, PESQ], speech=False)
    other = judge(Table(table(figures)), [MEL, PESQ], speech=False)
    assert verdict.kind == other.kind
    if verdict.choice != other.choice:
        assert verdict.kind in ("close", "one file")


def test_what_lies_around_0_is_not_near_it() -> None:
    """+6 and -6 are 0 on average; half a unit everywhere is better."""
    loud = metric("loudness", "nearer 0")
    rows = Table(table({"a": {"loudness": [6, -6, 6.1, -6.1]}, "b": {"loudness": [0.5, 0.4, 0.5, 0.5]}}))
    assert merits(rows, loud)["b", 0] > merits(rows, loud)["a", 0]
    assert judge(rows, [loud], speech=False).choice == ("b", 0)


def test_ranks_and_differences_are_of_the_same_files() -> None:
    """A third candidate that has one file only does not make the worse of the others the winner by it."""
    apart = [0.01 * (-1) ** number for number in range(9)]
    rows = table(
        {
            "a": {"multi_scale_mel": [0.5, *(2.0 + one for one in apart)]},
            "b": {"multi_scale_mel": [1.0, *(1.0 - one for one in apart)]},
            "c": {"multi_scale_mel": [3.0]},
        }
    )
    verdict = judge(Table(rows), [MEL], speech=False)
    assert verdict.lead is not None
    assert verdict.lead.files == 1
    assert verdict.kind in ("one file", "one figure")
    verdict = judge(Table([row for row in rows if row["vocoder"] != "c"]), [MEL], speech=False)
    assert (verdict.choice, verdict.lead and verdict.lead.sign) == (("b", 0), 1)


def test_one_file_of_many_has_no_vote() -> None:
    """An onset that only one of the files has decides nothing between equals, and contradicts nobody."""
    rows = table(
        {
            "a": {"multi_scale_mel": around(1.00), "onset": [-1.0, None, None, None, None]},
            "b": {"multi_scale_mel": around(1.05, jitter=0.01), "onset": [-0.999, None, None, None, None]},
        }
    )
    onset = metric("onset", "nearer 0")
    verdict = judge(Table(rows), [MEL, onset], speech=False)
    assert (verdict.kind, verdict.choice, verdict.against) == ("clear", ("a", 0), ())
    single = judge(Table(rows[::5]), [MEL, onset], speech=False)
    assert (single.kind, single.against) == ("one file", ("onset",)), "where there is one file, that is all there is"
