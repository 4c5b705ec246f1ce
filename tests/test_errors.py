"""Each error is the built-in error that a caller would expect, and carries what a program needs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import VOCODERS

import melvoc
from melvoc import errors
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.griffinlim import GriffinLim
from melvoc.spectrogram.file import read_mel
from melvoc.storage.conversion import convert
from melvoc.train import TrainConfig

BASES = {
    errors.OptionError: ValueError,
    errors.MissingFileError: FileNotFoundError,
    errors.FileAccessError: OSError,
    errors.SpecError: ValueError,
    errors.MelMismatchError: ValueError,
    errors.UnknownVocoderError: LookupError,
    errors.CheckpointError: ValueError,
    errors.MissingCheckpointError: FileNotFoundError,
    errors.PluginError: ImportError,
    errors.ConformanceError: AssertionError,
    errors.DownloadError: OSError,
}


@pytest.mark.parametrize("kind", BASES)
def test_bases_and_pickles(kind: type[errors.MelvocError]) -> None:
    assert issubclass(kind, errors.MelvocError)
    assert issubclass(kind, BASES[kind])
    again = pickle.loads(pickle.dumps(kind("what happened; what to do")))
    assert type(again) is kind
    assert str(again) == "what happened; what to do"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: HiFiGANConfig(n_mels=0), errors.OptionError, "n_mels=0, but it is a whole number of at least 1"),
        (lambda: TrainConfig(audio_dir="a", run_dir="b", steps=-1), errors.OptionError, "steps=-1"),
        (lambda: GriffinLim(n_iter=0), errors.OptionError, "n_iter=0"),
        (lambda: melvoc.load("griffinlim", engine="fast"), errors.OptionError, "engine='fast'"),
        (lambda: melvoc.load("griffinlim", device="gpu"), errors.OptionError, "device='gpu' is not available"),
        (lambda: melvoc.load("nothing.safetensors"), errors.MissingCheckpointError, "nothing.*: no such file"),
        (lambda: melvoc.info("nothing.safetensors"), errors.MissingCheckpointError, "nothing.*: no such file"),
        (lambda: convert("g_1", config={"upsample_rates": [8]}), errors.CheckpointError, "the config has no"),
        (lambda: convert("g_1", config="none.json"), errors.MissingCheckpointError, "none.json: cannot be read"),
        (lambda: melvoc.audio.read("none.wav"), errors.MissingFileError, "none.wav: no such file"),
        (lambda: read_mel("none.npy"), errors.MissingFileError, "none.npy: no such file"),
    ],
)
def test_who_raises_what(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("text", ["x" * 10**5, "é" * 3000, "\x1b[31m\x00\x07\u202e\ud800" * 99, "a\tb\nc"])
def test_a_message_is_short_and_has_no_control_characters(kind: type[errors.MelvocError], text: str) -> None:
    error = kind(f"{text}: what happened; what to do")
    assert len(str(error).encode()) < 2000
    assert str(error).endswith("what happened; what to do")
    assert all(sign.isprintable() or sign in "\t\n" for sign in str(error))
    assert str(kind(str(error))) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_quoting_takes_a_bounded_time() -> None:
    bomb: Any = "x"
    for _ in range(200):
        bomb = {"a": bomb, "b": [bomb, bomb]}
    inside: list[Any] = []
    inside.append(inside)
    for value in (
        bomb,
        inside,
        10**5000,
        -(10**5000),
        "x" * 10**6,
        [[1] * 10**5] * 10**5,
        {i: i for i in range(10**5)},
    ):
        assert len(errors.quoted(value)) < 1000
    for value in (None, True, 3, -2.5, "text", [1, 2], {"a": (1,)}):
        assert errors.quoted(value) == repr(value)


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("first\nsecond", "first"),
        ("", "RuntimeError"),
        ("Cannot use it. In PyTorch 2.6, we changed ... Re-running `torch.load` with", "Cannot use it."),
        ("Weights only load failed. This file can still be loaded, to do so", "Weights only load failed."),
    ],
)
def test_the_reason_of_another_librarys_error(message: str, short: str) -> None:
    assert errors.reason(RuntimeError(message)) == short


def test_a_mismatch_has_the_fields() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    other = melvoc.MelSpec(**voc.spec.to_dict() | {"mel_scale": "htk", "f_max": 16000.0})
    mel = torch.full((voc.spec.n_mels, 5), -4.0)
    with pytest.raises(melvoc.MelMismatchError, match="mel_scale: .* needs 'slaney', the mel has 'htk'") as caught:
        voc.mel_to_waveform(mel, spec=other)
    expected = {"mel_scale": ("slaney", "htk"), "f_max": (22050.0, 16000.0)}
    assert caught.value.fields == expected


def test_a_checkpoint_error_has_the_path(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"cut")
    for call in (melvoc.load, melvoc.info):
        with pytest.raises(melvoc.CheckpointError, match="damaged or cut") as caught:
            call(path)
        assert caught.value.path == str(path)
    with pytest.raises(melvoc.CheckpointError, match="no .*header") as caught:
        melvoc.unpack({})
    assert caught.value.path is None
