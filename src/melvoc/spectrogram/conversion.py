"""From a mel back to spectra, and from one spec's mel to another's.

A mel has fewer bands than the spectrum has bins, so what comes back is one of many non-negative spectra with
that mel: the one that a smooth start leads to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melvoc.errors import SpecError
from melvoc.host import public
from melvoc.spectrogram.check import finite_mel
from melvoc.spectrogram.spec import MelSpec, check_spec
from melvoc.spectrogram.transform import constants, nepers_per_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = 60  # of the inversion in convert_mel: more of them gain far less than the error of the estimate itself
_GROUP = 16  # bands that share one dense matrix product
TINY = 1e-30
FURTHEST = 23.0  # nepers that a careful correction lowers a band by at once: silence
_FIXED = ("sample_rate", "hop_length", "center", "pad_mode")
_SPECTRAL = ("power", "n_fft", "win_length", "n_mels", "f_min", "f_max", "mel_scale", "norm")


@dataclass(frozen=True, kw_only=True)
class Care:
    """How far a correction goes, where the mel is an estimate or the spectrum is far from it.

    Attributes:
        softness: the part of the way, in the logarithm of each band, that is not gone.
        most: the largest ratio of mels that is corrected at once.
    """

    softness: float
    most: float


class FilterBank:
    """The filter bank as a few small dense matrices, since most of it is zero.

    Args:
        spec: the spec of the filters.
        device: where to compute.
        dtype: what to compute in.
    """

    def __init__(self, spec: MelSpec, device: torch.device, dtype: torch.dtype) -> None:
        _, filters = constants(spec, device, dtype)
        self.shape = (spec.n_mels, spec.n_bins)
        columns = filters.sum(0)
        self.row_sums = filters.sum(1)
        self._outside = (columns <= 0).to(dtype)
        shares = filters / torch.where(columns > 0, columns, 1.0)
        used = constants(spec, torch.device("cpu"), torch.float32)[1] > 0
        self._groups: list[tuple[slice, slice, Tensor, Tensor]] = []
        for first in range(0, spec.n_mels, _GROUP):
            bands = slice(first, first + _GROUP)
            inside = used[bands].any(0).nonzero()
            bins = slice(int(inside[0]), int(inside[-1]) + 1)
            self._groups.append((bands, bins, filters[bands, bins].T.contiguous(), shares[bands, bins].contiguous()))

    def apply(self, spectra: Tensor) -> Tensor:
        """The mels of spectra: `[N, n_bins]` to `[N, n_mels]`."""
        return torch.cat([spectra[:, bins] @ filters for _, bins, filters, _ in self._groups], 1)

    def spread(self, bands: Tensor, *, outside: float) -> Tensor:
        """Each bin's mean of its bands, weighted by the filters; another value outside all: `[N, n_mels]` to
        `[N, n_bins]`."""
        spectra = (outside * self._outside).repeat(bands.shape[0], 1)
        for rows, bins, _, shares in self._groups:
            spectra[:, bins].addmm_(bands[:, rows], shares)
        return spectra

    def correct(self, spectra: Tensor, mel: Tensor, care: Care | None = None, *, outside: float = 0.0) -> Tensor:
        """Factors for non-negative spectra that bring their mel closer to the given one; `outside` beyond all bands.

        A Richardson-Lucy step (1972, 1974): the non-negative fit whose error counts relative to each band's own level,
        which is what a log-mel needs. Where no bin is in two bands, the mel is matched at once, unless care is taken.
        """
        found = self.apply(spectra).clamp(min=TINY)
        if care is None:
            return self.spread(mel / found, outside=outside)
        gaps = mel.clamp(min=TINY).log() - found.log()  # with finite gradients, however small both are
        ratios = (gaps.clamp(-FURTHEST, math.log(care.most)) * (1.0 - care.softness)).exp()
        return self.spread(ratios, outside=outside)

    def invert(self, mel: Tensor, *, steps: int) -> Tensor:
        """Non-negative spectra with a given mel, in a fixed number of steps.

        Args:
            mel: `[N, n_mels]`, non-negative, in the mel's own unit (no logarithm), at most about 1e12.
            steps: how many times the fit is corrected.

        Returns:
            `[N, n_bins]`, non-negative and finite; 0 outside all bands.
        """
        spectra = self.spread(mel / self.row_sums, outside=0.0)
        for _ in range(steps):
            spectra *= self.correct(spectra, mel)
        return spectra


@lru_cache(maxsize=16)
def filter_bank(spec: MelSpec, device: torch.device, dtype: torch.dtype) -> FilterBank:
    """The filter bank of a spec, made once."""
    with torch.inference_mode(False):
        return FilterBank(spec, device, dtype)


def to_nepers(mel: Tensor, spec: MelSpec) -> Tensor:
    """The natural logarithm of a mel's own unit, from the spec's logarithm; finite wherever the mel is."""
    if spec.log == "log1p":  # ln(e^x - 1), without overflow; what is not positive is silence
        positive = mel.clamp(min=torch.finfo(mel.dtype).tiny)
        return positive + (-torch.expm1(-positive)).log()
    return mel * nepers_per_unit(spec.log, spec.power)


def from_nepers(nepers: Tensor, spec: MelSpec) -> Tensor:
    """The spec's logarithm, floor included, of a mel in nepers."""
    if spec.log == "log1p":
        return torch.nn.functional.softplus(nepers)
    return nepers.clamp(min=math.log(spec.log_floor)) / nepers_per_unit(spec.log, spec.power)


