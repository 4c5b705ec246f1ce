"""Pipes in the place of files: standard input, FIFOs and the shell's `<(...)`."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from melvoc.errors import FileAccessError, MelvocError, unreadable

STDIN = "/dev/stdin"
_BLOCK = 1 << 20


def is_readable(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file or pipe.

    Raises:
        FileAccessError: a folder above it may not be read, or no file can have such a name.
    """
    kind = _kind(path)
    return stat.S_ISREG(kind) or _piped(kind)


def is_pipe(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a pipe.

    Raises:
        FileAccessError: as `is_readable`.
    """
    return _piped(_kind(path))


@contextmanager
def regular(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path of a file that can be read from any place, again and again.

    That is the given one, or of a pipe a copy in the system's temporary folder (TMPDIR), which lives as long as the
    block; an error that names the copy is made to name the pipe.

    Raises:
        FileAccessError: the pipe cannot be read, or there is no room for the copy.
    """
    source = os.fsdecode(path)
    if not is_pipe(source):
        yield source
        return
    with ExitStack() as stack:
        try:
            copy = _copied(source, stack)
        except OSError as error:
            if error.filename == source:
                raise unreadable(source, error) from error
            raise FileAccessError(
                f"{source}: a pipe, of which a copy in {tempfile.tempdir or 'a temporary folder'} cannot be made "
                f"({error.strerror or error}); set TMPDIR to a folder with room for it"
            ) from error
        with naming(str(copy), source):
            yield str(copy)


@contextmanager
def naming(copy: str, source: str) -> Iterator[None]:
    """Name the source in an error that names its copy."""
    try:
        yield
    except MelvocError as error:
        error.args = tuple(str(part).replace(copy, source) for part in error.args)
        raise


def _copied(source: str, stack: ExitStack) -> Path:
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="melvoc-")), Path(source).name)
    # standard input may be a socket, which cannot be opened by name
    handle = os.dup(0) if source == STDIN else os.open(source, os.O_RDONLY)
    with os.fdopen(handle, "rb") as pipe, copy.open("wb") as file:
        shutil.copyfileobj(pipe, file, _BLOCK)
    return copy


def _kind(path: str | os.PathLike[str]) -> int:
    try:
        return Path(os.fsdecode(path)).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0
    except OSError as error:
        raise unreadable(path, error) from error


def _piped(kind: int) -> bool:
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
