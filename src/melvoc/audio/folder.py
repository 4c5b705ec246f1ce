"""The sound files of a folder and of its subfolders; what else lies there is named."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from melvoc.errors import clipped

ENDINGS = (
    ".wav", ".flac", ".ogg", ".mp3", ".wave", ".bwf", ".rf64", ".w64", ".oga", ".opus", ".mp2", ".aif", ".aiff",
    ".aifc", ".caf", ".au", ".snd", ".voc", ".iff", ".svx", ".nist", ".sph", ".paf", ".pvf", ".sf", ".ircam", ".avr",
)  # fmt: skip
FOREIGN = (
    ".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mka", ".mov", ".avi", ".3gp", ".amr", ".ape", ".wv",
    ".tta", ".mpc", ".ac3", ".dts", ".dsf", ".ra",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """One file that is not used, or several of one kind.

    Attributes:
        name: path below the folder, of the first of several.
        reason: why not, in a few words.
        of_another_kind: whether nobody would expect it to be used: it does not look like a sound.
    """

    name: str
    reason: str
    of_another_kind: bool = False


def find_files(
    folder: str | os.PathLike[str],
    endings: Collection[str] = ENDINGS,
    *,
    ignored: Collection[str] = (),
    without: str | os.PathLike[str] | None = None,
) -> tuple[list[Path], list[Skipped]]:
    """The files with certain endings in a folder and its subfolders, linked ones included, and what else lies there.

    Sorted; hidden files and folders are ignored, and a folder that is reached in two ways, or in a circle, is looked
    into once. Files of another kind are one entry for each ending.

    Args:
        folder: to look into.
        endings: wanted, in lower case.
        ignored: endings that are not wanted and need no entry.
        without: a folder that is not looked into.
    """
    root = Path(folder)
    files: list[Path] = []
    skipped: list[Skipped] = []
    others: dict[str, list[str]] = {}
    for path in sorted(walk(root, skipped, without=without), key=lambda path: path.as_posix()):
        name, ending = path.relative_to(root).as_posix(), path.suffix.lower()
        if problem := _unusual(path):
            skipped.append(Skipped(name=clipped(name), reason=problem))
        elif ending in endings:
            files.append(path)
        elif ending not in ignored:
            others.setdefault(ending, []).append(name)
    return files, skipped + [_of_another_kind(ending, names) for ending, names in others.items()]


def walk(root: Path, skipped: list[Skipped], *, without: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """What is not hidden; folders that cannot be read are added to `skipped`."""

    def failed(error: OSError) -> None:
        name = Path(str(error.filename)).relative_to(root).as_posix()
        skipped.append(Skipped(name=clipped(name), reason=f"a folder that cannot be read ({error.strerror})"))

    seen = set()
    if without is not None:
        with suppress(OSError):
            seen.add(_identity(Path(without)))
    for place, folders, names in os.walk(root, followlinks=True, onerror=failed):
        if _identity(Path(place)) in seen:
            folders.clear()
            continue
        seen.add(_identity(Path(place)))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _unusual(path: Path) -> str | None:
    """Why a file is not even opened, whatever its ending."""
    try:
        kind = path.stat().st_mode
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if stat.S_ISREG(kind) else "neither a file nor a folder"


def _of_another_kind(ending: str, names: list[str]) -> Skipped:
    first, more = names[0], f" and {len(names) - 1} more{ending and f' {ending}'}" if len(names) > 1 else ""
    if ending in FOREIGN:
        old, new = shlex.quote(first), shlex.quote(first[: -len(ending)] + ".wav")
        return Skipped(name=clipped(first + more), reason=f"not read in this format; convert it: ffmpeg -i {old} {new}")
    return Skipped(name=clipped(first + more), reason="not a sound file that is read", of_another_kind=True)
