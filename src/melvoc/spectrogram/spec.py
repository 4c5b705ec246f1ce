"""What a mel spectrogram is: fifteen fields, all validated, compared field by field.

Standard library only, so that a specification costs nothing to make. `melvoc.spectrogram.transform` computes what is
described here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from types import MappingProxyType
from typing import Any, Literal, Self

from melvoc.errors import SpecError, quoted
from melvoc.spectrogram import keys
from melvoc.spectrogram.bands import band_edges, empty_band
from melvoc.spectrogram.presets import PRESETS

_LARGEST = 2**31 - 1
_LARGEST_FFT = 2**18  # seconds of sound in one frame: more is a mistake
_LARGEST_OVERLAP = 1024  # frames that a sample is in; the usual ones are 4 to 8
_LARGEST_BANK = 2**24  # weights of the filter bank, bands by bins; the published ones have about 2**17
_SMALLEST_NORMAL = 2.0**-126  # float32's: anything smaller may be flushed to zero, whose logarithm is not finite
_LARGEST_FLOAT = 3.0e38

_CHOICES: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "mel_scale": ("slaney", "htk"),
        "norm": ("slaney", None),
        "power": (1.0, 2.0),
        "log": ("ln", "log10", "log1p", "db"),
        "pad_mode": ("reflect", "constant"),
    }
)
_DEFAULT_FLOOR: Mapping[str, float] = MappingProxyType({"ln": 1e-5, "log10": 1e-5, "db": 1e-10, "log1p": 0.0})

# Our field: the key in a HiFi-GAN or BigVGAN config.json.
_CONFIG_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "sample_rate": "sampling_rate",
        "n_fft": "n_fft",
        "hop_length": "hop_size",
        "win_length": "win_size",
        "n_mels": "num_mels",
        "f_min": "fmin",
        "f_max": "fmax",
    }
)
# What forks of that code call a field besides its own name and the key above.
_FURTHER_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"norm": ("mel_norm",), "power": ("mel_power",), "log_floor": ("clip_val", "mel_floor")}
)


@dataclass(frozen=True, kw_only=True, init=False)
class MelSpec:
    """The convention of a log-mel spectrogram; the defaults are HiFi-GAN's and BigVGAN's.

    Frozen, hashable and canonical: two specs that mean the same are equal. None is resolved at construction, so
    only `norm` can be None afterwards. Integers may be NumPy's; a bool or a float is never an integer.

    The mel of a waveform is `log(max(filters @ sqrt(re^2 + im^2 + magnitude_eps)^power, log_floor))` over frames of
    `n_fft` samples, `hop_length` apart, under a periodic Hann window of `win_length` centred in `n_fft`.

    Args:
        sample_rate: in Hz.
        n_fft: samples per frame.
        hop_length: samples from one frame to the next, at most `win_length`.
        n_mels: bands; each must have at least one FFT bin inside its triangle.
        win_length: samples of the window, at most `n_fft`. None: `n_fft`.
        f_min: where the lowest band begins, in Hz.
        f_max: where the highest band ends, in Hz. None: half of `sample_rate`.
        mel_scale: "slaney" (linear to 1 kHz, then logarithmic) or "htk" (`2595 log10(1 + f / 700)`).
        norm: "slaney" (each triangle has area 1 over Hz) or None (each has height 1).
        power: 1 for magnitudes, 2 for powers.
        log: "ln", "log10", "log1p" (`ln(1 + mel)`) or "db" (`10 log10` of power, `20 log10` of magnitude).
        log_floor: the smallest mel before the logarithm, in the mel's own unit. None: 1e-5 for ln and log10, 1e-10 for
            db, 0 for log1p, which has none.
        magnitude_eps: added under the root.
        center: pad by `n_fft // 2` on both sides, so that frame t is centred on sample `t * hop_length`; otherwise by
            `(n_fft - hop_length) // 2`.
        pad_mode: "reflect" or "constant" (zeros).

    Raises:
        SpecError: a field of the wrong type, out of range, or at odds with another.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    win_length: int
    n_mels: int
    f_min: float
    f_max: float
    mel_scale: Literal["slaney", "htk"]
    norm: Literal["slaney"] | None
    power: float
    log: Literal["ln", "log10", "log1p", "db"]
    log_floor: float
    magnitude_eps: float
    center: bool
    pad_mode: Literal["reflect", "constant"]

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        win_length: int | None = None,
        f_min: float = 0.0,
        f_max: float | None = None,
        mel_scale: Literal["slaney", "htk"] = "slaney",
        norm: Literal["slaney"] | None = "slaney",
        power: float = 1.0,
        log: Literal["ln", "log10", "log1p", "db"] = "ln",
        log_floor: float | None = None,
        magnitude_eps: float = 1e-9,
        center: bool = False,
        pad_mode: Literal["reflect", "constant"] = "reflect",
    ) -> None:
        values: dict[str, Any] = {
            "sample_rate": _integer("sample_rate", sample_rate),
            "n_fft": _integer("n_fft", n_fft, least=2, most=_LARGEST_FFT),
            "hop_length": _integer("hop_length", hop_length),
            "win_length": _integer("win_length", n_fft if win_length is None else win_length),
            "n_mels": _integer("n_mels", n_mels),
            "f_min": _number("f_min", f_min),
            "mel_scale": _choice("mel_scale", mel_scale),
            "norm": _choice("norm", norm),
            "power": _choice("power", _number("power", power)),
            "log": _choice("log", log),
            "magnitude_eps": _number("magnitude_eps", magnitude_eps),
            "center": center,
            "pad_mode": _choice("pad_mode", pad_mode),
        }
        values["f_max"] = values["sample_rate"] / 2 if f_max is None else _number("f_max", f_max)
        values["log_floor"] = _DEFAULT_FLOOR[log] if log_floor is None else _number("log_floor", log_floor)
        for field in fields(self):
            object.__setattr__(self, field.name, values[field.name])
        _check_relations(self)
        if self.n_mels > 2 * self.n_bins:  # a bin lies inside two bands at most; checked before they are laid out
            raise SpecError(
                f"n_mels={self.n_mels}, but the {self.n_bins} bins of n_fft={self.n_fft} fill at most twice as many "
                "bands; lower n_mels or raise n_fft"
            )
        if self.n_mels * self.n_bins > _LARGEST_BANK:
            raise SpecError(
                f"n_mels={self.n_mels} bands by {self.n_bins} bins of n_fft={self.n_fft} are more weights than "
                f"{_LARGEST_BANK}; lower n_mels or n_fft"
            )
        if problem := empty_band(self.band_edges(), sample_rate=self.sample_rate, n_fft=self.n_fft):
            raise SpecError(f"n_mels={self.n_mels}: {problem}; lower n_mels, raise n_fft, or widen f_min to f_max")

    @property
    def pad(self) -> int:
        """Samples of padding on each side of the signal."""
        return self.n_fft // 2 if self.center else (self.n_fft - self.hop_length) // 2

    @property
    def n_bins(self) -> int:
        """FFT bins of a frame, `n_fft // 2 + 1`."""
        return self.n_fft // 2 + 1

    def band_edges(self) -> tuple[float, ...]:
        """The `n_mels + 2` corners of the triangles in Hz; band b goes from corner b over b + 1 to b + 2."""
        return band_edges(n_mels=self.n_mels, f_min=self.f_min, f_max=self.f_max, mel_scale=self.mel_scale)

    def samples(self, frames: int) -> int:
        """Samples that a vocoder makes from `frames` frames: `frames * hop_length`."""
        return _integer("frames", frames, least=0) * self.hop_length

    def frames(self, samples: int) -> int:
        """Frames of a signal of `samples` samples: `1 + (samples + 2 * pad - n_fft) // hop_length`, at least 0.

        Not the inverse of `samples` if `center` is true: a signal then has one frame more.
        """
        count = _integer("samples", samples, least=0, most=_LARGEST**2)
        return max(0, 1 + (count + 2 * self.pad - self.n_fft) // self.hop_length)

    def diff(self, other: MelSpec) -> dict[str, tuple[Any, Any]]:
        """The fields that differ: `{field: (mine, other's)}`, empty if the specs are equal."""
        if not isinstance(other, MelSpec):
            raise SpecError(f"diff got {other!r}, but it compares with a MelSpec; MelSpec.from_dict makes one")
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, all of them resolved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec of a dict of fields; absent ones take their defaults.

        Raises:
            SpecError: not a dict, an unknown key (with the closest field), a missing required one, or a bad value.
        """
        _mapping(values, "MelSpec.from_dict")
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                raise SpecError(
                    f"{quoted(key)} is not a field of MelSpec{_closest(key, names)}; they are {', '.join(names)}"
                )
        if missing := [name for name in ("sample_rate", "n_fft", "hop_length", "n_mels") if name not in values]:
            raise SpecError(f"this dict has no {', '.join(map(repr, missing))}, which a MelSpec needs; add them")
        return cls(**values)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The spec of a HiFi-GAN or BigVGAN `config.json`, loaded as a dict.

        Keys that do not concern the mel are ignored; one that does and is not read is an error. A null
        `fmin` means 0, a null `fmax` Nyquist, a null `win_size` `n_fft`.

        Raises:
            SpecError: a key is missing, or a value breaks MelSpec's rules.
        """
        _mapping(config, "MelSpec.from_config")
        if missing := [key for key in _CONFIG_KEYS.values() if key not in config]:
            raise SpecError(
                f"this config has no {', '.join(map(repr, missing))}; a published config.json has "
                f"{', '.join(_CONFIG_KEYS.values())}: add what is missing, or write out MelSpec(...)"
            )
        every = [field.name for field in fields(cls)]
        names = {field: {_CONFIG_KEYS.get(field, field), field, *_FURTHER_KEYS.get(field, ())} for field in every}
        values: dict[str, Any] = {}
        for field, further in names.items():
            null = field in ("norm", "sample_rate", "n_fft", "hop_length", "n_mels")  # elsewhere it means the default
            said = [config[key] for key in sorted(further) if key in config and (null or config[key] is not None)]
            if any(value != said[0] for value in said):
                raise SpecError(f"this config says {' and '.join(map(quoted, said))} for {field}; remove the wrong one")
            values |= {field: said[0]} if said else {}
        known = {key for further in names.values() for key in further}
        if odd := keys.unaccounted(config, known, keys.MEL):
            raise SpecError(
                f"this config says {odd}={quoted(config[odd])}, which melvoc does not read and which may make another "
                "mel; write MelSpec(...) out, or remove the key if it says nothing new"
            )
        try:
            return cls(**values)
        except SpecError as error:
            keys_of_ours = ", ".join(f"{key} is {name}" for name, key in _CONFIG_KEYS.items() if key != name)
            raise SpecError(f"this config is not a mel's: {error} (in the config {keys_of_ours})") from None

    @classmethod
    def preset(cls, name: str) -> Self:
        """The spec of a known convention or registered vocoder; `PRESETS` lists the names.

        Raises:
            SpecError: an unknown name, with the closest ones.
        """
        if name not in PRESETS:
            raise SpecError(f"{name!r} is not a preset{_closest(name, PRESETS)}; the presets are {', '.join(PRESETS)}")
        return cls(**PRESETS[name])


def _check_relations(spec: MelSpec) -> None:
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
            f"least 1.2e-38); None means {_DEFAULT_FLOOR[spec.log]:g}"
        )


