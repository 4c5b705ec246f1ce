"""What a run begins with: its sounds, its configuration, its weights."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from melvoc.errors import OptionError, about
from melvoc.spectrogram.file import ENDINGS
from melvoc.train.checks import check_used
from melvoc.train.config import ResolvedConfig, TrainConfig
from melvoc.train.folder import RunFolder
from melvoc.train.given import Audio, named_sounds
from melvoc.train.precision import halved
from melvoc.train.resuming import LATEST, check_config, resumed
from melvoc.train.sounds import Found, find_sounds, spec_of_mels
from melvoc.train.state import TrainState
from melvoc.train.warm import WarmStart, read_start


class Origin(NamedTuple):
    """Where a run begins.

    Attributes:
        found: the sounds.
        stored: the checkpoint to go on from, or None.
        warm: what to start from, or None.
    """

    found: Found
    stored: dict[str, Any] | None
    warm: WarmStart | None


def find(config: TrainConfig, audio: Audio | None, folder: RunFolder, resume: bool) -> Origin:
    """The sounds, the checkpoint to go on from, what to start from.

    Raises:
        MelvocError: one of them is not there, or is not what it should be.
    """
    if audio is not None:
        found = Found("audio", named_sounds(audio), [])
    elif os.fspath(config.audio_dir):
        found = find_sounds(config.audio_dir, ignored=() if config.mels_dir is None else ENDINGS)
    else:
        raise OptionError("audio_dir is empty; give the path of a folder, or audio= with files or waves")
    stored = folder.stored(resume)
    if stored:
        stored["config"] |= {name: value for name, value in folder.config().items() if name in LATEST}
    return Origin(found, stored, None if stored else read_start(config))


def decide(
    config: TrainConfig, stored: dict[str, Any] | None, warm: WarmStart | None, processes: int, device: torch.device
) -> ResolvedConfig:
    """The configuration with nothing left open: from the run that goes on, the warm start, the mels, the profile, the
    recipe and the device.

    Raises:
        CheckpointError: not that of the run that goes on.
        MelvocError: as `TrainConfig.resolved`.
    """
    if stored:
        check_config(config, stored, processes)
        config = resumed(config, stored["config"])
    mels = None if config.mels_dir is None else spec_of_mels(config.mels_dir)
    if warm and warm.generator:
        decided = config.resolved(spec=warm.generator.spec, generator=warm.generator.generator, rate=warm.rate)
    else:
        decided = config.resolved(mels=mels)
    if not stored:
        check_used(config, decided)
    return dataclasses.replace(decided, precision="bfloat16" if halved(decided, device) else "float32")


def as_stored(config: ResolvedConfig) -> dict[str, Any]:
    """A configuration's values with whole paths, for who resumes elsewhere."""
    values = config.to_dict()
    folders = [name for name in ("audio_dir", "run_dir", "mels_dir") if values[name]]
    return values | {name: str(Path(values[name]).absolute()) for name in folders}


def begin(
    state: TrainState, config: ResolvedConfig, stored: dict[str, Any] | None, warm: WarmStart | None, folder: RunFolder
) -> None:
    """Replace random weights by those that the run begins with.

    Raises:
        CheckpointError: they are another network's.
    """
    if stored:
        source = os.fspath(folder.checkpoint(stored["step"]))
        with about(source):
            state.load(stored, source=source)
    if warm:
        warm.begin(state, config)
