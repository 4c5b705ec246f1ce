"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 255  # bytes of a name, on every system that melvoc runs on
_HALF_WRITTEN = r"(?s)\.(?P<stem>.+)\.\w{8}\.part(?P<suffix>(?:\.[^.]*)?)"  # by `replacing`


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the target's folder that is renamed to the target when the block ends without an error.

    On an error, including Ctrl-C, it is removed, and an existing target stays as it was. Where the target is a link,
    the file that it leads to is replaced, as if it were written to, and the link stays.

    Args:
        target: the final path; its folder must exist.

    Yields:
        The path to write to; it has the target's suffix, because some writers depend on that.

    Raises:
        OSError: the folder does not exist or cannot be written, or the target is a folder itself.
    """
    final = _followed(target)
    if final.is_dir():  # before any work
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    temporary = _fresh(final)
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _fresh(final: Path) -> Path:
    """An empty file of a new name; who may read it is up to the process, as for any file (`tempfile`'s are private)."""
    while True:
        path = final.parent / f".{_stem(final)}.{secrets.token_hex(4)}.part{final.suffix}"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        return path


def _followed(target: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(target))


def _stem(final: Path) -> str:
    """A file's name without its suffix, or as much of it as a temporary name of it has room for."""
    room, stem = _LONGEST - len(os.fsencode(f"..{'0' * 8}.part{final.suffix}")), final.stem
    while len(os.fsencode(stem)) > max(1, room):
        stem = stem[:-1]
    return stem


def half_written(folder: Path) -> Iterator[tuple[Path, str]]:
    """What `replacing` writes in a folder, or left there when it was killed.

    Yields:
        Each file, and the name that it was to get: of a very long one the beginning, and its suffix.
    """
    for path in folder.glob(".*.part*"):
        if match := re.fullmatch(_HALF_WRITTEN, path.name):
            yield path, match["stem"] + match["suffix"]


def remove_half_written(targets: Iterable[Path]) -> None:
    """Remove what processes that were killed left of targets; none may be writing them any more."""
    names: defaultdict[Path, set[str]] = defaultdict(set)
    for target in map(_followed, targets):
        names[target.parent].add(_stem(target) + target.suffix)
    for folder, wanted in names.items():
        for left, name in half_written(folder):
            if name in wanted:
                left.unlink(missing_ok=True)
