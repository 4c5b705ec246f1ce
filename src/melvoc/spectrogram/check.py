"""Whether a mel can belong to a spec: what can be checked without knowing where it comes from."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melvoc.arrays import FLOATS, as_tensor
from melvoc.errors import SpecError
from melvoc.host import warn
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants, nepers_per_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from melvoc.spectrogram.likelihood import Verdict

_BELOW, _ABOVE = 4.0, 3.0  # nepers that a decoder may fall below the floor, or rise above full scale
_OUTLIERS, _FURTHER = 1e-5, 2.0  # share of values that may be this many nepers further: random tails, not another scale
_TAIL, _TAIL_NEPERS = 2000, 2.5  # among this many values one more, if others come this close to the limit: also a tail
_MEDIAN_ABOVE = 2.0  # nepers above full-scale white noise that no sound's median reaches


def batch_mel(mel: Tensor | NDArray[Any], spec: MelSpec, *, empty: bool = False) -> Tensor:
    """A mel of any accepted shape as a batch; shape and type are checked, values are not.

    Args:
        mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]`, floating point: a tensor or a NumPy
            array.
        spec: the spec whose `n_mels` it must have.
        empty: whether T may be 0.

    Returns:
        `[B, n_mels, T]`.

    Raises:
        SpecError: neither, the wrong shape or type, or no frames.
    """
    mel = as_tensor(mel, "the mel")
    if mel.dtype not in FLOATS:
        raise SpecError(
            f"the mel is {mel.dtype}, but a log-mel is floating point, of 16, 32 or 64 bits; pass mel.float()"
        )
    shape = list(mel.shape)
    if mel.dim() == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    elif mel.dim() == 2:
        mel = mel[None]
    if mel.dim() != 3:
        raise SpecError(f"the mel is {shape}, but it is [n_mels, T], [B, n_mels, T] or [B, 1, n_mels, T]; reshape it")
    if mel.shape[1] != spec.n_mels:
        hint = "it looks transposed: pass mel.transpose(-1, -2)" if mel.shape[2] == spec.n_mels else "check its spec"
        raise SpecError(f"the mel is {shape}, {mel.shape[1]} bands, but this spec has n_mels={spec.n_mels}; {hint}")
    if not (mel.shape[2] or empty):
        raise SpecError(f"the mel is {shape}, without any frames; give at least one")
    return mel


def rows_of(mel: Tensor | NDArray[Any], spec: MelSpec, *, empty: bool = False) -> Tensor:
    """`batch_mel` for at least one mel.

    Raises:
        SpecError: as `batch_mel`, or an empty batch.
    """
    mel = batch_mel(mel, spec, empty=empty)
    if not mel.shape[0]:
        raise SpecError(f"the mel is {list(mel.shape)}, an empty batch; give at least one mel")
    return mel


def check_mel(mel: Tensor, spec: MelSpec, *, known: bool = False) -> Tensor:
    """Check a mel as far as it can be checked.

    Without a spec of its own (`known=False`), its range must be possible: nothing more than 4 nepers below the floor or
    3 above full scale (the largest filter's sum times the window's). Where the log is ln or log10, a mel without a
    negative value is refused if its median is impossible. A mel that is possible but improbable (normalised, scaled,
    in another logarithm: `melvoc.spectrogram.likelihood`) draws a warning.

    Args:
        mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]`.
        spec: the spec it should be a mel of.
        known: the caller named the mel's spec: only shape, finiteness and a range that is 2 nepers wider on both sides
            are checked, as for a piece of a stream.

    Returns:
        `[B, n_mels, T]`.

    Raises:
        SpecError: it cannot be a mel of this spec; the message says what it looks like.
    """
    mel = batch_mel(mel, spec)
    if known:
        check_piece(mel, spec)
    elif verdict := judge(mel, spec):
        warn_of(verdict, spec)
    return mel


def judge(mel: Tensor, spec: MelSpec) -> Verdict | None:
    """Why a mel of any accepted shape, which is possible, is improbable all the same; None where it is not.

    For callers that refuse what `check_mel` warns about: `str` of the verdict is a sentence without its end.

    Raises:
        SpecError: as `check_mel` without a known spec.
    """
    mel = batch_mel(mel, spec)
    low, high = _finite_range(mel)
    if not mel.numel():
        return None
    _check_possible(mel, low, high, spec)
    from melvoc.spectrogram.likelihood import improbable  # on first use: a fifth of the time of `import melvoc`

    return improbable(mel, spec)


def _likely_cause(mel: Tensor, spec: MelSpec) -> str:
    from melvoc.spectrogram.likelihood import likely_cause

    return likely_cause(mel, spec)


def warn_of(verdict: Verdict, spec: MelSpec) -> None:
    """Warn of an improbable mel at the line outside melvoc whose call led here."""
    warn(
        f"this mel is unlikely to be one with log={spec.log!r}: {verdict}. Make it with melvoc.MelSpectrogram of this "
        "spec, undo what was done to it, or convert it with melvoc.convert_mel; if it is right, pass spec=... to "
        "silence this warning"
    )


def check_piece(mel: Tensor, spec: MelSpec) -> None:
    """The checks for a piece of a stream, of any length, and for a mel whose spec is named: finiteness, and a range
    that is 2 nepers wider on both sides.

    A piece is too short to tell a decoder's random tails from another scale, and an error would end the stream. Beyond
    that range a network makes noise at full scale, of values far below the floor as well as above full scale, whatever
    the caller knows of the mel.

    Raises:
        SpecError: as `check_mel`.
    """
    if mel.numel():
        _check_range(mel, *_finite_range(mel), spec, outliers=1.0)


def finite_mel(mel: Tensor | NDArray[Any], spec: MelSpec) -> Tensor:
    """`batch_mel` whose values are finite, and anything else.

    Raises:
        SpecError: as `batch_mel`, or NaN or Inf.
    """
    mel = batch_mel(mel, spec)
    _finite_range(mel)
    return mel


def _finite_range(mel: Tensor) -> tuple[float, float]:
    if not mel.numel():
        return 0.0, 0.0
    low, high = torch.stack(torch.aminmax(mel.detach())).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = ~torch.isfinite(mel)
        first = bad.nonzero()[0].tolist()
        raise SpecError(
            f"the mel has {int(bad.sum())} NaN or Inf among its {mel.numel()} values, the first at {first}; a log of 0 "
            "gives -Inf: take log(max(mel, floor))"
        )
    return low, high


def _check_possible(mel: Tensor, low: float, high: float, spec: MelSpec) -> None:
    """Refuse a mel that its spec excludes by its range, or by its median where it has no negative value."""
    _check_range(mel, low, high, spec, outliers=_OUTLIERS)
    if low < 0.0 or spec.log not in ("ln", "log10"):
        return
    median, most = float(mel.detach().float().median()), _levels(spec)[2]
    if median > most:
        raise SpecError(
            f"this mel has no negative value and a median of {median:.3g}, but where log={spec.log!r} not even "
            f"full-scale noise has one above {most:.3g}; it looks like {_likely_cause(mel, spec)}. Pass its spec "
            "(spec=...), or convert it with melvoc.convert_mel"
        )


def _check_range(mel: Tensor, low: float, high: float, spec: MelSpec, *, outliers: float) -> None:
    """Refuse values beyond the levels, except for a share of outliers not much further out.

    A random normal mel of mean -4 and deviation 2 has one value in two million beyond BigVGAN's full scale + 3 nepers.
    """
    least, most, _ = _levels(spec)
    if low >= least and high <= most:
        return
    least_of_all, most_of_all, _ = _levels(spec, further=_FURTHER)
    if low >= least_of_all and high <= most_of_all:
        below, above = mel < least, mel > most
        allowed = outliers * mel.numel() + _in_a_tail(mel, below, above, spec)
        if int((below | above).sum()) <= allowed:
            return
    beyond = f"goes down to {low:.4g}" if low < least else f"goes up to {high:.4g}"
    raise SpecError(
        f"this mel {beyond}, but one with log={spec.log!r}, log_floor={spec.log_floor:g} and power={spec.power:g} "
        f"stays between {least:.4g} and {most:.4g}; it looks like {_likely_cause(mel, spec)}. Make it with "
        "melvoc.MelSpectrogram of this spec, convert it with melvoc.convert_mel, or limit a decoder's with "
        "spec.clamp(mel)"
    )


def _in_a_tail(mel: Tensor, below: Tensor, above: Tensor, spec: MelSpec) -> int:
    """1 if what is beyond a limit may be the end of a random tail, because the rest comes close to it; else 0."""
    rest = mel[~(below | above)]
    if mel.numel() < _TAIL or not rest.numel():
        return 0
    near_least, near_most, _ = _levels(spec, further=-_TAIL_NEPERS)
    reaches_down = not below.any() or rest.min() <= near_least
    reaches_up = not above.any() or rest.max() >= near_most
    return int(reaches_down and reaches_up)


@functools.lru_cache(maxsize=64)
def _levels(spec: MelSpec, *, further: float = 0.0) -> tuple[float, float, float]:
    """The smallest and the largest possible value, tolerance included, and the largest possible median."""
    below, above = _BELOW + further, _ABOVE + further
    window, filters = constants(spec, torch.device("cpu"), torch.float32)
    row = float(filters.double().sum(1).max())
    full = math.log(row) + spec.power * (math.log(float(window.double().sum())) + above)
    noise = math.log(row) + spec.power * (0.5 * math.log(float(window.double().square().sum())) + _MEDIAN_ABOVE)
    if spec.log == "log1p":  # linear near 0, where nepers below mean nothing: 4 of its units do as well
        return -below, math.log1p(math.exp(full)), math.log1p(math.exp(noise))
    unit = nepers_per_unit(spec.log, spec.power)
    return (math.log(spec.log_floor) - spec.power * below) / unit, full / unit, noise / unit
