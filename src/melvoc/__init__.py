"""melvoc turns mel spectrograms into sound.

- `load`, `download`: vocoders by name, path or repository (`melvoc.loading`).
- `list_vocoders`, `info`, `cached`: which there are, and which are here (`melvoc.information`).
- `Vocoder`: the base class of them all, which a plugin subclasses (`melvoc.vocoder`, `melvoc.streaming`).
- `MelSpec`, `MelSpectrogram`, `convert_mel`, `save_mel`, `load_mel`: mels and their specifications
  (`melvoc.spectrogram`).
- `save`, `to_bytes`, `from_bytes`, `pack`, `unpack`: vocoders to and from files (`melvoc.storage`).
- `export`: vocoders as files for other runtimes (`melvoc.exporting`).
- `melvoc.audio`, `resample`: sound files and sample rates.
- `evaluate`: how good vocoders are on sounds of your own, with a report (`melvoc.evaluation`).
- `melvoc.batch`: callables on columns, for Ray Data, `datasets` and Spark.
- `melvoc.plot`: plots of mels (matplotlib).
- `melvoc.train`: a small generator for your own sounds.
- `melvoc.testing`: checks for a vocoder of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from melvoc import audio
from melvoc.audio.resampling import resample
from melvoc.errors import (
    CheckpointError,
    DownloadError,
    FileAccessError,
    MelMismatchError,
    MelvocError,
    MissingFileError,
    MissingPackageError,
    OptionError,
    PluginError,
    SpecError,
    UnknownVocoderError,
)
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.streaming import VocoderStream
from melvoc.synthesis import Condition
from melvoc.vocoder import Vocoder

if TYPE_CHECKING:
    from melvoc.evaluation.runner import evaluate
    from melvoc.exporting.files import export
    from melvoc.information import VocoderInfo, info, list_vocoders
    from melvoc.loading import download, load
    from melvoc.spectrogram.conversion import convert_mel
    from melvoc.spectrogram.file import load_mel, save_mel
    from melvoc.storage.inventory import cached
    from melvoc.storage.vocoder_file import from_bytes, pack, save, to_bytes, unpack

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "Condition",
    "DownloadError",
    "FileAccessError",
    "MelMismatchError",
    "MelSpec",
    "MelSpectrogram",
    "MelvocError",
    "MissingFileError",
    "MissingPackageError",
    "OptionError",
    "PluginError",
    "SpecError",
    "UnknownVocoderError",
    "Vocoder",
    "VocoderInfo",
    "VocoderStream",
    "__version__",
    "audio",
    "cached",
    "convert_mel",
    "download",
    "evaluate",
    "export",
    "from_bytes",
    "info",
    "list_vocoders",
    "load",
    "load_mel",
    "pack",
    "resample",
    "save",
    "save_mel",
    "to_bytes",
    "unpack",
]


# Imported on first use, because a program that makes mels loads no vocoder, and most programs never train.
_LATER = {
    "batch": "melvoc.batch",
    "plot": "melvoc.plot",
    "testing": "melvoc.testing",
    "train": "melvoc.train",
    "convert_mel": "melvoc.spectrogram.conversion",
    **dict.fromkeys(("load_mel", "save_mel"), "melvoc.spectrogram.file"),
    "evaluate": "melvoc.evaluation.runner",
    "export": "melvoc.exporting.files",
    "cached": "melvoc.storage.inventory",
    **dict.fromkeys(("VocoderInfo", "info", "list_vocoders"), "melvoc.information"),
    **dict.fromkeys(("download", "load"), "melvoc.loading"),
    **dict.fromkeys(("from_bytes", "pack", "save", "to_bytes", "unpack"), "melvoc.storage.vocoder_file"),
}


def __getattr__(name: str) -> Any:
    """The names that are imported on first use."""
    if name not in _LATER:
        raise AttributeError(f"module 'melvoc' has no attribute {name!r}")
    module = importlib.import_module(_LATER[name])
    return module if _LATER[name] == f"melvoc.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    """Those names too."""
    return sorted({*globals(), *_LATER})
