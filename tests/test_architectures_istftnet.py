"""iSTFTNet against a plain torch reference, written from what the public implementation computes; no golden exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces, random_mel, randomised
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import melvoc
from melvoc.architectures.istftnet import ARCHITECTURE, ISTFTNet, ISTFTNetConfig
from melvoc.errors import CheckpointError, OptionError
from melvoc.neural import NeuralVocoder
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build

CONFIG_V1 = {  # rishikksh20/iSTFTNet-pytorch
    "resblock": "1", "num_gpus": 0, "batch_size": 16, "learning_rate": 0.0002, "adam_b1": 0.8, "adam_b2": 0.99,
    "lr_decay": 0.999, "seed": 1234, "upsample_rates": [8, 8], "upsample_kernel_sizes": [16, 16],
    "upsample_initial_channel": 512, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "gen_istft_n_fft": 16, "gen_istft_hop_size": 4,
    "segment_size": 8192, "num_mels": 80, "num_freq": 1025, "n_fft": 1024, "hop_size": 256, "win_size": 1024,
    "sampling_rate": 22050, "fmin": 0, "fmax": 8000, "fmax_for_loss": None, "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
}  # fmt: skip
SPEC = MelSpec.preset("hifigan_22khz_80band_256x")
TINY = {  # the paper's variants, narrow: C8C8I, and C8C8C2I with HiFi-GAN's second kind of blocks
    "C8C8I": ISTFTNetConfig(upsample_initial_channel=32),
    "C8C8C2I": ISTFTNetConfig(
        upsample_rates=(8, 8, 2), upsample_kernel_sizes=(16, 16, 4), upsample_initial_channel=32, resblock="2",
        resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 2), (2, 6)), gen_istft_n_fft=8, gen_istft_hop_size=2,
    ),
}  # fmt: skip


def reference(config: ISTFTNetConfig, weights: dict[str, Tensor], mel: Tensor) -> Tensor:
    """In the weights' type: `[B, n_mels, T]` to `[B, 1, N]`."""

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv1d(
            x, weight, weights[f"{name}.bias"], padding=(weight.shape[-1] - 1) * dilation // 2, dilation=dilation
        )

    def block(index: int, x: Tensor, dilations: tuple[int, ...]) -> Tensor:
        for number, dilation in enumerate(dilations):
            if config.resblock == "1":
                y = conv(f"resblocks.{index}.convs1.{number}", F.leaky_relu(x, 0.1), dilation)
                x = x + conv(f"resblocks.{index}.convs2.{number}", F.leaky_relu(y, 0.1))
            else:
                x = x + conv(f"resblocks.{index}.convs.{number}", F.leaky_relu(x, 0.1), dilation)
        return x

    x = conv("conv_pre", mel)
    count = len(config.resblock_kernel_sizes)
    for stage, (rate, taps) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        up = weights[f"ups.{stage}.weight"], weights[f"ups.{stage}.bias"]
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), *up, stride=rate, padding=(taps - rate) // 2)
        blocks = enumerate(config.resblock_dilation_sizes, start=stage * count)
        x = sum((block(index, x, dilations) for index, dilations in blocks), torch.zeros_like(x[:, :1])) / count
    x = nn.ReflectionPad1d((1, 0))(F.leaky_relu(x))
    magnitude, phase = conv("conv_post", x).chunk(2, dim=1)
    n_fft = config.gen_istft_n_fft
    window = torch.hann_window(n_fft, dtype=x.dtype)
    spectrum = magnitude.exp() * torch.exp(1j * phase.sin())
    return torch.istft(spectrum, n_fft, config.gen_istft_hop_size, n_fft, window)[:, None]


def vocoder(name: str, engine: Any) -> NeuralVocoder:
    network = randomised(ISTFTNet(TINY[name]))
    return NeuralVocoder(network, name=name, spec=SPEC, architecture=ARCHITECTURE, engine=engine)


VOCODERS = {(name, engine): vocoder(name, engine) for name in TINY for engine in ("auto", "torch")}


@pytest.mark.parametrize("name", TINY)
def test_it_keeps_every_promise(name: str) -> None:
    melvoc.testing.check_vocoder(VOCODERS[name, "auto"])


