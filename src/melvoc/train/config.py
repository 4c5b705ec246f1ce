"""Everything that configures a training run, validated when it is made."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError, kind_of
from melvoc.recipe import LossWeights, Recipe
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.discriminators import check_kinds, check_preset, least_samples
from melvoc.train.ranges import check_choice, check_number, check_whole
from melvoc.train.recipes import sized_generator, trained_architecture
from melvoc.train.refinement import edges

WARMUP = 500  # steps for new discriminators next to a generator that is already trained
RAMP = 1000  # steps until such a generator learns at the full rate


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. What is not given is the architecture's recipe; by default, HiFi-GAN's V2 at 44.1 kHz.

    The attribute descriptions are also the help texts of `melvoc train`.

    Attributes:
        audio_dir: folder of sound files, searched with its subfolders, linked ones included.
        run_dir: folder of the run, for checkpoints, log and result; created if it does not exist.
        mels_dir: mels of another model, paired with the audio by name (`a.wav`, `a.safetensors` or `a.npy`). None: the
            audio's own.
        spec: the mel that the generator will understand. None: the warm start's, or that of the other model's mels,
            else 44.1 kHz, n_fft 2048, hop 512, 128 bands.
        profile: a published way of training other than the architecture's recipe: "bigvgan_v2" goes on with BigVGAN-v2
            from its published generator, discriminators and optimizers. None: the recipe.
        architecture: of the generator, by name (hifigan, bigvgan, istftnet, vocos, wavenext, or a package's). None:
            that of the warm start or of `generator`, else hifigan.
        size: of the generator, by name ("small", "base"). None: the architecture's first, small.
        generator: configuration of the generator. None: the warm start's, else the one of that size.
        discriminators: which judge ("mpd", "msd", "mrd", "cqt"), each with its weight in the losses of both sides.
            None: the architecture's.
        preset: "full" for the published discriminators, "slim" for an eighth of their channels (for CPUs), or one of
            these for some kinds by name, the others being full.
        warm_start: a generator to start from: a melvoc file, a published one with its configuration beside it, a
            checkpoint of another run, or what is downloaded by its name.
        warm_discriminators: discriminators to start from: a published `do_*` file (BigVGAN's
            `bigvgan_discriminator_optimizer.pt`), a `discriminators.pt` or a checkpoint of another run.
        batch_size: segments per step and process.
        segment: samples per segment, a multiple of the hop length. None: the multiple that is next to the
            architecture's, which is 16384, or 8192 for bigvgan.
        steps: total number of steps, including those before a resume.
        learning_rate: of both optimizers (AdamW). None: the architecture's: 2e-4 for hifigan and istftnet,
            5e-4 for vocos and wavenext, 1e-4 for bigvgan.
        betas: of both optimizers. None: the architecture's.
        weight_decay: of both optimizers.
        lr_decay: factor of the learning rate, applied every `lr_decay_steps`. None: the recipe's, 0.999.
        ramp_steps: number of initial steps over which the generator's learning rate rises from 0. None: 1000 for a warm
            start, whose good weights AdamW's first, large steps would spoil, else 0.
        lr_decay_steps: steps between decays. None: the recipe's, or one pass over the sounds, but at least 1000,
            because a small set's pass takes only a few steps.
        weights: of the losses.
        mel_only_steps: number of initial steps without discriminators, with the losses of sound alone.
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
        precision: "auto" (bfloat16 autocast on CUDA, else float32), "float32" or "bfloat16"; a generator that autocast
            would harm (all but hifigan) stays float32 beside its discriminators.
        device: "auto" (cuda, mps, cpu) or a torch device.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations. None: with each checkpoint.
        keep_checkpoints: how many recent checkpoints to keep (the best is always kept).
        keep_discriminators: also write `RUN/discriminators.pt` at the end.

    Raises:
        OptionError: a value out of range.
        SpecError: a spec that the architecture has no generator for, or a segment that does not fit it.
    """

    audio_dir: str | os.PathLike[str] = ""
    run_dir: str | os.PathLike[str] = ""
    mels_dir: str | os.PathLike[str] | None = None
    spec: MelSpec | None = None
    profile: str | None = None
    architecture: str | None = None
    size: str | None = None
    generator: NetworkConfig | None = None
    discriminators: Mapping[str, float] | None = None
    preset: str | Mapping[str, str] = "full"
    warm_start: str | os.PathLike[str] | None = None
    warm_discriminators: str | os.PathLike[str] | None = None

    batch_size: int = 8
    segment: int | None = None
    steps: int = 100_000
    learning_rate: float | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float = 0.01
    ramp_steps: int | None = None
    lr_decay: float | None = None
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
        _check_learning(self)
        if self.spec is not None:
            _check_generator(self, self.spec)
            _check_segment(self, self.spec, trained_architecture(self.architecture, self.generator, self.profile)[1])

    def resolved(
        self,
        *,
        spec: MelSpec | None = None,
        generator: NetworkConfig | None = None,
        mels: MelSpec | None = None,
        rate: float | None = None,
    ) -> ResolvedConfig:
        """A copy with everything filled in that was left open.

        Args:
            spec: of the warm start.
            generator: of the warm start.
            mels: the spec of another model's mels.
            rate: the learning rate of optimizer states that come with the warm start.

        Raises:
            SpecError: a spec that is not the warm start's or does not fit the segment.
            OptionError: an architecture that is not the warm start's.
        """
        self._check_warm(spec, generator)
        chosen = self.spec or spec or mels or MelSpec.preset("griffinlim")
        network = self.generator or generator
        record, recipe = trained_architecture(self.architecture, network, self.profile)
        weights, lr_decay = self.weights.over(recipe.weights), self.lr_decay or recipe.lr_decay
        judged = bool(weights.adversarial or weights.feature)
        fresh = judged and self.warm_start is not None and self.warm_discriminators is None
        continued = rate if recipe.continues else None
        size = self.size if network else self.size or next(iter(recipe.sizes))
        given = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        filled = {
            "spec": chosen,
            "architecture": record.name,
            "size": size,
            "generator": network or sized_generator(record, recipe, size, chosen),
            "discriminators": self.discriminators or recipe.discriminators,
            "segment": self.segment or _fitting(recipe.segment, chosen, self, recipe),
            "learning_rate": self.learning_rate or continued or recipe.learning_rate,
            "betas": self.betas or recipe.betas,
            "lr_decay": lr_decay,
            "lr_decay_steps": self.lr_decay_steps or recipe.lr_decay_steps,
            "weights": weights,
        }
        ramp = RAMP if self.warm_start is not None and continued is None else 0
        for name, value in (("discriminator_warmup", WARMUP * fresh), ("ramp_steps", ramp)):
            filled[name] = value if given[name] is None else given[name]
        return ResolvedConfig(**given | filled)

    def _check_warm(self, spec: MelSpec | None, generator: NetworkConfig | None) -> None:
        """Check that what was given agrees with a warm start."""
        if spec is not None and self.spec is not None and (different := self.spec.diff(spec)):
            listed = "; ".join(f"{name}: {mine!r}, the file {theirs!r}" for name, (mine, theirs) in different.items())
            raise SpecError(f"the spec is not the warm start's ({listed}); omit spec to use the file's")
        if generator is None:
            return
        if self.generator not in (None, generator):
            raise SpecError("the generator's configuration is not the warm start's; omit generator to use the file's")
        name = trained_architecture(None, generator)[0].name
        if self.architecture not in (None, name):
            raise OptionError(f"architecture={self.architecture!r}, but the warm start is a {name}; omit architecture")

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        values: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for name in ("audio_dir", "run_dir", "mels_dir", "warm_start", "warm_discriminators"):
            values[name] = None if values[name] is None else os.fspath(values[name])
        return values | {
            "betas": None if self.betas is None else list(self.betas),
            "discriminators": None if self.discriminators is None else dict(self.discriminators),
            "preset": dict(self.preset) if isinstance(self.preset, Mapping) else self.preset,
            "spec": None if self.spec is None else self.spec.to_dict(),
            "generator": None if self.generator is None else self.generator.to_dict(),
            "weights": dataclasses.asdict(self.weights),
        }


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """A configuration in which nothing is left open: what `TrainConfig.resolved` gives."""

    spec: MelSpec
    architecture: str
    generator: NetworkConfig
    discriminators: Mapping[str, float]
    segment: int
    learning_rate: float
    betas: tuple[float, float]
    lr_decay: float
    ramp_steps: int
    discriminator_warmup: int

    @property
    def record(self) -> Architecture:
        """The architecture's record."""
        return trained_architecture(self.architecture, None)[0]

    @property
    def recipe(self) -> Recipe:
        """How the architecture is trained."""
        return trained_architecture(self.architecture, None, self.profile)[1]


