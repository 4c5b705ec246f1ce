"""Mel-cepstral distortion: the analysis against a spectrum it can express, and against pysptk where it is installed."""

from __future__ import annotations

import math

import pytest
import torch
from signals import noise, tone

from melvoc.errors import MelvocError
from melvoc.metrics.mcd import ALPHA, FRAME, FULL_SCALE, GAMMA, HOP, ORDER, RATE, mcd, mcd_parts, mel_cepstra


def test_white_noise_has_only_a_gain() -> None:
    cepstra = mel_cepstra(noise(RATE)).mean(0)
    gain = (1 + GAMMA * cepstra[0]) ** (1 / GAMMA)
    assert float(gain) == pytest.approx(0.1 * FULL_SCALE, rel=0.05)
    assert float(cepstra[1:].abs().max()) < 0.05


def test_it_is_the_minimum_of_the_criterion() -> None:
    """`mean(I / |H|^2) + log K^2`, written out: no neighbour has less."""
    wave = noise(FRAME) + tone(440, FRAME, rate=RATE)
    window = torch.signal.windows.blackman(FRAME, dtype=torch.float64)
    power = torch.fft.fft(wave.double() * FULL_SCALE * window / window.norm()).abs().square()
    delay = torch.exp(-2j * math.pi * torch.arange(FRAME, dtype=torch.float64) / FRAME)
    warped = ((delay - ALPHA) / (1 - ALPHA * delay))[:, None] ** torch.arange(ORDER + 1)

    def criterion(cepstra: torch.Tensor) -> float:
        spectrum = (1 + GAMMA * (warped @ cepstra.to(warped.dtype))) ** (1 / GAMMA)
        infinity = 1 + GAMMA * float(cepstra @ (-ALPHA) ** torch.arange(ORDER + 1, dtype=torch.float64))
        return float((power / spectrum.abs().square()).mean()) + 2 / GAMMA * math.log(infinity)

    found = mel_cepstra(wave)[0]
    least = criterion(found)
    for order in (0, 1, 7, ORDER):
        for step in (-1e-2, 1e-2):
            moved = found.clone()
            moved[order] += step
            assert criterion(moved) > least, order


def test_the_analysis_is_sptks() -> None:
    pysptk = pytest.importorskip("pysptk", reason="pysptk is not installed (it needs a compiler)")
    wave = noise(4 * FRAME) * torch.linspace(0.01, 1, 4 * FRAME) + tone(300, 4 * FRAME, rate=RATE)
    frames = (wave.double() * FULL_SCALE).unfold(0, FRAME, HOP).numpy() * pysptk.blackman(FRAME)
    expected = torch.from_numpy(pysptk.mgcep(frames, ORDER, ALPHA, GAMMA))
    torch.testing.assert_close(mel_cepstra(wave), expected, atol=2e-3, rtol=0)


def test_a_gain_moves_c0_alone_and_time_is_warped_away() -> None:
    """A gain g of white noise moves the generalised logarithm of its level, and that is c0."""
    level = [((0.1 * scale * FULL_SCALE) ** GAMMA - 1) / GAMMA for scale in (1.0, 0.5)]
    expected = 10 / math.log(10) * math.sqrt(2) * (level[0] - level[1])
    assert mcd(noise(RATE), 0.5 * noise(RATE), RATE) == pytest.approx(expected, rel=0.1)
    wave = torch.cat([tone(300, RATE // 2, rate=RATE), tone(2000, RATE // 2, rate=RATE)]) + noise(RATE, level=1e-3)
    assert mcd(wave, wave, RATE) == 0
    assert mcd(wave, wave.roll(8 * HOP), RATE) < 0.5 * mcd(wave, wave.flip(0), RATE)


def test_parts_of_a_set_are_sums_over_pairs_of_frames() -> None:
    total, count = mcd_parts(noise(RATE), noise(RATE, seed=2), RATE)
    assert count >= 1 + (RATE - FRAME) // HOP
    assert total > 0


def test_silence_and_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the recording or the sound is silent"):
        mcd(noise(RATE), torch.zeros(RATE), RATE)
    with pytest.raises(MelvocError, match="the sound has 1000 samples, but this figure needs at least 1024"):
        mcd(noise(1000), noise(1000), RATE)
