"""Everything that configures a training run, validated when it is made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError
from melvoc.recipe import LossWeights, Recipe
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.checks import check_config, fitting, weights_of
from melvoc.train.profiles import own_recipe, profile_name, profile_of, subject
from melvoc.train.recipes import sized_generator, trained_architecture
from melvoc.train.revival import revived

WARMUP = 500  # steps for new discriminators next to a generator that is already trained
CHECKPOINT_EVERY = 1000  # steps, in a run that is not told its minutes


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. What is not given is the profile's (`melvoc.train.profiles`), else the architecture's recipe.

    The attribute descriptions are also the help texts of `melvoc train`.

    Attributes:
        audio_dir: folder of sound files, searched with its subfolders, linked ones included. Empty only for a
            trainer that is given `audio=`.
        run_dir: folder of the run, for checkpoints, log and result; created if it does not exist.
        mels_dir: mels of another model, paired with the audio by name (`a.wav`, `a.safetensors` or `a.npy`). None: the
            audio's own.
        spec: the mel that the generator will understand. None: the warm start's, or that of the other model's mels,
            else 44.1 kHz, n_fft 2048, hop 512, 128 bands.
        profile: where unspecified options come from: "cpu" or "gpu", for a result within minutes; "published", the
            architecture's recipe; "bigvgan_v2", which goes on with BigVGAN-v2 from its published generator,
            discriminators and optimizers. None: the device's, or "published" for who names a preset or discriminators.
        architecture: of the generator, by name (hifigan, bigvgan, glnet, istftnet, vocos, wavenext, or a package's).
            None: that of the warm start or of `generator`, else the profile's.
        size: of the generator, by name ("small", "base"). None: the profile's, or the architecture's first.
        generator: configuration of the generator. None: the warm start's, else the one of that size.
        discriminators: which judge ("mpd", "msd", "mrd", "cqt"), each with its weight in the losses of both sides.
            None: the architecture's.
        preset: "full" for the published discriminators, "slim" for an eighth of their channels, or one of these for
            some kinds by name, the others being full. None: the profile's.
        warm_start: a generator to start from: a melvoc file, a published one with its configuration beside it, a
            checkpoint of another run, or what is downloaded by its name.
        warm_discriminators: discriminators to start from: a published `do_*` file (BigVGAN's
            `bigvgan_discriminator_optimizer.pt`), a `discriminators.pt` or a checkpoint of another run.
        minutes: in all, including reading, validation and export, excluding pauses; what the run took before a resume
            counts. With `steps` too, whichever comes first. None: 30, unless there are steps.
        steps: total number of steps, including those before a resume. None: as many as the minutes have room for.
        patience: validations without a better figure (multi_scale_mel) after which the run ends. None: it ends with its
            steps or minutes. With patience or minutes, also before a resume, the best generator is the result; with
            steps alone, the last.
        batch_size: segments per step and process. None: the profile's, 8 as published.
        segment: samples per segment, a multiple of the hop length. None: the multiple that is next to the profile's
            or the architecture's, which is 16384, or 8192 for bigvgan; shorter where most would be padding.
        learning_rate: of both optimizers (AdamW). None: the architecture's: 2e-4 for hifigan and istftnet,
            5e-4 for vocos and wavenext, 1e-3 for glnet, 1e-4 for bigvgan.
        betas: of both optimizers. None: the architecture's.
        weight_decay: of both optimizers.
        schedule: of the learning rate: "cosine" falls to a hundredth of it at the end of the run, "decay" by
            `lr_decay`. None: cosine with minutes, decay with steps alone or where the recipe decays in each step.
        lr_decay: factor of the learning rate, applied every `lr_decay_steps`. None: the recipe's, 0.999.
        ramp_steps: number of initial steps over which the generator's learning rate rises from 0. None: the profile's
            for a warm start, whose good weights AdamW's first, large steps would spoil, else 0.
        lr_decay_steps: steps between decays. None: one pass over the sounds, but at least 1000, because a small set's
            pass takes only a few steps.
        weights: of the losses.
        mel_only_steps: number of initial steps without discriminators, with the losses of sound alone.
        discriminator_warmup: number of steps after that in which only the discriminators learn. None: 500 for a warm
            start without them, else 0.
        judge_every: steps from one in which the discriminators judge and learn to the next; in between, the generator
            learns from the losses of sound alone, which takes a fraction of the time.
        ema_decay: of the running mean of the generator, which is validated and exported; 0 for none.
        clip_gradients: maximum norm of either side's gradients.
        gain_db: augmentation: maximum random attenuation of a segment, in dB.
        flip_polarity: invert the polarity of half of the segments, as augmentation.
        tilt_db: augmentation: maximum spectral tilt between 0 Hz and Nyquist, in either direction, in dB.
        keep_clipped: whether to train on files that are clipped, too; they are named.
        phase_rotation: augmentation of what the discriminators judge (PhaseAug): the share of the published random
            rotations of phases, the same for real and generated sound; 0 for none.
        validation_files: how many whole files to hold out. None: one in twenty, at least one if there are four or
            more.
        seed: of weights, split, segments and augmentation.
        precision: "auto" (bfloat16 autocast on CUDA and on CPUs with AMX, else float32), "float32" or "bfloat16". It is
            for discriminators, and for those of the generator's layers that the recipe names.
        device: "auto" (cuda, mps, cpu) or a torch device.
        checkpoint_every: steps between checkpoints. None: 1000, or with minutes a tenth of them.
        validate_every: steps between validations. None: with each checkpoint.
        keep_checkpoints: how many recent checkpoints to keep (the best is always kept).
        samples: of how many held-out files each checkpoint's sound and pictures are written, to `RUN/samples`.
        name: of the result, in its file. None: the run folder's.
        licence: of the result, stored in its file.
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
    preset: str | Mapping[str, str] | None = None
    warm_start: str | os.PathLike[str] | None = None
    warm_discriminators: str | os.PathLike[str] | None = None

    minutes: float | None = None
    steps: int | None = None
    patience: int | None = None
    batch_size: int | None = None
    segment: int | None = None
    learning_rate: float | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float = 0.01
    ramp_steps: int | None = None
    schedule: Literal["decay", "cosine"] | None = None
    lr_decay: float | None = None
    lr_decay_steps: int | None = None
    weights: LossWeights = field(default_factory=LossWeights)
    mel_only_steps: int = 0
    discriminator_warmup: int | None = None
    judge_every: int = 1
    ema_decay: float = 0.999
    clip_gradients: float = 500.0

    gain_db: float = 6.0
    flip_polarity: bool = True
    tilt_db: float = 3.0
    keep_clipped: bool = False
    phase_rotation: float = 0.0
    validation_files: int | None = None
    seed: int = 0

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    checkpoint_every: int | None = None
    validate_every: int | None = None
    keep_checkpoints: int = 3
    samples: int = 2
    name: str | None = None
    licence: str | None = None
    keep_discriminators: bool = False

    def __post_init__(self) -> None:
        if self.generator is not None and self.architecture is None:  # or JSON could not tell two architectures apart
            record, _ = trained_architecture(None, self.generator)
            object.__setattr__(self, "architecture", record.name)
        check_config(self)

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
        profile, (record, recipe) = profile_of(self), subject(self, generator, chosen)
        own = profile.quick and recipe.quick
        weights = weights_of(self, recipe, chosen)
        judged = weights.judges
        fresh = judged and self.warm_start is not None and self.warm_discriminators is None
        continued = rate if recipe.continues else None
        size = self.size or (profile.size if profile.size in recipe.sizes else next(iter(recipe.sizes)))
        timed = self.minutes is not None or self.steps is None
        filled = {
            "profile": profile_name(self),
            "spec": chosen,
            "architecture": record.name,
            "size": self.size if network else size,
            "generator": network or sized_generator(record, recipe, size, chosen),
            "discriminators": recipe.discriminators,
            "preset": profile.preset,
            "minutes": profile.minutes if timed else None,
            "batch_size": profile.batch_size,
            "segment": fitting((own and profile.segment) or recipe.segment, chosen, self, recipe),
            "learning_rate": continued or recipe.learning_rate,
            "betas": recipe.betas,
            "ramp_steps": profile.ramp_steps if self.warm_start is not None and continued is None else 0,
            "schedule": "cosine" if timed and recipe.lr_decay_steps is None else "decay",
            "lr_decay": recipe.lr_decay,
            "lr_decay_steps": recipe.lr_decay_steps,
            "discriminator_warmup": WARMUP * fresh,
            "checkpoint_every": None if timed else CHECKPOINT_EVERY,
        }
        given = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        left_open = {name: value for name, value in filled.items() if given[name] is None}
        return ResolvedConfig(**given | left_open | {"weights": weights})

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
        values["device"] = str(self.device)
        return values | {
            "betas": None if self.betas is None else list(self.betas),
            "discriminators": None if self.discriminators is None else dict(self.discriminators),
            "preset": dict(self.preset) if isinstance(self.preset, Mapping) else self.preset,
            "spec": None if self.spec is None else self.spec.to_dict(),
            "generator": None if self.generator is None else self.generator.to_dict(),
            "weights": dataclasses.asdict(self.weights),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of `to_dict`'s values, paths as text.

        Raises:
            OptionError: a field that there is not, or a value out of range.
            SpecError: as the constructor.

        Example:
            >>> config = TrainConfig(audio_dir="sounds", run_dir="run", minutes=5)
            >>> TrainConfig.from_dict(config.to_dict()) == config
            True
        """
        return cls(**revived(cls, values))


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """A configuration in which nothing is left open: what `TrainConfig.resolved` gives."""

    spec: MelSpec
    profile: str
    architecture: str
    generator: NetworkConfig
    discriminators: Mapping[str, float]
    preset: str | Mapping[str, str]
    batch_size: int
    segment: int
    learning_rate: float
    betas: tuple[float, float]
    lr_decay: float
    ramp_steps: int
    schedule: Literal["decay", "cosine"]
    discriminator_warmup: int

    @property
    def record(self) -> Architecture:
        """The architecture's record."""
        return trained_architecture(self.architecture, None)[0]

    @property
    def recipe(self) -> Recipe:
        """How the architecture is trained."""
        return trained_architecture(self.architecture, None, own_recipe(self))[1]
