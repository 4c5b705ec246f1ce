"""Mels on disk: safetensors with their spec, and bare NumPy arrays."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melvoc.arrays import as_tensor
from melvoc.errors import CheckpointError, MelvocError, MissingFileError, SpecError, kind_of, quoted, unreadable
from melvoc.host import public
from melvoc.spectrogram.check import batch_mel, finite_mel
from melvoc.spectrogram.fields import integer
from melvoc.spectrogram.spec import MelSpec, check_spec
from melvoc.storage.atomic import replacing
from melvoc.storage.pipes import is_readable, regular
from melvoc.storage.reading import LARGEST_TEXT, check_plain, first_bytes, is_file, is_safetensors, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
KEY = "mel"
HEADER_KEY = "melvoc_mel"
ENDINGS = (".safetensors", ".npy")
_ARRAY, _ARCHIVE = b"\x93NUMPY", b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class MelFile:
    """A mel with what is known about it.

    Attributes:
        mel: `[B, n_mels, T]` or `[n_mels, T]`.
        spec: None for a bare array.
        samples: length of the audio that it was made from, at the spec's rate; None if unknown.
    """

    mel: Tensor
    spec: MelSpec | None = None
    samples: int | None = None


@public
def save_mel(
    path: str | os.PathLike[str], mel: Tensor | NDArray[Any], spec: MelSpec, *, samples: int | None = None
) -> None:
    """Write a mel with its spec, for `load_mel` and `melvoc vocode`. The file is written whole or not at all.

    Args:
        path: ends in .safetensors; or in .npy, which holds no spec.
        mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]`, a tensor or a NumPy array; it keeps its shape.
        spec: the mel's.
        samples: length of the sound that it was made from, at the spec's rate, which `melvoc vocode` cuts to.

    Raises:
        SpecError: it is no mel of that spec, by its shape, its type, or NaN or Inf in it.
        MelvocError: any other extension, or a file that cannot be written.
    """
    import numpy
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(path)
    if target.suffix not in ENDINGS:
        raise MelvocError(f"{target}: a mel is written as .safetensors (with its spec) or .npy, not {target.suffix!r}")
    check_spec(spec)
    mel = as_tensor(mel, "the mel").detach().cpu().contiguous()
    finite_mel(mel, spec)
    if samples is not None:
        samples, most = integer("samples", samples, least=0), _most_samples(mel, spec)
        if samples > most:
            raise SpecError(f"samples={samples}, but {list(mel.shape)} frames are of at most {most}; omit samples")
    try:
        with replacing(target) as temporary:
            if target.suffix == ".npy":
                known = mel.dtype in (torch.float16, torch.float32, torch.float64)  # NumPy has no bfloat16
                numpy.save(temporary, (mel if known else mel.float()).numpy())
            else:
                header = {"version": VERSION, "spec": spec.to_dict(), "samples": samples}
                save_file({KEY: mel}, temporary, metadata={HEADER_KEY: json.dumps(header)})
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MelvocError(f"{target}: cannot be written ({reason}); does the folder exist, with room in it?") from error


def load_mel(path: str | os.PathLike[str]) -> tuple[Tensor, MelSpec | None]:
    """Read a mel and its spec, as `save_mel` and `melvoc mel` write them.

    >>> import tempfile
    >>> spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_mel(f"{folder}/a.safetensors", torch.zeros(40, 9), spec)
    ...     mel, found = load_mel(f"{folder}/a.safetensors")
    >>> tuple(mel.shape), found == spec
    ((40, 9), True)

    Returns:
        The mel in the shape it was saved in, on the CPU; and its spec, None where the file is a bare `.npy` array.

    Raises:
        MelvocError: no such file, a damaged one, or one without a mel in it.
    """
    found = read_mel(path)
    return found.mel, found.spec


def read_mel(path: str | os.PathLike[str]) -> MelFile:
    """Read a mel that `save_mel` wrote, or any `.npy` array of floats; from a pipe too.

    Raises:
        MelvocError: no such file, a damaged one, or one without a mel in it.
    """
    if not is_readable(path):
        raise MissingFileError(f"{os.fsdecode(path)}: no such file; give the path of a saved mel")
    with regular(path) as name:
        source = Path(name)
        try:
            return _read_array(source) if _is_array(source) else _read_safetensors(source)
        except OSError as error:
            if isinstance(error, MelvocError):
                raise
            raise unreadable(source, error) from error
        except (ValueError, EOFError, RecursionError, SpecError, CheckpointError) as error:
            raise MelvocError(f"{source}: not a readable mel ({error}); make one with `melvoc mel`") from error


def is_mel(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a saved mel rather than a sound: by its name, and where that has no ending by its first bytes.

    Raises:
        FileAccessError: it cannot be read.
    """
    source = Path(path)
    if source.suffix:
        return source.suffix.lower() in ENDINGS
    if not is_file(source):
        return False
    try:
        return _is_array(source) or is_safetensors(first_bytes(source, 9))
    except OSError as error:
        raise unreadable(source, error) from error


def _is_array(source: Path) -> bool:
    with source.open("rb") as file:
        return source.suffix.lower() == ".npy" or file.read(len(_ARRAY)) == _ARRAY


def _read_array(source: Path) -> MelFile:
    """A mel that is a bare array.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, or damaged.
    """
    import numpy

    with source.open("rb") as file:
        if file.read(len(_ARCHIVE)) == _ARCHIVE:
            raise ValueError("its header is damaged: an archive's (.npz), not an array's magic string; use numpy.save")
        file.seek(0)
        try:
            version = numpy.lib.format.read_magic(file)
            read = (
                numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
            )
            shape, _, kind = read(file)
        except OSError:
            raise
        except Exception as error:  # NumPy evaluates the header as Python, and leaves what happens to its caller
            raise ValueError(f"its header is damaged: {type(error).__name__}: {quoted(str(error))}") from error
        if not numpy.issubdtype(kind, numpy.floating):
            raise ValueError(f"its values are {quoted(kind)}, but a log-mel is floating point")
        room = os.fstat(file.fileno()).st_size - file.tell()
        if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize > room:
            raise ValueError(f"its shape is {quoted(shape)}, but it has {room} bytes of values")
    array = numpy.load(source, allow_pickle=False)
    return MelFile(mel=torch.from_numpy(numpy.ascontiguousarray(array, dtype="float32")))


def _read_safetensors(source: Path) -> MelFile:
    """A mel with its header.

    Raises:
        MelvocError: safetensors of something else.
        ValueError: it is damaged.
    """
    with opened(source, kind=MelvocError) as file:
        header = (file.metadata() or {}).get(HEADER_KEY)
        if header is None or KEY not in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            raise MelvocError(f"{source}: safetensors, but not a mel that melvoc wrote; make one with `melvoc mel`")
        mel = file.get_tensor(KEY)
    if len(header) > LARGEST_TEXT:
        raise ValueError(f"its header has {len(header)} characters")
    spec, samples = _parse(json.loads(header))
    check_plain({KEY: mel}, "its header")
    batch_mel(mel, spec, empty=True)
    most = _most_samples(mel, spec)
    if samples is not None and samples > most:
        raise ValueError(f"its header has samples={samples}, but its {list(mel.shape)} frames are of at most {most}")
    return MelFile(mel=mel, spec=spec, samples=samples)


def _parse(header: object) -> tuple[MelSpec, int | None]:
    """The spec and the number of samples in a header.

    Raises:
        ValueError: a header of another version, or an invalid one.
    """
    if not isinstance(header, dict):
        raise ValueError(f"its header is {kind_of(header)}, but it is a dict")
    if (version := header.get("version")) != VERSION:
        raise ValueError(f"it has version {quoted(version)}, but this melvoc reads version {VERSION}; update melvoc")
    samples = header.get("samples")
    if samples is not None and (type(samples) is not int or samples < 0):
        raise ValueError(f"its header has samples={quoted(samples)}, but it is a whole number from 0")
    return MelSpec.from_dict(header.get("spec", {})), samples


def _most_samples(mel: Tensor, spec: MelSpec) -> int:
    """Of a sound that has so many frames."""
    return mel.shape[-1] * spec.hop_length + spec.n_fft if mel.dim() else 0
