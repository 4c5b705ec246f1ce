"""Loudness against the standard's own numbers, and against pyloudnorm."""

from __future__ import annotations

import pytest
import torch
from signals import noise, tone

from melvoc.errors import MelvocError
from melvoc.metrics.loudness import integrated_loudness, k_weighting, loudness


def test_k_weighting_has_the_standards_coefficients_at_48_khz() -> None:
    (shelf, shelf_poles), (passed, pass_poles) = k_weighting(48000)  # ITU-R BS.1770, tables 1 and 2
    assert shelf == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-10)
    assert shelf_poles == pytest.approx([1, -1.69065929318241, 0.73248077421585], abs=1e-10)
    assert passed == pytest.approx([1, -2, 1])
    assert pass_poles == pytest.approx([1, -1.99004745483398, 0.99007225036621], abs=1e-10)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_a_full_scale_sine_in_one_channel_is_at_minus_3_01_lufs(rate: int) -> None:
    wave = tone(997, 2 * rate, rate=rate, level=1.0)
    assert integrated_loudness(wave, rate) == pytest.approx(-3.01, abs=0.05)  # BS.1770, annex 1


def test_silence_between_does_not_count() -> None:
    wave = tone(997, 3 * 48000, rate=48000)
    pause = torch.cat([wave, torch.zeros(48000 * 3), wave])
    assert integrated_loudness(pause, 48000) == pytest.approx(integrated_loudness(wave, 48000), abs=0.5)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_it_is_pyloudnorms(rate: int) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    wave = noise(3 * rate) * torch.linspace(0, 1, 3 * rate) ** 4
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")  # whose coefficients are the standard's
    assert integrated_loudness(wave, rate) == pytest.approx(meter.integrated_loudness(wave.double().numpy()), abs=0.02)


def test_a_gain_is_its_own_difference() -> None:
    assert loudness(noise(), 2 * noise(), 16000) == pytest.approx(6.0206, abs=1e-3)
    assert loudness(noise(1600), 0.5 * noise(1600), 16000) == pytest.approx(-6.0206, abs=1e-3)  # less than one block


def test_silence_has_no_loudness() -> None:
    with pytest.raises(MelvocError, match="the sound is below -70 LUFS, where BS.1770 has no loudness for it"):
        loudness(noise(), torch.zeros(32000), 16000)


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 300 samples, but this figure needs at least 320"):
        loudness(noise(300), noise(300), 16000)


def test_a_rate_below_the_filters_shelf() -> None:
    with pytest.raises(MelvocError, match="no loudness at 3000 Hz: its filter's shelf is at 1682 Hz"):
        loudness(noise(), noise(), 3000)
    assert abs(loudness(noise(), noise(seed=2), 4000)) < 0.5
