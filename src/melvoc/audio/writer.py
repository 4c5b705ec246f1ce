"""Writing sound files: WAV and FLAC of several subtypes, RF64 where a WAV grows beyond its header.

Files are written under a temporary name and moved into place when they are whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from melvoc.arrays import as_tensor
from melvoc.errors import MelvocError, MissingFileError, OptionError, SpecError, quoted
from melvoc.host import public
from melvoc.storage.atomic import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1 << 16  # samples that are copied at once
SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT")
RIFF_LIMIT = (1 << 32) - (1 << 16)  # bytes of samples in a WAV, whose sizes have 32 bits
_WRITABLE = {".wav": ("WAV", SUBTYPES), ".flac": ("FLAC", SUBTYPES[:2])}
_MOST = {"WAV": (1024, 2**31 - 1), "FLAC": (8, 655_350)}  # channels, Hz
_WIDTHS = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}  # bytes


def to_pcm16(wave: Tensor | NDArray[Any]) -> Tensor:
    """Floats as 16-bit PCM: times 32768, rounded to nearest, clipped to [-32768, 32767]; never wraps.

    A 16-bit file that is read and written again keeps every bit.

    Args:
        wave: any shape, floating-point: a tensor or a NumPy array.

    Returns:
        The same shape, int16.

    Raises:
        SpecError: integers, NaN or Inf.
    """
    return (_checked(wave).float() * 32768.0).round().clamp(-32768, 32767).to(torch.int16)


def _stored(wave: Tensor, subtype: str) -> Tensor:
    """A wave as libsndfile takes it for a subtype: of wider integers it stores the upper bits."""
    if subtype == "FLOAT":
        return _checked(wave).float()
    if subtype == "PCM_16":
        return to_pcm16(wave)
    bits = 8 * _WIDTHS[subtype]
    most = 2.0 ** (bits - 1)
    return (_checked(wave).double() * most).round().clamp(-most, most - 1).to(torch.int32) << (32 - bits)


def _reason(error: Exception) -> object:
    """What is wrong, without the temporary file's name."""
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or error


