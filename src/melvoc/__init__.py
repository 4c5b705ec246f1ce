"""melvoc turns mel spectrograms into sound."""

from __future__ import annotations

from melvoc.errors import (
    CheckpointError,
    DownloadError,
    MelMismatchError,
    MelvocError,
    PluginError,
    SpecError,
    UnknownVocoderError,
)
from melvoc.mel import MelSpectrogram
from melvoc.spec import MelSpec
from melvoc.vocoder import Vocoder

__version__ = "0.1.0"
