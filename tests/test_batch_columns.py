"""Rows as the engines have them, and rows that run together."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import melvoc
from melvoc.batch.columns import Outcome, Task, column, columns, numbers, run_together, sound_of

MISSING = [None, float("nan"), np.float32("nan")]  # what engines have for a row without a value
if find_spec("pandas"):
    import pandas

    MISSING += [pandas.NA, pandas.NaT]


def nested() -> np.ndarray:
    """An array of arrays, as pandas and Spark have a row of lists."""
    made = np.empty(2, dtype=object)
    made[0], made[1] = np.ones(3), np.zeros(3)
    return made


@pytest.mark.parametrize(
    "value", [[[1.0] * 3, [0.0] * 3], nested(), torch.stack([torch.ones(3), torch.zeros(3)]), [np.ones(3), np.zeros(3)]]
)
def test_a_row_is_an_array_however_it_is_nested(value: object) -> None:
    made = numbers(value, "the mel")
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, [[1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("kind", ["torch", "ml_dtypes"])
def test_bfloat16_is_exact(kind: str) -> None:
    mel = torch.randn(3, 4).bfloat16()
    given = mel if kind == "torch" else mel.float().numpy().astype(pytest.importorskip("ml_dtypes").bfloat16)
    made = numbers(given, "the mel")
    assert made.dtype == np.float32
    assert np.array_equal(made, mel.float().numpy())


@pytest.mark.parametrize("value", MISSING)
def test_a_row_that_is_missing_says_so(value: object) -> None:
    with pytest.raises(melvoc.SpecError, match="the mel is missing; leave the row out"):
        numbers(value, "the mel")


@pytest.mark.parametrize("value", [[[1.0], [1.0, 2.0]], [0.1, None], [[0.1], "x"], {"a": 1}])
def test_a_row_that_is_no_array_says_so(value: object) -> None:
    with pytest.raises(melvoc.SpecError, match=r"the sound is a (list|dict) of unequal or odd parts; give an array"):
        numbers(value, "the sound")


def test_new_columns_are_lists_and_so_is_an_array_of_arrays() -> None:
    batch = {"id": np.arange(2), "mel": nested(), "name": ["a", "b"]}
    made = columns(batch, {"audio": (np.zeros(2), np.zeros(3)), "name": ["c", "d"]})
    assert made["id"] is batch["id"]
    assert [type(made[name]) for name in ("mel", "name", "audio")] == [list] * 3
    assert made["mel"][0] is batch["mel"][0]
    assert made["name"] == ["c", "d"]


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(melvoc.OptionError, match="there is no column 'mel' among 'id', 'mels'; name the one"):
        column({"id": [], "mels": []}, "mel")


@pytest.mark.parametrize("kind", ["array", "path", "bytes", "str", "mapping"])
def test_a_sound_is_numbers_a_file_or_what_datasets_has(tmp_path: Path, kind: str) -> None:
    wave = 0.5 * torch.sin(torch.arange(1000) * 0.1)
    melvoc.audio.write(tmp_path / "a.wav", wave, 16000)
    path = tmp_path / "a.wav"
    value, rate = {
        "array": (wave.numpy(), 16000.0),
        "path": (path, None),
        "str": (str(path), None),
        "mapping": ({"path": str(path), "bytes": None}, None),
        "bytes": ({"path": None, "bytes": path.read_bytes()}, None),
    }[kind]
    made, found = sound_of(value, rate)
    assert (made.shape, found) == ((1, 1000), 16000)
    torch.testing.assert_close(made[0], wave, atol=1e-4, rtol=0)
    made, found = sound_of({"array": wave.tolist(), "sampling_rate": 8000}, None)
    assert (made.shape, found) == ((1, 1000), 8000)


@pytest.mark.parametrize(
    ("value", "rate", "words"),
    [
        (np.zeros((2, 9), np.float32), 16000, r"\[2, 9\] of float32, but a row is one channel \[N\] of floats"),
        (np.zeros(9, np.int16), 16000, "of int16, but a row is one channel"),
        (np.zeros(9), None, "rate is not known; name its column"),
        (np.zeros(9), float("nan"), "rate is not known; name its column"),
        (np.zeros(9), 16000.5, "sample_rate=16000.5, but it is a whole number"),
        ({"path": None, "bytes": None}, 1, "the sound is missing"),
        ("gone.wav", None, "gone.wav: no such file"),
    ],
)
def test_a_sound_that_is_none_says_why(value: object, rate: object, words: str) -> None:
    with pytest.raises(melvoc.MelvocError, match=words):
        sound_of(value, rate)


@given(
    sizes=st.lists(st.integers(0, 6), max_size=12), most=st.integers(1, 20), bad=st.sets(st.integers(0, 11)),
    keys=st.lists(st.sampled_from([16000, 48000]), min_size=12, max_size=12),
)  # fmt: skip
def test_every_row_has_its_own_result_and_a_bad_one_harms_no_other(
    sizes: list[int], most: int, bad: set[int], keys: list[int]
) -> None:
    tasks = [Task(row, torch.full((1, size), float(row)), key=keys[row]) for row, size in enumerate(sizes)]
    outcome, calls = Outcome([""] * len(sizes)), []

    def work(part: list[Task]) -> list[int]:
        lengths = [task.value.shape[-1] for task in part]
        assert len({(task.value.shape, task.key) for task in part}) == 1
        assert len(part) == 1 or sum(lengths) <= most or not lengths[0]
        calls.append(lengths[0])
        if bad & {task.row for task in part}:
            raise ValueError("no good")
        return [task.row for task in part]

    run_together(tasks, most, work, outcome)
    good = [row for row in range(len(sizes)) if row not in bad]
    assert outcome.made == {row: row for row in good}
    assert [bool(text) for text in outcome.errors] == [row in bad for row in range(len(sizes))]
    assert {text for text in outcome.errors if text} <= {"ValueError: no good"}
    assert calls == sorted(calls, reverse=True), "the longest first"


def test_an_error_of_an_earlier_step_stays_and_nothing_is_tried() -> None:
    none = [*MISSING, False, 0]
    outcome = Outcome.begin({"error": ["", "gone", *none]}, "error", 2 + len(none))
    for row in range(2 + len(none)):
        outcome.attempt(row, lambda: 1 / 1)
    assert outcome.errors == ["", "gone", *[""] * len(none)]
    assert outcome.made == {row: 1.0 for row in range(2 + len(none)) if row != 1}
