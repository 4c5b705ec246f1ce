"""Starting from existing weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from melvoc.architecture import NetworkConfig
from melvoc.errors import CheckpointError, MissingCheckpointError, OptionError
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container as checkpoints
from melvoc.storage.conversion import convert
from melvoc.storage.weights import read_tensors
from melvoc.train.config import trained_architecture
from melvoc.train.folder import FORMAT


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A generator to start from.

    Attributes:
        spec: of its mels.
        generator: its configuration.
        tensors: its folded weights.
        source: where it comes from.
    """

    spec: MelSpec
    generator: NetworkConfig
    tensors: dict[str, Tensor]
    source: str


def read_generator(path: str | os.PathLike[str]) -> WarmStart:
    """A melvoc file of an architecture that melvoc trains, a published generator with its `config.json` beside it, or
    the running mean in a checkpoint of another run.

    Raises:
        CheckpointError: any other kind of file.
    """
    source = Path(path)
    if source.suffix == ".safetensors":
        read = checkpoints.read(source)
    elif (content := read_tensors(source) if source.suffix == ".pt" else {}).get("format") == FORMAT:
        return WarmStart(
            spec=MelSpec.from_dict(content["config"]["spec"]),
            generator=trained_architecture(content["config"].get("architecture"), None).config.from_dict(
                content["config"]["generator"]
            ),
            tensors=content["average"],
            source=str(source),
        )
    else:
        read = _published(source)
    try:
        record = trained_architecture(read.architecture, None)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return WarmStart(
        spec=read.spec,
        generator=record.config.from_dict(read.config),
        tensors=read.tensors,
        source=str(source),
    )


def _published(source: Path) -> checkpoints.Checkpoint:
    """A generator as its authors published it."""
    config = source.parent / "config.json"
    if not source.is_file():
        kind, what = (CheckpointError, "a folder") if source.is_dir() else (MissingCheckpointError, "no such file")
        raise kind(f"{source}: {what}; a warm start is a melvoc file, a published generator or a checkpoint")
    if not config.is_file():
        raise CheckpointError(
            f"{source}: not a melvoc file or a checkpoint of a run (RUN/checkpoints/step-N.pt), and for a published "
            "generator there is no config.json beside it; put it there"
        )
    return convert(source, config=config)


def read_discriminators(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Discriminators.load_published` takes: a published `do_*` file, `discriminators.pt`, or a run's checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another kind.
    """
    content = read_tensors(path)
    inner = content.get("discriminators", content)
    return dict(inner) if isinstance(inner, dict) else {}
