"""Mels on disk: with their spec or bare, whole or not there, and errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelvocError, SpecError
from melvoc.spectrogram.file import HEADER_KEY, KEY, is_mel, read_mel, save_mel
from melvoc.spectrogram.presets import PRESETS

SPEC = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)


def mel_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", PRESETS)
def test_a_safetensors_mel_has_its_spec(name: str, tmp_path: Path) -> None:
    spec, path = MelSpec.preset(name), tmp_path / "a.safetensors"
    mel = mel_of(1, spec.n_mels, 9)
    save_mel(path, mel, spec, samples=1234)
    found = read_mel(path)
    assert torch.equal(found.mel, mel)
    assert (found.spec, found.samples) == (spec, 1234)
    assert left_in(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_of_safetensors_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    mel = mel_of(40, 9, dtype=dtype)
    save_mel(tmp_path / "a.safetensors", mel, SPEC)
    found = read_mel(tmp_path / "a.safetensors")
    assert found.mel.dtype == dtype
    assert torch.equal(found.mel, mel)
    assert found.samples is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_bare_array_has_no_spec(dtype: torch.dtype, tmp_path: Path) -> None:
    mel = mel_of(1, 40, 9, dtype=dtype)
    save_mel(str(tmp_path / "a.npy"), mel, SPEC, samples=7)
    found = read_mel(str(tmp_path / "a.npy"))
    torch.testing.assert_close(found.mel, mel.float())
    assert (found.mel.dtype, found.spec, found.samples) == (torch.float32, None, None)
    assert np.load(tmp_path / "a.npy").shape == (1, 40, 9)


def test_any_layout_is_written(tmp_path: Path) -> None:
    mel = mel_of(9, 40).T.requires_grad_()
    for ending in (".npy", ".safetensors"):
        save_mel(tmp_path / f"a{ending}", mel, SPEC)
        assert torch.equal(read_mel(tmp_path / f"a{ending}").mel, mel)


@pytest.mark.parametrize("array", [np.ones((40, 9)), np.ones((40, 9), dtype=np.float16), np.ones((9, 40)).T])
def test_other_peoples_arrays(array: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    assert torch.equal(read_mel(tmp_path / "a.npy").mel, torch.ones(40, 9))


@pytest.mark.parametrize("shape", [(40, 9), (2, 40, 9), (2, 1, 40, 9)])
def test_a_mel_and_its_spec_are_loaded_as_they_were_saved(shape: tuple[int, ...], tmp_path: Path) -> None:
    mel = mel_of(*shape)
    melvoc.save_mel(tmp_path / "a.safetensors", mel.numpy(), SPEC)
    found, spec = melvoc.load_mel(tmp_path / "a.safetensors")
    assert torch.equal(found, mel)
    assert spec == SPEC
    melvoc.save_mel(tmp_path / "a.npy", mel, SPEC)
    found, spec = melvoc.load_mel(str(tmp_path / "a.npy"))
    assert torch.equal(found, mel)
    assert spec is None


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.zeros(41, 9), r"is \[41, 9\], 41 bands, but this spec has n_mels=40"),
        (torch.zeros(9, 40), "it looks transposed"),
        (torch.zeros(40, 9, dtype=torch.int32), "is torch.int32"),
        (torch.full((40, 9), float("nan")), "360 NaN or Inf"),
        ([[0.0]], "is a list"),
    ],
)
def test_what_is_no_mel_of_the_spec_is_not_saved(mel: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        melvoc.save_mel(tmp_path / "a.safetensors", mel, SPEC)
    with pytest.raises(SpecError, match=r"spec={} is a dict, but it is a melvoc\.MelSpec; MelSpec.preset has some"):
        melvoc.save_mel(tmp_path / "a.safetensors", mel_of(40, 9), {})  # type: ignore[arg-type]
    assert left_in(tmp_path) == []


def test_a_file_whose_mel_is_not_its_specs(tmp_path: Path) -> None:
    melvoc.save_mel(tmp_path / "a.safetensors", mel_of(40, 9), SPEC)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    save_file({KEY: mel_of(41, 9)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(MelvocError, match=r"a\.safetensors: not a readable mel \(the mel is \[41, 9\], 41 bands, but"):
        melvoc.load_mel(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.pt", "a", "a.npz", "a.wav"])
def test_other_endings_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=r"written as \.safetensors \(with its spec\) or \.npy"):
        save_mel(tmp_path / name, mel_of(40, 9), SPEC)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_a_folder_that_is_not_there(ending: str, tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=r"cannot be written .*does the folder exist"):
        save_mel(tmp_path / "none" / f"a{ending}", mel_of(40, 9), SPEC)


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_an_error_leaves_what_was_there(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{ending}"
    save_mel(path, mel_of(40, 9), SPEC)
    before = path.read_bytes()

    def full(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", lambda target, array: full(target))
    monkeypatch.setattr("safetensors.torch.save_file", lambda tensors, target, metadata: full(target))
    with pytest.raises(MelvocError, match="No space left on device"):
        save_mel(path, mel_of(40, 100), SPEC)
    assert path.read_bytes() == before
    assert left_in(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, None])
def test_a_damaged_file_names_itself(ending: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"bad{ending}"
    save_mel(path, mel_of(40, 9), SPEC)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(MelvocError, match=rf"bad\{ending}: (not a readable mel|damaged or cut)"):
        read_mel(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "a.npy", tmp_path):
        with pytest.raises(MelvocError, match="no such file"):
            read_mel(path)


@pytest.mark.parametrize(
    "array",
    [np.array([{"a": 1}], dtype=object), np.array(["a"]), np.ones((40, 9), dtype=complex), np.ones((4, 9), dtype=int)],
    ids=["objects", "text", "complex", "integers"],
)
def test_an_array_of_anything_but_floats_is_refused(array: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(MelvocError, match=r"a\.npy: not a readable mel"):
        read_mel(tmp_path / "a.npy")


def test_safetensors_without_a_mel(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(MelvocError, match=r"weights\.safetensors: safetensors, but not a mel that melvoc wrote"):
        read_mel(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2.*reads version 1.*update melvoc"),
        ({"version": None}, "version None"),
        ({"spec": SPEC.to_dict() | {"n_fft": 1.5}}, "n_fft=1.5 is a float"),
        ({"spec": SPEC.to_dict() | {"colour": "red"}}, "'colour' is not a field"),
        ({"spec": None}, "NoneType"),
        ({"samples": -1}, "samples=-1"),
        ({"samples": "many"}, "samples='many'"),
        ({"samples": True}, "samples=True"),
    ],
)
def test_a_header_with_nonsense_in_it(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"version": 1, "spec": SPEC.to_dict(), "samples": 7} | changes
    save_file({KEY: mel_of(40, 9)}, path, metadata={HEADER_KEY: json.dumps(header)})
    with pytest.raises(MelvocError, match=rf"a\.safetensors: .*{message}"):
        read_mel(path)


@pytest.mark.parametrize("header", ["", "[]", "3", "{", "{}"])
def test_a_header_that_is_no_header(header: str, tmp_path: Path) -> None:
    save_file({KEY: mel_of(40, 9)}, tmp_path / "a.safetensors", metadata={HEADER_KEY: header})
    with pytest.raises(MelvocError, match=r"a\.safetensors: "):
        read_mel(tmp_path / "a.safetensors")


def test_anyone_can_read_what_is_written(tmp_path: Path) -> None:
    """The format is plain: one tensor, one JSON header."""
    mel = mel_of(40, 9)
    save_mel(tmp_path / "a.safetensors", mel, SPEC)
    assert torch.equal(load_file(tmp_path / "a.safetensors")["mel"], mel)


def test_an_archive_that_is_named_as_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mel=np.ones((40, 9)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(
        MelvocError, match=r"a\.npy: not a readable mel \(its header is damaged: an archive.s \(\.npz\)"
    ):
        read_mel(tmp_path / "a.npy")


def test_a_name_without_an_ending_is_known_by_its_content(tmp_path: Path) -> None:
    mel = mel_of(40, 9)
    for ending in (".npy", ".safetensors"):
        save_mel(tmp_path / f"a{ending}", mel, SPEC)
        (tmp_path / f"a{ending}").rename(tmp_path / "a")
        assert is_mel(tmp_path / "a")
        assert torch.equal(read_mel(tmp_path / "a").mel, mel)
    for content in (b"", b"RIFF....WAVE", b"fLaC\0\0\0\x22{"):
        (tmp_path / "a").write_bytes(content)
        assert not is_mel(tmp_path / "a")
    assert is_mel(tmp_path / "none.NPY")
    assert not is_mel(tmp_path / "none")


def test_safetensors_are_known_by_the_one_rule(tmp_path: Path) -> None:
    for length, expected in ((0, False), (2, True), (1 << 40, False)):
        (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + b"{}")
        assert is_mel(tmp_path / "a") == expected


def test_a_length_that_the_frames_do_not_have_is_not_written(tmp_path: Path) -> None:
    spec, mel = MelSpec.preset("griffinlim"), torch.full((128, 3), -4.0)
    save_mel(tmp_path / "a.safetensors", mel, spec, samples=np.int64(1000))  # type: ignore[arg-type]
    assert read_mel(tmp_path / "a.safetensors").samples == 1000
    for samples, message in (
        (-1, "samples=-1, but it is"),
        (10**6, r"samples=1000000, but \[128, 3\] frames are of at"),
    ):
        with pytest.raises(SpecError, match=message):
            save_mel(tmp_path / "b.safetensors", mel, spec, samples=samples)
    assert not (tmp_path / "b.safetensors").exists()
