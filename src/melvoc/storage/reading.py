"""Opening files that strangers made: safetensors, mapped or read; what is damaged, and what merely cannot be opened.

A file says how large its own parts are. Each such number is compared with the size of the file before anything of that
size is made, and a tensor must be of a kind whose values stand in the file.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from melvoc.arrays import FLOATS
from melvoc.errors import CheckpointError, MelvocError, of_the_system, quoted, reason, unreadable

LOG = logging.getLogger(__name__)
LARGEST_HEADER = 1 << 24  # bytes; a safetensors header has about a hundred per tensor
LARGEST_TEXT = 1 << 18  # bytes of JSON or YAML about a model; the published ones have a few thousand
_ALLOCATES, _BLOCK = b"bytearray\n", 1 << 24  # a pickle's only way to a size that torch's unpickler lets through
_UNMAPPABLE = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file.

    Raises:
        FileAccessError: a folder above it may not be read, or no file can have such a name.
    """
    try:
        return Path(os.fsdecode(path)).is_file()
    except OSError as error:
        raise unreadable(path, error) from error


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether a path can be written down as text; on Linux a file's name may be any bytes."""
    try:
        return bool(os.fsdecode(path).encode())
    except UnicodeEncodeError:
        return False


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file or folder.

    Raises:
        FileAccessError: as `is_file`.
    """
    try:
        return Path(os.fsdecode(path)).exists()
    except OSError as error:
        raise unreadable(path, error) from error


def first_bytes(path: str | os.PathLike[str], count: int) -> bytes:
    """How a file begins.

    Raises:
        FileAccessError: the system does not open it.
    """
    try:
        with Path(os.fsdecode(path)).open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise unreadable(path, error) from error


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is safetensors: the length of its header, then JSON."""
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= LARGEST_HEADER


class Held:
    """The content of a safetensors file in memory, read in the same way as safetensors' own `safe_open`.

    Args:
        data: the content.

    Attributes:
        tensors: by name.

    Raises:
        SafetensorError: it is damaged.
    """

    def __init__(self, data: bytes) -> None:
        from safetensors.torch import load

        self.tensors: dict[str, Tensor] = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        self._metadata: dict[str, str] | None = header.get("__metadata__")

    def metadata(self) -> dict[str, str] | None:
        """The texts in its header."""
        return self._metadata

    def keys(self) -> list[str]:
        """The tensors' names."""
        return list(self.tensors)

    def get_tensor(self, key: str) -> Tensor:
        """One tensor."""
        return self.tensors[key]


@contextmanager
def opened(
    path: str | os.PathLike[str], *, kind: type[MelvocError] = CheckpointError, mapped: bool = True
) -> Iterator[Any]:
    """Open a safetensors file, mapped into memory; where its disk cannot map files, it is read.

    Args:
        path: of the file, which exists.
        kind: of the error for a damaged file.
        mapped: False to read it in any case.

    Yields:
        What `safe_open` gives: `metadata()`, `keys()` and `get_tensor(key)`.

    Raises:
        MelvocError: of the given kind: the file is damaged or cut.
        FileAccessError: the system does not open it.
    """
    from safetensors import SafetensorError, safe_open

    source = os.fsdecode(path)
    try:
        data = _content(source, mapped and is_utf8(source))  # safetensors opens no other name
        with safe_open(source, framework="pt", device="cpu") if data is None else nullcontext(Held(data)) as file:
            yield file
    except (OSError, MemoryError) as error:
        if isinstance(error, MelvocError):
            raise
        raise unreadable(source, error) from error
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, MelvocError):
            raise
        raise kind(f"{source}: damaged or cut ({reason(error)}); download, copy or save it again") from error


def _content(source: str, mapped: bool) -> bytes | None:
    """The content of a file that is not to be mapped, or cannot be; else None. An error is the system's own, which
    safetensors loses."""
    with Path(source).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = int.from_bytes(file.read(8), "little")
        if not 0 < header <= min(size - 8, LARGEST_HEADER):
            raise ValueError(
                f"it has {size} bytes and begins with {header} as its header's, of at most {LARGEST_HEADER}"
            )
        try:
            if mapped:
                mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ).close()
                return None
        except OSError as error:
            if error.errno not in _UNMAPPABLE:
                raise
            LOG.info("%s: cannot be mapped (%s); its %d bytes are read instead", source, error.strerror, size)
        file.seek(0)
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """A short text, with or without a byte-order mark, with any line endings.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long for a description of a model, or not UTF-8.
    """
    with Path(os.fsdecode(path)).open("rb") as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise ValueError(f"it is longer than {LARGEST_TEXT} bytes")
    return data.decode("utf-8-sig")


def load_torch(path: str | os.PathLike[str]) -> Any:
    """The content of a torch file: tensors and plain containers; no code in it is run.

    Raises:
        FileAccessError: the system does not open it.
        CheckpointError: a TorchScript program, or a file that would take more memory than its own size.
        Exception: it is damaged, or asks for more; whatever torch's unpickler raises.
    """
    try:
        with Path(path).open("rb") as file:
            problem = _problem(file)
    except OSError as error:
        raise unreadable(path, error) from error
    if problem:
        raise CheckpointError(f"{os.fsdecode(path)}: {problem}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if of_the_system(error):
            raise unreadable(path, error) from error
        raise


def _problem(file: IO[bytes]) -> str | None:
    """Why a torch file is not even given to torch."""
    entries: list[zipfile.ZipInfo] = []
    if zipfile.is_zipfile(file):  # torch's older files are plain pickles
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") or "/code/" in entry.filename for entry in entries):
        return (
            "a TorchScript program (torch.jit.save), which is code; melvoc reads weights only. Ask its author for the "
            "generator's state dict, best as safetensors"
        )
    if entries and not any(entry.filename.endswith("data.pkl") for entry in entries):
        return "a zip archive without a torch checkpoint; unpack it, and give the checkpoint in it"
    if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
        return "a compressed archive, but torch writes none; save it again with torch.save"
    file.seek(0)
    before = b""
    while block := file.read(_BLOCK):
        if _ALLOCATES in before + block:
            return "asks for memory of any size (a bytearray), which weights do not need; save tensors alone"
        before = block[-len(_ALLOCATES) :]
    return None


def check_plain(tensors: Mapping[str, Any], source: str) -> None:
    """Check that tensors from a file are plain floating-point numbers, all of which stand in the file.

    Raises:
        CheckpointError: naming the first that is not.
    """
    stored: dict[int, int] = {}
    for key, tensor in tensors.items():
        name = f"{source}: {quoted(key)}"
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise CheckpointError(f"{name} is a {_form(tensor)} tensor, but weights are plain ones; save it as one")
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{name} is {tensor.dtype}, but weights are floating-point numbers of 16, 32 or 64 bits"
            )
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise CheckpointError(
                f"{name} has shape {quoted(list(tensor.shape))}, but only {storage.nbytes()} bytes are stored for it; "
                "save contiguous tensors"
            )
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > 2 * sum(stored.values()) + LARGEST_TEXT:
        raise CheckpointError(
            f"{source}: its {len(tensors)} tensors have {size} bytes, but only {sum(stored.values())} are stored, "
            "because they share memory; save clones"
        )


def _form(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "meta"
    return "quantised" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
