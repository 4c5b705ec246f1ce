"""Arguments that several commands share, and what they stand for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import melvoc
from melvoc.audio import AudioReader
from melvoc.errors import MelvocError
from melvoc.spectrogram.spec import MelSpec
from melvoc.vocoder import Vocoder

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def add_loading(parser: argparse.ArgumentParser) -> None:
    """What `melvoc.load` takes."""
    group = parser.add_argument_group("loading")
    group.add_argument("--device", default="auto", help="auto (cuda, mps, cpu) or a torch device")
    group.add_argument("--dtype", choices=DTYPES, help="what to compute in (default: the automatic choice)")
    add_fetching(group)


def add_fetching(parser: Any) -> None:
    """What a download takes."""
    parser.add_argument("--revision", help="of the repository, in place of the pinned one")
    parser.add_argument("--cache-dir", help="root of the caches, in place of the Hub's and melvoc's own")
    parser.add_argument("--local-files-only", action="store_true", help="never touch the network")
    parser.add_argument("--allow-unverified", action="store_true", help="take a file that cannot be verified")


def load(arguments: argparse.Namespace, name: str, **options: Any) -> Vocoder:
    """The vocoder that the arguments ask for."""
    if arguments.allow_unverified:
        options["allow_unverified"] = True
    return melvoc.load(
        name,
        device=arguments.device,
        dtype=DTYPES.get(arguments.dtype),
        revision=arguments.revision,
        cache_dir=arguments.cache_dir,
        local_files_only=arguments.local_files_only,
        **options,
    )


def finite_blocks(reader: AudioReader) -> Iterator[Tensor]:
    """The blocks of a file, after a look at each.

    Raises:
        MelvocError: NaN or Inf, which float files can hold.
    """
    for block in reader.blocks():
        if not bool(torch.isfinite(block).all()):
            raise MelvocError(f"{reader.path}: has NaN or Inf in it; look where it comes from, and write it again")
        yield block


def read_spec(text: str) -> MelSpec:
    """A preset's name, or a JSON file with `MelSpec` fields or a HiFi-GAN or BigVGAN configuration.

    Raises:
        MelvocError: neither.
    """
    path = Path(text)
    if path.suffix != ".json":
        return MelSpec.preset(text)
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise MelvocError(
            f"{path}: no readable JSON ({error}); give a preset's name or a file of MelSpec fields"
        ) from error
    if not isinstance(values, dict):
        raise MelvocError(f"{path}: holds a {type(values).__name__}, but a spec is an object of MelSpec fields")
    return MelSpec.from_config(values) if "sampling_rate" in values else MelSpec.from_dict(values)


def default_spec(sample_rate: int) -> MelSpec:
    """Griffin-Lim's mel where none is given: n_fft 2048, hop 512, 128 bands, at the input's rate."""
    return MelSpec(sample_rate=sample_rate, n_fft=2048, hop_length=512, n_mels=128)
