"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


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
    handle, name = tempfile.mkstemp(prefix=f".{final.stem}.", suffix=f".part{final.suffix}", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's file is private to the user
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def remove_half_written(targets: Iterable[Path]) -> None:
    """Remove what processes that were killed left of targets; none may be writing them any more."""
    names: defaultdict[Path, set[tuple[str, str]]] = defaultdict(set)
    for target in targets:
        names[target.parent].add((target.stem, target.suffix))
    for folder, wanted in names.items():
        for left in folder.glob(".*.part*"):
            stem, _, rest = left.name[1:].rpartition(".part")
            if (stem.rpartition(".")[0], rest) in wanted:
                left.unlink(missing_ok=True)
