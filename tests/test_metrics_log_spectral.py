"""The log-spectral distance on signals whose distance is known."""

from __future__ import annotations

import pytest
import torch
from signals import noise, tone

from melvoc.errors import MelvocError
from melvoc.metrics.log_spectral import log_spectral


def test_a_gain_is_its_own_distance() -> None:
    assert log_spectral(noise(), 2 * noise(), 16000) == pytest.approx(6.0206, abs=1e-3)
    assert log_spectral(noise(), noise(), 16000) == 0


def test_what_is_below_the_floor_does_not_count() -> None:
    assert log_spectral(torch.zeros(16000), noise(16000, level=3e-6), 16000) == 0


def test_two_noises_are_about_8_db_apart() -> None:
    """Levels of independent bins of noise are log-exponential, of 5.57 dB standard deviation: sqrt(2) as much."""
    assert log_spectral(noise(), noise(seed=2), 16000) == pytest.approx(7.88, abs=0.2)


def test_the_phase_is_not_heard() -> None:
    assert log_spectral(tone(1000), -tone(1000), 16000) == pytest.approx(0, abs=1e-4)


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 100 samples, but this figure needs at least 1024"):
        log_spectral(torch.zeros(100), torch.zeros(100), 16000)
