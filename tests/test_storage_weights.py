"""Checkpoints are read from files and pipes of any name; what cannot be read is named."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import GOLDEN, folded
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from melvoc.errors import CheckpointError
from melvoc.storage import foreign
from melvoc.storage.configuration import SECTIONS_DEEP, read_config, sections
from melvoc.storage.conversion import convert, recognise
from melvoc.storage.weights import read_tensors

CONFIG = json.loads((GOLDEN / "bigvgan_v1_tiny.json").read_text())


def weights() -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / "bigvgan_v1_tiny.safetensors")
    return {key: value for key, value in tensors.items() if key not in ("mel", "wav")}


def bare() -> dict[str, Tensor]:
    return {key.removeprefix("generator."): tensor for key, tensor in weights().items()}


def as_torch(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def piped(folder: Path, name: str, data: bytes) -> Path:
    """A FIFO into which somebody writes."""
    path = folder / name
    os.mkfifo(path)
    threading.Thread(target=lambda: path.write_bytes(data), daemon=True).start()
    return path


@pytest.mark.parametrize("written", [lambda: save(weights()), lambda: as_torch({"generator": weights()})])
@pytest.mark.parametrize("text", [json.dumps(CONFIG), json.dumps(CONFIG, indent=1).replace('"', "").strip("{}")])
def test_weights_and_configuration_from_pipes(written: Callable[[], bytes], text: str, tmp_path: Path) -> None:
    config = piped(tmp_path, "63", text.replace("[\n", "[").encode() if text[0] == "{" else YAML.encode())
    got = convert(piped(tmp_path, "64", written()), config=config)
    assert got.tensors.keys() == folded(weights()).keys()
    assert got.name == "bigvgan", "a pipe's folder (/dev/fd) is no name"


YAML = "\n".join(f"{key}: {json.dumps(value)}" for key, value in CONFIG.items())


def test_a_damaged_pipe_is_named_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"/64: damaged, or not a torch file"):
        read_tensors(piped(tmp_path, "64", as_torch(weights())[:3000]))


@pytest.mark.parametrize("name", ["generator", "model.safetensors", "g_02500000", "a.b.c"])
def test_safetensors_of_any_name(name: str, tmp_path: Path) -> None:
    save_file(weights(), tmp_path / name)
    assert read_tensors(tmp_path / name).keys() == weights().keys()


# What cannot be read is named


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model_file.pth", b"x" * 99)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "generator.pt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 55\n",
            r"a Git LFS pointer, not the file: run `git lfs pull`",
        ),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("generator.pt", b"\n<!DOCTYPE html><html>", "a web page, not the file: download it with the link"),
        ("g", b"<?xml version='1.0'?><Error>AccessDenied", "a web page, not the file"),
        ("model.bin", b'{"error": "not found"}', "a configuration, not weights"),
        ("vocoder.onnx", b"anything", "an ONNX model: give the PyTorch checkpoint"),
        ("model.bin", b"\x08\x07\x12\x07pytorch\x1a", "an ONNX model"),
        ("tts_hifigan.nemo", b"x" * 999, "NeMo's archive"),
        ("model.bin", b"./model_config.yaml".ljust(257, b"\0") + b"ustar\0", "NeMo's archive"),
        ("model.pt", b"\x89HDF\r\n", "a TensorFlow or Keras model"),
        ("model.pt", b"GGUF\3", "a GGUF file"),
        ("model.pt", b"\x93NUMPY", "sound or a bare array"),
        ("model.tar", b"\x1f\x8b\x08", "an archive: unpack it"),
        ("model.zip", zipped(Path()), "(an|a zip) archive.*unpack it"),
    ],
)
def test_files_that_are_something_else(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: {message}") as caught:
        convert(tmp_path / name, config=CONFIG)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=message.split(":")[0].split(".*")[0]):
        convert(tmp_path / name)  # without a configuration, too


LAYOUTS = {
    "m_source.l_linear.weight": "NSF-HiFiGAN, .*needs the pitch",
    "generator.noise_convs.0.weight": "NSF-HiFiGAN",
    "source_conv.weight": "NSF-HiFiGAN",
    "dict.weight": "a unit HiFi-GAN: its input is units",
    "unit_embedding.weight": "a unit HiFi-GAN",
    "resblocks.0.conv_pre.conv.weight_g": "SpeechBrain's HiFi-GAN: its convolutions pad by reflection",
    "ups.0.convolution_noise.weight_g": "Pupu-Vocoder",
    "input_conv.weight": "ParallelWaveGAN's or ESPnet's",
    "enc_p.emb.weight": "VITS: its decoder takes latents",
    "module.quantizer.quantizers.0.weight": "a codec",
    "head.linear_1.weight": "WaveNeXt",
    "mpd.discriminators.0.convs.0.weight_g": "a discriminator: there is no generator in it",
}


@pytest.mark.parametrize("key", LAYOUTS)
@pytest.mark.parametrize("wrapper", ["", "generator"])
def test_checkpoints_of_other_networks(key: str, wrapper: str, tmp_path: Path) -> None:
    content = {key: torch.ones(1), "other.weight": torch.ones(2)}
    torch.save({wrapper: content} if wrapper else content, tmp_path / "g.pt")
    with pytest.raises(CheckpointError, match=rf"g\.pt is not BigVGAN's generator; it looks like {LAYOUTS[key]}"):
        convert(tmp_path / "g.pt", config=CONFIG)


def test_a_generator_with_a_source_of_harmonics_is_not_read_without_it(tmp_path: Path) -> None:
    torch.save({"generator": bare() | {"m_source.l_linear.weight": torch.ones(1, 9)}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt is not .*; it looks like NSF-HiFiGAN"):
        convert(tmp_path / "model.ckpt", config={**CONFIG})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generator_model": "hifigan_generator", "generator_model_params": {}}, "coqui's HiFi-GAN: write"),
        ({"target": "nemo.collections.tts.models.HifiGanModel"}, "NeMo's archive or configuration"),
        ({"generator_type": "HiFiGANGenerator", "generator_params": {"upsample_scales": [8]}}, "ParallelWaveGAN's or"),
        ({"model": {"head": {"class_path": "vocos.heads.WaveNextHead"}}}, "WaveNeXt"),
        ({"model_type": "univnet"}, "UnivNet or MelGAN"),
        ({"mini_nsf": True}, "NSF-HiFiGAN"),
        ({"a": {"b": {"c": 1}}}, "give the configuration that was published"),
    ],
)
def test_configurations_of_other_networks(values: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"the configuration of x is none of .*; .*{message}"):
        recognise(values, "x")


HIFIGAN = {
    **{"resblock": "1", "upsample_rates": [8, 8, 2, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4, 4]},
    **{"upsample_initial_channel": 512, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]]},
    **{"sampling_rate": 44100, "num_mels": 128, "hop_size": 512, "n_fft": 2048, "win_size": 2048},
    **{"fmin": 40, "fmax": 16000},
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (HIFIGAN | {"mini_nsf": True, "pc_aug": True}, "NSF-HiFiGAN, .*needs the pitch"),
        ({"target": "nemo.x", "generator": {"_target_": "nemo.y", **HIFIGAN, "resblock": 1}}, "NeMo's archive or conf"),
        (HIFIGAN | {"code_hop_size": 320, "resblock": 1}, "a unit HiFi-GAN"),
    ],
)
def test_configurations_that_are_nearly_ours(values: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"is not HiFi-GAN's: it looks like {message}"):
        convert(tmp_path / "model.ckpt", config=values)


@pytest.mark.parametrize("deep", range(5))
def test_a_configuration_is_looked_at_as_deep_for_its_signs_as_for_its_network(deep: int) -> None:
    values: dict[str, object] = {"gen_istft_n_fft": 16}
    for _ in range(deep):
        values = {"part": values}
    said = "it looks like iSTFTNet" if deep < SECTIONS_DEEP else "give the configuration that was published"
    with pytest.raises(CheckpointError, match=said):
        recognise(values, "g")
    found = [path for level in sections(values) for path, _ in level]
    assert found == ["part." * level for level in range(min(deep + 1, SECTIONS_DEEP))]


def test_openvpis_classic_generator(tmp_path: Path) -> None:
    """Its configuration is HiFi-GAN's to the key; only its weights tell."""
    names = ["m_source.l_linear.weight", "noise_convs.0.weight", "conv_pre.weight_g", "conv_pre.weight_v"]
    torch.save({"generator": {name: torch.ones(1, 1, 1) for name in names}}, tmp_path / "model")
    (tmp_path / "config.json").write_text(json.dumps(HIFIGAN))
    with pytest.raises(CheckpointError, match=r"model is not HiFi-GAN's generator; it looks like NSF-HiFiGAN"):
        convert(tmp_path)


