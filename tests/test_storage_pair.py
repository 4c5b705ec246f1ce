"""A folder with published weights and their configuration, and a file with its configuration beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import GOLDEN, VOCODERS, random_mel
from safetensors.torch import load_file, save_file

import melvoc
from melvoc.cli import main
from melvoc.errors import CheckpointError, MissingCheckpointError, OptionError, UnknownVocoderError
from melvoc.storage import pair
from melvoc.storage.conversion import convert

VOC = VOCODERS["bigvgan_v1_tiny"]
GENERATOR = "bigvgan_generator.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The published pair, with what else lies in such folders."""
    place = tmp_path / "voice"
    place.mkdir()
    weights = load_file(GOLDEN / "bigvgan_v1_tiny.safetensors")
    torch.save({"generator": {key: weights[key] for key in weights if key not in ("mel", "wav")}}, place / GENERATOR)
    shutil.copy(GOLDEN / "bigvgan_v1_tiny.json", place / "config.json")
    for name in ("README.md", ".gitattributes", "sample.wav", "model_index.json"):
        (place / name).write_text("anything")
    return place


def sounds_right(voc: melvoc.Vocoder) -> None:
    mel = random_mel(VOC, 4)
    torch.testing.assert_close(voc.mel_to_waveform(mel), VOC.mel_to_waveform(mel), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_loaded_offline_if_it_is_trusted(kind: Callable[[Path], Any], folder: Path) -> None:
    voc = melvoc.load(kind(folder), device="cpu", allow_unverified=True)
    sounds_right(voc)
    assert (voc.name, voc.provenance["verified"]) == ("voice", "no")
    with pytest.raises(
        CheckpointError, match=r"voice: load reads melvoc's .*or pass allow_unverified=True if you trust"
    ):
        melvoc.load(kind(folder), device="cpu")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_finds_its_configuration(kind: Callable[[Path], Any], folder: Path) -> None:
    sounds_right(melvoc.load(kind(folder / GENERATOR), device="cpu", allow_unverified=True))
    assert convert(kind(folder / GENERATOR)).header() == convert(kind(folder)).header()
    assert convert(kind(folder), config=kind(folder / "config.json")).header() == convert(folder).header()


def test_a_folder_in_this_one_is_found_by_its_name_and_shadows_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    sounds_right(melvoc.load("voice", device="cpu", allow_unverified=True))
    folder.rename("griffinlim")
    assert isinstance(melvoc.load("griffinlim", n_iter=1, allow_unverified=True), melvoc.Vocoder)
    assert melvoc.load("griffinlim", n_iter=1, allow_unverified=True).name == "griffinlim"
    with pytest.raises(UnknownVocoderError, match="no vocoder 'voice' is registered"):
        melvoc.load("voice", allow_unverified=True)


def test_a_folder_with_a_damaged_file_names_it(tmp_path: Path) -> None:
    """Cut, it is nobody's: that it is not melvoc's, or has to be trusted, would be the wrong advice."""
    melvoc.save(VOCODERS["vocos_tiny"], tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[: len(data) // 2])
    for trusted in (False, True):
        with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged or cut"):
            melvoc.load(tmp_path, allow_unverified=trusted)


def test_a_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    sounds_right(melvoc.load("~/voice", device="cpu", allow_unverified=True))
    assert convert(Path("~/voice")).tensors.keys() == convert(folder).tensors.keys()
    assert convert("~/voice", config="~/voice/config.json").tensors.keys() == convert(folder).tensors.keys()
    for call in (convert, lambda path: convert(folder, config=path), lambda path: melvoc.load(path)):
        with pytest.raises(MissingCheckpointError, match="~nobody-of-this-name/voice: "):
            call("~nobody-of-this-name/voice")


@pytest.mark.parametrize("name", ["generator", "g_02500000", "model.pth.tar", "weights.ckpt", "a b.bin"])
def test_the_weights_may_have_any_name(name: str, folder: Path) -> None:
    (folder / GENERATOR).rename(folder / name)
    assert convert(folder).provenance["converted from"] == name


def test_safetensors_without_a_suffix(folder: Path) -> None:
    tensors = torch.load(folder / GENERATOR, weights_only=True)["generator"]
    (folder / GENERATOR).unlink()
    save_file(tensors, folder / "generator")
    sounds_right(melvoc.load(folder, device="cpu", allow_unverified=True))


def test_of_several_checkpoints_the_published_name_counts(folder: Path) -> None:
    shutil.copy(folder / GENERATOR, folder / "bigvgan_discriminator_optimizer.pt")
    assert convert(folder).provenance["converted from"] == GENERATOR
    (folder / GENERATOR).rename(folder / "mine.pt")
    with pytest.raises(
        CheckpointError,
        match=r"voice: has 2 checkpoints \(bigvgan_discriminator_optimizer\.pt, mine\.pt\); give one of them by its",
    ):
        convert(folder)
    assert convert(folder / "mine.pt").provenance["converted from"] == "mine.pt"


def test_the_hubs_folders_have_safetensors_and_a_pickle(folder: Path) -> None:
    tensors = torch.load(folder / GENERATOR, weights_only=True)["generator"]
    (folder / GENERATOR).rename(folder / "pytorch_model.bin")
    save_file(tensors, folder / "model.safetensors")
    assert convert(folder).provenance["converted from"] == "model.safetensors"


def test_a_melvoc_file_is_converted_already(folder: Path) -> None:
    melvoc.save(VOC, folder / "mine.safetensors")
    with pytest.raises(
        CheckpointError, match=r"mine\.safetensors: a melvoc file already, not a published one; load it"
    ):
        convert(folder / "mine.safetensors")


def test_several_configurations(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(CheckpointError, match=r"voice: has config\.json, config\.yaml; say with --config which"):
        convert(folder)
    (folder / "config.json").unlink()
    assert convert(folder).spec == melvoc.MelSpec.from_config(values)


def test_a_packages_names_count_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_published", lambda: [(r"voice-\d+\.ckpt", "voice.json")])
    shutil.copy(folder / GENERATOR, folder / "voice-3.ckpt")
    (folder / "config.json").rename(folder / "voice.json")
    assert convert(folder).provenance["converted from"] == "voice-3.ckpt"


def test_what_is_missing_is_said(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(
        MissingCheckpointError, match=rf"{GENERATOR}: no config\.json, .* beside it; give it with --con"
    ):
        convert(folder)
    (folder / GENERATOR).unlink()
    with pytest.raises(MissingCheckpointError, match=r"voice: no checkpoint is in this folder, which has README\.md"):
        convert(folder)
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no "):
        melvoc.load(folder / "nowhere.pt", allow_unverified=True)


def test_a_folder_with_a_melvoc_file_needs_no_trust(folder: Path) -> None:
    melvoc.save(VOC, folder / "mine.safetensors")
    assert melvoc.load(folder, device="cpu").name == VOC.name
    assert melvoc.info(folder).name == VOC.name
    assert convert(folder).provenance["converted from"] == GENERATOR


def test_what_a_folder_has_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match=r"has no files; give a melvoc \.safetensors file") as caught:
        melvoc.load(tmp_path)
    assert caught.value.path == str(tmp_path)
    save_file(melvoc.pack(VOC, prefix="v."), tmp_path / "app.safetensors")
    with pytest.raises(CheckpointError, match=r"\.safetensors files, but it has app\.safetensors; .*pass the prefix="):
        melvoc.load(tmp_path)
    for name in ("a", "b"):
        melvoc.save(VOC, tmp_path / f"{name}.safetensors")
        if name == "a":
            assert melvoc.load(tmp_path).name == VOC.name
    for call in (melvoc.load, melvoc.info, lambda path: melvoc.load(path, allow_unverified=True)):
        with pytest.raises(
            CheckpointError, match=r"has 2 melvoc files \(a\.safetensors, b\.safetensors\); give one by its path"
        ):
            call(tmp_path)


@pytest.mark.parametrize("allow_unverified", [False, True])
def test_a_vocoder_is_not_read_from_a_pipe(allow_unverified: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "63")
    for name in (tmp_path / "63", "/dev/stdin"):
        with pytest.raises(
            CheckpointError, match=f"{name}: a vocoder is not read from a pipe; write it to a file first"
        ):
            melvoc.load(name, allow_unverified=allow_unverified)


def test_what_was_found_below_is_kept_with_whatever_else_is_known(folder: Path) -> None:
    loaded = melvoc.load(folder, device="cpu", allow_unverified=True).provenance
    assert loaded == {"converted from": str(folder), "verified": "no", "found below": "generator.generator."}


def test_a_published_safetensors_file(folder: Path) -> None:
    tensors = torch.load(folder / GENERATOR, weights_only=True)["generator"]
    save_file(tensors, folder / "model.safetensors")
    sounds_right(melvoc.load(folder / "model.safetensors", device="cpu", allow_unverified=True))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: safetensors, but not melvoc's"):
        melvoc.load(folder / "model.safetensors", device="cpu")


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(melvoc.MelvocError, match=r"voice: cannot be opened or read \(Permission denied\)"):
        convert(folder)


# A known vocoder's configuration


def test_a_known_name_gives_configuration_and_mel(folder: Path) -> None:
    path = folder / GENERATOR
    for name in ("bigvgan_base_22khz_80band", "nvidia/bigvgan_base_22khz_80band", Path("bigvgan_base_22khz_80band")):
        with pytest.raises(
            CheckpointError, match=r"bigvgan_generator\.pt: .* has shape .*, but the configuration makes"
        ):
            convert(path, config=name)
    other = melvoc.MelSpec.preset("griffinlim")
    with pytest.raises(CheckpointError, match="bigvgan_base_22khz_80band has another mel than was given .*sample_rate"):
        convert(path, config="bigvgan_base_22khz_80band", spec=other)
    with pytest.raises(CheckpointError, match=r"bigvgan_base_23khz: cannot be read \(No such file"):
        convert(path, config="bigvgan_base_23khz")


def test_a_real_checkpoint_by_a_known_name(data_dir: Path) -> None:
    source = data_dir / "weights" / "hifigan_universal_v1" / "generator_universal.pth.tar"
    assert convert(source, config="hifigan_universal_v1").tensors.keys() == convert(source).tensors.keys()


# The command line


def test_convert_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "out.safetensors"
    assert main(["convert", str(folder), "-o", str(out)]) == 0
    assert "out.safetensors: bigvgan, 302 tensors (found below 'generator.generator.')" in capsys.readouterr().out
    sounds_right(melvoc.load(out, device="cpu"))
    assert main(["convert", str(folder / GENERATOR), "-o", str(out), "--name", "mine"]) == 0
    assert melvoc.load(out).name == "mine"


@pytest.mark.parametrize("piped", [GENERATOR, "config.json"])
def test_convert_reads_standard_input(piped: str, folder: Path) -> None:
    out = folder / "out.safetensors"
    names = ["-" if name == piped else str(folder / name) for name in (GENERATOR, "config.json")]
    command = [sys.executable, "-m", "melvoc", "convert", names[0], "--config", names[1], "-o", str(out)]
    done = subprocess.run(command, input=(folder / piped).read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert melvoc.info(out).name == ("bigvgan" if piped == GENERATOR else "voice")
    sounds_right(melvoc.load(out, device="cpu"))


def test_what_standard_input_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "-", "--config", "-", "-o", str(folder / "out.safetensors")]) == 2
    assert "CHECKPOINT and --config are both -, but standard input is one file" in capsys.readouterr().err
    melvoc.audio.write(folder / "sample.wav", torch.zeros(999), VOC.sample_rate)
    assert main(["vocode", str(folder / "sample.wav"), "-o", str(folder / "out.wav"), "--vocoder", "-"]) == 2
    assert "/dev/stdin: a vocoder is not read from a pipe" in capsys.readouterr().err


def test_a_repository_is_converted_as_it_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def load(name: str, **options: Any) -> melvoc.Vocoder:
        asked.update(options, name=name)
        return VOC

    monkeypatch.setattr(melvoc, "load", load)
    out = str(folder / "out.safetensors")
    assert main(["convert", "hf://a/b@main", "-o", out, "--name", "n", "--licence", "MIT"]) == 0
    assert (asked["name"], asked["allow_unverified"]) == ("hf://a/b@main", True)
    monkeypatch.undo()
    assert (melvoc.info(out).name, melvoc.info(out).licence) == ("n", "MIT")
    assert main(["convert", "hf://a/b", "--config", "c.json", "-o", out]) == 2
    assert "--config and --spec are for files" in capsys.readouterr().err


# A vocoder inside another file


def test_a_packed_vocoder_in_an_applications_file(tmp_path: Path) -> None:
    app = torch.nn.ModuleDict({"voc": VOC, "vae": torch.nn.Linear(2, 2)})
    state = app.state_dict() | melvoc.pack(VOC, prefix="vocoder.")
    save_file(state, tmp_path / "app.safetensors")
    torch.save({"step": 3, "state": state}, tmp_path / "app.pt")
    sounds_right(melvoc.load(tmp_path / "app.safetensors", device="cpu", prefix="vocoder."))
    sounds_right(melvoc.load(tmp_path / "app.pt", device="cpu", prefix="state.vocoder."))
    sounds_right(melvoc.unpack(state, prefix="vocoder.", device="cpu"))
    with pytest.raises(CheckpointError, match=r"no 'melvoc\.header' in it; .*, here with prefix='vocoder\.'"):
        melvoc.unpack(state)
    with pytest.raises(CheckpointError, match=r"app\.safetensors: no 'x\.melvoc\.header' in it"):
        melvoc.load(tmp_path / "app.safetensors", prefix="x.")
    with pytest.raises(OptionError, match="griffinlim takes no option 'prefix', which is for a local file"):
        melvoc.load("griffinlim", prefix="x")


def test_a_packed_vocoder_in_a_folder(tmp_path: Path) -> None:
    save_file(melvoc.pack(VOC, prefix="v."), tmp_path / "app.safetensors")
    sounds_right(melvoc.load(tmp_path, device="cpu", prefix="v."))
    torch.save(melvoc.pack(VOC, prefix="v."), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"has 2 checkpoints \(app\.safetensors, other\.pt\); give one"):
        melvoc.load(tmp_path, prefix="v.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("app.safetensors", r"no 'x\.melvoc\.header' in it; .* with prefix='v\.'"),
        ("none.pt", "none.pt: no such file; give the path of the file that the packed vocoder is in"),
        ("empty", "empty: no checkpoint is in this folder, which has no files"),
    ],
)
def test_an_error_about_a_packed_vocoder_has_its_path(name: str, message: str, tmp_path: Path) -> None:
    save_file(melvoc.pack(VOC, prefix="v."), tmp_path / "app.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=message) as caught:
        melvoc.load(tmp_path / name, prefix="x.")
    assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("prefix", [3, b"v.", None, ["v."]])
def test_a_prefix_is_a_text(prefix: Any, tmp_path: Path) -> None:
    calls = (
        melvoc.pack,
        lambda voc, prefix: melvoc.load(tmp_path, prefix=prefix),
        lambda voc, prefix: melvoc.unpack({}, prefix),
    )
    for call in calls:
        with pytest.raises(OptionError, match=r"prefix=.*, but it is the text that melvoc\.pack was given"):
            call(VOC, prefix=prefix)


@pytest.mark.parametrize("name", ["app.safetensors", "app.pt"])
def test_a_packed_vocoder_is_not_taken_apart(name: str, folder: Path) -> None:
    for prefix, way in (("v.", r"melvoc\.load\(\.\.\., prefix='v\.'\)"), ("", r"melvoc\.unpack\(its tensors\)")):
        state, path = melvoc.pack(VOC, prefix=prefix), folder / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        said = rf"{name}: holds a packed vocoder, configuration and all; {way} reads it, and melvoc\.save"
        with pytest.raises(CheckpointError, match=said):
            convert(path, config=folder / "config.json")
        with pytest.raises(CheckpointError, match=said):
            melvoc.load(path, allow_unverified=True)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="holds a packed" if name == "app.safetensors" else "no config.json"):
        convert(path)
    with pytest.raises(CheckpointError, match="holds a packed" if name == "app.safetensors" else "pass the prefix="):
        melvoc.load(path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the mappings of a process are read from there")
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("way", ["melvoc", "packed", "published"])
def test_weights_are_mapped_only_if_they_may_be(way: str, mmap: bool, folder: Path) -> None:
    path = folder / f"{way}.safetensors"
    tensors = torch.load(folder / GENERATOR, weights_only=True)["generator"]
    if way == "melvoc":
        melvoc.save(VOC, path)
    else:
        save_file(tensors if way == "published" else melvoc.pack(VOC, prefix="v."), path)
    options: dict[str, Any] = {"packed": {"prefix": "v."}, "published": {"allow_unverified": True}}.get(way, {})
    voc = melvoc.load(path, device="cpu", engine="torch", mmap=mmap, **options)
    assert (str(path) in Path("/proc/self/maps").read_text()) is mmap
    if not mmap:
        path.write_bytes(b"")  # of a mapped file, the next use would end the process
    sounds_right(voc)


def test_pack_is_a_snapshot() -> None:
    voc = melvoc.unpack(melvoc.pack(VOC), device="cpu")
    state = melvoc.pack(voc)
    before = {key: tensor.clone() for key, tensor in state.items()}
    with torch.no_grad():
        for parameter in voc.parameters():
            parameter.zero_()
    assert all(torch.equal(state[key], tensor) for key, tensor in before.items())
