"""Light augmentation for small sets: gain, polarity and spectral tilt, none of which moves a pitch or an onset."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEPERS = math.log(10) / 20  # a decibel


def augment(wave: Tensor, generator: torch.Generator, *, gain_db: float, flip_polarity: bool, tilt_db: float) -> Tensor:
    """One segment, changed at random; the same state of the generator gives the same change.

    The tilt is a first-order filter `y[n] = (x[n] + a x[n-1]) / (1 + |a|)`, whose gain differs by up to `tilt_db`
    between 0 Hz and Nyquist, either way; with |a| < 1 nothing gets louder, so that nothing clips.

    Args:
        wave: `[N]`.
        generator: draws three numbers, whatever the settings.
        gain_db: quieter by up to so many dB.
        flip_polarity: upside down, every second time.
        tilt_db: largest tilt.

    Returns:
        `[N]`.
    """
    amount, sign, tilt = torch.rand(3, generator=generator).tolist()
    gain = math.exp(-amount * gain_db * _NEPERS)
    if flip_polarity and sign < 0.5:
        gain = -gain
    slope = math.exp((2 * tilt - 1) * tilt_db * _NEPERS)  # gain at 0 Hz over gain at Nyquist: (1 + a) / (1 - a)
    a = (slope - 1) / (slope + 1)
    if math.isclose(a, 0.0):
        return wave * gain
    before = torch.cat([wave[:1], wave[:-1]])
    return (wave + a * before) * (gain / (1 + abs(a)))
