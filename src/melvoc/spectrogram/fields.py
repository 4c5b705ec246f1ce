"""The rules of a `MelSpec`'s fields: their types, their ranges, and how they limit each other."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING

from melvoc.errors import SpecError, did_you_mean, kind_of, quoted
from melvoc.spectrogram.bands import empty_band

if TYPE_CHECKING:
    from melvoc.spectrogram.spec import MelSpec

LARGEST = 2**31 - 1
LARGEST_FFT = 2**18  # seconds of sound in one frame: more is a mistake
_LARGEST_OVERLAP = 1024  # frames that a sample is in; the usual ones are 4 to 8
_LARGEST_BANK = 2**24  # weights of the filter bank, bands by bins; the published ones have about 2**17
_SMALLEST_NORMAL = 2.0**-126  # float32's: anything smaller may be flushed to zero, whose logarithm is not finite
_LARGEST_FLOAT = 3.0e38

CHOICES: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "mel_scale": ("slaney", "htk"),
        "norm": ("slaney", None),
        "power": (1.0, 2.0),
        "log": ("ln", "log10", "log1p", "db"),
        "pad_mode": ("reflect", "constant"),
    }
)
DEFAULT_FLOOR: Mapping[str, float] = MappingProxyType({"ln": 1e-5, "log10": 1e-5, "db": 1e-10, "log1p": 0.0})


def check_relations(spec: MelSpec) -> None:
    """Whether the fields agree with each other, and no band is empty.

    Raises:
        SpecError: they do not, or one is.
    """
    if not isinstance(spec.center, bool):
        raise SpecError(f"center={quoted(spec.center)}, but it is True or False")
    if spec.win_length > spec.n_fft:
        raise SpecError(f"win_length={spec.win_length} is longer than n_fft={spec.n_fft}; lower it or raise n_fft")
    if spec.hop_length > spec.win_length:
        raise SpecError(
            f"hop_length={spec.hop_length} is longer than win_length={spec.win_length}, so samples would be "
            "skipped; lower hop_length (a quarter of the window is usual)"
        )
    if spec.n_fft > _LARGEST_OVERLAP * spec.hop_length:
        raise SpecError(
            f"hop_length={spec.hop_length} with n_fft={spec.n_fft}, but no sample is in more than {_LARGEST_OVERLAP} "
            "frames; raise hop_length (a quarter of the window is usual)"
        )
    nyquist = spec.sample_rate / 2
    if not 0 <= spec.f_min < spec.f_max <= nyquist:
        raise SpecError(
            f"f_min={spec.f_min:g}, f_max={spec.f_max:g}, but 0 <= f_min < f_max <= {nyquist:g} (half of "
            f"sample_rate={spec.sample_rate}); f_max=None means exactly that half"
        )
    if spec.magnitude_eps and not _SMALLEST_NORMAL <= spec.magnitude_eps <= 1.0:
        raise SpecError(f"magnitude_eps={spec.magnitude_eps:g}, but it is 0 or between 1.2e-38 and 1; 1e-9 is usual")
    if spec.log == "log1p" and spec.log_floor:
        raise SpecError(f"log_floor={spec.log_floor:g}, but log1p has no floor; pass 0 or None, or log='ln'")
    if spec.log != "log1p" and not _SMALLEST_NORMAL <= spec.log_floor <= _LARGEST_FLOAT:
        raise SpecError(
            f"log_floor={spec.log_floor:g}, but log={spec.log!r} needs a floor above 0 that float32 can hold (at "
            f"least 1.2e-38); None means {DEFAULT_FLOOR[spec.log]:g}"
        )
    _check_bank(spec)


def _check_bank(spec: MelSpec) -> None:
    if spec.n_mels > 2 * spec.n_bins:  # a bin lies inside two bands at most; checked before they are laid out
        raise SpecError(
            f"n_mels={spec.n_mels}, but the {spec.n_bins} bins of n_fft={spec.n_fft} fill at most twice as many "
            "bands; lower n_mels or raise n_fft"
        )
    if spec.n_mels * spec.n_bins > _LARGEST_BANK:
        raise SpecError(
            f"n_mels={spec.n_mels} bands by {spec.n_bins} bins of n_fft={spec.n_fft} are more weights than "
            f"{_LARGEST_BANK}; lower n_mels or n_fft"
        )
    if problem := empty_band(spec.band_edges(), sample_rate=spec.sample_rate, n_fft=spec.n_fft):
        raise SpecError(f"n_mels={spec.n_mels}: {problem}; lower n_mels, raise n_fft, or widen f_min to f_max")


def integer(name: str, value: object, *, least: int = 1, most: int = LARGEST) -> int:
    """A whole number in a range.

    Raises:
        SpecError: it is none.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SpecError(f"{name}={quoted(value)} is {kind_of(value)}, but it is a whole number; pass an int")
    number = int(value)
    if not least <= number <= most:
        raise SpecError(f"{name}={quoted(number)}, but it is a whole number from {least} to {most}; pass one")
    return number


def number(name: str, value: object) -> float:
    """A finite number from 0 up.

    Raises:
        SpecError: it is none.
    """
    if not isinstance(value, (Integral, float)) or isinstance(value, bool):
        raise SpecError(f"{name}={quoted(value)} is {kind_of(value)}, but it is a number; pass an int or a float")
    number = int(value) if isinstance(value, Integral) else float(value)
    if not 0 <= number <= _LARGEST_FLOAT:  # false for NaN too
        raise SpecError(f"{name}={quoted(number)}, but it is a finite number from 0 up; pass one")
    return float(number) + 0.0  # so that -0.0 is 0.0


def choice(name: str, value: object) -> object:
    """One of a field's values.

    Raises:
        SpecError: it is none of them.
    """
    choices = CHOICES[name]
    if not isinstance(value, (str, float, type(None))) or value not in choices:
        hint = did_you_mean(value, [known for known in choices if isinstance(known, str)])
        listed = ", ".join(map(repr, choices))
        raise SpecError(f"{name}={quoted(value)}, but it is one of {listed}" + (f" ({hint})" if hint else ""))
    return value
