"""Sound: files and sample rates.

- `files`: reading and writing, whole or in blocks; channels as rows of a batch.
- `source`: the bytes of a file as libsndfile is shown them.
- `resampling`: the one resampling filter, whole or piece by piece.
"""

from __future__ import annotations

from melvoc.audio.files import SUBTYPES, AudioReader, AudioWriter, fold_channels, read, to_pcm16, unfold_channels, write

__all__ = ["SUBTYPES", "AudioReader", "AudioWriter", "fold_channels", "read", "to_pcm16", "unfold_channels", "write"]
