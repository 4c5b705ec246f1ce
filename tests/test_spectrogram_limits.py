"""The limits of a mel: what silence gives, and what no sound exceeds but a loud one nearly reaches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_spectrogram_spec import specs
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.traits import neper
from melvoc.spectrogram.transform import constants, magnitudes, mel_filters, to_log

SPECS = list(dict.fromkeys(MelSpec.preset(name) for name in PRESETS))
BASE: dict[str, Any] = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80}
OTHERS = [
    MelSpec(**BASE, norm=None),  # whose silence lies above the floor, for the eps under the root
    MelSpec(**BASE, norm=None, power=2, log="db", magnitude_eps=1e-3),
    MelSpec(**BASE, log="log1p"),
    MelSpec(**BASE, win_length=400, mel_scale="htk", f_min=60, f_max=7600, log="log10", power=2),
]


def names(spec: MelSpec) -> str:
    return f"{spec.sample_rate}-{spec.n_fft}-{spec.n_mels}-{spec.log}-{spec.power:g}"


@pytest.mark.parametrize("spec", SPECS + OTHERS, ids=names)
def test_the_least_is_silence(spec: MelSpec) -> None:
    mel = MelSpectrogram(spec)(torch.zeros(4 * spec.n_fft, dtype=torch.float64))
    assert float(mel.min()) == pytest.approx(spec.limits[0], abs=1e-5)


@pytest.mark.parametrize("spec", SPECS + OTHERS, ids=names)
def test_no_sound_exceeds_the_greatest_and_the_loudest_comes_close(spec: MelSpec) -> None:
    """The loudest: from a tone in the middle of each band, the signs of the gradient, which is steepest ascent."""
    filters, window = mel_filters(spec).double(), constants(spec, torch.device("cpu"), torch.float64)[0]
    centres = (filters * torch.arange(spec.n_bins)).sum(1) / filters.sum(1)
    wave = torch.cos(2 * math.pi / spec.n_fft * centres[:, None] * torch.arange(spec.n_fft)).add(1e-9).sign()
    wave = wave[:: max(1, spec.n_mels // 16)]
    rows = filters[:: max(1, spec.n_mels // 16)]
    for _ in range(12):
        wave = wave.detach().requires_grad_()
        mel = (rows * (torch.fft.rfft(wave * window).abs() + 1e-12) ** spec.power).sum(1)
        (slope,) = torch.autograd.grad(mel.sum(), wave)
        wave = slope.sign()
    loudest = float(to_log((magnitudes(wave.detach(), spec)[:, 0] @ filters.T).max(), spec))
    low, high = spec.limits
    assert low < loudest <= high + 1e-6
    assert high - loudest < 0.345 * neper(spec) or spec in OTHERS  # under a short window no band is by itself


@settings(max_examples=60, deadline=None)
@given(specs(), st.sampled_from(["noise", "square", "one", "alternating", "silence"]), st.integers(1, 400))
def test_the_mel_of_any_sound_is_within(spec: MelSpec, kind: str, period: int) -> None:
    count = min(4 * spec.n_fft, 3000) + spec.n_fft
    time = torch.arange(count)
    wave: Tensor = {
        "noise": torch.rand(count, generator=torch.Generator().manual_seed(period)).sub(0.5).sign(),
        "square": ((time // period) % 2) * 2.0 - 1,
        "one": torch.ones(count),
        "alternating": (time % 2) * 2.0 - 1,
        "silence": torch.zeros(count),
    }[kind]
    mel = MelSpectrogram(spec)(wave.double())
    low, high = spec.limits
    assert low - 1e-4 * neper(spec) <= float(mel.min())
    assert float(mel.max()) <= high + 1e-4 * neper(spec)
    torch.testing.assert_close(spec.clamp(mel), mel, atol=1e-4 * neper(spec), rtol=0)


def test_the_limits_in_figures() -> None:
    assert MelSpec.preset("bigvgan_v2_44khz_128band_512x").limits == pytest.approx((math.log(1e-5), 3.436), abs=1e-3)
    assert MelSpec.preset("distill_v1_48khz_128band").limits == pytest.approx((0.0, 13.576), abs=1e-3)
    assert MelSpec.preset("librosa_22khz_128band_db").limits[0] == -100.0


def test_clamping() -> None:
    spec = MelSpec(**BASE)
    low, high = spec.limits
    mel = torch.tensor([[-1e9, low - 1, -5.0, high, high + 40]], requires_grad=True)
    clamped = spec.clamp(mel)
    torch.testing.assert_close(clamped, torch.tensor([[low, low, -5.0, high, high]]))
    clamped.sum().backward()
    assert mel.grad is not None
    assert mel.grad[0].tolist()[0::4] == [0.0, 0.0]
    assert mel.grad[0, 2] == 1.0
    assert spec.clamp(np.full((2, 80, 3), 9.0)).shape == (2, 80, 3)
    with pytest.raises(SpecError, match="the mel is a list, but it is a torch.Tensor"):
        spec.clamp([9.0])  # type: ignore[arg-type]
