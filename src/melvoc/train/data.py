"""Segments drawn at random; the draw depends on seed and position alone, so that a run resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import SpecError
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import frames_to_mel
from melvoc.train.augment import augment
from melvoc.train.sounds import Sound

MOSTLY = 0.5  # of what is drawn
_FEW = 4  # from this many files on, at least one is held out


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Segments and their mels.

    Attributes:
        wave: `[B, 1, segment]`.
        mel: `[B, n_mels, segment / hop_length]`.
    """

    wave: Tensor
    mel: Tensor


def split(sounds: Sequence[Sound], *, held_out: int | None, seed: int) -> tuple[list[Sound], list[Sound]]:
    """Split into training and validation sounds, by whole files; the same for the same names and seed.

    Args:
        sounds: all of them.
        held_out: files for validation. None: one in twenty, at least one if there are four or more.
        seed: of the choice.

    Raises:
        SpecError: nothing would be left to train on.
    """
    count = held_out if held_out is not None else (max(1, len(sounds) // 20) if len(sounds) >= _FEW else 0)
    if count >= len(sounds):
        raise SpecError(
            f"validation_files={count}, but there are {len(sounds)} usable files, and at least one is needed for "
            f"training; take at most {len(sounds) - 1}"
        )
    ranked = sorted(sounds, key=lambda sound: hashlib.sha256(f"{seed} {sound.name}".encode()).digest())
    chosen = {sound.name for sound in ranked[:count]}
    return [s for s in sounds if s.name not in chosen], [s for s in sounds if s.name in chosen]


def fingerprint(sounds: Sequence[Sound]) -> str:
    """A hash of the sounds' names, lengths, some samples and some frames of their mels, compared when resuming."""
    digest = hashlib.sha256()
    for sound in sounds:
        digest.update(f"{sound.name} {len(sound.wave)} {sound.mel is not None}\n".encode())
        digest.update(sound.wave[:: max(1, len(sound.wave) // 1000)].numpy().tobytes())
        if sound.mel is not None:
            digest.update(sound.mel[:, :: max(1, sound.mel.shape[1] // 8)].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Segments:
    """Endless random segments of a set of sounds, which cover the starts and ends of files as well as what is between.

    Segment i belongs to pass `i // segments_a_pass` over the sounds; within a pass each file has as many slots as it
    has segments, in random order, and each slot draws its start, so that a pass covers all files in proportion. A start
    is drawn from a segment before the file to its end, and then moved inside: so what a file begins with, which is the
    attack of most short sounds, is heard as often as its middle, where a start that is drawn from all that fit would
    hardly ever be the first; only what is about a segment from an edge is heard up to twice as often.

    The mel of a segment is computed with the samples around it, so that its frames are those of the whole file's mel;
    padding occurs only at a file's start and end, as the spec defines it.

    Args:
        sounds: to draw from; those shorter than a segment are padded with zeros.
        spec: of the mels.
        segment: in samples, a multiple of the hop length.
        seed: of all random draws.
        gain_db: as in `augment`.
        flip_polarity: as in `augment`.
        tilt_db: as in `augment`. With another model's mels, only the polarity is changed, because no mel shows it.

    Attributes:
        padding: the share of what is drawn that is not sound but zeros, because files are shorter than a segment.
        notes: what should be known of that, if it is most.
    """

    def __init__(
        self,
        sounds: Sequence[Sound],
        spec: MelSpec,
        *,
        segment: int,
        seed: int,
        gain_db: float = 0.0,
        flip_polarity: bool = False,
        tilt_db: float = 0.0,
    ) -> None:
        self.spec, self.segment, self.seed = spec, segment, seed
        self.gain_db, self.flip_polarity, self.tilt_db = gain_db, flip_polarity, tilt_db
        self.frames = segment // spec.hop_length
        self.right = max(0, spec.n_fft - spec.hop_length - spec.pad)  # samples after a segment that its last frame sees
        self._mels = [None if sound.mel is None else _lengthened(sound.mel, self.frames) for sound in sounds]
        self._lengths: list[int] = []
        self._waves: list[Tensor] = []
        for sound, mel in zip(sounds, self._mels, strict=True):
            wave = sound.wave if mel is None else sound.wave[: mel.shape[1] * spec.hop_length]
            wave = F.pad(wave, (0, max(0, segment - len(wave))))
            self._lengths.append(len(wave))
            padded = F.pad(wave[None, None], (spec.pad, self.right), mode=spec.pad_mode)
            self._waves.append(padded[0, 0])
        missing = [segment - len(sound.wave) for sound in sounds if len(sound.wave) < segment]
        self._places = [file for file, length in enumerate(self._lengths) for _ in range(round(length / segment))]
        self.padding = sum(missing) / (len(self._places) * segment)
        self.notes: tuple[str, ...] = ()
        if self.padding > MOSTLY:
            self.notes += (
                f"{100 * self.padding:.0f}% of each batch is padding: {len(missing)} of {len(sounds)} files are "
                f"shorter than a segment ({segment} samples); a smaller --segment (segment=) has less of it",
            )
        self._kept = (-1, torch.empty(0))

    @property
    def segments_a_pass(self) -> int:
        """Segments in one pass over the sounds."""
        return len(self._places)

    def batch(self, position: int, size: int, device: torch.device | str = "cpu") -> Batch:
        """The segments `position` to `position + size - 1`; their mels are computed on the device."""
        cut = [self._cut(position + row) for row in range(size)]
        waves = torch.stack([padded for padded, _ in cut]).to(device)
        if self._mels[0] is None:
            mel = frames_to_mel(waves, self.spec)
        else:
            mel = torch.stack([mel for _, mel in cut if mel is not None]).to(device)
        start = self.spec.pad
        return Batch(wave=waves[:, None, start : start + self.segment].contiguous(), mel=mel)

    def _cut(self, index: int) -> tuple[Tensor, Tensor | None]:
        """One segment with the samples around it that its frames see, and its mel if that is another model's."""
        turn, place = divmod(index, self.segments_a_pass)
        file = self._places[int(self._order(turn)[place])]
        generator = torch.Generator().manual_seed(seed_of(self.seed, "segment", index))
        mel = self._mels[file]
        hop = 1 if mel is None else self.spec.hop_length  # another model's mel has a place for every frame
        last = (self._lengths[file] - self.segment) // hop
        reach = self.segment // hop - 1
        drawn = int(torch.randint(last + 1 + 2 * reach, (), generator=generator)) - reach
        frame = min(max(0, drawn), last)
        start = frame * hop
        size = self.spec.pad + self.segment + self.right
        padded = augment(
            self._waves[file][start : start + size],
            generator,
            gain_db=self.gain_db if mel is None else 0.0,
            flip_polarity=self.flip_polarity,
            tilt_db=self.tilt_db if mel is None else 0.0,
        )
        return padded, None if mel is None else mel[:, frame : frame + self.frames]

    def _order(self, turn: int) -> Tensor:
        """The order of the slots in a pass; the last one computed is cached."""
        if self._kept[0] != turn:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "order", turn))
            self._kept = (turn, torch.randperm(self.segments_a_pass, generator=generator))
        return self._kept[1]


def _lengthened(mel: Tensor, frames: int) -> Tensor:
    """The mel with at least `frames` frames, repeating the last one."""
    missing = frames - mel.shape[1]
    return torch.cat([mel, mel[:, -1:].expand(-1, missing)], 1) if missing > 0 else mel


def seed_of(*parts: object) -> int:
    """A seed: 63 bits that depend on all parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
