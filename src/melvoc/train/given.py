"""Sounds that an application hands over, as files or as waves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from melvoc.arrays import as_tensor, check_layout
from melvoc.errors import MissingFileError, OptionError, SpecError, kind_of, quoted
from melvoc.storage.reading import is_utf8

Wave = tuple[object, int]  # [N] or [C, N], a tensor or an array, and its rate in Hz
_PATH = (str, os.PathLike)
Audio = Iterable[str | os.PathLike[str] | Wave] | Mapping[str, str | os.PathLike[str] | Wave]


class Given(NamedTuple):
    """A sound that is not read yet.

    Attributes:
        name: in messages and reports, and that of its mel where there are mels.
        source: its file, or `[C, N]` and its rate.
    """

    name: str
    source: Path | tuple[Tensor, int]


def named_sounds(audio: Audio) -> list[Given]:
    """The sounds with their names: those of a mapping; of files, their paths below the folder that has all of them; of
    waves, their numbers from 1.

    Raises:
        OptionError: no sounds, two of one name, or what is neither a path nor a wave with its rate.
        MissingFileError: a file that is not there.
    """
    if isinstance(audio, Mapping):
        entries = [(str(name), value) for name, value in audio.items()]
    elif isinstance(audio, Iterable) and not isinstance(audio, str | bytes | os.PathLike | Tensor):
        entries = _numbered(list(audio))
    else:
        raise OptionError(f"audio is {kind_of(audio)}, but it is a list of files or of (waveform, sample_rate)")
    if not entries:
        raise OptionError("audio is empty; give sound files, or waves as (waveform, sample_rate)")
    names = [name for name, _ in entries]
    if odd := next((name for name in names if not is_utf8(name)), None):
        raise OptionError(f"audio has {quoted(odd)}, which is not UTF-8; rename the file, or give a dict with names")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise OptionError(f"audio has {quoted(twice)} twice; give each sound once")
    return [Given(name, _source(name, value)) for name, value in entries]


def _numbered(values: list[object]) -> list[tuple[str, object]]:
    """A list's values with their names."""
    paths = {number: Path(value).absolute() for number, value in enumerate(values) if isinstance(value, _PATH)}
    root = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    return [
        (Path(os.path.relpath(paths[number], root)).as_posix() if number in paths else str(number + 1), value)
        for number, value in enumerate(values)
    ]


def _source(name: str, value: object) -> Path | tuple[Tensor, int]:
    if isinstance(value, str | os.PathLike):
        if not (path := Path(value)).is_file():
            raise MissingFileError(f"{path}: no such file; audio has sound files, or waves as (waveform, sample_rate)")
        return path
    if not isinstance(value, tuple) or len(value) != 2:
        raise OptionError(f"audio has {kind_of(value)} ({quoted(name)}), but each is a file or (waveform, sample_rate)")
    wave, rate = value
    if type(rate) is not int or rate < 1:
        raise OptionError(f"audio has a sound of sample_rate={quoted(rate)} ({quoted(name)}), but it is in Hz: 48000")
    try:
        tensor = as_tensor(wave, f"audio's {quoted(name)}")
        check_layout(tensor, "[N] or [C, N]")
    except SpecError as error:
        raise OptionError(f"audio's {quoted(name)}: {error}") from error
    if tensor.dim() not in (1, 2) or not tensor.is_floating_point():
        shape = f"{list(tensor.shape)} of {tensor.dtype}"
        raise OptionError(f"audio's {quoted(name)} is {shape}, but it is [N] or [C, N] of floats in [-1, 1]")
    return torch.atleast_2d(tensor.detach().to("cpu", torch.float32)), rate
