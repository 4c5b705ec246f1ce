"""What a configuration must be, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from melvoc.errors import OptionError, SpecError, quoted
from melvoc.options import check_flag
from melvoc.recipe import LossWeights, Recipe
from melvoc.spectrogram.spec import MelSpec, check_spec
from melvoc.train.augment import N_FFT
from melvoc.train.discriminators import check_kinds, check_preset, least_samples
from melvoc.train.profiles import profile_of, subject
from melvoc.train.ranges import check_choice, check_number, check_whole
from melvoc.train.recipes import sized_generator
from melvoc.train.refinement import edges

if TYPE_CHECKING:
    from melvoc.train.config import ResolvedConfig, TrainConfig

SCHEDULES = ("decay", "cosine")
SEEDS = 2**63


def check_config(config: TrainConfig) -> None:
    """Check every field, and what belongs together.

    Raises:
        OptionError: a value out of range.
        SpecError: a spec that the architecture has no generator for, or a segment that does not fit it.
    """
    _check_ranges(config)
    _check_learning(config)
    if config.spec is not None:
        _check_generator(config, config.spec)
        _check_segment(config, config.spec, subject(config)[1])


def check_used(config: TrainConfig, resolved: ResolvedConfig) -> None:
    """Check that what was given for a run that begins has an effect.

    Args:
        config: as given.
        resolved: the same with nothing left open.

    Raises:
        OptionError: something has none.
    """
    judging = {
        "discriminators": config.discriminators,
        "warm_discriminators": config.warm_discriminators,
        "keep_discriminators": config.keep_discriminators,
        "discriminator_warmup": config.discriminator_warmup,
        "mel_only_steps": config.mel_only_steps,
        "judge_every": config.judge_every if config.judge_every > 1 else None,
        "phase_rotation": config.phase_rotation,
    }
    unused = {} if resolved.weights.judges else judging
    for name, value in unused.items():
        if value:
            raise OptionError(
                f"{name}={value!r} has no effect: no loss of a {resolved.architecture} with the profile "
                f"{resolved.profile!r} asks for discriminators; set weights.adversarial and weights.feature "
                "(--adversarial-weight 1 --feature-weight 2), or omit it"
            )
    for name in ("lr_decay", "lr_decay_steps") if resolved.schedule == "cosine" else ():
        if (value := getattr(config, name)) is not None:
            raise OptionError(
                f"{name}={value!r} has no effect with schedule='cosine', which runs with minutes have; set "
                "schedule='decay' (--schedule decay), or omit it"
            )


def weights_of(config: TrainConfig, recipe: Recipe, spec: MelSpec | None = None) -> LossWeights:
    """The weights of the losses: those given, the profile's, the recipe's.

    Args:
        config: of the run.
        recipe: of the architecture.
        spec: of the mels, where it is known. The profile's losses after refinement are for segments that have something
            left for them: where a shorter one was given, there are none.
    """
    weights = config.weights.over(profile_of(config).weights or recipe.weights)
    if spec is None or config.segment is None or config.weights.refined is not None:
        return weights
    room = config.segment >= _heard(spec, weights) + sum(edges(spec))
    return weights if room else dataclasses.replace(weights, refined=0.0)


def fitting(samples: int, spec: MelSpec, config: TrainConfig, recipe: Recipe) -> int:
    """The multiple of the hop length that is next to a number of samples, and no shorter than a window."""
    hops = max(1, round(samples / spec.hop_length), math.ceil(_least(spec, config, recipe) / spec.hop_length))
    return hops * spec.hop_length


def _check_generator(config: TrainConfig, spec: MelSpec) -> None:
    """Check that generator, size and spec belong together."""
    record, recipe = subject(config)
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
            f"{fitting(config.segment, spec, config, recipe)}, so that mel and sound are cut at the same places"
        )
    if config.segment < (least := _least(spec, config, recipe)):
        raise SpecError(
            f"segment={config.segment} is shorter than a window ({least}); use at least "
            f"{fitting(least, spec, config, recipe)}"
        )


def _least(spec: MelSpec, config: TrainConfig, recipe: Recipe) -> int:
    """Samples that everything can judge."""
    weights, judges = weights_of(config, recipe, spec), config.discriminators or recipe.discriminators
    judged = least_samples(judges) if weights.judges else 0
    heard = _heard(spec, weights)
    rotated = N_FFT // 2 + 1 if config.phase_rotation else 1
    return max(judged, rotated, heard + sum(edges(spec)) if weights.refined else heard)


def _heard(spec: MelSpec, weights: LossWeights) -> int:
    """Samples of the longest window that a loss of sound has."""
    return max(spec.n_fft, 2048 if weights.stft or weights.multi_scale_mel else 0)


def _check_ranges(config: TrainConfig) -> None:
    for name in ("flip_polarity", "keep_clipped", "keep_discriminators"):
        check_flag(name, getattr(config, name))
    if not isinstance(config.device, str | torch.device):
        raise OptionError(f"device={quoted(config.device)}, but it is 'auto' or a torch device")
    for name in ("architecture", "size", "profile"):
        if not isinstance(value := getattr(config, name), str | None):
            raise OptionError(f"{name}={quoted(value)}, but it is a text")
    for name in ("mels_dir", "warm_start", "warm_discriminators"):
        if not isinstance(value := getattr(config, name), str | os.PathLike | None):
            raise OptionError(f"{name}={quoted(value)}, but it is a path")
    if config.preset is not None:
        check_preset(config.preset)
    if config.schedule is not None:
        check_choice("schedule", config.schedule, SCHEDULES)
    check_choice("precision", config.precision, ("auto", "float32", "bfloat16"))
    for name in ("keep_checkpoints", "judge_every"):
        check_whole(name, getattr(config, name), least=1)
    for name in ("mel_only_steps", "seed", "samples"):
        check_whole(name, getattr(config, name), least=0)
    if config.seed >= SEEDS:
        raise OptionError(f"seed={quoted(config.seed)}, but it is less than 2^63")
    for name, least in (
        ("steps", 0), ("batch_size", 1), ("segment", 1), ("lr_decay_steps", 1), ("checkpoint_every", 1),
        ("validate_every", 1), ("validation_files", 0), ("discriminator_warmup", 0), ("ramp_steps", 0),
        ("patience", 1),
    ):  # fmt: skip
        if getattr(config, name) is not None:
            check_whole(name, getattr(config, name), least=least)
    for name in ("learning_rate", "minutes"):
        if getattr(config, name) is not None:
            check_number(name, getattr(config, name), above=0.0)
    check_number("clip_gradients", config.clip_gradients, above=0.0)
    for name in ("weight_decay", "gain_db", "tilt_db", "phase_rotation"):
        check_number(name, getattr(config, name), least=0.0)
    if config.lr_decay is not None:
        check_number("lr_decay", config.lr_decay, above=0.0, most=1.0)
    check_number("ema_decay", config.ema_decay, least=0.0, below=1.0)
    if config.betas is not None:
        if not isinstance(config.betas, tuple) or len(config.betas) != 2:
            raise OptionError(f"betas={config.betas!r}, but they are two numbers; (0.8, 0.99) is usual")
        for beta in config.betas:
            check_number("betas", beta, least=0.0, below=1.0)
    for name in ("name", "licence"):
        if (value := getattr(config, name)) is not None and not (isinstance(value, str) and value.strip()):
            raise OptionError(f"{name}={value!r}, but it is a text; omit it if there is none")
    if config.spec is not None:
        check_spec(config.spec)
    for name in ("audio_dir", "run_dir"):
        if not isinstance(value := getattr(config, name), str | os.PathLike):
            raise OptionError(f"{name}={value!r}, but it is the path of a folder")
    if not os.fspath(config.run_dir):
        raise OptionError("run_dir is empty; give the path of a folder")
    if os.fspath(config.audio_dir) and Path(config.audio_dir).resolve() == Path(config.run_dir).resolve():
        raise OptionError(f"run_dir={os.fspath(config.run_dir)!r} is the folder of the audio itself; choose another")


def _check_learning(config: TrainConfig) -> None:
    """Check that there is something to learn, in every phase."""
    _, recipe = subject(config)
    if not isinstance(config.weights, LossWeights):
        raise OptionError(f"weights={config.weights!r}, but they are a LossWeights(...)")
    if config.discriminators is not None:
        check_kinds(config.discriminators)
    weights = weights_of(config, recipe)
    if not (weights.hears or weights.adversarial):
        raise OptionError("all weights of the generator's losses are 0, so it would learn nothing; set mel=45")
    if weights.refined and not weights.hears:
        raise OptionError(
            f"weights.refined={weights.refined!r} is a factor of the losses of sound, which are all 0; set mel=45"
        )
    alone = {"mel_only_steps": (config.mel_only_steps, 0), "judge_every": (config.judge_every, 1)}
    for name, (value, least) in alone.items():
        if not weights.hears and value > least:
            raise OptionError(
                f"{name}={value} with weights.mel=0 and no other loss of sound would learn nothing; set {name}={least}"
            )
