"""Everything that configures a training run, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError
from melvoc.registry import all_architectures
from melvoc.spectrogram.spec import MelSpec

# The presets: what the discriminators' channels are divided by.
PRESETS: Mapping[str, int] = {"full": 1, "slim": 8}


# What may differ when a run is resumed: where and how long it runs, not what is computed. The folders are compared by
# their contents, and the batch size together with the number of processes.
NOT_COMPARED = frozenset(
    {
        "audio_dir", "run_dir", "mels_dir", "warm_start", "warm_discriminators", "batch_size", "steps", "device",
        "checkpoint_every", "validate_every", "keep_checkpoints", "keep_discriminators",
    }
)  # fmt: skip

# What a configuration may leave unset when resuming: it is taken from the run.
LEFT_OPEN = ("architecture", "spec", "generator", "segment", "discriminator_warmup", "ramp_steps")

SEGMENT = 16384
WARMUP = 500  # steps for new discriminators next to a generator that is already trained
RAMP = 1000  # steps until such a generator learns at the full rate


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of each loss; a loss with weight 0 is not computed.

    Attributes:
        adversarial: least-squares GAN loss, both sides.
        feature: matching of the discriminators' features.
        mel: L1 distance of log-mels.
        stft: the multi-resolution STFT distance (auraloss' `MultiResolutionSTFTLoss`); 15 is usual.
    """

    adversarial: float = 1.0
    feature: float = 2.0
    mel: float = 45.0
    stft: float = 0.0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            _check_number(f"weights.{entry.name}", getattr(self, entry.name), least=0.0)
        if not (self.mel or self.stft or self.adversarial):
            raise OptionError("all weights of the generator's losses are 0, so it would learn nothing; set mel=45")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The defaults are HiFi-GAN's recipe with its V2 generator at 44.1 kHz.

    The attribute descriptions are also the help texts of `melvoc train`.

    Attributes:
        audio_dir: folder of sound files, searched with its subfolders, linked ones included.
        run_dir: folder of the run, for checkpoints, log and result; created if it does not exist.
        mels_dir: mels of another model, paired with the audio by name (`a.wav`, `a.safetensors` or `a.npy`). None: the
            audio's own.
        spec: the mel that the generator will understand. None: the warm start's, or that of the other model's mels,
            else 44.1 kHz, n_fft 2048, hop 512, 128 bands.
        architecture: of the generator, by name. None: that of the warm start or of `generator`, else the first that
            melvoc can train.
        generator: configuration of the generator. None: the warm start's, else the architecture's small one.
        preset: "full" for the published discriminators, "slim" for an eighth of their channels (for CPUs).
        warm_start: a generator to start from: a melvoc file, a published one with its `config.json` beside it, or a
            checkpoint of another run.
        warm_discriminators: discriminators to start from: a published `do_*` file, a `discriminators.pt` or a
            checkpoint of another run.
        batch_size: segments per step and process.
        segment: samples per segment, a multiple of the hop length. None: 16384, or the multiple that is next to it.
        steps: total number of steps, including those before a resume.
        learning_rate: of both optimizers (AdamW).
        betas: of both optimizers.
        weight_decay: of both optimizers.
        lr_decay: factor of the learning rate, applied every `lr_decay_steps`.
        ramp_steps: number of initial steps over which the generator's learning rate rises from 0. None: 1000 for a warm
            start, whose good weights AdamW's first, large steps would spoil, else 0.
        lr_decay_steps: steps between decays. None: one pass over the sounds, but at least 1000, because a small set's
            pass takes only a few steps.
        weights: of the losses.
        mel_only_steps: number of initial steps without discriminators, with mel and STFT losses alone.
        discriminator_warmup: number of steps after that in which only the discriminators learn. None: 500 for a warm
            start without them, else 0.
        ema_decay: of the running mean of the generator, which is validated and exported; 0 for none.
        clip_gradients: maximum norm of either side's gradients.
        gain_db: augmentation: maximum random attenuation of a segment, in dB.
        flip_polarity: augmentation: invert the polarity of half of the segments.
        tilt_db: augmentation: maximum spectral tilt between 0 Hz and Nyquist, in either direction, in dB.
        validation_files: how many whole files to hold out. None: one in twenty, at least one if there are four or
            more.
        seed: of weights, split, segments and augmentation.
        precision: "auto" (bfloat16 autocast on CUDA, else float32), "float32" or "bfloat16".
        device: "auto" (cuda, mps, cpu) or a torch device.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations. None: with each checkpoint.
        keep_checkpoints: how many recent checkpoints to keep (the best is always kept).
        keep_discriminators: also write `RUN/discriminators.pt` at the end.

    Raises:
        OptionError: a value out of range.
        SpecError: a hop length that is no product of upsampling rates, or a segment that does not fit the spec.
    """

    audio_dir: str | os.PathLike[str] = ""
    run_dir: str | os.PathLike[str] = ""
    mels_dir: str | os.PathLike[str] | None = None
    spec: MelSpec | None = None
    architecture: str | None = None
    generator: NetworkConfig | None = None
    preset: Literal["full", "slim"] = "full"
    warm_start: str | os.PathLike[str] | None = None
    warm_discriminators: str | os.PathLike[str] | None = None

    batch_size: int = 8
    segment: int | None = None
    steps: int = 100_000
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    ramp_steps: int | None = None
    lr_decay: float = 0.999
    lr_decay_steps: int | None = None
    weights: LossWeights = field(default_factory=LossWeights)
    mel_only_steps: int = 0
    discriminator_warmup: int | None = None
    ema_decay: float = 0.999
    clip_gradients: float = 500.0

    gain_db: float = 6.0
    flip_polarity: bool = True
    tilt_db: float = 3.0
    validation_files: int | None = None
    seed: int = 0

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    checkpoint_every: int = 1000
    validate_every: int | None = None
    keep_checkpoints: int = 3
    keep_discriminators: bool = False

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.spec is not None:
            check_fit(self, self.spec)

    @property
    def divisor(self) -> int:
        """What the discriminators' channels are divided by."""
        return PRESETS[self.preset]

    def resolved(self, *, spec: MelSpec | None = None, generator: NetworkConfig | None = None) -> Self:
        """A copy with spec and generator filled in: the given ones (a warm start's), else the defaults.

        Raises:
            SpecError: a spec that is not the warm start's or does not fit the segment.
        """
        if spec is not None and self.spec is not None and (different := self.spec.diff(spec)):
            listed = "; ".join(f"{name}: {mine!r}, the file {theirs!r}" for name, (mine, theirs) in different.items())
            raise SpecError(f"the spec is not the warm start's ({listed}); omit spec to use the file's")
        if generator is not None and self.generator is not None and generator != self.generator:
            raise SpecError("the generator's configuration is not the warm start's; omit generator to use the file's")
        chosen = self.spec or spec or MelSpec.preset("griffinlim")
        network = self.generator or generator
        record = trained_architecture(self.architecture, network)
        return dataclasses.replace(
            self,
            spec=chosen,
            architecture=record.name,
            generator=network or small_generator(record, chosen),
            segment=self.segment or _fitting(SEGMENT, chosen, self),
            discriminator_warmup=self._warmup() if self.discriminator_warmup is None else self.discriminator_warmup,
            ramp_steps=(RAMP if self.warm_start else 0) if self.ramp_steps is None else self.ramp_steps,
        )

    def _warmup(self) -> int:
        return WARMUP if self.warm_start is not None and self.warm_discriminators is None else 0

    def resumed(self, stored: Mapping[str, Any]) -> Self:
        """A copy with unset fields filled in from the run that is resumed."""
        record = trained_architecture(stored.get("architecture"), None)
        values = {
            **stored,
            "architecture": record.name,
            "spec": MelSpec.from_dict(stored["spec"]),
            "generator": record.config.from_dict(stored["generator"]),
        }
        return dataclasses.replace(self, **{name: values[name] for name in LEFT_OPEN if getattr(self, name) is None})

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("audio_dir", "run_dir", "mels_dir", "warm_start", "warm_discriminators"):
            values[name] = None if values[name] is None else os.fspath(values[name])
        return values | {
            "spec": None if self.spec is None else self.spec.to_dict(),
            "generator": None if self.generator is None else self.generator.to_dict(),
            "weights": dataclasses.asdict(self.weights),
            "betas": list(self.betas),
        }

    def differences(self, stored: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What prevents a run from being resumed: `{field: (the run's, now)}`, of `to_dict`'s values.

        An unset field is no difference: it will be the run's.
        """
        mine = self.to_dict()
        found: dict[str, tuple[Any, Any]] = {}
        for entry in dataclasses.fields(self):
            left_open = entry.name in LEFT_OPEN and mine[entry.name] is None
            if entry.name not in NOT_COMPARED and not left_open and entry.name in stored:
                _compare(entry.name, stored.get(entry.name), mine[entry.name], found)
        return found


def trained_architecture(name: str | None, generator: NetworkConfig | None) -> Architecture:
    """The record of the architecture to train: by name, by configuration, or the first that melvoc can train.

    Raises:
        OptionError: an architecture without a recipe, or a configuration of a different one.
    """
    records = [record for record in all_architectures() if record.recipe]
    fitting = [record for record in records if name in (None, record.name)]
    if not fitting:
        trained = ", ".join(record.name for record in records)
        raise OptionError(f"architecture={name!r}, but melvoc trains {trained}; choose one of them")
    if generator is not None:
        fitting = [record for record in fitting if type(generator) is record.config]
    if not fitting:
        configs = " or ".join(f"{record.config.__name__}(...)" for record in records if name in (None, record.name))
        raise OptionError(f"generator={generator!r}, but it is a {configs}")
    return fitting[0]


def small_generator(record: Architecture, spec: MelSpec) -> NetworkConfig:
    """The architecture's small configuration for a spec.

    Raises:
        OptionError: it has none.
        SpecError: it has none for this hop length.
    """
    if record.small is None:
        raise OptionError(f"{record.title} has no small configuration; pass generator={record.config.__name__}(...)")
    return record.small(spec)


def check_fit(config: TrainConfig, spec: MelSpec) -> None:
    """Check that generator, segment and spec belong together.

    Raises:
        SpecError: they do not.
    """
    if config.generator is None:
        small_generator(trained_architecture(config.architecture, None), spec)
    elif (config.generator.hop_length, config.generator.n_mels) != (spec.hop_length, spec.n_mels):
        raise SpecError(
            f"the generator makes {config.generator.hop_length} samples of {config.generator.n_mels} bands per frame, "
            f"but the spec has hop_length={spec.hop_length}, n_mels={spec.n_mels}; omit generator to derive it"
        )
    if config.segment is None:
        return
    if config.segment % spec.hop_length:
        raise SpecError(
            f"segment={config.segment} is not a multiple of hop_length={spec.hop_length}; use "
            f"{_fitting(config.segment, spec, config)}, so that mel and sound are cut at the same places"
        )
    if config.segment < (least := _least(spec, config)):
        raise SpecError(
            f"segment={config.segment} is shorter than a window ({least}); use at least {_fitting(least, spec, config)}"
        )


def _least(spec: MelSpec, config: TrainConfig) -> int:
    return max(spec.n_fft, 2048 if config.weights.stft else 0)


def _fitting(samples: int, spec: MelSpec, config: TrainConfig) -> int:
    """The multiple of the hop length that is next to a number of samples, and no shorter than a window."""
    hops = max(1, round(samples / spec.hop_length), math.ceil(_least(spec, config) / spec.hop_length))
    return hops * spec.hop_length


def _check_ranges(config: TrainConfig) -> None:
    if config.preset not in PRESETS:
        raise OptionError(f"preset={config.preset!r}, but it is one of {', '.join(map(repr, PRESETS))}")
    if config.precision not in ("auto", "float32", "bfloat16"):
        raise OptionError(f"precision={config.precision!r}, but it is 'auto', 'float32' or 'bfloat16'")
    for name in ("batch_size", "checkpoint_every", "keep_checkpoints"):
        _check_whole(name, getattr(config, name), least=1)
    for name in ("steps", "mel_only_steps", "seed"):
        _check_whole(name, getattr(config, name), least=0)
    for name, least in (
        ("segment", 1), ("lr_decay_steps", 1), ("validate_every", 1), ("validation_files", 0),
        ("discriminator_warmup", 0), ("ramp_steps", 0),
    ):  # fmt: skip
        if getattr(config, name) is not None:
            _check_whole(name, getattr(config, name), least=least)
    for name in ("learning_rate", "clip_gradients"):
        _check_number(name, getattr(config, name), above=0.0)
    for name in ("weight_decay", "gain_db", "tilt_db"):
        _check_number(name, getattr(config, name), least=0.0)
    _check_number("lr_decay", config.lr_decay, above=0.0, most=1.0)
    _check_number("ema_decay", config.ema_decay, least=0.0, below=1.0)
    if not isinstance(config.betas, tuple) or len(config.betas) != 2:
        raise OptionError(f"betas={config.betas!r}, but they are two numbers; (0.8, 0.99) is usual")
    for beta in config.betas:
        _check_number("betas", beta, least=0.0, below=1.0)
    if not isinstance(config.weights, LossWeights):
        raise OptionError(f"weights={config.weights!r}, but they are a LossWeights(...)")
    if config.spec is not None and not isinstance(config.spec, MelSpec):
        raise SpecError(f"spec={config.spec!r} is a {type(config.spec).__name__}; pass a melvoc.MelSpec")
    trained_architecture(config.architecture, config.generator)
    if not (config.weights.mel or config.weights.stft) and config.mel_only_steps:
        raise OptionError(
            f"mel_only_steps={config.mel_only_steps} with weights.mel=0 and weights.stft=0 would learn nothing; "
            "set mel_only_steps=0"
        )
    for name in ("audio_dir", "run_dir"):
        if not os.fspath(getattr(config, name)):
            raise OptionError(f"{name} is empty; give the path of a folder")
    if Path(config.audio_dir).resolve() == Path(config.run_dir).resolve():
        raise OptionError(f"run_dir={os.fspath(config.run_dir)!r} is the folder of the audio itself; choose another")


def _check_whole(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise OptionError(f"{name}={value!r}, but it is a whole number of at least {least}")


def _check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    bounds = {"at least": least, "above": above, "below": below, "at most": most}
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    if not (number and _within(value, least, above, below, most)):
        raise OptionError(f"{name}={value!r}, but it is a number {said}")


def _within(value: Any, least: float | None, above: float | None, below: float | None, most: float | None) -> bool:
    return (
        (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
        and (most is None or value <= most)
    )


def _compare(name: str, theirs: Any, mine: Any, found: dict[str, tuple[Any, Any]]) -> None:
    """Collect differences; nested fields (spec, generator, weights) are compared one by one."""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in sorted({*theirs, *mine}):
            _compare(f"{name}.{key}", theirs.get(key), mine.get(key), found)
    elif theirs != mine:
        found[name] = (theirs, mine)
