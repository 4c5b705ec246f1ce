"""Sounds that an application hands over: files and waves, named, checked, and needed again when the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from training import noise, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

from melvoc import CheckpointError, audio
from melvoc.errors import MissingFileError, OptionError
from melvoc.train import Trainer
from melvoc.train.given import named_sounds


def test_waves_of_any_rate_and_shape_are_trained_on(tmp_path: Path) -> None:
    waves = [(noise(9000, seed=1), 16000), (torch.stack([noise(20000)] * 2), 32000), (noise(9000).numpy(), 16000)]
    trainer = Trainer(tiny_config(tmp_path, audio_dir="", steps=1), audio=waves)
    assert trainer.files == ("1", "2", "3")
    assert trainer.seconds_of_sound == pytest.approx(28000 / 16000)
    assert len(list(trainer)) == 1
    with pytest.raises(OptionError, match="audio_dir is empty; .* or audio= with files or waves"):
        Trainer.resume(tmp_path / "run")
    with pytest.raises(CheckpointError, match="audio: not the sounds of this run"):
        Trainer.resume(tmp_path / "run", audio=waves[:2])
    assert [report.step for report in Trainer.resume(tmp_path / "run", audio=waves, steps=2)] == [2]


def test_files_have_their_paths_below_the_folder_of_all(tmp_path: Path) -> None:
    for folder in ("a", "b/c"):
        write_sounds(tmp_path / folder, count=1, samples=9000)
    files = [tmp_path / "a" / "0.wav", str(tmp_path / "b" / "c" / "0.wav")]
    assert [sound.name for sound in named_sounds(files)] == ["a/0.wav", "b/c/0.wav"]
    trainer = Trainer(tiny_config(tmp_path), audio={"kick": files[0], "snare": (noise(9000), 16000)})
    assert trainer.files == ("kick", "snare")


def test_what_cannot_be_used_is_named_and_skipped(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    given = {"silent": (torch.zeros(9000), 16000), "broken": tmp_path / "broken.wav", "good": (noise(9000), 16000)}
    trainer = Trainer(tiny_config(tmp_path, audio_dir=""), audio=given)
    assert trainer.files == ("good",)
    assert [entry.name for entry in trainer.skipped] == ["silent", "broken"]
    with pytest.raises(Exception, match="audio: 0 of 1 files can be used"):
        Trainer(tiny_config(tmp_path, audio_dir=""), audio={"silent": given["silent"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sounds", r"audio is a str, but it is a list of files or of \(waveform, sample_rate\)"),
        ([], "audio is empty"),
        ([noise(9)], r"audio has a Tensor \('1'\), but each is a file or \(waveform, sample_rate\)"),
        ([(noise(9), 1.5)], r"audio has a sound of sample_rate=1.5 \('1'\), but it is in Hz"),
        ([(noise(8).view(2, 2, 2), 8000)], r"audio's '1' is \[2, 2, 2\] .*, but it is \[N\] or \[C, N\]"),
        ([(numpy.zeros(9, dtype="int16"), 8000)], r"audio's '1' is \[9\] of torch.int16"),
        ([("x", 8000)], r"audio's '1' is a str"),
        (["caf\udce9.wav"], "audio has 'caf.*', which is not UTF-8; rename the file, or give a dict with names"),
        ({1: (noise(9), 8000), "1": (noise(9), 8000)}, r"audio has '1' twice"),
    ],
)
def test_what_is_no_sound_is_refused(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        named_sounds(given)


def test_a_path_with_two_slashes_is_one(tmp_path: Path) -> None:
    write_sounds(tmp_path, count=1)
    assert [sound.name for sound in named_sounds([f"/{tmp_path}/0.wav"])] == ["0.wav"]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.wav: no such file"):
        named_sounds([tmp_path / "none.wav"])


def test_clipped_files_are_kept_and_named_on_request(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=2, samples=9000)
    audio.write(tmp_path / "sounds" / "loud.wav", (5 * noise(9000)).clamp(-1, 1) * 3, 16000)
    trainer = Trainer(tiny_config(tmp_path))
    assert [entry.name for entry in trainer.skipped] == ["loud.wav"]
    trainer = Trainer(tiny_config(tmp_path, run_dir=tmp_path / "kept", keep_clipped=True))
    assert trainer.skipped == ()
    assert "loud.wav" in trainer.files
    assert len(trainer.notes) == 1
    assert trainer.notes[0].startswith("loud.wav: clipped (")
    assert trainer.notes[0].endswith("% of its samples are at full scale), and kept")