def expected(name: str, mel: Tensor) -> Tensor:
    weights = {key: value.double() for key, value in VOCODERS[name, "torch"].network.state_dict().items()}
    return reference(TINY[name], weights, mel.double()).clamp(-1, 1).float()


@pytest.mark.parametrize("key", VOCODERS)
def test_the_reference_in_float64(key: tuple[str, str]) -> None:
    mel = random_mel(VOCODERS[key], 13, batch=2)
    wave = VOCODERS[key].mel_to_waveform(mel, spec=SPEC)
    assert wave.shape == (2, 1, 13 * 256)
    assert wave.abs().max() > 0.05
    torch.testing.assert_close(wave, expected(key[0], mel), atol=1e-5, rtol=0)


@pytest.mark.parametrize("key", VOCODERS)
@settings(max_examples=10, deadline=None)
@given(frames=st.integers(1, 24), cuts=st.lists(st.integers(0, 24), max_size=5))
def test_streams_are_exact(key: tuple[str, str], frames: int, cuts: list[int]) -> None:
    voc = VOCODERS[key]
    mel = random_mel(voc, frames, seed=frames)
    with voc.stream(spec=SPEC) as stream:
        joined = torch.cat([*map(stream.push, pieces(mel, cuts)), stream.flush()], dim=-1)
    torch.testing.assert_close(joined, expected(key[0], mel), atol=1e-5, rtol=0)


def test_rows_of_other_lengths_and_half_types() -> None:
    voc = VOCODERS["C8C8I", "auto"]
    mel = random_mel(voc, 12, batch=2)
    wave = voc.mel_to_waveform(mel, spec=SPEC, lengths=[12, 5])
    torch.testing.assert_close(wave[1:, :, : 5 * 256], expected("C8C8I", mel[1:, :, :5]), atol=1e-5, rtol=0)
    assert not wave[1, :, 5 * 256 :].any()
    half = melvoc.from_bytes(melvoc.to_bytes(voc), device="cpu", dtype=torch.bfloat16)
    assert half.state_dict()["network.conv_post.weight"].dtype == torch.float32
    torch.testing.assert_close(half.mel_to_waveform(mel, spec=SPEC), expected("C8C8I", mel), atol=0.05, rtol=0)


def test_the_published_configuration() -> None:
    layout = ARCHITECTURE.layouts[0]
    assert layout.config(CONFIG_V1) == ISTFTNetConfig()
    assert layout.spec(CONFIG_V1) == SPEC


def stored(folder: Path, **changes: Any) -> Path:
    network = randomised(ISTFTNet(TINY["C8C8I"]))
    for layer in [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]:
        weight_norm(layer)
    torch.save({"generator": network.state_dict()}, folder / "g_00100000")
    (folder / "config.json").write_text(json.dumps(CONFIG_V1 | {"upsample_initial_channel": 32} | changes))
    return folder


def test_published_folders(tmp_path: Path) -> None:
    checkpoint = convert(stored(tmp_path))
    assert (checkpoint.architecture, checkpoint.spec) == ("istftnet", SPEC)
    mel = random_mel(VOCODERS["C8C8I", "auto"], 9)
    voc = build(checkpoint, LoadOptions(device="cpu"))
    torch.testing.assert_close(voc.mel_to_waveform(mel, spec=SPEC), expected("C8C8I", mel), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gen_istft_hop_size": 2}, "upsamples by 128, but its hop size is 256"),
        ({"gen_istft_n_fft": 15}, "not iSTFTNet's: gen_istft_n_fft=15 .* n_fft is even"),
        ({"resblock": None}, "not iSTFTNet's: the config has no 'resblock'"),
        ({"activation": "snake"}, "the config says activation='snake', which ISTFTNetConfig does"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(stored(tmp_path, **changes))


def test_a_hop_that_leaves_gaps() -> None:
    with pytest.raises(OptionError, match="gen_istft_n_fft=16 and gen_istft_hop_size=9, but n_fft is even"):
        ISTFTNetConfig(gen_istft_hop_size=9)
