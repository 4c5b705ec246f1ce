"""Light augmentation for small datasets: gain, polarity and spectral tilt, none of which moves a pitch or an onset."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEPERS = math.log(10) / 20  # per decibel


def augment(wave: Tensor, generator: torch.Generator, *, gain_db: float, flip_polarity: bool, tilt_db: float) -> Tensor:
    """Change one segment at random; the same generator state gives the same change.

    The tilt is a first-order filter `y[n] = (x[n] + a x[n-1]) / (1 + |a|)`, whose gain differs by up to `tilt_db`
    between 0 Hz and Nyquist, in either direction; with |a| < 1 nothing gets louder, so nothing clips.

    Args:
        wave: `[N]`.
        generator: three numbers are drawn from it, whatever the settings.
        gain_db: maximum attenuation in dB.
        flip_polarity: whether to invert the polarity half of the time.
        tilt_db: maximum tilt in dB.

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
