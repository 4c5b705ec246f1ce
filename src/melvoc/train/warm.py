"""Beginning with weights that are there already."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.errors import CheckpointError
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container as checkpoints
from melvoc.storage.conversion import convert, read_tensors
from melvoc.train.folder import FORMAT


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A generator to begin with.

    Attributes:
        spec: of its mels.
        generator: its configuration.
        tensors: its folded weights.
        source: where from.
    """

    spec: MelSpec
    generator: HiFiGANConfig
    tensors: dict[str, Tensor]
    source: str


def read_generator(path: str | os.PathLike[str]) -> WarmStart:
    """A melvoc file of HiFi-GAN, a published generator with its `config.json` beside it, or the running mean in a
    checkpoint of another run.

    Raises:
        CheckpointError: a file of another kind.
    """
    source = Path(path)
    if source.suffix == ".safetensors":
        read = checkpoints.read(source)
    elif (content := read_tensors(source) if source.suffix == ".pt" else {}).get("format") == FORMAT:
        return WarmStart(
            spec=MelSpec.from_dict(content["config"]["spec"]),
            generator=HiFiGANConfig.from_dict(content["config"]["generator"]),
            tensors=content["average"],
            source=str(source),
        )
    else:
        read = _published(source)
    if read.architecture != "hifigan":
        raise CheckpointError(f"{source}: architecture {read.architecture!r}, but melvoc trains HiFi-GAN; give one")
    return WarmStart(
        spec=read.spec,
        generator=HiFiGANConfig.from_dict(read.config),
        tensors=read.tensors,
        source=str(source),
    )


def _published(source: Path) -> checkpoints.Checkpoint:
    """A generator as its authors published it."""
    config = source.parent / "config.json"
    if not source.is_file():
        what = "a folder" if source.is_dir() else "no such file"
        raise CheckpointError(f"{source}: {what}; a warm start is a melvoc file, a published generator or a checkpoint")
    if not config.is_file():
        raise CheckpointError(
            f"{source}: no melvoc file, no checkpoint of a run (RUN/checkpoints/step-N.pt), and for a published "
            "generator there is no config.json beside it; put it there"
        )
    return convert(source, config=config)


def read_discriminators(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Discriminators.load_published` takes: a published `do_*` file, `discriminators.pt`, or a run's checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or another kind.
    """
    content = read_tensors(path)
    inner = content.get("discriminators", content)
    return dict(inner) if isinstance(inner, dict) else {}
