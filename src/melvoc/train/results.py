"""The results of training: a melvoc file that says where it comes from and, on request, the discriminators."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from melvoc.errors import MelvocError
from melvoc.neural import NeuralVocoder
from melvoc.options import LoadOptions
from melvoc.storage.atomic import replacing
from melvoc.storage.vocoder_file import load_file, save
from melvoc.train.config import ResolvedConfig
from melvoc.train.state import TrainState


def vocoder_of(
    state: TrainState,
    config: ResolvedConfig,
    provenance: dict[str, str],
    heard: Callable[[], tuple[int, Mapping[str, float]]],
    *,
    engine: Literal["auto", "torch"] = "auto",
) -> NeuralVocoder:
    """The running mean of the generator as an independent vocoder.

    Args:
        state: of the training, which may go on meanwhile in another thread.
        config: of the run.
        provenance: what is known of where it comes from, but for the steps and the figures of its validation.
        heard: gives the step of the latest validation, and its figures.
        engine: as in `melvoc.load`.
    """
    with state.lock:
        network, step = state.average.network(config.record, config.generator), state.step
        validation, figures = heard()
    provenance = provenance | {"steps": str(step)} | (validated(figures) if validation == step else {})
    return NeuralVocoder(
        network,
        name=name_of(config),
        spec=config.spec,
        architecture=config.record,
        engine=engine,
        licence=config.licence,
        provenance=provenance,
    )


def name_of(config: ResolvedConfig) -> str:
    """The name of a run's generator: given, or its folder's."""
    return config.name or Path(config.run_dir).resolve().name


def provenance_of(data: Mapping[str, Any], seconds: float) -> dict[str, str]:
    """Where a run's generator comes from.

    Args:
        data: what is known of the sounds.
        seconds: that the run took so far.
    """
    from melvoc import __version__

    return {
        "trained with": "melvoc train",
        "melvoc": __version__,
        "minutes": f"{seconds / 60:.1f}",
        "sounds": f"{data['files']} files, {data['seconds']:.1f} s",
        "fingerprint": str(data["fingerprint"]),
    }


def validated(figures: Mapping[str, float]) -> dict[str, str]:
    """The figures of a validation, for the result's file."""
    return {f"held out, {name}": f"{value:.4f}" for name, value in figures.items()}


def reopened(path: str | os.PathLike[str], config: ResolvedConfig, device: torch.device) -> NeuralVocoder:
    """The generator of a run's own file, with the name and the licence that it has now."""
    vocoder = load_file(path, LoadOptions(device=device, dtype=torch.float32, engine="torch", mmap=False))
    assert isinstance(vocoder, NeuralVocoder)
    vocoder.name, vocoder.licence = name_of(config), config.licence
    return vocoder


def write_generator(vocoder: NeuralVocoder, path: str | os.PathLike[str]) -> None:
    """Write a melvoc file, completely or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    save(vocoder, path)


def write_discriminators(state: TrainState, path: str | os.PathLike[str]) -> None:
    """Write `{"mpd": ..., "msd": ...}` as in a published `do_*` file.

    Raises:
        MelvocError: it cannot be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(state.discriminators.published_state(), file)
    except (OSError, RuntimeError) as error:
        raise MelvocError(f"{os.fspath(path)}: cannot be written ({error}); make room") from error
