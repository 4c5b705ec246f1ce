"""write_audio: a file for each row, whole or not at all, inside its folder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from test_batch_columns import MISSING

import melvoc
from melvoc.batch import write_audio


def batch(*names: Any) -> dict[str, Any]:
    audio = [np.full(100 + row, 0.25, np.float32) for row in range(len(names))]
    return {"id": list(names), "audio": audio, "audio_rate": [16000] * len(names), "error": [""] * len(names)}


def test_files_have_their_rows_names_and_sounds(tmp_path: Path) -> None:
    files = pickle.loads(pickle.dumps(write_audio(tmp_path / "out", format="flac", subtype="PCM_24")))
    made = files(batch("a", "b/c.d", 7, "x.flac", Path("/deep/y.wav")))
    names = ["a.flac", "b/c.d.flac", "7.flac", "x.flac", "deep/y.wav.flac"]
    assert made["path"] == [str(tmp_path / "out" / name) for name in names]
    assert list(made) == ["id", "audio_rate", "error", "path"], "the sounds are on the disk now"
    for row, path in enumerate(made["path"]):
        wave, rate = melvoc.audio.read(path)
        assert (wave.shape, rate, soundfile.info(path).subtype) == ((1, 100 + row), 16000, "PCM_24")
    assert not list(tmp_path.rglob(".*")), "nothing half-written"


def test_a_folder_is_that_of_the_program_that_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_audio("out")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert files(batch("a"))["path"] == [str(tmp_path / "out" / "a.wav")]


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    files = write_audio(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"mine")
    assert [files.todo({"id": name}) for name in ("a", "b", "../c")] == [False, True, True]
    assert files(batch("a", "b"))["path"] == [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert (tmp_path / "a.wav").read_bytes() == b"mine"
    assert not files.todo({"id": "b"})


@given(name=st.text(alphabet="ab./\\ \u00e9", max_size=12))
def test_no_name_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "inside"
    made = write_audio(folder)(batch(name))
    if made["error"][0]:
        assert "leads out of the folder" in made["error"][0] or "is no name for a file" in made["error"][0]
        assert made["path"] == [""]
    else:
        real = Path(os.path.realpath(made["path"][0]))
        assert real.is_relative_to(folder)
        assert real.suffix == ".wav"


def test_two_rows_of_one_file_are_an_error_of_the_later(tmp_path: Path) -> None:
    made = write_audio(tmp_path)(batch("a", "b", "a.wav", "./a"))
    assert made["path"] == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), "", ""]
    for text in made["error"][2:]:
        assert text.endswith("a.wav is the file of row 0 of this batch; give each row a name of its own")
    assert melvoc.audio.read(tmp_path / "a.wav")[0].shape == (1, 100)


def test_a_folder_in_a_files_place_is_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    files = write_audio(tmp_path)
    assert files.todo({"id": "a"})
    assert files(batch("a"))["error"][0].endswith("a.wav: a folder; give the path of a file to write")


@pytest.mark.parametrize("name", MISSING)
def test_a_row_without_a_name_has_no_file(tmp_path: Path, name: object) -> None:
    made = write_audio(tmp_path)(batch(name))
    assert "is no name for a file" in made["error"][0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rate", "words"), [(44100.5, "44100.5"), (float("nan"), "rate is not known")])
def test_a_rate_that_is_none_is_an_error_and_not_rounded(tmp_path: Path, rate: float, words: str) -> None:
    made = write_audio(tmp_path)(batch("a") | {"audio_rate": [rate]})
    assert words in made["error"][0]
    assert not list(tmp_path.iterdir())


def test_rows_that_cannot_be_written_say_why(tmp_path: Path) -> None:
    rows = batch("good", "", None, "a" * 300, "empty", "two", "bad before", "x\0y")
    rows["audio"][5] = np.zeros((1, 2, 9), np.float32)
    rows["audio"][4] = np.array([np.nan], np.float32)
    rows["error"][6] = "bad before"
    made = write_audio(tmp_path)(rows)
    words = ["", "'' is no name for a file; give each row one in the column 'id'", "is no name", "", "NaN or Inf",
             "", "bad before", "is no name"]  # fmt: skip
    for said, expected in zip(made["error"], words, strict=True):
        assert expected in said
    assert "File name too long" in made["error"][3]
    assert [bool(path) for path in made["path"]] == [True, False, False, False, False, True, False, False]


def test_mistakes_are_raised(tmp_path: Path) -> None:
    with pytest.raises(melvoc.OptionError, match="format='mp3', but sounds are written as 'wav' or 'flac'"):
        write_audio(tmp_path, format="mp3")  # type: ignore[arg-type]
    with pytest.raises(melvoc.OptionError, match="FLAC has PCM_16, PCM_24"):
        write_audio(tmp_path, format="flac", subtype="FLOAT")
    with pytest.raises(melvoc.OptionError, match="there is no column 'name' among"):
        write_audio(tmp_path, name="name")(batch("a"))