def _integer(name: str, value: object, *, least: int = 1, most: int = _LARGEST) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SpecError(f"{name}={quoted(value)} is a {type(value).__name__}, but it is a whole number; pass an int")
    number = int(value)
    if not least <= number <= most:
        raise SpecError(f"{name}={quoted(number)}, but it is a whole number from {least} to {most}; pass one")
    return number


def _number(name: str, value: object) -> float:
    if not isinstance(value, (Integral, float)) or isinstance(value, bool):
        raise SpecError(
            f"{name}={quoted(value)} is a {type(value).__name__}, but it is a number; pass an int or a float"
        )
    number = int(value) if isinstance(value, Integral) else float(value)
    if not 0 <= number <= _LARGEST_FLOAT:  # false for NaN too
        raise SpecError(f"{name}={quoted(number)}, but it is a finite number from 0 up; pass one")
    return float(number) + 0.0  # so that -0.0 is 0.0


def _choice(name: str, value: object) -> object:
    choices = _CHOICES[name]
    if not isinstance(value, (str, float, type(None))) or value not in choices:
        hint = _closest(value, [choice for choice in choices if isinstance(choice, str)])
        raise SpecError(f"{name}={quoted(value)}, but it is one of {', '.join(map(repr, choices))}{hint}")
    return value


def _mapping(values: object, caller: str) -> None:
    if not isinstance(values, Mapping):
        raise SpecError(f"{caller} got a {type(values).__name__}, but it reads a dict; json.loads makes one from text")


def _closest(name: object, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name)[:80], list(names), n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
