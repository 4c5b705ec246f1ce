"""The sounds of a run: what is trained on, what is held out, and what is not used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from melvoc.audio.folder import Skipped
from melvoc.progress import Report
from melvoc.train.checks import fitting
from melvoc.train.config import ResolvedConfig
from melvoc.train.data import MOSTLY, Segments, fingerprint, split
from melvoc.train.sounds import Found, Sound, check_enough, distinct, gather, read_sounds

LEAST_DECAY_STEPS = 1000
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run learns from.

    Attributes:
        files: names of the sounds that are trained on.
        seconds: their total duration.
        segments: drawn from them.
        held_out: the sounds for validation.
        skipped: files that are not used, with reasons.
        notes: what else should be known, one line each.
        data: what a resumed run must have again: files, seconds, whether mels are paired, a fingerprint.
    """

    files: tuple[str, ...]
    seconds: float
    segments: Segments
    held_out: tuple[Sound, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    data: dict[str, Any]

    def decay_steps(self, config: ResolvedConfig, processes: int) -> int:
        """Steps between decays of the learning rate."""
        a_pass = math.ceil(self.segments.segments_a_pass / (config.batch_size * processes))
        return config.lr_decay_steps or max(LEAST_DECAY_STEPS, a_pass)


def read_material(config: ResolvedConfig, found: Found, report: Report, *, shorten: bool = False) -> Material:
    """Read and check every sound.

    Args:
        config: of the run.
        found: the sounds.
        report: called after each file with how many are done.
        shorten: whether segments may be shorter than the configuration says, where most of them would be padding.

    Raises:
        MelvocError: too little usable sound, or a mel with a different spec.
    """
    spec = config.spec
    entries = _counted(read_sounds(found, spec, mels=config.mels_dir, keep_clipped=config.keep_clipped), report)
    every, skipped = gather(entries, found.root, spec)
    sounds, twins = distinct(every)
    trained, held_out = split(sounds, held_out=config.validation_files, seed=config.seed)
    check_enough(trained, held_out, spec)
    segments = _segments(trained, config, config.segment)
    while shorten and segments.padding > MOSTLY:
        shorter = fitting(segments.segment // 2, spec, config, config.recipe)
        if shorter >= segments.segment:
            break
        segments = _segments(trained, config, shorter)
    return Material(
        files=tuple(sound.name for sound in trained),
        seconds=_seconds(trained, config),
        segments=segments,
        held_out=tuple(held_out),
        skipped=(*skipped, *twins, *found.others),
        notes=(*(f"{sound.name}: {sound.note}" for sound in sounds if sound.note), *segments.notes),
        data={
            "files": len(sounds),
            "seconds": round(_seconds(sounds, config), 3),
            "paired mels": config.mels_dir is not None,
            "fingerprint": fingerprint(sounds),
        },
    )


def _segments(sounds: Sequence[Sound], config: ResolvedConfig, segment: int) -> Segments:
    return Segments(
        sounds,
        config.spec,
        segment=segment,
        seed=config.seed,
        gain_db=config.gain_db,
        flip_polarity=config.flip_polarity,
        tilt_db=config.tilt_db,
    )


def _counted(entries: Iterator[R], report: Report) -> Iterator[R]:
    for count, entry in enumerate(entries, start=1):
        yield entry
        report(count)


def _seconds(sounds: Sequence[Sound], config: ResolvedConfig) -> float:
    return sum(len(sound.wave) for sound in sounds) / config.spec.sample_rate
