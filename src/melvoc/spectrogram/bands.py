"""The corners of mel bands, in plain arithmetic: the filter bank and the check for empty bands share them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

_SLANEY_STEP = math.log(6.4) / 27.0  # 27 mels take the frequency from 1 kHz to 6.4 kHz
_ON_A_CORNER = 1e-9  # a bin this close to a corner, in bins, is on it: its weight is 0 up to rounding


@lru_cache(maxsize=256)
def band_edges(*, n_mels: int, f_min: float, f_max: float, mel_scale: str) -> tuple[float, ...]:
    """The `n_mels + 2` corners of the triangles in Hz, evenly spaced on the mel scale.

    Band b rises from corner b to corner b + 1 and falls to corner b + 2.

    Args:
        n_mels: bands.
        f_min: the first corner, in Hz.
        f_max: the last corner, in Hz.
        mel_scale: "htk" (the HTK Book: `2595 log10(1 + f / 700)`) or "slaney" (Auditory Toolbox, 1998).
    """
    to_mel, to_hz = (_hz_to_htk, _htk_to_hz) if mel_scale == "htk" else (_hz_to_slaney, _slaney_to_hz)
    low, high = to_mel(f_min), to_mel(f_max)
    step = (high - low) / (n_mels + 1)
    inner = (to_hz(low + step * corner) for corner in range(1, n_mels + 1))
    return (f_min, *inner, f_max)


def empty_band(edges: Sequence[float], *, sample_rate: int, n_fft: int) -> str | None:
    """What is wrong with the first band that has no FFT bin inside its triangle, or None if every band has one.

    Such a band would be silent whatever the sound.
    """
    spacing = sample_rate / n_fft
    for band in range(len(edges) - 2):
        low, high = edges[band] / spacing, edges[band + 2] / spacing
        first = math.floor(low + _ON_A_CORNER) + 1
        if first >= high - _ON_A_CORNER:
            return (
                f"mel band {band} ({edges[band]:.1f} to {edges[band + 2]:.1f} Hz) is empty, because the bins of "
                f"n_fft={n_fft} are {spacing:.1f} Hz apart"
            )
    return None


def _hz_to_htk(frequency: float) -> float:
    return 2595.0 * math.log10(1.0 + frequency / 700.0)


def _htk_to_hz(mel: float) -> float:
    return float(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


def _hz_to_slaney(frequency: float) -> float:
    return frequency * 3.0 / 200.0 if frequency < 1000.0 else 15.0 + math.log(frequency / 1000.0) / _SLANEY_STEP


def _slaney_to_hz(mel: float) -> float:
    return mel * 200.0 / 3.0 if mel < 15.0 else 1000.0 * math.exp(_SLANEY_STEP * (mel - 15.0))
