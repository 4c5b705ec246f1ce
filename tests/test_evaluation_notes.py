"""What a report says before its figures are compared."""

from __future__ import annotations

from typing import Any

import pytest

from melvoc.evaluation.notes import REFINED, STEREO, notes

ROW = {"file": "a.wav", "refine": 0, "channels": 1, "speech": False, "sample_rate": 22050, "file_rate": 22050}
MINE = {"name": "x/mine.safetensors", "sample_rate": 22050, "mel_of": None, "mel": {"n_mels": 80}}
SETTINGS = {"speech": False}


def said(row: dict[str, Any], *vocoders: dict[str, Any], **settings: Any) -> list[str]:
    return notes([ROW | row], [MINE, *vocoders], SETTINGS | settings, [])


def test_a_plain_case_has_two_notes() -> None:
    assert said({}) == [
        "Measured at 22050 Hz, the whole band of the files.",
        "The files were taken to be no speech, as was asked, or as the protocol has it.",
    ]


@pytest.mark.parametrize(
    ("row", "vocoders", "words"),
    [
        ({"channels": 2}, [], STEREO),
        ({"refine": 1}, [], REFINED),
        ({}, [MINE | {"name": "griffinlim", "mel_of": "x/mine.safetensors"}], "griffinlim was given the mel of mine."),
        ({}, [MINE | {"name": "fine", "mel": {"n_mels": 128}}], "different mels to go by (mine; fine), each its own"),
        ({"file_rate": 44100}, [MINE | {"name": "high", "sample_rate": 44100}], "which is hard on mine, or leave"),
        ({"file_rate": 44100, "sample_rate": 44100}, [], "where mine cannot make all of their treble"),
    ],
)
def test_what_has_to_be_known(row: dict[str, Any], vocoders: list[dict[str, Any]], words: str) -> None:
    assert any(words in note for note in said(row, *vocoders))


def test_how_speech_was_told() -> None:
    assert "1 of 1 files sound like speech" in said({"speech": True}, speech=None)[1]
    missing = [{"name": "distillmos", "title": "DistillMOS", "how": "pip install distillmos"}]
    found = notes([ROW | {"speech": True}], [MINE], {"speech": True}, missing)
    assert found[-1].startswith("The figure that leads for speech, DistillMOS, was not computed: pip install")


def test_nothing_measured() -> None:
    assert notes([], [MINE], SETTINGS, []) == [
        "The files were taken to be no speech, as was asked, or as the protocol has it."
    ]


def test_a_file_that_is_measured_whole_is_in_no_warning() -> None:
    """Of two rates, each file measured at its own."""
    rows = [ROW, ROW | {"file": "b.wav", "sample_rate": 44100, "file_rate": 44100}]
    found = notes(rows, [MINE | {"sample_rate": 44100}], SETTINGS, [])
    assert found[0] == "Measured at 22050, 44100 Hz, the whole band of the files."
    cut = notes([*rows, ROW | {"file_rate": 48000}], [MINE], SETTINGS, [])[0]
    assert "what lies above 11 kHz, in files of up to 48000 Hz, is in no figure" in cut
