"""Vocoders to and from files, bytes and dicts of tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from melvoc.errors import CheckpointError, MelvocError
from melvoc.models import build, describe, pick_device
from melvoc.storage import container as checkpoints
from melvoc.storage.container import Checkpoint
from melvoc.vocoder import Vocoder


def save(vocoder: Vocoder, path: str | os.PathLike[str]) -> None:
    """Write a vocoder into a melvoc file, which `melvoc.load` reads. The file is whole or not there.

    Raises:
        CheckpointError: a vocoder that is not melvoc's own, or a file that cannot be written.
    """
    if Path(os.fsdecode(path)).suffix != ".safetensors":
        raise CheckpointError(f"{os.fsdecode(path)}: a melvoc file ends in .safetensors; load would not know it else")
    checkpoints.write(describe(vocoder), path)


def load_file(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> Vocoder:
    """A vocoder of a melvoc file; weights on the CPU stay on disk and are mapped into memory.

    Raises:
        CheckpointError: no such file, a damaged one, or one whose weights do not fit its configuration.
    """
    return revive(checkpoints.read(path), device=device, dtype=dtype, engine=engine, memory=memory)


def to_bytes(vocoder: Vocoder) -> bytes:
    """What `save` writes, for embedding in another file."""
    return checkpoints.to_bytes(describe(vocoder))


def from_bytes(
    data: bytes,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> Vocoder:
    """A vocoder of `to_bytes`' result.

    Raises:
        CheckpointError: as `load_file`.
    """
    return revive(checkpoints.from_bytes(data), device=device, dtype=dtype, engine=engine, memory=memory)


def pack(vocoder: Vocoder) -> dict[str, Tensor]:
    """A flat dict of plain tensors: survives `torch.save`, `torch.load(weights_only=True)` and safetensors."""
    return checkpoints.pack(describe(vocoder))


def unpack(
    state: Mapping[str, Tensor],
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> Vocoder:
    """A vocoder of `pack`'s dict.

    Raises:
        CheckpointError: as `load_file`.
    """
    return revive(checkpoints.unpack(state), device=device, dtype=dtype, engine=engine, memory=memory)


def revive(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    engine: Literal["auto", "torch"],
    memory: Literal["auto", "low"],
) -> Vocoder:
    """A vocoder of any checkpoint, Griffin-Lim's options included."""
    if checkpoint.architecture == "griffinlim":
        from melvoc.griffinlim import GriffinLim

        if checkpoint.tensors:
            extra = ", ".join(sorted(checkpoint.tensors)[:3])
            raise CheckpointError(f"{checkpoint.source} has unknown {extra}; Griffin-Lim has no tensors")
        try:
            vocoder = GriffinLim.from_options(checkpoint.config, name=checkpoint.name)
        except (MelvocError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{checkpoint.source}: its options are not Griffin-Lim's: {error}") from error
        return vocoder.to(pick_device(device), dtype)
    return build(checkpoint, device=device, dtype=dtype, engine=engine, memory=memory)
