"""The difference in loudness, in LU."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_length

BLOCK = 0.4  # seconds; 75% overlap
ABSOLUTE = -70.0  # LUFS, below which a block does not count
RELATIVE = -10.0  # LU, below the mean of the blocks that count

# The two stages of K-weighting as (gain in dB, quality, frequency in Hz), from which the standard's coefficients at
# 48 kHz follow, and those at any other rate.
_SHELF = (3.999843853973347, 0.7071752369554196, 1681.974450955533)
_HIGH_PASS = (0.0, 0.5003270373238773, 38.13547087602444)


def integrated_loudness(wave: Tensor, sample_rate: int) -> float:
    """The loudness of a sound `[N]` in LUFS: ITU-R BS.1770-5, one channel. What lasts less than 0.4 s is one block.

    Raises:
        MelvocError: everything is below -70 LUFS, there is less than 20 ms, or the rate is below 3.4 kHz.
    """
    from scipy.signal import lfilter

    if sample_rate <= 2 * _SHELF[2]:
        raise MelvocError(f"BS.1770 has no loudness at {sample_rate} Hz: its filter's shelf is at {_SHELF[2]:.0f} Hz")
    check_length(wave, sample_rate // 50)
    samples = wave.double().numpy()
    for numerator, denominator in k_weighting(sample_rate):
        samples = lfilter(numerator, denominator, samples)
    size = min(len(samples), round(BLOCK * sample_rate))
    blocks = np.lib.stride_tricks.sliding_window_view(samples**2, size)[:: max(1, round(size / 4))].mean(-1)
    for threshold in (ABSOLUTE, None):
        level = _lufs(blocks.mean()) + RELATIVE if threshold is None else threshold
        blocks = blocks[_lufs(blocks) > level]
        if not len(blocks):
            raise MelvocError(f"the sound is below {ABSOLUTE:g} LUFS, where BS.1770 has no loudness for it")
    return float(_lufs(blocks.mean()))


def k_weighting(sample_rate: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Numerator and denominator of the two filters of K-weighting: a high shelf, then a high pass."""
    gain, quality, frequency = _SHELF
    k = math.tan(math.pi * frequency / sample_rate)
    high, band = 10 ** (gain / 20), 10 ** (gain / 20 * 0.4996667741545416)
    shelf = np.array([high + band * k / quality + k * k, 2 * (k * k - high), high - band * k / quality + k * k])
    filters = [(shelf / (1 + k / quality + k * k), _poles(k, quality))]
    _, quality, frequency = _HIGH_PASS
    k = math.tan(math.pi * frequency / sample_rate)
    return [*filters, (np.array([1.0, -2.0, 1.0]), _poles(k, quality))]


def _poles(k: float, quality: float) -> NDArray[np.float64]:
    whole = 1 + k / quality + k * k
    return np.array([1.0, 2 * (k * k - 1) / whole, (1 - k / quality + k * k) / whole])


def _lufs(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))


def loudness(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The sound's loudness minus the reference's, in LU.

    Raises:
        MelvocError: one of the two is below -70 LUFS, or shorter than 20 ms.
    """
    return integrated_loudness(sound, sample_rate) - integrated_loudness(reference, sample_rate)


METRIC = Metric(
    name="loudness",
    title="loudness difference (LU)",
    function=loudness,
    better="nearer 0",
    low=-math.inf,
    high=math.inf,
    source="ITU-R BS.1770-5",
    deaf_to="everything but the level",
)
