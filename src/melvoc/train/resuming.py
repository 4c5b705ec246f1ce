"""A run that goes on: what it takes from its checkpoint, and what must not have changed meanwhile."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from melvoc.errors import CheckpointError
from melvoc.recipe import LossWeights
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.config import CHECKPOINT_EVERY, TrainConfig
from melvoc.train.recipes import trained_architecture
from melvoc.train.revival import check_names, revived

# What may differ when a run is resumed: where and how long it runs, not what is computed. The folders are compared by
# their contents, and the batch size together with the number of processes.
NOT_COMPARED = frozenset(
    {
        "audio_dir", "run_dir", "mels_dir", "warm_start", "warm_discriminators", "batch_size", "minutes", "steps",
        "patience", "device", "checkpoint_every", "validate_every", "keep_checkpoints", "keep_discriminators",
        "samples", "name", "licence",
    }
)  # fmt: skip

# What a configuration may leave unset when resuming, besides single weights: it is taken from the run.
LEFT_OPEN = (
    "profile", "architecture", "spec", "size", "generator", "discriminators", "preset", "batch_size", "segment",
    "learning_rate", "betas", "schedule", "lr_decay", "lr_decay_steps", "discriminator_warmup", "ramp_steps",
    "patience", "checkpoint_every", "name", "licence",
)  # fmt: skip

# Of these the latest counts, in RUN/config.json: a checkpoint may be of before they were given again.
LATEST = ("minutes", "steps", "patience", "checkpoint_every", "name", "licence")

# Of a run of before there were profiles.
OLD = {"profile": "published", "schedule": "decay", "minutes": None, "patience": None}


def changed(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run that goes on: what is given again, and what cannot be left open; the rest is open.

    Args:
        stored: the run's, as `TrainConfig.to_dict` gives it.
        changes: fields that are given again.

    Raises:
        OptionError: a field that there is not.
    """
    check_names(TrainConfig, changes)
    known = revived(TrainConfig, stored)
    kept = {name: known[name] for name in known if name not in (*LEFT_OPEN, "minutes", "steps", "weights")}
    return TrainConfig(**kept | dict(changes))


def resumed(config: TrainConfig, stored: Mapping[str, Any]) -> TrainConfig:
    """A copy with unset fields filled in from the run that is resumed.

    Args:
        config: as given now.
        stored: the run's, resolved, as `TrainConfig.to_dict` gives it.
    """
    record, recipe = trained_architecture(stored.get("architecture"), None)
    values: dict[str, Any] = {
        **OLD,
        **stored,
        "architecture": record.name,
        "spec": MelSpec.from_dict(stored["spec"]),
        "generator": record.config.from_dict(stored["generator"]),
        "discriminators": stored.get("discriminators", recipe.discriminators),
        "betas": tuple(stored["betas"]),
    }
    ends = ("minutes", "steps") if config.minutes is config.steps is None else ()  # given: as it says, and no other
    if values["minutes"] is None and config.minutes is not None and values["checkpoint_every"] == CHECKPOINT_EVERY:
        values["checkpoint_every"] = None  # a tenth of the minutes, which there were none of
    open_now = [name for name in (*LEFT_OPEN, *ends) if getattr(config, name) is None]
    filled: dict[str, Any] = {name: values.get(name) for name in open_now}
    if config.precision == "auto":  # whatever this device would choose
        filled["precision"] = values["precision"]
    return dataclasses.replace(config, weights=config.weights.over(LossWeights(**stored["weights"])), **filled)


def differences(config: TrainConfig, stored: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What prevents a run from being resumed: `{field: (the run's, now)}`, of `to_dict`'s values.

    An unset field is no difference: it will be the run's.
    """
    found: dict[str, tuple[Any, Any]] = {}
    before = LossWeights(**stored["weights"]).over(LossWeights())  # 0 for a loss that there was not yet
    weights, stored = config.weights.over(before), {**stored, "weights": dataclasses.asdict(before)}
    for name, mine in dataclasses.replace(config, weights=weights).to_dict().items():
        left_open = (name in LEFT_OPEN and mine is None) or (name == "precision" and "auto" in (mine, stored.get(name)))
        if name not in NOT_COMPARED and not left_open and name in stored:
            _compare(name, stored[name], mine, found)
    return found


def check_config(config: TrainConfig, stored: Mapping[str, Any], processes: int) -> None:
    """Check that a run goes on as it was started.

    Args:
        config: as given now.
        stored: the checkpoint.
        processes: how many there are now.

    Raises:
        CheckpointError: naming every field that differs.
    """
    different = differences(config, stored["config"])
    if stored["batch"] != (batch := (config.batch_size or stored["config"]["batch_size"]) * processes):
        different["batch_size (of all processes)"] = (stored["batch"], batch)
    if different:
        listed = "; ".join(f"{name}: the run has {old!r}, now {new!r}" for name, (old, new) in different.items())
        raise CheckpointError(
            f"{os.fspath(config.run_dir)}: resumed with another configuration ({listed}); resume as it was started, "
            "or start a new run in another folder",
            path=os.fspath(config.run_dir),
        )


def check_sounds(config: TrainConfig, stored: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Check that the sounds are those that the run was started with.

    Args:
        config: as given now.
        stored: the checkpoint.
        data: what is known of the sounds now.

    Raises:
        CheckpointError: saying what is different.
    """
    old = stored["data"]
    if old != data:
        listed = "; ".join(
            f"{name}: {old.get(name)!r}, now {data[name]!r}" for name in data if old.get(name) != data[name]
        )
        raise CheckpointError(
            f"{os.fspath(config.audio_dir) or 'audio'}: not the sounds of this run ({listed}); resume with the same "
            "sounds, or start a new run in another run folder",
            path=os.fspath(config.run_dir),
        )


def _compare(name: str, theirs: Any, mine: Any, found: dict[str, tuple[Any, Any]]) -> None:
    """Collect differences; nested fields (spec, generator, weights) are compared one by one."""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in sorted({*theirs, *mine}):
            _compare(f"{name}.{key}", theirs.get(key), mine.get(key), found)
    elif theirs != mine:
        found[name] = (theirs, mine)
