"""PhaseAug: phases turn, magnitudes stay, and gradients pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from training import noise

from melvoc.train.augment import N_FFT, rotated, rotations


def drawn(share: float = 1.0, seed: int = 0) -> Tensor:
    return rotations(share, torch.Generator().manual_seed(seed))[None]


def test_no_rotation_is_the_sound_itself() -> None:
    wave = noise(4000)[None, None]
    assert not drawn(0.0).any()
    torch.testing.assert_close(rotated(wave, drawn(0.0)), wave, atol=1e-6, rtol=0)


def test_one_delay_for_all_bins_delays() -> None:
    """To Nyquist exclusive: half a turn there has no sign."""
    tone = torch.sin(2 * math.pi * 0.05 * torch.arange(4096))[None, None]
    phases = 3.0 * torch.arange(N_FFT // 2 + 1)[None] * (2 * math.pi / N_FFT)
    found = rotated(tone, phases)[..., 1024:-1024]
    torch.testing.assert_close(found, tone[..., 1021:-1027], atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_magnitudes_are_kept_while_the_wave_changes(seed: int) -> None:
    time = torch.arange(8192)
    tones = sum(torch.sin(2 * math.pi * rate * time + index) for index, rate in enumerate((0.011, 0.05, 0.13, 0.27)))
    wave = 0.2 * torch.as_tensor(tones)[None, None]
    changed = rotated(wave, drawn(seed=seed))
    window = torch.hann_window(N_FFT)
    before, after = (
        torch.stft(x[0, 0, 1024:-1024], N_FFT, 256, window=window, center=False, return_complex=True).abs()
        for x in (wave, changed)
    )
    assert float((before - after).norm() / before.norm()) < 0.1
    assert float((changed - wave).norm() / wave.norm()) > 0.1


def test_neighbouring_bins_stay_together_and_0_hz_stays() -> None:
    phases = torch.cat([drawn(seed=seed) for seed in range(50)])
    assert not phases[:, 0].any()
    delays = phases[:, 1:] / (torch.arange(1, N_FFT // 2 + 1) * (2 * math.pi / N_FFT))
    inside = delays[:, 64:-64]
    assert 1.0 < float(inside.std()) < 2.0
    assert float((inside[:, 1:] - inside[:, :-1]).std()) < 0.3 * float(inside.std())
    torch.testing.assert_close(drawn(0.5), 0.5 * drawn())


def test_the_delays_are_as_far_apart_as_the_published_ones() -> None:
    """The published filter over bins: a windowed sinc with a cutoff of 0.05 of the bins' rate, of sum 1, under which a
    bin's own delay of variance 6 becomes one of 0.765 samples (standard deviation)."""
    drawn = [rotations(1.0, torch.Generator().manual_seed(seed)) for seed in range(300)]
    bins = torch.arange(1, N_FFT // 2 + 1)
    delays = torch.stack(drawn)[:, 1:] / (bins * (2 * math.pi / N_FFT))
    inner = delays[:, 100:400]
    assert float((inner - inner.mean(1, keepdim=True)).std()) == pytest.approx(0.765, rel=0.05)
    single = delays[:, 200] - delays.mean(1)
    neighbour = delays[:, 205] - delays.mean(1)
    assert float((single * neighbour).mean() / single.square().mean()) == pytest.approx(
        float(torch.sinc(torch.tensor(0.5))), abs=0.15
    ), "bins five apart share as much as under that filter"


def test_gradients_are_finite_differences() -> None:
    wave = noise(2000).double()[None, None].requires_grad_()
    phases, direction = drawn().double(), noise(2000, seed=5).double()[None, None]

    def loss(x: Tensor) -> Tensor:
        return rotated(x, phases).pow(3).sum()

    (gradient,) = torch.autograd.grad(loss(wave), wave)
    with torch.no_grad():
        difference = (loss(wave + 1e-6 * direction) - loss(wave - 1e-6 * direction)) / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)
