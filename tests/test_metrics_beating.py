"""Beating at the frame rate: noises and tones that fluctuate with the frames, and such that do not."""

from __future__ import annotations

import math

import pytest
import torch
from signals import RATE, noise, tone
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics.beating import beating, beating_at

HOP = 256
FRAMES = RATE / HOP


def beaten(wave: Tensor, depth: float, rate: float = FRAMES) -> Tensor:
    return wave * (1 + tone(rate, len(wave), level=depth))


def test_white_noise_that_beats_with_the_frames_is_told_from_one_that_does_not() -> None:
    real, other = noise(4 * RATE), noise(4 * RATE, seed=2)
    assert beating_at(real, real, RATE, FRAMES) == 0
    assert beating_at(real, other, RATE, FRAMES) < 2
    assert beating_at(real, beaten(other, 0.1), RATE, FRAMES) > 3
    assert beating_at(real, beaten(other, 0.3), RATE, FRAMES) > 10


@pytest.mark.parametrize("kind", ["amplitude", "phase"])
def test_a_steady_tone_whose_amplitude_or_phase_goes_with_the_frames(kind: str) -> None:
    steady, hiss = tone(1000), noise(level=1e-3)
    swing = tone(FRAMES, level=0.2)
    phase = 2 * math.pi * 1000 / RATE * torch.arange(len(steady))
    sound = steady * (1 + swing) if kind == "amplitude" else 0.5 * torch.sin(phase + swing)
    assert beating_at(steady + hiss, sound + hiss, RATE, FRAMES) > 10


def test_fluctuation_at_another_rate_or_of_the_recording_itself_is_none() -> None:
    real, other = noise(4 * RATE), noise(4 * RATE, seed=2)
    assert beating_at(real, beaten(other, 0.3, rate=101.3), RATE, FRAMES) < 2
    assert beating_at(beaten(real, 0.3), beaten(other, 0.3), RATE, FRAMES) < 2


def test_without_the_frame_rate_the_usual_hops_are_tried() -> None:
    real, other = noise(4 * RATE), noise(4 * RATE, seed=2)
    assert beating(real, other, RATE) < 4
    for hop in (128, 300, 512):
        assert beating(real, beaten(other, 0.3, rate=RATE / hop), RATE) > 8


def test_long_sounds_are_looked_at_in_parts_of_one_length() -> None:
    real, other = noise(25 * RATE), noise(25 * RATE, seed=2)
    assert beating_at(real, other, RATE, FRAMES) < 2
    assert beating_at(real, beaten(other, 0.1), RATE, FRAMES) > 5


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 6400 samples, but this figure needs at least 10240"):
        beating_at(noise(6400), noise(6400), RATE, FRAMES)
    with pytest.raises(MelvocError, match="the sound has 10000 samples, but this figure needs at least 76800"):
        beating(torch.ones(10000), torch.ones(10000), 192_000)  # the hops of which there are enough are too short
    with pytest.raises(MelvocError, match="the sound has 3000 samples, but this figure needs at least 5120"):
        beating(noise(3000), noise(3000), RATE)


def test_frames_that_are_too_fast_for_an_envelope() -> None:
    wave = noise(RATE)
    with pytest.raises(MelvocError, match="400 frames a second are too many for this figure, which sees up to 250"):
        beating_at(wave, wave, RATE, 400.0)
    long = noise(48000)
    assert beating(long, long, 96000) == 0  # of whose usual hops some are too fast
