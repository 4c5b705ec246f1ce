"""Sound: files and sample rates.

- `files`: reading and writing, whole or in blocks; channels as rows of a batch.
- `writer`: what files are written, and how they stay whole.
- `folder`: the sound files of a folder.
- `source`: the bytes of a file as libsndfile is shown them.
- `resampling`: the one resampling filter, whole or piece by piece.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melvoc.audio.files import AudioReader, fold_channels, read, unfold_channels, write
    from melvoc.audio.writer import SUBTYPES, AudioWriter, to_pcm16

__all__ = ["SUBTYPES", "AudioReader", "AudioWriter", "fold_channels", "read", "to_pcm16", "unfold_channels", "write"]

_LATER = dict.fromkeys(("SUBTYPES", "AudioWriter", "to_pcm16"), "melvoc.audio.writer")


def __getattr__(name: str) -> Any:
    """The names above, imported on first use: most programs resample, and read no file."""
    if name not in __all__:
        raise AttributeError(f"module 'melvoc.audio' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER.get(name, "melvoc.audio.files")), name)
