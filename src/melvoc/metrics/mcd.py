"""Mel-cepstral distortion, after dynamic time warping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.metrics import Metric, check_length, check_sounding

RATE = 22050
FRAME, HOP = 1024, 256
ORDER, ALPHA, STAGES = 25, 0.41, 5
GAMMA = -1 / STAGES
MOST_STEPS, MOST_HALVINGS = 40, 12  # of Newton's method
CLOSE = 1e-9  # the Newton decrement, squared, at which it ends
FULL_SCALE = 32768.0  # the analysis is not linear: it is of samples as 16-bit files have them
QUIET = 1e-3  # power in a bin, of such samples, that digital silence is given
LONGEST = 4096  # frames that are warped at once, 48 s
DECIBELS = 10 / math.log(10) * math.sqrt(2)


def mel_cepstra(wave: Tensor) -> Tensor:
    """Mel-generalised cepstra (Tokuda et al. 1994): the c that make the spectrum `H = (1 + g sum_m c_m z_m)^(1/g)`.

    `z_m` is a delay of m samples on a frequency scale warped by an all-pass filter, and g is -1/5. They minimise
    `mean(I / |H|^2) + log K^2`, with I the periodogram of a frame and K the gain of H; it is convex.

    Args:
        wave: `[N]` at 22.05 kHz, N at least 1024.

    Returns:
        `[T, 26]` float64, T frames of 1024 samples, 256 apart.
    """
    window = torch.blackman_window(FRAME, periodic=False, dtype=torch.float64)
    frames = (wave.double() * FULL_SCALE).unfold(0, FRAME, HOP) * (window / window.norm())
    power = (torch.fft.rfft(frames).abs().square() + QUIET) * (2 / FRAME)  # so that a sum is the mean over the circle
    power[:, [0, -1]] /= 2
    cepstra = torch.zeros(len(frames), ORDER + 1, dtype=torch.float64)
    cepstra[:, 0] = (power.sum(1) ** (GAMMA / 2) - 1) / GAMMA  # a flat spectrum
    for _ in range(MOST_STEPS):
        slope, curve = _derivatives(power, cepstra)
        step = torch.from_numpy(np.linalg.solve(curve.numpy(), slope.numpy()[..., None]))[..., 0]
        decrement = (step * slope).sum(1)
        if float(decrement.max()) < CLOSE:
            break
        cepstra = cepstra - step * _share(power, cepstra, step, decrement)[:, None]
    return cepstra


def _share(power: Tensor, cepstra: Tensor, step: Tensor, decrement: Tensor) -> Tensor:
    """The largest of 1, 1/2, 1/4, ... of Newton's step by which what is minimised really falls, `[T]`."""
    share, before = torch.ones_like(decrement), _objective(power, cepstra)
    for _ in range(MOST_HALVINGS):
        after = _objective(power, cepstra - share[:, None] * step)
        falls = after <= before - 1e-4 * share * decrement + 1e-9 * before.abs()
        if falls.all():
            break
        share = share.where(falls, share / 2)
    return share


def _objective(power: Tensor, cepstra: Tensor) -> Tensor:
    """`sum(I |A|^10) + 2 / g log A(infinity)` of each frame, A = 1 + g C; infinite unless A(infinity) is positive."""
    cosines, sines, infinity = _basis()
    size = (1 + GAMMA * cepstra @ cosines[:, : ORDER + 1].T).square()
    size += (GAMMA * cepstra @ sines[:, : ORDER + 1].T).square()
    gain = 1 + GAMMA * cepstra @ infinity
    value = (power * size**STAGES).sum(1) + 2 / GAMMA * gain.clamp(min=1e-300).log()
    return value.where(gain > 0, math.inf)


def _derivatives(power: Tensor, cepstra: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient `[T, 26]` and Hessian `[T, 26, 26]` of `_objective`.

    The products of cosines in them are cosines of sums and differences of orders, so that the Hessian needs two rows of
    numbers only.
    """
    cosines, sines, infinity = _basis()
    order = torch.arange(ORDER + 1)
    real = 1 + GAMMA * cepstra @ cosines[:, : ORDER + 1].T
    imag = -GAMMA * cepstra @ sines[:, : ORDER + 1].T
    size = real.square() + imag.square()
    weight = power * size ** (STAGES - 1)
    gain = (1 + GAMMA * cepstra @ infinity)[:, None]
    slope = 2 * infinity / gain - 2 * ((weight * real) @ cosines - (weight * imag) @ sines)[:, : ORDER + 1]
    differences = STAGES * weight @ cosines
    turned = (STAGES - 1) * weight / size
    sums = (turned * (real.square() - imag.square())) @ cosines - 2 * (turned * real * imag) @ sines
    outer = torch.outer(infinity, infinity) / gain.square()[:, None]
    together = differences[:, (order[:, None] - order).abs()] + sums[:, order[:, None] + order] + outer
    return slope, -2 * GAMMA * together


@lru_cache(maxsize=1)
def _basis() -> tuple[Tensor, Tensor, Tensor]:
    """Cosines and sines `[513, 51]` of the multiples of the warped frequencies, and the `z_m` at infinity."""
    angle = torch.arange(FRAME // 2 + 1, dtype=torch.float64) * (2 * math.pi / FRAME)
    warped = angle + 2 * torch.atan(ALPHA * angle.sin() / (1 - ALPHA * angle.cos()))
    multiples = warped[:, None] * torch.arange(2 * ORDER + 1)
    return multiples.cos(), multiples.sin(), (-ALPHA) ** torch.arange(ORDER + 1, dtype=torch.float64)


def mcd_parts(reference: Tensor, sound: Tensor, sample_rate: int) -> tuple[float, float]:
    """The sum of the distances of warped frames, and the number of their pairs.

    Raises:
        MelvocError: silence, or less than 46 ms.
    """
    from librosa.sequence import dtw

    check_sounding(reference, sound)
    waves = [resample(wave, sample_rate, RATE) for wave in (reference, sound)]
    check_length(waves[0], FRAME)
    total, count = 0.0, 0
    for theirs, mine in zip(*(mel_cepstra(wave).split(LONGEST) for wave in waves), strict=True):
        path = torch.from_numpy(dtw(theirs.T.numpy(), mine.T.numpy(), metric="euclidean")[1].copy())
        total += float((theirs[path[:, 0]] - mine[path[:, 1]]).norm(dim=1).sum())
        count += len(path)
    return total, float(count)


def distortion(parts: Sequence[tuple[float, ...]]) -> float:
    """The distortion in dB of the parts of one or several files."""
    return DECIBELS * sum(total for total, _ in parts) / sum(count for _, count in parts)


def mcd(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The distortion in dB, the gain included, after dynamic time warping.

    Raises:
        MelvocError: as `mcd_parts`.
    """
    return distortion([mcd_parts(reference, sound, sample_rate)])


METRIC = Metric(
    name="mcd",
    title="mel-cepstral distortion (dB)",
    function=mcd,
    better="lower",
    low=0.0,
    high=math.inf,
    source="Kubichek 1993, of Tokuda et al. 1994's cepstra, as sony/bigvsan_eval computes it",
    deaf_to="phase, pitch and fine structure: it hears the envelope of the spectrum",
    speech=True,
)
