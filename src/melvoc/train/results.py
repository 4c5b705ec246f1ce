"""The results of training: a melvoc file and, on request, the discriminators."""

from __future__ import annotations

import os

import torch

from melvoc.errors import MelvocError
from melvoc.neural import NeuralVocoder
from melvoc.storage.atomic import replacing
from melvoc.storage.vocoder_file import save
from melvoc.train.config import ResolvedConfig
from melvoc.train.state import TrainState


def vocoder_of(state: TrainState, config: ResolvedConfig, *, name: str) -> NeuralVocoder:
    """The running mean of the generator as an independent vocoder."""
    provenance = {"trained with": "melvoc train", "steps": str(state.step)}
    network = state.average.network(config.record, config.generator)
    return NeuralVocoder(network, name=name, spec=config.spec, architecture=config.record, provenance=provenance)


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