def _named(path: Path) -> str | bytes:
    """A path as soundfile takes it: of a str it takes only UTF-8, which a name on Linux need not be."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _checked(wave: Tensor | NDArray[Any]) -> Tensor:
    wave = as_tensor(wave, "the wave")
    if not wave.is_floating_point():
        raise SpecError(
            f"the wave is {wave.dtype}, but PCM is made from floats in [-1, 1]; divide integers by their range"
        )
    if not bool(torch.isfinite(wave).all()):
        raise SpecError("the wave contains NaN or Inf, which a sound cannot hold; find out where it comes from")
    return wave


def container_of(path: str | os.PathLike[str], subtype: str = SUBTYPES[0]) -> str:
    """libsndfile's name of the format that a path's extension asks for, which is "WAV" or "FLAC".

    Raises:
        OptionError: a subtype that the format does not have.
        MelvocError: any other extension, or a folder of that name.
    """
    if Path(path).is_dir():
        raise MelvocError(f"{os.fsdecode(path)}: a folder; give the path of a file to write")
    suffix = Path(path).suffix
    if suffix.lower() not in _WRITABLE:
        raise MelvocError(
            f"{os.fsdecode(path)}: cannot write {suffix or 'a file without an extension'}; use .wav or .flac"
        )
    container, subtypes = _WRITABLE[suffix.lower()]
    if subtype not in subtypes:
        listed = ", ".join(subtypes)
        raise OptionError(f"{os.fsdecode(path)}: subtype={subtype!r}, but {container} has {listed}; choose one")
    return container


class AudioWriter:
    """Writes a sound file block by block. Use it in a `with` statement: the file gets its name on a normal exit.

    After an error or Ctrl-C, nothing is left behind. A WAV has 32 bits for its size; one that outgrows them becomes an
    RF64, into which what was written is copied.

    Args:
        path: ends in .wav or .flac.
        sample_rate: in Hz.
        channels: C.
        subtype: "PCM_16", "PCM_24", "PCM_32" or "FLOAT"; FLAC has the first two.

    Raises:
        OptionError: a subtype, a number of channels or a rate that the format does not have.
        MelvocError: any other extension, a folder in the file's place, or one that cannot be written to.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sample_rate: int, channels: int, subtype: str = SUBTYPES[0]
    ) -> None:
        self.path, self.channels, self.subtype, self._rate = Path(path), channels, subtype, sample_rate
        self._container, self._written = container_of(path, subtype), 0
        channels_most, rate_most = _MOST[self._container]
        if not (1 <= channels <= channels_most and 1 <= sample_rate <= rate_most):
            raise OptionError(
                f"{self.path}: {self._container} cannot hold {channels} channels at {quoted(sample_rate)} Hz, but 1 to "
                f"{channels_most} channels at 1 to {rate_most} Hz; a wave is [C, N]"
            )
        with ExitStack() as stack:
            try:
                self._temporary = stack.enter_context(replacing(self.path))
            except OSError as error:
                kind_of_error = MelvocError if self.path.parent.is_dir() else MissingFileError
                raise kind_of_error(
                    f"{self.path}: cannot be written ({error.strerror}); does the folder exist?"
                ) from error
            self._open()
            stack.push(self._close)
            self._stack = stack.pop_all()

    def _open(self) -> None:
        import soundfile

        try:
            self._file: Any = soundfile.SoundFile(
                _named(self._temporary),
                "w",
                samplerate=self._rate,
                channels=self.channels,
                format=self._container,
                subtype=self.subtype,
            )
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            raise MelvocError(
                f"{self.path}: {self._container} cannot hold {self.channels} channels at {self._rate} Hz "
                f"({_reason(error)})"
            ) from error

    def _close(self, kind: type[BaseException] | None, *raised: object) -> None:
        """Close the file, and see that all of it is there: a disk that fills up at the end is no error of libsndfile's.

        Raises:
            MelvocError: it is not.
        """
        import soundfile

        try:
            with self._writing():
                self._file.close()
                if soundfile.info(_named(self._temporary)).frames != self._written:
                    raise OSError(f"its {self._written} samples are not all there")
        except MelvocError:
            if kind is None:  # or else the first error is the one to hear of
                raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        import soundfile

        try:
            yield
        except (soundfile.SoundFileError, OSError, AssertionError) as error:  # soundfile asserts that all was written
            raise MelvocError(
                f"{self.path}: cannot be written ({_reason(error)}); is there room on the disk?"
            ) from error

    @public
    def write(self, wave: Tensor | NDArray[Any]) -> None:
        """Append `[C, n]`, a tensor or a NumPy array; in PCM it is clipped to [-1, 1].

        Raises:
            SpecError: any other shape, or NaN or Inf.
            MelvocError: the file cannot be written, for example on a full disk.
        """
        wave = as_tensor(wave, "the wave")
        if wave.dim() != 2 or wave.shape[0] != self.channels:
            raise SpecError(
                f"{self.path}: the wave has shape {list(wave.shape)}, but this file takes [C, n] with {self.channels} "
                "channels; unfold_channels turns a batch into channels"
            )
        samples = _stored(wave, self.subtype).T.contiguous().detach().cpu().numpy()
        with self._writing():
            if self._container == "WAV" and (self._written + len(samples)) * self._frame > RIFF_LIMIT:
                self._outgrow()
            self._file.write(samples)
        self._written += len(samples)

    @property
    def _frame(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * _WIDTHS[self.subtype]

    def _outgrow(self) -> None:
        """Become an RF64 with the samples of the WAV, which a WAV's header cannot be made into: it has no room."""
        import soundfile

        self._file.close()
        short = self._temporary.rename(self._temporary.with_suffix(".short.wav"))
        try:
            self._container = "RF64"
            self._open()
            with soundfile.SoundFile(_named(short)) as before:
                kind = "float32" if self.subtype == "FLOAT" else "int32"
                for _ in range(0, self._written, _BLOCK):
                    self._file.write(before.read(_BLOCK, dtype=kind, always_2d=True))
        finally:
            short.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing():  # the file gets its name here
            self._stack.__exit__(kind, error, trace)
