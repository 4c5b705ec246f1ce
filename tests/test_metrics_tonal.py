"""Tonal artefacts: lines of a known height at multiples of the frame rate, and lines elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from signals import RATE, noise, tone
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics.tonal import FRAMES, tonal, tonal_at

HOP = 256
SIZE = FRAMES * HOP


def comb(height: float, offset: float = 0.0, level: float = 0.1) -> Tensor:
    """Lines at all multiples (plus an offset) that stand `height` times above the noise of this level."""
    window = torch.hann_window(SIZE)
    amplitude = 2 * level * math.sqrt(height * float(window.square().sum())) / float(window.sum())
    count = int(RATE / 2 / (RATE / HOP))
    return torch.stack([tone(k * RATE / HOP + offset, level=amplitude) for k in range(1, count)]).sum(0)


@pytest.mark.parametrize("height", [3.0, 10.0, 100.0])
def test_lines_of_a_known_height(height: float) -> None:
    real, other = noise(), noise(seed=2)
    found = tonal_at(real, other + comb(height), RATE, RATE / HOP)
    assert found == pytest.approx(10 * math.log10(1 + height), abs=1.0)


def test_noise_alone_has_none_nor_have_lines_between_the_multiples() -> None:
    real, other = noise(), noise(seed=2)
    assert tonal_at(real, other, RATE, RATE / HOP) < 0.3
    assert tonal_at(real, other + comb(10, offset=RATE / HOP / 2), RATE, RATE / HOP) < 0.5


def test_lines_that_the_recording_has_are_none() -> None:
    real, other = noise() + comb(100), noise(seed=2) + comb(100)
    assert tonal_at(real, other, RATE, RATE / HOP) < 0.3


def test_the_edge_of_a_band_is_no_line() -> None:
    spectrum = torch.fft.rfft(noise())
    spectrum[len(spectrum) // 2 :] = 0  # at 4 kHz, which is a multiple
    assert tonal_at(noise(seed=2), torch.fft.irfft(spectrum), RATE, RATE / HOP) < 0.5


def test_without_the_frame_rate_the_usual_hops_are_tried() -> None:
    real, other = noise(4 * RATE), noise(4 * RATE, seed=2)
    assert tonal(real, other, RATE) < 1
    assert tonal(real, other + comb(10).repeat(2), RATE) > 9


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 8000 samples, but this figure needs at least 12288"):
        tonal_at(noise(8000), noise(8000), RATE, RATE / HOP)
    with pytest.raises(MelvocError, match="the sound has 3000 samples, but this figure needs at least 6144"):
        tonal(noise(3000), noise(3000), RATE)


def test_frames_of_a_few_samples_have_no_multiples() -> None:
    with pytest.raises(MelvocError, match="8000 frames a second have no multiples below 8000 Hz"):
        tonal_at(noise(), noise(), RATE, 8000.0)
