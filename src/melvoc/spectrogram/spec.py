"""What a mel spectrogram is: fifteen fields, all validated, compared field by field.

Standard library only, so that a specification costs nothing to make. `melvoc.spectrogram.transform` computes what is
described here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from melvoc.errors import SpecError, did_you_mean, kind_of, quoted
from melvoc.spectrogram.bands import band_edges
from melvoc.spectrogram.fields import DEFAULT_FLOOR, LARGEST, LARGEST_FFT, check_relations, choice, integer, number
from melvoc.spectrogram.keys import CONFIG_KEYS, mel_fields
from melvoc.spectrogram.limits import limits
from melvoc.spectrogram.presets import PRESETS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from melvoc.spectrogram.identification import Candidate


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
            "sample_rate": integer("sample_rate", sample_rate),
            "n_fft": integer("n_fft", n_fft, least=2, most=LARGEST_FFT),
            "hop_length": integer("hop_length", hop_length),
            "win_length": integer("win_length", n_fft if win_length is None else win_length),
            "n_mels": integer("n_mels", n_mels),
            "f_min": number("f_min", f_min),
            "mel_scale": choice("mel_scale", mel_scale),
            "norm": choice("norm", norm),
            "power": choice("power", number("power", power)),
            "log": choice("log", log),
            "magnitude_eps": number("magnitude_eps", magnitude_eps),
            "center": center,
            "pad_mode": choice("pad_mode", pad_mode),
        }
        values["f_max"] = values["sample_rate"] / 2 if f_max is None else number("f_max", f_max)
        values["log_floor"] = DEFAULT_FLOOR[log] if log_floor is None else number("log_floor", log_floor)
        for field in fields(self):
            object.__setattr__(self, field.name, values[field.name])
        check_relations(self)

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
        return integer("frames", frames, least=0) * self.hop_length

    def frames(self, samples: int) -> int:
        """Frames of a signal of `samples` samples: `1 + (samples + 2 * pad - n_fft) // hop_length`, at least 0.

        Not the inverse of `samples` if `center` is true: a signal then has one frame more.
        """
        count = integer("samples", samples, least=0, most=LARGEST**2)
        return max(0, 1 + (count + 2 * self.pad - self.n_fft) // self.hop_length)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value, in the spec's logarithm, that a mel of sound in [-1, 1] can have.

        The least is silence's. The greatest is a bound, from the window's sum and energy and each band's weights, which
        no such sound exceeds, and that the loudest comes within 3 dB of in every preset.
        """
        return limits(self)

    def clamp(self, mel: Tensor | NDArray[Any]) -> Tensor:
        """A mel that a decoder made, within `limits`; differentiable.

        Args:
            mel: of any shape, floating point.

        Returns:
            The same shape and type, as a tensor.
        """
        from torch import Tensor  # not for a spec alone

        from melvoc.arrays import as_tensor
        from melvoc.host import public

        return public(Tensor.clamp)(as_tensor(mel, "the mel"), *self.limits)

    def replace(self, **changes: Any) -> Self:
        """The spec with some fields changed, and the defaults of the others resolved anew.

        A field that equals its default is one that was left out: half of `sample_rate` as `f_max`, `n_fft` as
        `win_length` and the logarithm's own `log_floor` follow when what they depend on changes.

        >>> spec = MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80)
        >>> spec.replace(sample_rate=44100, log="db").diff(spec)
        {'sample_rate': (44100, 22050), 'f_max': (22050.0, 11025.0), 'log': ('db', 'ln'), 'log_floor': (1e-10, 1e-05)}

        Raises:
            SpecError: an unknown field, or a value that breaks MelSpec's rules.
        """
        return self.from_dict(self._stated() | changes)

    def __repr__(self) -> str:
        """The fields that are not their defaults; Python that makes the spec again."""
        return f"MelSpec({', '.join(f'{name}={value!r}' for name, value in self._stated().items())})"

    def _stated(self) -> dict[str, Any]:
        """The fields that are not their defaults."""
        defaults: dict[str, Any] = dict(MelSpec.__init__.__kwdefaults__ or {})
        defaults |= {"win_length": self.n_fft, "f_max": self.sample_rate / 2, "log_floor": DEFAULT_FLOOR[self.log]}
        values = self.to_dict()
        return {name: values[name] for name in values if name not in defaults or values[name] != defaults[name]}

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
        values = mel_fields(config, [field.name for field in fields(cls)])
        try:
            return cls(**values)
        except SpecError as error:
            keys_of_ours = ", ".join(f"{key} is {name}" for name, key in CONFIG_KEYS.items() if key != name)
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

    @staticmethod
    def identify(mel: Tensor | NDArray[Any], audio: Tensor | NDArray[Any], sample_rate: int) -> list[Candidate]:
        """The presets that can have made this mel of this sound, the likeliest first.

        Args:
            mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]`.
            audio: the whole sound: `[N]`, `[B, N]` or `[B, 1, N]`, in [-1, 1].
            sample_rate: the sound's, in Hz.

        Returns:
            `(preset, distance)`: its name, and how far its own mel of the sound is from this one, as the mean absolute
            difference in nepers of amplitude (8.7 dB each). The right one is below 1e-4, and presets that are the same
            spec have the same distance. Those that make another number of bands or frames are left out.

        Raises:
            SpecError: no preset makes a mel of this shape, or mel or audio are none.
        """
        above = importlib.import_module("melvoc.spectrogram.identification")  # it makes mels, which needs this module
        return above.identify(mel, audio, sample_rate)  # type: ignore[no-any-return]


def _mapping(values: object, caller: str) -> None:
    if not isinstance(values, Mapping):
        raise SpecError(f"{caller} got {kind_of(values)}, but it reads a dict; json.loads makes one from text")


def _closest(name: object, names: Mapping[str, Any] | list[str]) -> str:
    hint = did_you_mean(name, names)
    return f" ({hint})" if hint else ""


def check_spec(spec: object, name: str = "spec") -> None:
    """Check that an argument is a `MelSpec`.

    Raises:
        SpecError: it is not; of the name of a preset, it says how that becomes one.
    """
    if not isinstance(spec, MelSpec):
        preset = isinstance(spec, str) and spec in PRESETS
        hint = f"melvoc.MelSpec.preset({spec!r}) makes it" if preset else "MelSpec.preset has some by name"
        raise SpecError(f"{name}={quoted(spec)} is {kind_of(spec)}, but it is a melvoc.MelSpec; {hint}")