def _check_generator(config: TrainConfig, spec: MelSpec) -> None:
    """Check that generator, size and spec belong together."""
    record, recipe = trained_architecture(config.architecture, config.generator, config.profile)
    derived = None
    if config.size is not None or (config.generator is None and config.warm_start is None):
        derived = sized_generator(record, recipe, config.size, spec)
    if config.generator is None:
        return
    if (config.generator.hop_length, config.generator.n_mels) != (spec.hop_length, spec.n_mels):
        raise SpecError(
            f"the generator makes {config.generator.hop_length} samples of {config.generator.n_mels} bands per frame, "
            f"but the spec has hop_length={spec.hop_length}, n_mels={spec.n_mels}; omit generator to derive it"
        )
    if derived is not None and derived != config.generator:
        raise SpecError(f"size={config.size!r} is another generator than the one that was given; omit size")


def _check_segment(config: TrainConfig, spec: MelSpec, recipe: Recipe) -> None:
    """Check that a segment is whole frames, and no shorter than a window."""
    if config.segment is None:
        return
    if config.segment % spec.hop_length:
        raise SpecError(
            f"segment={config.segment} is not a multiple of hop_length={spec.hop_length}; use "
            f"{_fitting(config.segment, spec, config, recipe)}, so that mel and sound are cut at the same places"
        )
    if config.segment < (least := _least(spec, config, recipe)):
        raise SpecError(
            f"segment={config.segment} is shorter than a window ({least}); use at least "
            f"{_fitting(least, spec, config, recipe)}"
        )


