"""Starting from existing weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from melvoc.architecture import NetworkConfig
from melvoc.errors import CheckpointError, MissingCheckpointError, OptionError, about
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container
from melvoc.storage.conversion import convert
from melvoc.storage.pair import is_published, melvoc_file
from melvoc.storage.weights import read_tensors
from melvoc.train.folder import FORMAT
from melvoc.train.recipes import trained_architecture


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
    """A melvoc file of an architecture that melvoc trains, a published generator with its configuration beside it, or
    the running mean in a checkpoint of another run.

    Raises:
        CheckpointError: any other kind of file.
    """
    source = os.fsdecode(path)
    with about(source):
        content = read_tensors(source) if source.endswith(".pt") else {}
        if content.get("format") == FORMAT:
            config = content["config"]
            spec = MelSpec.from_dict(config["spec"])
            return _warm(config.get("architecture"), config["generator"], spec, content["average"], source)
        try:
            read = convert(source) if is_published(source) else container.read(melvoc_file(source))
        except MissingCheckpointError as error:
            raise MissingCheckpointError(
                f"{error} (a warm start is a melvoc file, a published generator with its configuration beside it, or a "
                "checkpoint of a run, RUN/checkpoints/step-N.pt)"
            ) from error
        return _warm(read.architecture, read.config, read.spec, read.tensors, source)


def _warm(
    architecture: str | None, generator: dict[str, Any], spec: MelSpec, tensors: dict[str, Tensor], source: str
) -> WarmStart:
    try:
        record, _ = trained_architecture(architecture, None)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return WarmStart(spec=spec, generator=record.config.from_dict(generator), tensors=tensors, source=source)


def read_discriminators(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `Discriminators.load_published` takes: a published `do_*` file, `discriminators.pt`, or a run's checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another kind.
    """
    content = read_tensors(path)
    inner = content.get("discriminators", content)
    return dict(inner) if isinstance(inner, dict) else {}
