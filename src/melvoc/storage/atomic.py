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

_HALF_WRITTEN = r"(?s)\.(?P<stem>.+)\.\w{8}\.part(?P<suffix>(?:\.[^.]*)?)"  # by `replacing`


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the target's folder that is renamed to the target when the block ends without an error.

    On an error, including Ctrl-C, it is removed, and an existing target stays as it was.

    Args:
        target: the final path; its folder must exist.

    Yields:
        The path to write to; it has the target's suffix, because some writers depend on that.

    Raises:
        OSError: the folder does not exist or cannot be written, or the target is a folder itself.
    """
    final = Path(target)
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
        path = final.parent / f".{final.stem}.{secrets.token_hex(4)}.part{final.suffix}"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        return path


def half_written(folder: Path) -> Iterator[tuple[Path, str]]:
    """What `replacing` writes in a folder, or left there when it was killed: each file, and the name it was to get."""
    for path in folder.glob(".*.part*"):
        if match := re.fullmatch(_HALF_WRITTEN, path.name):
            yield path, match["stem"] + match["suffix"]


def remove_half_written(targets: Iterable[Path]) -> None:
    """Remove what processes that were killed left of targets; none may be writing them any more."""
    names: defaultdict[Path, set[str]] = defaultdict(set)
    for target in targets:
        names[target.parent].add(target.name)
    for folder, wanted in names.items():
        for left, name in half_written(folder):
            if name in wanted:
                left.unlink(missing_ok=True)