def test_speechbrains_folder(tmp_path: Path) -> None:
    torch.save({"conv_pre.conv.weight_g": torch.ones(1), "conv_pre.conv.weight_v": torch.ones(1)}, tmp_path / "g.ckpt")
    (tmp_path / "hyperparams.yaml").write_text("in_channels: 80\ngenerator: !new:speechbrain.lobes.models.HifiGAN.X\n")
    with pytest.raises(CheckpointError, match=r"hyperparams\.yaml: .*it looks like SpeechBrain's HiFi-GAN"):
        convert(tmp_path)
    with pytest.raises(CheckpointError, match=r"g\.ckpt is not .*it looks like SpeechBrain's HiFi-GAN: .*use speechb"):
        convert(tmp_path / "g.ckpt", config=HIFIGAN)


def test_a_configuration_that_asks_for_code_names_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "hyperparams.yaml"
    path.write_text("# HiFiGAN\nin_channels: 80\ngenerator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator\n")
    with pytest.raises(CheckpointError, match=r"hyperparams\.yaml: not valid \.yaml .*it looks like SpeechBrain's"):
        read_config(path)


def test_every_row_says_what_it_is_and_what_to_do() -> None:
    titles = [title for title, _, _ in foreign.table()]
    assert len(set(titles)) == len(titles)
    assert all(title and advice for title, advice, _ in foreign.table())
    assert not foreign.looks_like(["key: conv_pre.weight_g.", "key: ups.0.bias.", "bytes: PK", "file: generator_v1"])
