"""Every error that melvoc raises on purpose.

All share the root `MelvocError`, so that an application can catch them at once; each is also the built-in error that a
caller would expect. A message gives the value, the rule and a suggested fix.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

DownloadReason = Literal["offline", "not found", "token", "hash", "disk"]


class MelvocError(Exception):
    """Root of melvoc's errors, also raised for what has no class of its own."""


class OptionError(MelvocError, ValueError):
    """An argument, an option or a configuration value that is not allowed."""


class MissingFileError(MelvocError, FileNotFoundError):
    """A file or folder that does not exist."""


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