def _least(spec: MelSpec, config: TrainConfig, recipe: Recipe) -> int:
    judged, weights = least_samples(config.discriminators or recipe.discriminators), config.weights.over(recipe.weights)
    heard = max(spec.n_fft, 2048 if weights.stft or weights.multi_scale_mel else 0)
    return max(judged, heard + sum(edges(spec)) if weights.refined else heard)


def _fitting(samples: int, spec: MelSpec, config: TrainConfig, recipe: Recipe) -> int:
    """The multiple of the hop length that is next to a number of samples, and no shorter than a window."""
    hops = max(1, round(samples / spec.hop_length), math.ceil(_least(spec, config, recipe) / spec.hop_length))
    return hops * spec.hop_length


def _check_ranges(config: TrainConfig) -> None:
    check_preset(config.preset)
    check_choice("precision", config.precision, ("auto", "float32", "bfloat16"))
    for name in ("batch_size", "checkpoint_every", "keep_checkpoints"):
        check_whole(name, getattr(config, name), least=1)
    for name in ("steps", "mel_only_steps", "seed"):
        check_whole(name, getattr(config, name), least=0)
    for name, least in (
        ("segment", 1), ("lr_decay_steps", 1), ("validate_every", 1), ("validation_files", 0),
        ("discriminator_warmup", 0), ("ramp_steps", 0),
    ):  # fmt: skip
        if getattr(config, name) is not None:
            check_whole(name, getattr(config, name), least=least)
    if config.learning_rate is not None:
        check_number("learning_rate", config.learning_rate, above=0.0)
    check_number("clip_gradients", config.clip_gradients, above=0.0)
    for name in ("weight_decay", "gain_db", "tilt_db"):
        check_number(name, getattr(config, name), least=0.0)
    if config.lr_decay is not None:
        check_number("lr_decay", config.lr_decay, above=0.0, most=1.0)
    check_number("ema_decay", config.ema_decay, least=0.0, below=1.0)
    if config.betas is not None:
        if not isinstance(config.betas, tuple) or len(config.betas) != 2:
            raise OptionError(f"betas={config.betas!r}, but they are two numbers; (0.8, 0.99) is usual")
        for beta in config.betas:
            check_number("betas", beta, least=0.0, below=1.0)
    if config.spec is not None and not isinstance(config.spec, MelSpec):
        raise SpecError(f"spec={config.spec!r} is {kind_of(config.spec)}; pass a melvoc.MelSpec")
    for name in ("audio_dir", "run_dir"):
        if not os.fspath(getattr(config, name)):
            raise OptionError(f"{name} is empty; give the path of a folder")
    if Path(config.audio_dir).resolve() == Path(config.run_dir).resolve():
        raise OptionError(f"run_dir={os.fspath(config.run_dir)!r} is the folder of the audio itself; choose another")


def _check_learning(config: TrainConfig) -> None:
    """Check that there is something to learn, in every phase."""
    _, recipe = trained_architecture(config.architecture, config.generator, config.profile)
    if not isinstance(config.weights, LossWeights):
        raise OptionError(f"weights={config.weights!r}, but they are a LossWeights(...)")
    if config.discriminators is not None:
        check_kinds(config.discriminators)
    weights = config.weights.over(recipe.weights)
    if not (weights.hears or weights.adversarial):
        raise OptionError("all weights of the generator's losses are 0, so it would learn nothing; set mel=45")
    if weights.refined and not weights.hears:
        raise OptionError(
            f"weights.refined={weights.refined!r} is a factor of the losses of sound, which are all 0; set mel=45"
        )
    if not weights.hears and config.mel_only_steps:
        raise OptionError(
            f"mel_only_steps={config.mel_only_steps} with weights.mel=0 and no other loss of sound would learn "
            "nothing; set mel_only_steps=0"
        )
