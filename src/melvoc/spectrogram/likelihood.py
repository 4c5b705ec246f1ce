"""Whether a mel that its spec allows is also a likely one: normalised, scaled and wrongly logged mels are not.

Everything is measured in nepers of amplitude (a factor of e, 8.7 dB) and compared with what the spec's own window and
bank make of white noise, so that no number here belongs to one spec. Four properties tell a mel of another scale:

- **level.** No sound in [-1, 1] is louder in all its bands than white noise of RMS 1, 0 dBFS, where they reach up to
  Nyquist: its energy is bounded (Parseval), and the logarithm is concave (Jensen). Uniform noise in [-1, 1] lies 0.55
  nepers below, and the mean amplitude of 167 real files, peak-normalised, at least 1.1 below under every preset. Where
  the filters have area 1, a mel that is linear, normalised or scaled to [0, 1] lies above.
- **grain.** A band is a sum over FFT bins of random phase, so that neighbouring bands differ. The median difference of
  their logarithms is, in nearly all real sounds, 0.85 times that of white noise or more, in the lower half of the bands
  as well as in the upper. Dividing a mel by a constant divides its grain too: log10 for ln leaves 0.43. But a
  generative decoder blurs, so that little grain alone proves nothing: a second sign is always needed.
- **range.** A log10 mel ends at log10(floor), far above the ln mel's floor, and silence makes a heap of equal values
  there.
- **exact numbers.** Mean and deviation, or the least and the largest value, are round numbers only by design.

`benchmarks/mel_check.py` measures what these notice and what they wrongly suspect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.traits import Traits, level_of, neper, nepers, quantiles, range_of, reference, traits, undone

_LEAST_FRAMES, _LEAST = 8, 640  # values: nothing is judged on fewer
_FEW, _PLENTY = 1600, 8000  # values: on fewer, no grain is judged; from here on, grain is certain
_GRAIN, _GRAIN_OF_FEW = 0.85, 0.55  # of white noise's: real sounds have more
_NATURAL = 0.5  # the least grain of what another logarithm's undoing gives; synthetic waves have less in any
_TOO_LOUD, _LOUD, _RATHER_LOUD = 0.2, -0.3, -0.9  # nepers re noise of RMS 1, of the mean amplitude of all cells
_SOUNDS_SPREAD = 0.9  # nepers; nearly all real sounds have a larger deviation over all cells
_NEAR_FLOOR = 0.05  # of a decade: as far below its floor as rounding takes a log10 mel
_SCALES = ((0.0, 1.0), (-1.0, 1.0), (-4.0, 4.0), (0.0, 4.0))


@dataclass(frozen=True)
class Verdict:
    """Why a mel is improbable.

    Attributes:
        cause: the most likely cause, for "it looks like ...".
        sign: what gave it away.
    """

    cause: str
    sign: str

    def __str__(self) -> str:
        return f"{self.sign}; it looks like {self.cause}"


def improbable(mel: Tensor, spec: MelSpec) -> Verdict | None:
    """Why a finite mel in its spec's range is improbable all the same, or None.

    Nothing is judged on fewer than 8 frames or 640 values (a tenth of a second of 80 bands), and grain only from 1600
    values on: below 8000 it must be less than 0.55 of white noise's to count as little, from there on 0.85. All rows of
    a batch are judged together.

    Args:
        mel: `[B, n_mels, T]`, floating point, finite.
        spec: what it should be a mel of.
    """
    columns = mel.detach().movedim(1, 0).flatten(1)
    if columns.numel() < _LEAST or columns.shape[1] < _LEAST_FRAMES:
        return None
    known = traits(columns, spec)
    constant = known.high - known.low <= 1e-3 * max(1.0, abs(known.high))  # says nothing but how loud it is
    return (
        (None if constant else _exact(columns, known) or _heap(columns, known, spec))
        or _negative(known, spec)
        or _loud(known, spec)
        or (None if constant else _shrunk(known, spec) or _stretched(known, spec))
    )


class Watch:
    """Judges a mel that comes in pieces: at 256 frames, at each fourfold of that, and at the end.

    Between pushes it holds fewer than 256 frames of at most 8 rows, evenly spaced over what has come.

    Args:
        spec: what it should be a mel of.
    """

    _HELD, _ROWS = 256, 8

    def __init__(self, spec: MelSpec) -> None:
        self._spec = spec
        self._pieces: list[Tensor] = []  # [rows, n_mels, t] each
        self._held = self._seen = 0  # frames in the pieces, and frames pushed
        self._every = 1  # of how many frames one is held
        self._over = False

    def push(self, mel: Tensor) -> Verdict | None:
        """Take the next frames `[B, n_mels, t]`, finite; the verdict, the first time that there is one."""
        if self._over or not mel.shape[-1]:
            return None
        piece = mel[: self._ROWS, :, -self._seen % self._every :: self._every].detach().clone()
        self._seen += mel.shape[-1]
        self._pieces.append(piece)
        self._held += piece.shape[-1]
        if self._held < self._HELD:
            return None
        if verdict := self.flush():
            return verdict
        held = torch.cat(self._pieces, dim=-1)
        while held.shape[-1] >= self._HELD:
            held, self._every = held[..., ::4].clone(), 4 * self._every
        self._pieces, self._held = [held], held.shape[-1]
        return None

    def flush(self) -> Verdict | None:
        """The verdict on what has come so far, if there was none before."""
        if self._over or not self._held:
            return None
        verdict = improbable(torch.cat(self._pieces, dim=-1), self._spec)
        if verdict:
            self._over, self._pieces = True, []
        return verdict


def likely_cause(mel: Tensor, spec: MelSpec) -> str:
    """The most likely cause of a mel `[..., n_mels, T]`, finite, that its spec excludes or that is improbable."""
    return _cause(traits(mel.detach().reshape(-1, *mel.shape[-2:]).movedim(1, 0).flatten(1), spec), spec)


# --- the signs, each None where it is absent


def _exact(columns: Tensor, known: Traits) -> Verdict | None:
    """Least and largest value, or mean and deviation, of all values or of each band, are round numbers."""
    for low, high in _SCALES:
        if abs(known.low - low) < 1e-5 and abs(known.high - high) < 1e-5:
            what = f"a mel scaled to [{low:g}, {high:g}]"
            return Verdict(what, f"its least and largest values are exactly {low:g} and {high:g}")
    variance, mean = torch.var_mean(columns.float(), dim=1, correction=0)
    slack = 2e-3 + 0.6 / columns.shape[1]  # a deviation may have been taken with n - 1
    if float(mean.abs().max()) < 2e-3 and float((variance.sqrt() - 1).abs().median()) < slack:
        return Verdict("a normalised mel", "each of its bands has mean 0 and deviation 1")
    whole = math.sqrt(float(variance.mean() + mean.var(correction=0)))
    if abs(float(mean.mean())) < 2e-3 and abs(whole - 1) < 2e-3:
        return Verdict("a normalised mel", "its mean is 0 and its deviation 1")
    return None


def _heap(columns: Tensor, known: Traits, spec: MelSpec) -> Verdict | None:
    """Many cells, in several bands, equal the least value, and that is not what this spec makes of silence."""
    if spec.log == "log1p":
        return None
    silence, near = reference(spec).silence * neper(spec), 0.25 * neper(spec)
    if known.low <= float(silence.min()) + near or float((silence - known.low).abs().min()) <= near:
        return None
    heap = columns == known.low
    share = float(heap.float().mean())
    if not 0.005 <= share < 0.9 or float(heap.any(1).float().mean()) < 0.05:
        return None
    sign = f"{100 * share:.2g} % of its values are exactly {known.low:.4g}, but silence is {float(silence.min()):.4g}"
    floors = {log: range_of(log, spec)[0] for log in ("ln", "log10", "db") if log != spec.log}
    cause = next((_NAMES[log] for log, floor in floors.items() if math.isclose(known.low, floor, rel_tol=1e-4)), None)
    return Verdict(cause or _cause(known, spec), sign)


def _negative(known: Traits, spec: MelSpec) -> Verdict | None:
    """log1p is never negative, and a decoder undershoots a little."""
    if spec.log != "log1p" or float((known.values < -0.25).float().mean()) <= 0.1:
        return None
    return Verdict(_cause(known, spec), "log1p is never negative, but more than a tenth of its values are")


def _loud(known: Traits, spec: MelSpec) -> Verdict | None:
    """Louder in all bands than any sound; the nearer to what noise can be, the less grain it must have."""
    smooth, level = not known.grain >= _GRAIN, known.level - _room(spec)  # smooth: or unknown
    loud = level > _LOUD and known.spread < 0.9 and smooth
    rather_loud = level > _RATHER_LOUD and known.spread < 0.8 and known.grain < 0.5
    if not (level > _TOO_LOUD or loud or rather_loud):
        return None
    excess = 20 / math.log(10) * known.level
    sign = f"its bands are as loud as white noise of {excess:+.1f} dBFS all the time, and hardly any sound is"
    return Verdict(_cause(known, spec), sign)


def _room(spec: MelSpec) -> float:
    """Nepers by which a sound may be louder in the bands than white noise of its own RMS, all of it lying in them.

    Nothing up to `_TOO_LOUD`, which has room for it: what counts is a bank that ends far below Nyquist.
    """
    top = spec.sample_rate / 2
    share = ((spec.f_max or top) - spec.f_min) / top
    return max(0.0, -0.5 * math.log(share) - _TOO_LOUD)


def _shrunk(known: Traits, spec: MelSpec) -> Verdict | None:
    """Too little grain, and all values where another logarithm, whose undoing is natural, or normalising puts them."""
    if known.count < _FEW or spec.log == "log1p":
        return None
    if known.grain >= (_GRAIN if known.count >= _PLENTY else _GRAIN_OF_FEW):
        return None
    low, high = quantiles(known.values, 0.002, 0.998)  # the costliest step of a judgement, and of few mels
    for log in _others(spec):
        least, most, factor = range_of(log, spec)
        inside = low >= least - 1e-3 * abs(least) and high <= most
        natural = _GRAIN if math.isinf(factor) else _NATURAL
        if inside and factor > 1 and factor * known.spread >= _SOUNDS_SPREAD and undone(known, log, spec) > natural:
            sign = f"{_differ(known)}, and all its values lie between {least:.3g} and {most:.3g}, the range of "
            return Verdict(_cause(known, spec), sign + _NAMES[log])
    mean, deviation = float(known.values.mean()), float(known.values.std())
    span = 1.15 * max(1.0, neper(spec))
    narrow = not known.grain >= 0.5 and -span < low and high < span
    if narrow or (abs(mean) < 0.4 and abs(deviation - 1) < 0.3):
        sign = f"its mean is {mean:.2g}, its deviation {deviation:.2g}, and {_differ(known)}"
        return Verdict(_cause(known, spec), sign)
    return None


def _stretched(known: Traits, spec: MelSpec) -> Verdict | None:
    """Bands that differ too much, over too wide a range: ln for log10 (dB is out of range).

    A decaying tone does that too. But its mel ends at its own floor, or a decade above it, where one in ln would end
    only by chance.
    """
    if known.count < _FEW or spec.log != "log10" or not (known.grain > 1.6 and known.width > 4.7):
        return None
    floor = float(reference(spec).silence.min()) * neper(spec)
    if floor - _NEAR_FLOOR < known.low < floor + 1.0:
        return None
    return Verdict(_cause(known, spec), f"its deviation is {known.width:.1f} nepers, and {_differ(known)}")


def _differ(known: Traits) -> str:
    if math.isnan(known.grain):
        return "hardly any of its neighbouring bands differ"
    return f"neighbouring bands differ {known.grain:.2g} times as much as white noise's"


# --- the cause

_NAMES = {
    "ln": "an ln mel",
    "log10": "a log10 mel",
    "log1p": "a log1p mel",
    "db": "a dB mel",
    "linear": "a linear mel (no logarithm was taken)",
}


def _cause(known: Traits, spec: MelSpec) -> str:
    """The guess whose undoing gives the most natural mel; failing that, by the range."""
    median = float(known.values.median())
    for low, high in _SCALES[:2]:
        if low - 1e-4 <= known.low and known.high <= high + 1e-4 and (low < 0.0 or median > 0.1 * known.high):
            return f"a mel scaled to [{low:g}, {high:g}]"
    mean, deviation = float(known.values.mean()), float(known.values.std())
    if abs(mean) < 0.15 and abs(deviation - 1) < 0.15 and known.low < 0.0:
        return "a normalised mel"
    found = {log: _strangeness(known, log, spec) for log in _others(spec) if _may_be(known, log, spec)}
    if found and min(found.values()) < 1.0:
        best = min(found, key=lambda log: found[log])
        both = best in ("linear", "log1p") and abs(found.get("log1p", 9.0) - found["linear"]) < 0.2
        return f"{_NAMES['linear']}, or {_NAMES['log1p']}" if both else _NAMES[best]
    if known.low >= 0.0 and known.high > range_of("linear", spec)[1]:
        return _NAMES["linear"] + ", or one of audio that was not scaled to [-1, 1]"
    if known.low >= 0.0:
        return _NAMES["linear" if known.high > 30.0 or median < 0.05 * known.high else "log1p"]
    if known.low < -25.0 and spec.log != "db":
        return "a dB mel"
    if spec.log == "log1p" and known.low < -4.0:
        return "a mel in ln, log10 or dB (log1p is never negative)"
    return "a normalised or scaled mel, or one of audio that was not scaled to [-1, 1]"


def _others(spec: MelSpec) -> list[str]:
    return [log for log in _NAMES if log != spec.log]


def _may_be(known: Traits, log: str, spec: MelSpec) -> bool:
    least, most, _ = range_of(log, spec)
    slack = 0.02 * (most - least)
    return (known.low >= -1e-3 if least == 0.0 else known.low >= least - slack) and known.high <= most + slack


def _strangeness(known: Traits, log: str, spec: MelSpec) -> float:
    """How unnatural a mel is, if it is taken for one in another logarithm: 0 for the grain and level of real sounds."""
    grain, level = undone(known, log, spec), level_of(nepers(known.values, log, spec), spec)
    return abs(math.log(max(grain, 1e-3) / 1.15)) + max(0.0, level + 1.0) if math.isfinite(grain) else math.inf
