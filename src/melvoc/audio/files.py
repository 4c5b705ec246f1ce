"""Sound files, read whole or in blocks; soundfile decodes, this adds shapes and errors.

Waves are `[C, N]` float32 tensors in [-1, 1].
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from melvoc.arrays import as_tensor, check_layout
from melvoc.audio.source import Source
from melvoc.audio.writer import SUBTYPES, AudioWriter
from melvoc.errors import MelvocError, MissingFileError, OptionError, SpecError, quoted, unreadable
from melvoc.host import public, warn
from melvoc.storage.pipes import is_readable, regular
from melvoc.storage.reading import exists

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 16  # samples per block of a file that is read or copied piece by piece
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000  # Hz; what a file grows by, and its filters' size, are bounded by them
_LARGEST = 1 << 22  # values in one block of a file with many channels
_UNKNOWN = 1 << 62  # samples: libsndfile's way to say that a header does not tell
_MPEG_SLACK = 2304  # samples, two MPEG frames by which encoders miscount
_SIZES = re.compile(r"^\s*(?:data|SSND|Data Size|BODY|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.M)
_TRUNCATED = "Seems to be a truncated file"
_OPEN_SIZES = (2**31, 2**32)  # what programs that write to a pipe put near: 0x7fffffff, 0xffffffff less a header
_NEAR = 1 << 16


def _says_cut(log: str) -> bool:
    """Whether libsndfile's log of a file says that it ends before its samples do."""
    sizes = [(int(stated), int(held)) for stated, held in _SIZES.findall(log)]
    short = any(
        stated > held and all(abs(stated - open_size) > _NEAR for open_size in _OPEN_SIZES) for stated, held in sizes
    )
    return short or _TRUNCATED in log


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", None) or error).removeprefix("Error : ").rstrip(".")


@public
def fold_channels(wave: Tensor | NDArray[Any], mode: Literal["lr", "ms"] = "lr") -> Tensor:
    """Channels as rows of a batch, each vocoded on its own.

    Args:
        wave: `[C, N]`, as `read` gives it, or `[B, C, N]`: a tensor or a NumPy array.
        mode: "lr" for the channels as they are, however many; "ms" for the mid and the side of two,
            `(left + right) / 2` and `(left - right) / 2`, which keep what is in the middle there (docs/streaming.md).

    Returns:
        `[B * C, 1, N]`.

    Raises:
        SpecError: any other shape, or other than two channels with "ms".
        OptionError: any other mode.
    """
    wave = as_tensor(wave, "the wave")
    shape = list(wave.shape)
    check_layout(wave, "[C, N] or [B, C, N]")
    wave = wave[None] if wave.dim() == 2 else wave
    if wave.dim() != 3:
        raise SpecError(f"the wave has shape {shape}, but fold_channels takes [C, N] or [B, C, N]")
    wave = 0.5 * _sum_and_difference(wave) if _is_ms(mode, wave.shape[1]) else wave
    return wave.reshape(-1, 1, wave.shape[-1])


@public
def unfold_channels(wave: Tensor | NDArray[Any], channels: int, mode: Literal["lr", "ms"] = "lr") -> Tensor:
    """The inverse of `fold_channels`: `[B * C, 1, N]` to `[B, C, N]`, which `write` takes where B is 1.

    With "ms" the result can exceed [-1, 1], where the mid and the side of a vocoder do not fit each other.

    Raises:
        SpecError: any other shape, a number of rows that is not a multiple of the channels, or other than two channels
            with "ms".
        OptionError: any other mode.
    """
    wave = as_tensor(wave, "the wave")
    if wave.dim() != 3 or wave.shape[1] != 1 or channels < 1 or wave.shape[0] % channels:
        raise SpecError(
            f"the wave has shape {list(wave.shape)}, but with {channels} channels it is [B * {channels}, 1, N]"
        )
    wave = wave.reshape(-1, channels, wave.shape[-1])
    return _sum_and_difference(wave) if _is_ms(mode, channels) else wave


def _is_ms(mode: str, channels: int) -> bool:
    if mode not in ("lr", "ms"):
        raise OptionError(f"mode={quoted(mode)}, but channels are folded as they are ('lr') or as mid and side ('ms')")
    if mode == "ms" and channels != 2:
        raise SpecError(f"mode='ms' with {channels} channels, but mid and side are made of two; use mode='lr'")
    return mode == "ms"


def _sum_and_difference(wave: Tensor) -> Tensor:
    """`[B, 2, N]` to the same: the first plus the second, the first minus the second."""
    first, second = wave.unbind(1)
    return torch.stack([first + second, first - second], 1)


@public
def read(path: str | os.PathLike[str]) -> tuple[Tensor, int]:
    """Read a whole sound file (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads).

    Returns:
        `[C, N]` float32, and the sample rate in Hz.

    Raises:
        MelvocError: no such file, an empty one, or a damaged one.
    """
    with AudioReader(path) as reader:
        return reader.read(), reader.sample_rate


