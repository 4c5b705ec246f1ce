"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import melvoc
from melvoc.audio import AudioReader
from melvoc.cli.options import add_fields, attributes, given
from melvoc.errors import MelvocError
from melvoc.options import FETCHING, LoadOptions
from melvoc.progress import Progress, checkpoint
from melvoc.registry import GRIFFINLIM
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.configuration import read_config
from melvoc.storage.pipes import STDIN
from melvoc.storage.reading import exists
from melvoc.vocoder import Vocoder

BAR_AFTER = 0.5  # seconds; a stage that is over sooner shows no bar
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options of `melvoc.load`."""
    group = parser.add_argument_group("loading")
    add_fields(group, LoadOptions, ["device"])
    group.add_argument("--dtype", choices=DTYPES, help=attributes(LoadOptions)["dtype"])
    add_fields(group, LoadOptions, ["engine", "memory"])
    add_fetching(group)


def add_fetching(parser: Any) -> None:
    """Add the options for downloads."""
    add_fields(parser, LoadOptions, FETCHING)


def load(arguments: argparse.Namespace, name: str, **options: Any) -> Vocoder:
    """The vocoder that the arguments ask for."""
    values = given(arguments, LoadOptions)
    with bars() as progress:
        options = {"dtype": DTYPES.get(values.get("dtype") or ""), "progress": progress} | options
        return melvoc.load(named(name), **values | options)


def load_each(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Vocoder | str]:
    """Vocoders by name, each once; Griffin-Lim stays a name, since what compares them gives it their mel."""
    return {name: name if name == GRIFFINLIM else load(arguments, name) for name in dict.fromkeys(names)}


@contextmanager
def bars() -> Iterator[Progress | None]:
    """A progress function that draws a bar for each stage, on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = _Bars()
    try:
        yield shown
    finally:
        shown.close()


class _Bars:
    """Shows the stages of a call, one bar after the other; a stage that is soon over has none."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None or stage != self._stage or done < self._bar.n:
            self.close()
            self._stage = stage
            unit = {"unit": "B", "unit_scale": True} if stage == "download" else {}
            self._bar = tqdm(total=total, desc=stage, leave=False, delay=BAR_AFTER, **unit)  # type: ignore[call-overload]
        self._bar.update(done - self._bar.n)
        if self._bar.format_dict["elapsed"] > BAR_AFTER:
            self._bar.refresh()  # the time goes on, also where nothing is done

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def named(source: str) -> str:
    """The path of an input, where `-` is standard input."""
    return STDIN if source == "-" else source


def check_standard_input(arguments: argparse.Namespace) -> None:
    """Check that standard input is asked for once.

    Raises:
        MelvocError: it is both the input and its spec.
    """
    if "-" in arguments.inputs and arguments.spec == "-":
        raise MelvocError("IN and --spec are both standard input, which is read once; give one of them as a file")


def check_sample_rate(arguments: argparse.Namespace) -> None:
    """Check --sample-rate, before any work.

    Raises:
        MelvocError: it is none.
    """
    if arguments.sample_rate is not None and not 1 <= arguments.sample_rate < 2**31:
        raise MelvocError(f"--sample-rate {arguments.sample_rate}: a sample rate is at least 1 Hz, at most {2**31 - 1}")


def finite_blocks(reader: AudioReader) -> Iterator[Tensor]:
    """The blocks of a file, each checked.

    Raises:
        MelvocError: NaN or Inf, which float files can hold.
    """
    for block in reader.blocks():
        checkpoint()
        if not bool(torch.isfinite(block).all()):
            raise MelvocError(f"{reader.path}: contains NaN or Inf; find out where they come from, and write it again")
        yield block


def read_spec(text: str) -> MelSpec:
    """A preset's name, or a JSON or YAML file (or pipe, or `-`) with `MelSpec` fields or a published configuration.

    Raises:
        MelvocError: neither.
    """
    path = Path(named(text))
    if text in PRESETS or (path.suffix not in (".json", ".yaml", ".yml") and not exists(path)):
        return MelSpec.preset(text)
    values = read_config(path, advice="give a preset's name or a file of MelSpec fields")
    return MelSpec.from_config(values) if "sampling_rate" in values else MelSpec.from_dict(values)
