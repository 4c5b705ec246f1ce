"""The melvoc file: it says everything, it is refused where it does not fit, and the message names file and tensor."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import VOCODERS
from safetensors.torch import load_file, save_file
from torch import Tensor

import melvoc
from melvoc.errors import CheckpointError
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container as checkpoints
from melvoc.storage.container import HEADER_KEY, PACKED_HEADER, PACKED_WEIGHTS, Checkpoint
from melvoc.storage.vocoder_file import build, describe

TINY = describe(VOCODERS["bigvgan_resblock2_snake_tiny"])
FIRST = "conv_pre.weight"


def written(folder: Path, checkpoint: Checkpoint = TINY) -> Path:
    path = folder / "voc.safetensors"
    checkpoints.write(checkpoint, path)
    return path


def header_changed(path: Path, change: Callable[[dict], None]) -> Path:
    """The file with another header, written by safetensors itself."""
    values = json.loads(TINY.header())
    change(values)
    save_file(dict(TINY.tensors), path, metadata={HEADER_KEY: json.dumps(values)})
    return path


def with_tensors(change: Callable[[dict[str, Tensor]], object]) -> Checkpoint:
    tensors = {key: tensor.clone() for key, tensor in TINY.tensors.items()}
    change(tensors)
    return dataclasses.replace(TINY, tensors=tensors)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    full = dataclasses.replace(TINY, licence="MIT", provenance={"repository": "a/b", "sha256": "00"}, name="Ärger ♪")
    back = checkpoints.read(written(tmp_path, full))
    assert (back.architecture, back.config, back.spec) == (full.architecture, full.config, full.spec)
    assert (back.name, back.licence, back.provenance) == (full.name, full.licence, full.provenance)
    assert back.tensors.keys() == full.tensors.keys()
    assert all(torch.equal(back.tensors[key], full.tensors[key]) for key in full.tensors)


def test_it_is_an_ordinary_safetensors_file_with_one_header(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_file(path).keys() == TINY.tensors.keys()
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert metadata.keys() == {HEADER_KEY}
    expected = {"format", "architecture", "config", "spec", "name", "licence", "provenance"}
    assert json.loads(metadata[HEADER_KEY]).keys() == expected


def test_a_path_in_bytes_and_a_provenance_that_is_no_text(tmp_path: Path) -> None:
    vocoder = copy.deepcopy(VOCODERS["vocos_tiny"])
    melvoc.save(vocoder, os.fsencode(tmp_path / "a.safetensors"))
    assert melvoc.load(tmp_path / "a.safetensors").name == vocoder.name
    vocoder.provenance = {"from": tmp_path}  # type: ignore[dict-item]
    for write in (melvoc.to_bytes, lambda voc: melvoc.save(voc, tmp_path / "b.safetensors")):
        with pytest.raises(CheckpointError, match="not to be written .*PosixPath.*; provenance is text by name"):
            write(vocoder)


def test_bytes_are_the_file_and_the_packed_dict_says_the_same(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert checkpoints.to_bytes(TINY) == path.read_bytes()
    for back in (checkpoints.from_bytes(path.read_bytes()), checkpoints.unpack(checkpoints.pack(TINY))):
        assert back.header() == TINY.header()
        assert all(torch.equal(back.tensors[key], TINY.tensors[key]) for key in TINY.tensors)


def test_the_header_is_read_without_the_weights(tmp_path: Path) -> None:
    header, count = checkpoints.read_header(written(tmp_path))
    assert header.tensors == {}
    assert header.spec == TINY.spec
    assert count == sum(tensor.numel() for tensor in TINY.tensors.values())


def test_views_and_gradients_do_not_reach_the_file(tmp_path: Path) -> None:
    strange = with_tensors(
        lambda t: t.update({FIRST: t[FIRST].transpose(0, 1).clone().transpose(0, 1).requires_grad_()})
    )
    back = checkpoints.read(written(tmp_path, strange))
    assert torch.equal(back.tensors[FIRST], TINY.tensors[FIRST])
    assert not checkpoints.pack(strange)[PACKED_WEIGHTS + FIRST].requires_grad


@settings(max_examples=30, deadline=None)
@given(
    name=st.text(max_size=20),
    licence=st.none() | st.text(max_size=20),
    provenance=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    n_fft=st.sampled_from([512, 800, 1024]),
    f_max=st.none() | st.floats(4000, 8000),
    log=st.sampled_from(["ln", "log10", "db"]),
)
def test_any_header_survives(
    name: str, licence: str | None, provenance: dict, n_fft: int, f_max: float, log: str
) -> None:
    spec = MelSpec(sample_rate=16000, n_fft=n_fft, hop_length=200, n_mels=20, f_max=f_max, log=log)
    one = Checkpoint(
        architecture="hifigan", config={}, spec=spec, tensors={}, name=name, licence=licence, provenance=provenance
    )
    for back in (checkpoints.from_bytes(checkpoints.to_bytes(one)), checkpoints.unpack(checkpoints.pack(one))):
        assert back == one


# Files that are refused


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_unknown_versions(tmp_path: Path, version: object) -> None:
    path = header_changed(tmp_path / "new.safetensors", lambda values: values.update(format=version))
    with pytest.raises(
        CheckpointError, match=rf"new\.safetensors: melvoc format {version!r}, .* reads formats 1 and 2; update"
    ):
        checkpoints.read(path)


@pytest.mark.parametrize("key", ["format", "architecture", "config", "spec", "name", "licence", "provenance"])
def test_a_header_that_lacks_a_part(tmp_path: Path, key: str) -> None:
    path = header_changed(tmp_path / "cut.safetensors", lambda values: values.pop(key))
    with pytest.raises(CheckpointError, match=rf"cut\.safetensors: the melvoc header is damaged .*{key}"):
        checkpoints.read(path)


@pytest.mark.parametrize("part", ["config", "spec", "provenance"])
@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_a_header_with_a_part_of_another_kind(tmp_path: Path, part: str, value: object) -> None:
    path = header_changed(tmp_path / "odd.safetensors", lambda values: values.update({part: value}))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: the melvoc header is damaged"):
        checkpoints.read(path)


@pytest.mark.parametrize("text", ["", "nothing", "[]", "3", '"text"', "null"])
def test_a_header_that_is_no_object(tmp_path: Path, text: str) -> None:
    save_file(dict(TINY.tensors), tmp_path / "x.safetensors", metadata={HEADER_KEY: text})
    with pytest.raises(CheckpointError, match=r"x\.safetensors: the melvoc header is damaged"):
        checkpoints.read(tmp_path / "x.safetensors")


def test_a_spec_that_breaks_its_own_rules(tmp_path: Path) -> None:
    path = header_changed(tmp_path / "spec.safetensors", lambda values: values["spec"].update(hop_length=-1))
    with pytest.raises(CheckpointError, match=r"spec\.safetensors: the melvoc header is damaged \(hop_length=-1"):
        checkpoints.read(path)


def test_a_foreign_safetensors(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    assert not checkpoints.is_melvoc_file(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: safetensors, but not melvoc's .*melvoc convert"):
        checkpoints.read(tmp_path / "other.safetensors")


@pytest.mark.parametrize("read", [checkpoints.read, checkpoints.read_header, checkpoints.is_melvoc_file])
@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"RIFF....WAVE", b"\xff" * 100, b"{}" * 50])
def test_garbage_and_empty_files(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: damaged or cut"):
        read(path)


@pytest.mark.parametrize("read", [checkpoints.read, checkpoints.read_header, checkpoints.is_melvoc_file])
def test_no_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}: no such file; give the path"):
            read(path)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere(share: float) -> None:
    whole = checkpoints.to_bytes(TINY)
    with pytest.raises(CheckpointError, match="these bytes: not safetensors, or damaged"):
        checkpoints.from_bytes(whole[: int(share * len(whole))])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_is_cut(tmp_path: Path, share: float) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"voc\.safetensors: damaged or cut"):
        checkpoints.read(path)


@pytest.mark.parametrize("data", [b"", b"abc", "text", None, 3])
def test_bytes_that_are_none(data: object) -> None:
    expected = "not safetensors, or damaged" if isinstance(data, bytes) else f"{data!r} is an? .*, but from_bytes takes"
    with pytest.raises(CheckpointError, match=f"these bytes: {expected}"):
        checkpoints.from_bytes(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_another_kind(kind: Callable[[bytes], object]) -> None:
    back = checkpoints.from_bytes(kind(checkpoints.to_bytes(TINY)))  # type: ignore[arg-type]
    assert back.header() == TINY.header()


@pytest.mark.parametrize("state", [{}, {"weight": torch.ones(1)}, None, [1]])
def test_a_dict_that_pack_did_not_make(state: object) -> None:
    with pytest.raises(CheckpointError, match=r"this state: no 'melvoc\.header' in it; unpack takes the dict that"):
        checkpoints.unpack(state)  # type: ignore[arg-type]


def test_a_packed_dict_with_something_else_in_it() -> None:
    for more in ({"optimizer": torch.ones(1)}, {PACKED_WEIGHTS + "x": 3}):
        with pytest.raises(
            CheckpointError, match=f"this state: {next(iter(more))!r} is not an entry that melvoc.pack makes"
        ):
            checkpoints.unpack(checkpoints.pack(TINY) | more)


@pytest.mark.parametrize("header", [torch.full((5,), 255, dtype=torch.uint8), "text", None])
def test_a_packed_header_that_is_damaged(header: object) -> None:
    with pytest.raises(CheckpointError, match="this state: .*header.* is damaged"):
        checkpoints.unpack(checkpoints.pack(TINY) | {PACKED_HEADER: header})  # type: ignore[dict-item]


# Weights that do not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(FIRST), r"lacks conv_pre\.weight; bigvgan with its configuration has \d+ tensors"),
        (lambda t: t.update(more=torch.ones(1)), "has unknown more; bigvgan with its configuration"),
        (lambda t: [t.pop(key) for key in sorted(t)[:9]], "lacks .* and 6 more"),
        (lambda t: t.update({FIRST: t[FIRST][:, :-1]}), r"'conv_pre\.weight' has shape \[.*\], but .* makes it \["),
        (lambda t: t.update({FIRST: t[FIRST].int()}), r"'conv_pre\.weight' is torch\.int32, but weights are floating"),
        (lambda t: t.update({FIRST: t[FIRST].bool()}), r"'conv_pre\.weight' is torch\.bool, but weights are floating"),
        (lambda t: t[FIRST].view(-1)[3].fill_(float("nan")), r"'conv_pre\.weight' contains NaN or Inf"),
        (lambda t: t[FIRST].view(-1)[3].fill_(float("-inf")), r"'conv_pre\.weight' contains NaN or Inf"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    path = written(tmp_path, with_tensors(change))
    with pytest.raises(CheckpointError, match=rf"voc\.safetensors:? {message}"):
        build(checkpoints.read(path), LoadOptions(device="cpu"))


@pytest.mark.parametrize("value", [3e38, -3e38, 2.0**20 * 1.001])
def test_finite_weights_that_no_training_makes(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"'conv_pre\.weight' contains values up to .*, but .* at most 1048576"):
        checkpoints.check_finite(with_tensors(lambda t: t[FIRST].view(-1)[3].fill_(value)))


def test_large_weights_that_are_no_mistake() -> None:
    checkpoints.check_finite(with_tensors(lambda t: t[FIRST].fill_(2.0**20)))


def test_an_architecture_of_the_future(tmp_path: Path) -> None:
    path = header_changed(tmp_path / "f.safetensors", lambda values: values.update(architecture="bigvgan3"))
    with pytest.raises(
        CheckpointError, match=r"f\.safetensors: architecture 'bigvgan3', but the known ones are .*update melvoc"
    ):
        build(checkpoints.read(path), LoadOptions(device="cpu"))


@pytest.mark.parametrize("change", [{"unknown": 1}, {"resblock": "3"}, {"upsample_rates": None}, {"n_mels": "80"}])
def test_a_configuration_that_is_none(tmp_path: Path, change: dict) -> None:
    path = header_changed(tmp_path / "c.safetensors", lambda values: values["config"].update(change))
    with pytest.raises(CheckpointError, match=rf"c\.safetensors: .*{next(iter(change))}"):
        build(checkpoints.read(path), LoadOptions(device="cpu"))


# Whole or not there


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    def half(tensors: object, target: Path, metadata: object) -> None:
        Path(target).write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(CheckpointError, match=r"voc\.safetensors: cannot be written \(No space left on device\)"):
        checkpoints.write(TINY, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["voc.safetensors"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"voc\.safetensors: cannot be written .*may you write there"):
        checkpoints.write(TINY, tmp_path / "none" / "voc.safetensors")


def test_writing_over_the_file_that_is_mapped(tmp_path: Path) -> None:
    path = written(tmp_path)
    mapped = checkpoints.read(path)
    checkpoints.write(dataclasses.replace(mapped, name="again"), path)
    assert checkpoints.read(path).name == "again"
    assert all(torch.equal(mapped.tensors[key], TINY.tensors[key]) for key in TINY.tensors)
