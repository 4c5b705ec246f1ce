"""Sounds of a batch to files."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from melvoc.audio.files import write
from melvoc.audio.writer import SUBTYPES, container_of
from melvoc.batch.columns import Outcome, column, columns, is_missing, numbers, rate_of
from melvoc.errors import OptionError, quoted


@dataclass(frozen=True)
class AudioFiles:
    """Writes the sound of each row to a file of its own; the columns that come back have its path instead of the sound.

    A file is written under another name and then renamed, so one that is there is complete: it is not written again,
    and a job that was stopped goes on where it was. To save the synthesis too, leave those rows out before it:
    `dataset.filter(files.todo)`. Rows that write the same file at the same time are no danger to it.

    A file is named as its row is, with the format's ending behind it unless the name has it: of `speaker/one.flac` it
    is `speaker/one.flac.wav`, so that it is not taken for that of `speaker/one.mp3`. A path that begins at the root
    goes on below the folder; a `..` in one is an error.

    Args:
        folder: to write to; it is made if need be. Workers on several machines must share it.
        name: column of names or paths, each of which belongs to one row: of two in a batch, the later has an error.
        audio: column of sounds, as `Vocode` makes them; it is dropped.
        rate: column of rates in Hz, or one rate for all.
        error: column: a row with an error is left alone, and one that cannot be written gets one.
        path: column to write: the file's path, "" where there is none.
        format: "wav" or "flac".
        subtype: as in `melvoc.audio.write`.

    Raises:
        OptionError: a format, or a subtype that it does not have.

    Example:
        >>> import tempfile
        >>> from melvoc.batch import write_audio
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = write_audio(folder, rate=22050)
        ...     rows = files({"id": ["a/1", "../b"], "audio": [[0.0, 0.1], [0.0, 0.1]]})
        ...     [path.removeprefix(folder) for path in rows["path"]], [text[:19] for text in rows["error"]]
        (['/a/1.wav', ''], ['', "'../b' leads out of"])
    """

    folder: str | os.PathLike[str]
    name: str = "id"
    audio: str = "audio"
    rate: str | int = "audio_rate"
    error: str = "error"
    path: str = "path"
    format: Literal["wav", "flac"] = "wav"
    subtype: str | None = None

    def __post_init__(self) -> None:
        if self.format not in ("wav", "flac"):
            raise OptionError(f"format={quoted(self.format)}, but sounds are written as 'wav' or 'flac'")
        container_of(f"x.{self.format}", self.subtype or SUBTYPES[0])
        object.__setattr__(self, "folder", Path(self.folder).absolute())  # a worker may be in another folder

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch, the sound replaced by its file's path.

        Raises:
            OptionError: a column that is not there.
        """
        names, sounds = column(batch, self.name), column(batch, self.audio)
        rates = column(batch, self.rate) if isinstance(self.rate, str) else [self.rate] * len(names)
        outcome, taken = Outcome.begin(batch, self.error, len(names)), dict[Path, int]()
        for row, parts in enumerate(zip(names, sounds, rates, strict=True)):
            outcome.attempt(row, functools.partial(self._write, taken, row, *parts))
        paths = [outcome.made.get(row, "") for row in range(len(names))]
        others = {name: values for name, values in batch.items() if name != self.audio}
        return columns(others, {self.path: paths, self.error: outcome.errors})

    def todo(self, row: Mapping[str, Any]) -> bool:
        """Whether a row's file is still to be made; for `filter`, before the synthesis. A bad name's always is."""
        try:
            return not self._target(row[self.name]).is_file()
        except (OptionError, OSError):
            return True  # where it is made, the error is written down

    def _write(self, taken: dict[Path, int], row: int, name: Any, sound: Any, rate: Any) -> str:
        target = self._target(name)
        if (other := taken.setdefault(target, row)) != row:
            raise OptionError(f"{target} is the file of row {other} of this batch; give each row a name of its own")
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target, numbers(sound, "the sound"), rate_of(rate), self.subtype)
        return str(target)

    def _target(self, name: object) -> Path:
        """The path of a row's file.

        Raises:
            OptionError: a name that is empty, or leads out of the folder.
        """
        text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else "" if is_missing(name) else str(name)
        parts = [part for part in re.split(r"[/\\]" if os.sep == "\\" else "/", text) if part not in ("", ".")]
        if ".." in parts:
            raise OptionError(f"{quoted(text)} leads out of the folder; give names without '..'")
        if not parts or "\0" in text:
            raise OptionError(f"{quoted(text)} is no name for a file; give each row one in the column {self.name!r}")
        ending = f".{self.format}"
        return Path(self.folder, *parts[:-1], parts[-1] if parts[-1].endswith(ending) else parts[-1] + ending)


write_audio = AudioFiles  # what is done with it: dataset.map_batches(write_audio("sounds"))