@public
def write(path: str | os.PathLike[str], wave: Tensor | NDArray[Any], rate: int, subtype: str | None = None) -> None:
    """Write a whole sound file, WAV or FLAC by its extension; a WAV beyond 4 GiB is an RF64.

    Args:
        path: ends in .wav or .flac.
        wave: `[N]`, `[C, N]`, `[1, C, N]` or `[C, 1, N]` (a batch of C mono sounds, as a vocoder makes them of a file's
            channels), of torch or NumPy; in PCM, values outside [-1, 1] are clipped.
        rate: the sample rate in Hz.
        subtype: "PCM_16" (also where it is None), "PCM_24", "PCM_32" or "FLOAT"; FLAC has the first two.

    Raises:
        SpecError: any other shape, or NaN or Inf.
        OptionError: any other subtype, or a rate or number of channels that the format does not have.
        MelvocError: any other extension, or a file that cannot be written whole.
    """
    wave = as_tensor(wave, "the wave")
    shape = list(wave.shape)
    if wave.dim() == 1:
        wave = wave[None]
    elif wave.dim() == 3 and 1 in shape[:2]:
        wave = wave.flatten(0, 1)
    if wave.dim() != 2:
        raise SpecError(
            f"{os.fsdecode(path)}: the wave has shape {shape}, but a file holds [N], [C, N], [1, C, N] or [C, 1, N]; "
            "write each sound of a batch to its own file"
        )
    with AudioWriter(path, sample_rate=rate, channels=wave.shape[0], subtype=subtype or SUBTYPES[0]) as writer:
        writer.write(wave)


class AudioReader:
    """Reads a sound file in blocks, for files larger than memory. Use it in a `with` statement.

    Everything that libsndfile decodes is read, forward only, until nothing comes: the samples are those that were
    decoded, whatever the header says of their number. What is cut is used as far as it goes, with one warning. A pipe
    (standard input, a FIFO, `<(...)`) is read from a copy in the system's temporary folder.

    Args:
        path: the file.
        note: is told of a file that is cut, once, after its last block. By default a warning.

    Attributes:
        sample_rate: in Hz.
        channels: C.
        samples: N, according to the file's header; None where it does not say.

    Raises:
        MelvocError: no such file, or one that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, note: Callable[[str], object] = warn) -> None:
        self.path, self._note, self._done = os.fsdecode(path), note, 0
        if not is_readable(self.path):
            place = Path(self.path)
            what = "a folder" if place.is_dir() else "neither a file nor a pipe" if exists(place) else "no such file"
            raise MissingFileError(f"{self.path}: {what}; give the path of a sound file")
        with ExitStack() as stack:
            self._file = self._open(stack)
            file = self._file
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise MelvocError(
                    f"{self.path}: a sample rate of {file.samplerate} Hz, but sound has {LOWEST_RATE} to "
                    f"{HIGHEST_RATE}; its header is wrong: write the file with its own rate"
                )
            self._stack = stack.pop_all()
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.samples: int | None = None if self._source.endless or file.frames >= _UNKNOWN else file.frames

    def _open(self, stack: ExitStack) -> Any:
        import soundfile

        try:
            path = Path(stack.enter_context(regular(self.path)))
            opened = stack.enter_context(path.open("rb"))
            self._source = Source(opened)
            file = stack.enter_context(soundfile.SoundFile(self._source))
        except OSError as error:
            raise error if isinstance(error, MelvocError) else unreadable(self.path, error) from error
        except soundfile.SoundFileError as error:
            self._raise_kept()
            raise MelvocError(
                f"{self.path}: cannot be read as sound ({_reason(error)}); use WAV, FLAC, OGG or MP3"
            ) from error
        file.seekable = lambda: False  # or soundfile would seek after each read, which some decoders do not survive
        return file

    def _raise_kept(self) -> None:
        """Raise what ended a read of the bytes."""
        error = self._source.error
        if isinstance(error, OSError):
            raise unreadable(self.path, error) from error
        if error is not None:
            raise error

    def blocks(self, samples: int = BLOCK) -> Iterator[Tensor]:
        """The samples in order, `[C, n]` with n at most `samples`.

        Raises:
            MelvocError: the file is damaged before its end.
        """
        import numpy
        import soundfile

        buffer = numpy.empty((max(1, min(samples, _LARGEST // self.channels)), self.channels), dtype="float32")
        problem, count = None, -1
        while count and problem is None:
            buffer.fill(numpy.nan)
            try:
                count = len(self._file.read(out=buffer))
            except soundfile.SoundFileError as error:
                missing = numpy.isnan(buffer).any(1)  # soundfile does not say how much was read before an error
                problem, count = error, int(missing.argmax()) if missing.any() else len(buffer)
            self._raise_kept()
            self._done += count
            if count:
                yield torch.from_numpy(buffer[:count].T.copy())
        self._conclude(problem)

    def read(self) -> Tensor:
        """All samples, `[C, N]`.

        Raises:
            MelvocError: there are none, or the file is damaged before its end.
        """
        blocks = list(self.blocks())
        if not blocks:
            raise MelvocError(f"{self.path}: has no samples; give a file with sound in it")
        return torch.cat(blocks, dim=-1)

    def _conclude(self, problem: Exception | None) -> None:
        """Say what is missing at the end of the file.

        Raises:
            MelvocError: what is missing is not the end: a lossless file is damaged.
        """
        at_end, lossy = self._source.position >= self._source.size, self._file.format in ("MP3", "OGG")
        if problem is not None and not (at_end or lossy):
            raise MelvocError(
                f"{self.path}: damaged after {self._done} samples ({_reason(problem)}); repair it or leave it out"
            ) from problem
        slack = _MPEG_SLACK if self._file.format == "MP3" else 0
        if self.samples is not None and self._done < self.samples - slack:
            why = f"{self._done} samples of {self.samples}"
        elif problem is not None:
            why = _reason(problem)
        elif self._source.cut or _says_cut(self._file.extra_info):
            why = "its end is missing"
        else:
            return
        self._note(
            f"{self.path}: cut or damaged ({why}); used as far as it goes: {self._done / self.sample_rate:.4g} s"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
