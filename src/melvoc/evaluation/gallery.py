"""The sounds and pictures of a report, and how many of them there are."""

from __future__ import annotations

import io

from torch import Tensor

from melvoc.evaluation.pictures import RANGE, SWING, decibels, difference_picture, level_picture
from melvoc.evaluation.results import Clip

MOST_FILES, MOST_SECONDS, MOST_BYTES = 12, 10.0, 32 << 20
_MOST_CHANNELS = 2  # what a browser plays
RULE = (
    f"The first {MOST_SECONDS:g} s of the first {MOST_FILES} files, or of as many as there is room for in "
    f"{MOST_BYTES >> 20} MB, the first in any case: the samples that were measured, rounded to 16 bits."
)
PICTURES = (
    f"Time runs to the right, pitch upwards (mel scale). Levels: the {RANGE:g} dB below the recording's loudest point. "
    f"Differences: from {SWING:g} dB too little (blue) to {SWING:g} dB too much (orange)."
)


class Gallery:
    """Collects clips until there are enough.

    Attributes:
        clips: by file.
    """

    def __init__(self) -> None:
        self.clips: dict[str, list[Clip]] = {}
        self._bytes, self._full = 0, False

    def open(self, file: str) -> bool:
        """Whether a file's sounds are wanted; if so, a place for them."""
        wanted = len(self.clips) < MOST_FILES and not self._full
        if wanted:
            self.clips.setdefault(file, [])
        return wanted

    def add(self, file: str, title: str, reference: Tensor, sound: Tensor, sample_rate: int) -> None:
        """Add a vocoder's sound `[C, N]`, and before the first one the recording. A file that is too large goes."""
        if file not in self.clips:
            return
        samples = round(MOST_SECONDS * sample_rate)
        reference, sound = (wave[:_MOST_CHANNELS, :samples] for wave in (reference, sound))
        level = decibels(reference, sample_rate)
        top, clips = float(level.max()), self.clips[file]
        if not clips:
            clips.append(_clip("recording", reference, sample_rate, level_picture(level, top)))
        own = decibels(sound, sample_rate)
        clips.append(_clip(title, sound, sample_rate, level_picture(own, top), difference_picture(own, level, top)))
        self._full = self._bytes + sum(map(_size, clips)) > MOST_BYTES
        if self._full and len(self.clips) > 1:
            del self.clips[file]

    def close(self, file: str) -> None:
        """After a file's last sound: without any, it has no place."""
        if self.clips.get(file):
            self._bytes += sum(map(_size, self.clips[file]))
        else:
            self.clips.pop(file, None)


def _size(clip: Clip) -> int:
    """Bytes in the report, where each three are four characters."""
    return (len(clip.sound) + len(clip.picture) + len(clip.difference or b"")) * 4 // 3


def _clip(title: str, wave: Tensor, sample_rate: int, picture: bytes, difference: bytes | None = None) -> Clip:
    return Clip(title=title, sound=_flac(wave, sample_rate), picture=picture, difference=difference)


def _flac(wave: Tensor, sample_rate: int) -> bytes:
    import soundfile

    from melvoc.audio.writer import to_pcm16

    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm16(wave.T).cpu().numpy(), sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
