"""The fluctuation of envelopes: tones that waver, noises that are too smooth."""

from __future__ import annotations

import pytest
import torch
from signals import RATE, noise, smeared, tone

from melvoc.errors import MelvocError
from melvoc.metrics.modulation import modulation


def test_a_steady_tone_that_wavers_is_far_from_the_steady_one() -> None:
    steady = tone(1000) + noise(level=1e-4)
    wavering = steady * (1 + tone(70, level=0.3))
    phasey = smeared(steady, n_fft=512)
    assert modulation(steady, steady, RATE) == 0
    assert modulation(steady, wavering, RATE) > 10
    assert modulation(steady, phasey, RATE) > 10


def test_twice_the_depth_is_6_db() -> None:
    shallow, deep = (tone(1000) * (1 + tone(70, level=depth)) for depth in (0.1, 0.2))
    assert modulation(shallow, deep, RATE) == pytest.approx(6.02, abs=1)


def test_level_and_phase_are_not_heard_and_slow_changes_hardly() -> None:
    wave = noise()
    assert modulation(wave, -0.1 * wave, RATE) < 0.1
    assert modulation(wave, wave * torch.linspace(0.5, 1, len(wave)), RATE) < 0.2


def test_two_noises_fluctuate_alike() -> None:
    assert modulation(noise(), noise(seed=2), RATE) < 0.7


def test_silence_and_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the recording is silent, and has no envelope to compare"):
        modulation(torch.zeros(RATE), noise(RATE), RATE)
    with pytest.raises(MelvocError, match="the sound has 800 samples, but this figure needs at least 3200"):
        modulation(noise(800), noise(800), RATE)
