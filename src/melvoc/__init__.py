"""melvoc turns mel spectrograms into sound.

- `load`, `list_vocoders`, `info`: vocoders by name, path or repository (`melvoc.loading`).
- `Vocoder`: the base class of them all, which a plugin subclasses (`melvoc.vocoder`, `melvoc.streaming`).
- `MelSpec`, `MelSpectrogram`, `convert_mel`: mels and their specifications (`melvoc.spectrogram`).
- `save`, `to_bytes`, `from_bytes`, `pack`, `unpack`: vocoders to and from files (`melvoc.storage`).
- `melvoc.audio`, `resample`: sound files and sample rates.
- `melvoc.train`: a small generator for your own sounds.
"""

from __future__ import annotations

from typing import Any

from melvoc import audio
from melvoc.audio.resampling import resample
from melvoc.errors import (
    CheckpointError,
    DownloadError,
    MelMismatchError,
    MelvocError,
    MissingFileError,
    OptionError,
    PluginError,
    SpecError,
    UnknownVocoderError,
)
from melvoc.loading import VocoderInfo, info, list_vocoders, load
from melvoc.spectrogram.conversion import convert_mel
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.storage.vocoder_file import from_bytes, pack, save, to_bytes, unpack
from melvoc.streaming import VocoderStream
from melvoc.synthesis import Condition
from melvoc.vocoder import Vocoder

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "Condition",
    "DownloadError",
    "MelMismatchError",
    "MelSpec",
    "MelSpectrogram",
    "MelvocError",
    "MissingFileError",
    "OptionError",
    "PluginError",
    "SpecError",
    "UnknownVocoderError",
    "Vocoder",
    "VocoderInfo",
    "VocoderStream",
    "__version__",
    "audio",
    "convert_mel",
    "from_bytes",
    "info",
    "list_vocoders",
    "load",
    "pack",
    "resample",
    "save",
    "to_bytes",
    "unpack",
]


def __getattr__(name: str) -> Any:
    """`melvoc.train`, imported on first use: most programs never train."""
    if name != "train":
        raise AttributeError(f"module 'melvoc' has no attribute {name!r}")
    import importlib

    return importlib.import_module("melvoc.train")
