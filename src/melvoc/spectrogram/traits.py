"""The traits of a mel by which its likelihood is judged, measured against what its spec makes of white noise.

In nepers of amplitude (a factor of e, 8.7 dB) throughout, so that they mean the same in every spec and logarithm.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants, nepers_per_unit

_FRAMES = 512  # that are looked at, evenly spaced
_LEAST_PAIRS = 200  # neighbouring cells above silence that a grain is taken from
_NOT_SILENCE = 0.5  # nepers above a silent cell


@dataclass(frozen=True)
class Reference:
    """What a spec makes of white noise of RMS 1, of silence and of full-scale sines, in nepers of amplitude."""

    noise: Tensor  # [n_mels] mean
    grain: tuple[float, float]  # median difference of neighbours, lower and upper half of the bands
    silence: Tensor  # [n_mels]
    sine: float  # the loudest band of a full-scale sine


@dataclass(frozen=True)
class Traits:
    """What is known of a mel: `values`, `low` and `high` in its own unit, the rest in nepers of amplitude."""

    values: Tensor  # [n_mels, at most _FRAMES]
    count: int  # values in the whole mel
    low: float  # the least of all values
    high: float
    level: float  # log of the mean amplitude, relative to white noise of RMS 1
    spread: float  # deviation over all cells of the distance from the noise's level
    width: float  # the same over the cells above silence; NaN where there are too few
    grain: float  # relative to white noise's: the smaller half; NaN where too few cells are above silence


def traits(columns: Tensor, spec: MelSpec) -> Traits:
    """The properties of a mel `[n_mels, frames]`."""
    low, high = torch.stack(torch.aminmax(columns)).tolist()
    values = columns[:, :: -(-columns.shape[1] // _FRAMES)].float().cpu()
    natural = nepers(values, spec.log, spec)
    relative = natural - reference(spec).noise[:, None]
    sounding = relative[natural > reference(spec).silence[:, None] + _NOT_SILENCE]
    return Traits(
        values=values,
        count=columns.numel(),
        low=low,
        high=high,
        level=level_of(natural, spec),
        spread=float(relative.std()),
        width=float(sounding.std()) if sounding.numel() >= _LEAST_PAIRS else math.nan,
        grain=_grain(natural, float(nepers(torch.tensor(low, device="cpu"), spec.log, spec)), spec),
    )


def nepers(values: Tensor, log: str, spec: MelSpec) -> Tensor:
    """A mel in some logarithm in nepers of amplitude, but at least a hundred nepers below 1."""
    if log in ("log1p", "linear"):
        mel = values.expm1() if log == "log1p" else values
        return mel.clamp(min=1e-30).log() / spec.power
    return values * (nepers_per_unit(log, spec.power) / spec.power)


def neper(spec: MelSpec) -> float:
    """One neper of amplitude in the spec's logarithm (not for log1p)."""
    return spec.power if spec.log == "log1p" else spec.power / nepers_per_unit(spec.log, spec.power)


def level_of(natural: Tensor, spec: MelSpec) -> float:
    """The logarithm of the mean amplitude of all cells, each relative to its band's of white noise of RMS 1."""
    relative = (natural - reference(spec).noise[:, None]).double()
    return float(relative.flatten().logsumexp(0)) - math.log(relative.numel())


def _grain(natural: Tensor, least: float, spec: MelSpec) -> float:
    """The median difference of neighbouring bands relative to white noise's, of the half of the bands with less."""
    white, half = reference(spec), spec.n_mels // 2
    sounding = natural > (white.silence[:, None] + _NOT_SILENCE).clamp(min=least + 0.02)
    difference, both = natural.diff(dim=0).abs(), sounding[1:] & sounding[:-1]
    found = []
    for rows, noise in zip((slice(0, half), slice(half, None)), white.grain, strict=True):
        pairs = difference[rows][both[rows]]
        if pairs.numel() >= _LEAST_PAIRS and noise > 0:
            found.append(float(pairs.median()) / noise)
    return min(found, default=math.nan)


def quantiles(values: Tensor, *shares: float) -> list[float]:
    """The values that these shares of all values lie below."""
    flat = values.flatten().sort().values
    return [float(flat[round(share * (flat.numel() - 1))]) for share in shares]


def undone(known: Traits, log: str, spec: MelSpec) -> float:
    """The grain of a mel that is taken for one in another logarithm."""
    natural = nepers(known.values, log, spec)
    return _grain(natural, float(natural.min()), spec)


@functools.lru_cache(maxsize=256)
def range_of(log: str, spec: MelSpec) -> tuple[float, float, float]:
    """The least and the largest value in another logarithm, and by how much the spec's unit is larger than its.

    The factor is infinite for log1p and linear, which are no multiples of a logarithm.
    """
    floor, sine = math.log(spec.log_floor or 1e-10), spec.power * reference(spec).sine
    if log in ("log1p", "linear"):
        return 0.0, math.log1p(math.exp(sine)) if log == "log1p" else math.exp(sine), math.inf
    unit = nepers_per_unit(log, spec.power)
    factor = 1.0 if spec.log == "log1p" else unit / nepers_per_unit(spec.log, spec.power)
    return floor / unit, sine / unit, factor


@functools.lru_cache(maxsize=64)
def reference(spec: MelSpec) -> Reference:
    """Measured on up to 256 frames of Gaussian noise, always the same."""
    window, filters = constants(spec, torch.device("cpu"), torch.float32)
    frames, generator = max(1, min(256, 2**19 // spec.n_fft)), torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(frames, spec.n_fft, generator=generator, device="cpu", dtype=torch.float32) * window
    with torch.autocast("cpu", enabled=False):
        mel = filters @ torch.fft.rfft(noise).abs().pow(spec.power).T
    natural = mel.clamp(min=1e-30).log() / spec.power
    difference, half = natural.diff(dim=0).abs(), spec.n_mels // 2
    halves = [part.flatten() for part in (difference[:half], difference[half:])]
    grain = [float(part.median()) if part.numel() else 0.0 for part in halves]
    silence = (filters.sum(1) * spec.magnitude_eps ** (spec.power / 2)).clamp(min=spec.log_floor or 1e-30)
    # A Hann window spreads a sine over three bins: 1/2, 1 and 1/2 of half the window's sum.
    gathered = math.log(2.0 if spec.power == 1.0 else 1.5) + spec.power * math.log(float(window.double().sum()) / 2)
    return Reference(
        noise=natural.mean(1),
        grain=(grain[0], grain[1]),
        silence=silence.log() / spec.power,
        sine=(math.log(float(filters.max())) + gathered) / spec.power,
    )
