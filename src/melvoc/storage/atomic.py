"""Files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the target's folder, which gets the target's name when the block ends without an error.

    By an error, Ctrl-C included, it is removed, and a target that was there stays as it was.

    Args:
        target: the final path; its folder exists.

    Yields:
        The path to write to; it ends as the target does, since some writers look at that.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    final = Path(target)
    handle, name = tempfile.mkstemp(prefix=f".{final.stem}.", suffix=f".part{final.suffix}", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's is for one user only
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
