"""The log-mel L1 distance in the common mel."""

from __future__ import annotations

import math

import pytest
import torch
from signals import noise

from melvoc import MelSpectrogram
from melvoc.errors import MelvocError
from melvoc.metrics.mel_l1 import common_spec, mel_l1


@pytest.mark.parametrize(("rate", "n_fft"), [(16000, 1024), (22050, 1024), (44100, 2048), (48000, 2048)])
def test_the_common_mel_has_windows_of_about_46_ms(rate: int, n_fft: int) -> None:
    spec = common_spec(rate)
    assert (spec.n_fft, spec.hop_length, spec.n_mels, spec.f_max) == (n_fft, n_fft // 4, 128, rate / 2)


@pytest.mark.parametrize("rate", [1000, 1900, 2000, 3850, 4000, 8000, 88200, 96000, 192000, 384000])
def test_there_is_a_common_mel_at_every_rate_of_sound(rate: int) -> None:
    bands = common_spec(rate).n_mels
    assert bands == 128 if rate >= 4000 else 32 <= bands < 128


def test_it_is_the_mean_difference_of_melvocs_mels_in_nepers() -> None:
    real, sound = noise(), noise(seed=2)
    mel = MelSpectrogram(common_spec(16000))
    assert mel_l1(real, sound, 16000) == pytest.approx(float((mel(real) - mel(sound)).abs().mean()))
    assert mel_l1(real, real, 16000) == 0


def test_a_tenfold_sound_is_ln_10_away() -> None:
    assert mel_l1(noise(rate := 16000), 10 * noise(rate), rate) == pytest.approx(math.log(10), abs=0.05)


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 100 samples, but this figure needs at least 1024"):
        mel_l1(torch.zeros(100), torch.zeros(100), 16000)