@public
def convert_mel(mel: Tensor | NDArray[Any], *, source: MelSpec, target: MelSpec) -> Tensor:
    """Convert a mel of one spec to a mel of another.

    Where only `log`, `log_floor` or `magnitude_eps` differ, the result is exact to float rounding, except for cells
    at the source's floor and above the target's, and for the eps itself, which is left as it is. Where `power`,
    `n_fft`, `win_length` or the filter bank differ, it goes through a non-negative magnitude with the source's mel:
    an estimate, whose error docs/melspec.md gives. What the source lacks (above its `f_max`, for example) is silence.

    Args:
        mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]` in the source's spec: a tensor or a NumPy array.
        source: the spec of the mel.
        target: the spec to convert it to.

    Returns:
        `[B, target.n_mels, T]`.

    Raises:
        SpecError: hop_length, sample_rate, center or pad_mode differ, or the mel does not fit the source.
    """
    for name, spec in (("source", source), ("target", target)):
        check_spec(spec, name)
    mel = finite_mel(mel, source)
    different = source.diff(target)
    if fixed := [name for name in _FIXED if name in different]:
        values = "; ".join(f"{name}: {different[name][0]!r} and {different[name][1]!r}" for name in fixed)
        raise SpecError(
            f"these mels have their frames in different places ({values}), which no arithmetic on frames can fix; "
            "compute the mel again from the audio with melvoc.MelSpectrogram(target)"
        )
    if not different:
        return mel
    work = mel if mel.dtype in (torch.float32, torch.float64) else mel.float()
    nepers = to_nepers(work, source)
    if any(name in different for name in _SPECTRAL):
        nepers = _by_magnitude(nepers, source, target, rounding=torch.finfo(mel.dtype).eps)
    return from_nepers(nepers, target).to(mel.dtype)


def _by_magnitude(nepers: Tensor, source: MelSpec, target: MelSpec, *, rounding: float) -> Tensor:
    """`[B, source.n_mels, T]` to `[B, target.n_mels, T]`, in nepers, through the magnitudes of both.

    Relative to the floor, the given mel was rounded by so much.
    """
    batch, _, frames = nepers.shape
    rows = nepers.transpose(1, 2).reshape(batch * frames, source.n_mels)
    peak = rows.amax(1, keepdim=True) if rows.numel() else rows[:, :1]  # scaled to 1, so that no power overflows
    mel = (rows - peak).exp()
    if source.log != "log1p":  # at the floor nothing is known, least of all that there was sound
        floor = math.log(source.log_floor)
        mel = torch.where(rows > floor + max(1e-3, rounding * abs(floor)), mel, 0.0)
    spectra = filter_bank(source, mel.device, mel.dtype).invert(mel, steps=_STEPS)
    powers = _resample_bins(spectra.pow(2.0 / source.power), source, target)
    result = filter_bank(target, mel.device, mel.dtype).apply(powers.pow(target.power / 2.0))
    nepers = result.clamp(min=torch.finfo(mel.dtype).tiny).log() + peak * (target.power / source.power)
    return nepers.reshape(batch, frames, target.n_mels).transpose(1, 2)


def _resample_bins(powers: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """Power spectra on another FFT's frequencies and under another window.

    Linear between bins. Under a window w noise has the power `sum w^2` in each bin, and so do tones on average over
    the bins of a band.
    """
    if (source.n_fft, source.win_length) == (target.n_fft, target.win_length):
        return powers
    places = torch.arange(target.n_bins, dtype=powers.dtype, device=powers.device) * (source.n_fft / target.n_fft)
    below = places.floor().clamp(max=source.n_bins - 1).long()
    above = (below + 1).clamp(max=source.n_bins - 1)
    return torch.lerp(powers[:, below], powers[:, above], places - below) * (target.win_length / source.win_length)
