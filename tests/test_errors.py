"""Each error is the built-in error that a caller would expect, and carries what a program needs."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import VOCODERS
from training import write_sounds

import melvoc
from melvoc import errors
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.griffinlim import GriffinLim
from melvoc.neural import NeuralVocoder
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


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("gpu", "melvoc runs on 'cpu', 'cuda' and 'mps'"),
        ("cuda", "torch finds no CUDA here"),
        ("cuda:7", "torch finds no CUDA here"),
        ("cuda:one", "torch finds no CUDA here"),
        ("mps", "torch finds no MPS here"),
        ("", "melvoc runs on"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(device: str, why: str) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has the devices that are asked for")
    voc = melvoc.load("griffinlim")
    for call in (
        lambda: melvoc.load("griffinlim", device=device),
        lambda: voc.to(device),
        lambda: voc.to(device=device),
    ):
        with pytest.raises(errors.OptionError) as raised:
            call()
        message = str(raised.value)
        assert re.fullmatch(
            rf"device={device!r} is not available: {re.escape(why)}.*; use 'auto', or .*: 'cpu'", message
        )
        assert len(message) < 150
    assert voc.device.type == "cpu"


def test_a_checkpoints_error_has_its_path(tmp_path: Path) -> None:
    voc = VOCODERS["bigvgan_resblock2_snake_tiny"]
    missing, damaged, foreign = (tmp_path / name for name in ("missing.safetensors", "damaged.safetensors", "g.pt"))
    melvoc.save(voc, damaged)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    foreign.write_bytes(b"nothing")
    trained = TrainConfig(audio_dir=tmp_path / "sounds", run_dir=tmp_path / "run", warm_start=damaged)
    write_sounds(tmp_path / "sounds")
    calls: list[tuple[Callable[[], object], Path]] = [
        (lambda: melvoc.load(missing), missing),
        (lambda: melvoc.load(str(damaged)), damaged),
        (lambda: melvoc.load(damaged, prefix="voc."), damaged),
        (lambda: melvoc.load(foreign, allow_unverified=True), foreign),
        (lambda: melvoc.info(damaged), damaged),
        (lambda: melvoc.info(missing), missing),
        (lambda: melvoc.save(voc, tmp_path / "voc.pt"), tmp_path / "voc.pt"),
        (lambda: melvoc.save(voc, tmp_path / "none" / "v.safetensors"), tmp_path / "none" / "v.safetensors"),
        (lambda: convert(foreign, config={"upsample_rates": [8]}), foreign),
        (lambda: melvoc.train.Trainer(trained), damaged),
        (lambda: melvoc.train.Trainer(trained, resume=True), tmp_path / "run"),
    ]
    for call, path in calls:
        with pytest.raises(errors.CheckpointError) as raised:
            call()
        assert raised.value.path == str(path)
    with pytest.raises(errors.CheckpointError) as raised:
        melvoc.from_bytes(b"nothing")
    assert raised.value.path is None, "bytes have none"


def test_licence_and_provenance_are_on_every_vocoder(tmp_path: Path) -> None:
    class Plain(melvoc.Vocoder):
        pass

    plugin = Plain(name="plain", spec=melvoc.MelSpec.preset("griffinlim"))
    assert (plugin.licence, plugin.provenance) == (None, {})
    griffinlim = melvoc.load("griffinlim")
    assert (griffinlim.licence, griffinlim.provenance) == ("MIT", {})
    melvoc.save(griffinlim, tmp_path / "g.safetensors")
    for name in ("griffinlim", tmp_path / "g.safetensors"):
        known = melvoc.info(name)
        assert (known.licence, known.provenance, known.cached, known.speed) == ("MIT", {}, None, "fast")
    neural = NeuralVocoder(
        VOCODERS["vocos_tiny"].network, name="mine", spec=VOCODERS["vocos_tiny"].spec,
        architecture=VOCODERS["vocos_tiny"].architecture, licence="CC0-1.0", provenance={"made by": "me"},
    )  # fmt: skip
    melvoc.save(neural, tmp_path / "n.safetensors")
    known, again = melvoc.info(tmp_path / "n.safetensors"), melvoc.load(tmp_path / "n.safetensors", device="cpu")
    assert (known.licence, known.provenance) == (again.licence, again.provenance) == ("CC0-1.0", {"made by": "me"})
    pinned = melvoc.info("vocos_mel_24khz")
    assert pinned.licence == "MIT"
    assert list(pinned.provenance) == ["repository", "revision", "file", "sha256"]
    assert pinned.provenance["repository"] == "charactr/vocos-mel-24khz"


@pytest.mark.parametrize("name", ["griffinlim", "here.safetensors", "./here"])
def test_what_is_not_downloaded_is_not_fetched(name: str) -> None:
    with pytest.raises(errors.OptionError, match="is not downloaded by melvoc|is a file or folder here"):
        melvoc.download(name)


def test_a_type_is_named_with_its_article() -> None:
    assert [errors.kind_of(value) for value in (3, "3", [], KeyError())] == ["an int", "a str", "a list", "a KeyError"]


def test_names_that_may_be_meant_are_a_list_in_a_sentence() -> None:
    assert errors.did_you_mean("abc", ["abc1"]) == "did you mean 'abc1'?"
    assert errors.did_you_mean("abc", ["abc1", "abc2", "abc3"], 3) == "did you mean 'abc1', 'abc2' or 'abc3'?"
    assert errors.did_you_mean("abc", ["xyz"]) == ""
