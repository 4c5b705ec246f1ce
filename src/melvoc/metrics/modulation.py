"""The fluctuation of envelopes: a phasey tone wavers, a smeared noise is too smooth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_length
from melvoc.metrics.beating import envelopes, loudness_weights, smooth

SLOWEST, FASTEST = 20.0, 200.0  # Hz: what is heard as roughness


def modulation(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """By how many dB the envelopes of the bands fluctuate more or less, without sign, mean over bands.

    The fluctuation of a band is the root mean square of its envelope between 20 and 200 Hz, relative to that of its
    slow part. Bands count by their loudness in the recording.

    Raises:
        MelvocError: less than 0.2 s of sound, or silence.
    """
    check_length(reference, round(0.2 * sample_rate))
    theirs, power = _fluctuation(reference, sample_rate)
    mine, _ = _fluctuation(sound, sample_rate)
    if not float(power.max()) > 0:
        raise MelvocError("the recording is silent, and has no envelope to compare")
    differences = 20 * ((mine + 1e-6) / (theirs + 1e-6)).log10()
    return float(loudness_weights(power) @ differences.abs())


def _fluctuation(wave: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Relative fluctuation and power of each band, `[bins]`."""
    fast = slow = power = torch.zeros(())
    for magnitudes, rate in envelopes(wave, sample_rate):
        length = magnitudes.shape[1]
        spectrum = torch.fft.rfft(magnitudes - magnitudes.mean(1, keepdim=True))
        rates = torch.arange(spectrum.shape[1]) * (rate / length)
        spectrum[:, (rates < SLOWEST) | (rates > FASTEST)] = 0
        fast = fast + torch.fft.irfft(spectrum, length).square().sum(1)
        slow = slow + smooth(magnitudes, rate, 0.1).square().sum(1)
        power = power + magnitudes.square().sum(1)
    return (fast / (slow + 1e-9)).sqrt(), power


METRIC = Metric(
    name="modulation",
    title="envelope fluctuation (dB)",
    function=modulation,
    better="lower",
    low=0.0,
    high=math.inf,
    source="melvoc: docs/metrics.md, after the roughness of Zwicker and Fastl",
    deaf_to="what fluctuates, and when; slow changes; fine structure above 200 Hz",
)
