"""Every error that melvoc raises on purpose.

One root, `MelvocError`, so that an application can catch all of them at once; each also is the built-in error that a
caller would expect. A message says the value, the rule and the way out.
"""

from __future__ import annotations


class MelvocError(Exception):
    """Root of melvoc's errors, and the error for what has no class of its own (an option that does not exist, say)."""


class SpecError(MelvocError, ValueError):
    """A mel spectrogram, a waveform or a `MelSpec` that breaks a rule."""


class MelMismatchError(SpecError):
    """A mel whose specification is not the vocoder's; the message lists the fields that differ."""


class UnknownVocoderError(MelvocError, LookupError):
    """A vocoder name that nothing registers; the message names the closest matches."""


class CheckpointError(MelvocError):
    """A file of weights that is damaged, incomplete or of another kind; the message names the file and the tensor."""


class PluginError(MelvocError):
    """A third-party vocoder that fails to import or breaks the contract; raised from its cause."""


class DownloadError(MelvocError):
    """A file that could not be fetched, or is not the one that was pinned."""
