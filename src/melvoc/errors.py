"""Every error that melvoc raises on purpose.

All share the root `MelvocError`, so that an application can catch them at once; each is also the built-in error that a
caller would expect. A message gives the value, the rule and a suggested fix. It may quote a stranger's file, so every
message is shorter than 2 kB and has no control characters, and `quoted` shows a value in a bounded time.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeGuard

DownloadReason = Literal["offline", "not found", "token", "hash", "disk"]

_HEAD, _TAIL = 1100, 700  # bytes of a long message that are kept: what is wrong stands first, what to do last
_GAP = " [...] "
_CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"  # compiled with the first error
_ADVICE: Mapping[int, str] = {
    errno.EACCES: "you may not read it; change its permissions, or copy it",
    errno.EPERM: "you may not read it; change its permissions, or copy it",
    errno.EMFILE: "this process has too many files open; close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many files open; close some",
    errno.ENOMEM: "memory is short; free some, or raise the limit (ulimit -v)",
    errno.EIO: "the disk or the network has failed; try again, or copy it to another disk",
    errno.ENAMETOOLONG: "no file can have this name; check the path",
}


class MelvocError(Exception):
    """Root of melvoc's errors, also raised for what has no class of its own."""

    def __init__(self, message: str = "", *rest: object) -> None:
        super().__init__(clipped(str(message)), *rest)


class OptionError(MelvocError, ValueError):
    """An argument, an option or a configuration value that is not allowed."""


class MissingFileError(MelvocError, FileNotFoundError):
    """A file or folder that does not exist."""


class FileAccessError(MelvocError, OSError):
    """A file that the operating system does not let melvoc open or read; what is in it may be in order."""


class SpecError(MelvocError, ValueError):
    """A mel spectrogram, a waveform or a `MelSpec` that breaks a rule."""


class MelMismatchError(SpecError):
    """A mel whose specification is not the vocoder's.

    Attributes:
        fields: the differences, `{field: (the vocoder's, the mel's)}`.
    """

    def __init__(self, message: str, *, fields: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})


class UnknownVocoderError(MelvocError, LookupError):
    """A vocoder name that nothing registers; the message names the closest matches."""


class CheckpointError(MelvocError, ValueError):
    """A checkpoint that is damaged, incomplete or of the wrong kind; the message names the file and the tensor.

    Attributes:
        path: of the file, if there is one.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class MissingCheckpointError(CheckpointError, MissingFileError):
    """A checkpoint file that does not exist."""


class PluginError(MelvocError, ImportError):
    """A third-party vocoder or architecture that fails to import or breaks the contract; raised from its cause."""


class ConformanceError(MelvocError, AssertionError):
    """A vocoder that does not do what a vocoder promises; raised by `melvoc.testing`.

    Attributes:
        check: the promise that is broken, in a word or two.
    """

    def __init__(self, message: str, *, check: str = "") -> None:
        super().__init__(message)
        self.check = check


class MissingPackageError(MelvocError, ImportError):
    """An optional package that is not installed or does not import; the message says how to get it."""


class DownloadError(MelvocError, OSError):
    """A file that could not be fetched, or is not the pinned one.

    Attributes:
        reason: "offline", "not found", "token" (the repository needs one), "hash" (not the pinned file, or one that
            cannot be verified) or "disk".
    """

    def __init__(self, message: str, *, reason: DownloadReason = "not found") -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def about(path: str | os.PathLike[str]) -> Iterator[None]:
    """Set the path of any `CheckpointError` raised inside the block."""
    try:
        yield
    except CheckpointError as error:
        error.path = error.path or os.fsdecode(path)
        raise


def clipped(text: str) -> str:
    """The text in less than 2 kB of UTF-8, its middle left out if need be, without control characters."""
    data = re.sub(_CONTROL, "\ufffd", text).encode()
    if len(data) <= _HEAD + len(_GAP) + _TAIL:  # so that a message of a message stays as it is
        return data.decode()
    return data[:_HEAD].decode(errors="ignore") + _GAP + data[-_TAIL:].decode(errors="ignore")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 200, 200

    def repr_int(self, x: int, level: int) -> str:
        """Python itself refuses to write out more than 4300 digits."""
        return repr(x) if x.bit_length() < 128 else f"a whole number of {x.bit_length()} bits"


def quoted(value: object) -> str:
    """`repr`, but short, and quick whatever the value: what stands in a file may be nested, endless or both."""
    return _Short().repr(value)


def kind_of(value: object) -> str:
    """The name of a value's type, with its article: "an int", "a str"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def did_you_mean(name: object, names: Iterable[str], most: int = 2) -> str:
    """The hint at an unknown name, "" if none is like it.

    Args:
        name: the unknown one.
        names: the known ones, the best first: those that contain it come in this order, before those spelt similarly.
        most: how many are named.
    """
    text, known = str(name)[:80].lower(), list(names)
    holding = [one for one in known if len(text) > 2 and text in one.lower()]
    close = list(dict.fromkeys([*holding, *difflib.get_close_matches(text, known, most, cutoff=0.5)]))[:most]
    *others, last = map(repr, close or [""])
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if close else ""


def reason(error: BaseException) -> str:
    """An error of another library in a few words: its first line, without torch's advice to load a file unsafely."""
    first = next(iter(str(error).strip().splitlines()), "")
    return re.split(r"This file can still|In PyTorch 2\.6|Re-running|\(1\)|Please (?:open|file)|weights_only", first)[
        0
    ].strip(" ,:`") or (type(error).__name__)


def of_the_system(error: BaseException) -> TypeGuard[OSError]:
    """Whether an error tells of the machine rather than of the file: of permissions, limits, memory or the disk."""
    return isinstance(error, OSError) and error.errno in _ADVICE


def unreadable(path: str | os.PathLike[str], error: OSError | MemoryError) -> FileAccessError:
    """The error for a file that cannot be opened or read: the system's reason, and what to do about it."""
    code = errno.ENOMEM if isinstance(error, MemoryError) else error.errno
    advice = _ADVICE.get(code or 0, "the file itself may be whole; try again, or copy it to another disk")
    why = os.strerror(code) if code else str(error)
    return FileAccessError(f"{os.fsdecode(path)}: cannot be opened or read ({why}): {advice}")
