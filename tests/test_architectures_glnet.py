"""GLNet: Griffin-Lim's rounds, then a network, which changes nothing before it has learnt something."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces, random_mel
from torch import Tensor

import melvoc
from melvoc.architectures.glnet import ARCHITECTURE, GLNet, GLNetConfig, sized
from melvoc.errors import OptionError, SpecError
from melvoc.neural import NeuralVocoder
from melvoc.spectrogram.spec import MelSpec
from melvoc.testing import check_vocoder

SPEC = MelSpec(sample_rate=8000, n_fft=256, hop_length=64, n_mels=20)
CONFIG = dataclasses.replace(sized(8, 2, SPEC), rounds=4)


def network(*, trained: bool = True) -> GLNet:
    made = GLNet(CONFIG).eval()
    if trained:
        torch.nn.init.normal_(made.out.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return made


def vocoder(net: GLNet, engine: Any) -> NeuralVocoder:
    return NeuralVocoder(net, name="tiny", spec=SPEC, architecture=ARCHITECTURE, engine=engine)


NETWORK = network()
VOCODERS = {engine: vocoder(NETWORK, engine) for engine in ("auto", "torch")}


def chord(seconds: float = 1.0) -> Tensor:
    time = torch.arange(int(8000 * seconds)) / 8000
    tones = [(2 * torch.pi * pitch * time).sin() * (-3 * time).exp() for pitch in (220.0, 330.0, 1250.0)]
    return 0.25 * torch.stack(tones).sum(0)


def test_it_begins_as_griffin_lim() -> None:
    mel = melvoc.MelSpectrogram(SPEC)(chord()[None])
    before = vocoder(network(trained=False), "torch").mel_to_waveform(mel)
    distances = [
        (melvoc.MelSpectrogram(SPEC)(wave[:, 0]) - mel).abs().mean() for wave in (before, torch.zeros(1, 1, 8000))
    ]
    assert distances[0] < 0.15 * distances[1]
    rounds = network(trained=False).graph.nodes[0].nodes[1].nodes[0]  # type: ignore[attr-defined]
    torch.testing.assert_close(before, rounds(mel).clamp(-1, 1), atol=1e-5, rtol=0)


def test_more_rounds_are_closer_to_the_mel() -> None:
    mel = melvoc.MelSpectrogram(SPEC)(chord()[None])
    distances = []
    for rounds in (1, 4, 16):
        wave = GLNet(dataclasses.replace(CONFIG, rounds=rounds)).eval()(mel)
        distances.append(float((melvoc.MelSpectrogram(SPEC)(wave[:, 0].detach()) - mel).abs().mean()))
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("engine", ["auto", "torch"])
@settings(max_examples=10, deadline=None)
@given(frames=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_streams_are_exact(engine: str, frames: int, cuts: list[int]) -> None:
    voc = VOCODERS[engine]
    mel = melvoc.MelSpectrogram(SPEC)(chord()[None])[..., :frames]
    expected = NETWORK(mel).detach().clamp(-1, 1)
    with voc.stream(spec=SPEC) as stream:
        joined = torch.cat([*map(stream.push, pieces(mel, cuts)), stream.flush()], dim=-1)
    torch.testing.assert_close(joined, expected, atol=1e-4, rtol=0)


def test_the_contract() -> None:
    check_vocoder(VOCODERS["auto"])


def test_only_the_network_learns() -> None:
    net = network().train()
    mel = random_mel(VOCODERS["torch"], 12).requires_grad_()
    net(mel).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
    assert sum(float(weight.grad.abs().sum()) for weight in net.parameters() if weight.grad is not None) > 0


def test_only_the_size_that_was_measured_has_a_speed() -> None:
    assert ARCHITECTURE.speed(GLNetConfig()) == "medium"
    assert ARCHITECTURE.speed(dataclasses.replace(GLNetConfig(), dim=384)) is None


def test_it_is_stored_with_its_mel() -> None:
    again = melvoc.from_bytes(melvoc.to_bytes(VOCODERS["auto"]), device="cpu")
    mel = random_mel(again, 9)
    torch.testing.assert_close(
        again.mel_to_waveform(mel, spec=SPEC), VOCODERS["auto"].mel_to_waveform(mel, spec=SPEC), atol=1e-5, rtol=0
    )


def test_another_mel_is_refused() -> None:
    other = SPEC.replace(f_max=3000.0)
    with pytest.raises(SpecError, match=r"for another mel than its MelSpec says: f_max \(4000.0, 3000.0\); omit spec"):
        NeuralVocoder(network(), name="tiny", spec=other, architecture=ARCHITECTURE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mel": "{"}, "mel='{', but it is a MelSpec as JSON"),
        ({"mel": json.dumps(SPEC.to_dict() | {"n_mels": 0})}, "but it is a MelSpec as JSON: n_mels=0"),
        ({"n_mels": 21}, "n_mels=21, but its mel has 20 bands"),
        ({"rounds": 1000}, "rounds=1000, but at most 256"),
        ({"n_fft": 31}, "frames of 31 samples every 16"),
        ({"stft_hop_length": 24, "n_fft": 64}, "stft_hop_length=24, but it is a part of the mel's hop_length=64"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GLNetConfig.from_dict(CONFIG.to_dict() | changes)


def test_specs_without_a_generator() -> None:
    with pytest.raises(SpecError, match="hop_length=66, but GLNet corrects quarters of a hop"):
        sized(8, 2, SPEC.replace(hop_length=66))
    with pytest.raises(SpecError, match="frames of 256 samples every 160, but they are even"):
        sized(8, 2, SPEC.replace(hop_length=160))
