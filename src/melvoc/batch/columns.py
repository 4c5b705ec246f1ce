"""Columns in, columns out: rows of any engine as arrays, and what went wrong as text."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melvoc.audio.files import read
from melvoc.audio.resampling import whole_rate
from melvoc.errors import MelvocError, OptionError, SpecError, clipped, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """One good row.

    Attributes:
        row: its number in the batch.
        value: `[C, n]`, float32: frames or samples, n of them.
        key: what rows that run together have in common besides their shape.
        samples: the result's length, None where it follows from the input.
    """

    row: int
    value: Tensor
    key: Any = None
    samples: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What becomes of the rows of a batch.

    Attributes:
        errors: a sentence per row, "" where nothing is wrong.
        made: by row.
    """

    errors: list[str]
    made: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, batch: Mapping[str, Any], error: str, rows: int) -> Outcome:
        """With the errors that earlier steps found."""
        return cls(
            ["" if is_missing(text) or not text else str(text) for text in batch[error]]
            if error in batch
            else [""] * rows
        )

    def attempt(self, row: int, work: Callable[[], Any]) -> None:
        """Do what is to be done for a row that is good so far."""
        if self.errors[row]:
            return
        try:
            self.made[row] = work()
        except Exception as error:
            self.errors[row] = said(error)


def column(batch: Mapping[str, Any], name: str) -> list[Any]:
    """The rows of a column.

    Raises:
        OptionError: there is no such column.
    """
    if name not in batch:
        raise OptionError(
            f"there is no column {name!r} among {', '.join(map(repr, batch))}; name the one that is meant"
        )
    return list(batch[name])


def columns(batch: Mapping[str, Any], made: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """The columns of a batch, and new ones, which are lists; an array of arrays becomes a list too.

    A list of arrays is the one form that Ray and `datasets` both take for rows of different lengths.
    """
    old = {name: list(values) if _holds_objects(values) else values for name, values in batch.items()}
    return old | {name: list(values) for name, values in made.items()}


def _holds_objects(values: object) -> bool:
    return str(getattr(values, "dtype", "")) == "object"


def run_together(
    tasks: Sequence[Task], most: int, work: Callable[[list[Task]], Sequence[Any]], outcome: Outcome
) -> None:
    """Run rows of equal length as one, the longest first; where several fail together, each by itself.

    Args:
        tasks: in any order.
        most: frames or samples that run at once, unless a single row has more.
        work: gives what is made of rows that have one key and one shape.
        outcome: gets it.
    """

    def kind(task: Task) -> tuple[Any, ...]:
        return (-task.value.shape[-1], task.value.shape[0], str(task.key))

    for _, same in groupby(sorted(tasks, key=kind), kind):
        rows = list(same)
        size = max(1, most // max(1, rows[0].value.shape[-1]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            try:
                outcome.made.update(zip((task.row for task in part), work(part), strict=True))
            except Exception:
                for task in part:
                    outcome.attempt(task.row, functools.partial(_alone, work, task))


def _alone(work: Callable[[list[Task]], Sequence[Any]], task: Task) -> Any:
    return work([task])[0]


def said(error: Exception) -> str:
    """An error in one line."""
    text = str(error) if isinstance(error, MelvocError) else f"{type(error).__name__}: {error}"
    return " ".join(clipped(text).split())


def is_missing(value: object) -> bool:
    """Whether a row has no value: None, and what pandas makes of it, NaN, NA or NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (is_number(value) and value != value)


def is_number(value: object) -> bool:
    """Whether a row is one number, Python's or NumPy's."""
    return isinstance(value, int | float) or (getattr(value, "ndim", None) == 0 and hasattr(value, "dtype"))


def is_path(value: object) -> bool:
    """Whether a row is the name of a file."""
    return isinstance(value, str | bytes | os.PathLike)


def numbers(value: object, what: str) -> NDArray[Any]:
    """A row's numbers, however deep an engine has nested them: floats become float32, anything else stays.

    Raises:
        SpecError: none, or rows of different lengths.
    """
    import numpy

    if is_missing(value):
        raise SpecError(f"{what} is missing; leave the row out, or fill it")
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # NumPy has no such type
    try:
        array = numpy.asarray(value)
        if array.dtype == object:  # lists of arrays, of Spark and of pandas
            array = numpy.stack([numpy.asarray(part) for part in array])
        if array.dtype == object:
            raise TypeError("something in it is no number")
    except (ValueError, TypeError) as error:
        raise SpecError(f"{what} is {kind_of(value)} of unequal or odd parts; give an array of floats") from error
    return array.astype("float32") if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def sound_of(value: Any, rate: object) -> tuple[Tensor, int]:
    """A row's sound `[1, N]` and its rate in Hz.

    Args:
        value: numbers `[N]` or `[1, N]`; a sound file's path; or what `datasets` makes of a sound: a dict with
            `array` and `sampling_rate`, or with `bytes` or `path` of a file.
        rate: of numbers; a file has its own, and so has such a dict.

    Raises:
        SpecError: several channels, no numbers, or no rate.
        MelvocError: a file that cannot be read.
    """
    if isinstance(value, Mapping) and "array" in value:
        value, rate = value["array"], value.get("sampling_rate", rate)
    elif isinstance(value, Mapping) and value.get("bytes") is not None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "sound")
            copy.write_bytes(value["bytes"])
            value, rate = read(copy)
    elif isinstance(value, Mapping):
        value = value.get("path")
    if is_path(value):
        value, rate = read(value)
    array = numbers(value, "the sound")
    if array.dtype.kind != "f" or array.ndim not in (1, 2) or (array.ndim == 2 and len(array) != 1):
        raise SpecError(
            f"the sound is {list(array.shape)} of {array.dtype}, but a row is one channel [N] of floats in [-1, 1]; "
            "mix channels, or give each a row of its own"
        )
    return torch.from_numpy(array.reshape(1, -1)), rate_of(rate)


def rate_of(rate: Any) -> int:
    """A row's sample rate in Hz.

    Raises:
        SpecError: it is missing.
        OptionError: it is no whole number.
    """
    if is_missing(rate):
        raise SpecError("the sound's rate is not known; name its column, or give the rate in Hz, with rate=")
    return whole_rate(int(rate) if float(rate).is_integer() else rate)  # pandas' whole numbers can be floats
