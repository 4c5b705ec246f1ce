"""Onset sharpness: a known pre-echo, and a click train that is smeared."""

from __future__ import annotations

import pytest
import torch
from signals import RATE, bursts, noise, smeared, tone

from melvoc.errors import MelvocError
from melvoc.metrics.onset import onset


@pytest.mark.parametrize("leak", [0.02, 0.05, 0.1])
def test_a_known_leak_before_the_onsets(leak: float) -> None:
    """From 0.01 before to 0.3 after it is 29.5 dB; with `leak` before, so much less."""
    expected = 20 * torch.tensor(0.01 / leak).log10().item()
    assert onset(bursts(0.01, 0.3), bursts(leak, 0.3), RATE) == pytest.approx(expected, abs=1.5)


def test_a_click_train_with_random_phases_is_smeared_and_the_train_itself_is_not() -> None:
    clicks = noise(level=1e-3)
    clicks[RATE // 8 :: RATE // 4] = 0.9
    assert onset(clicks, clicks, RATE) == 0
    assert onset(clicks, smeared(clicks), RATE) < -15
    assert onset(clicks, smeared(clicks, n_fft=128), RATE) > onset(clicks, smeared(clicks), RATE) + 10


def test_an_onset_that_is_sharper_than_the_recordings_is_positive() -> None:
    assert onset(bursts(0.05, 0.3), bursts(0.01, 0.3), RATE) > 5


@pytest.mark.parametrize("wave", [tone(440), noise(), torch.zeros(RATE)])
def test_without_an_onset_there_is_no_figure(wave: torch.Tensor) -> None:
    with pytest.raises(MelvocError, match="no onset: the recording nowhere rises by 10 dB within 20 ms"):
        onset(wave, wave, RATE)


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 600 samples, but this figure needs at least 641"):
        onset(noise(600), noise(600), RATE)
