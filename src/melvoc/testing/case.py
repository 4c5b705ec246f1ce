"""A vocoder under test, a mel for it, and how its results are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from melvoc.errors import ConformanceError, kind_of
from melvoc.streaming import VocoderStream
from melvoc.vocoder import Vocoder

_ROUNDING = {torch.float16: 0.01, torch.bfloat16: 0.05}  # of a wave in [-1, 1]; with any other dtype 1e-4
BOTH, ALL = slice(0, 2), slice(None)  # rows and frames of the mel


@dataclass
class Case:
    """A vocoder with a mel for it, and how its results are compared."""

    vocoder: Vocoder
    check: str = ""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))  # never the host's
    _alone: dict[int, Tensor] = field(default_factory=dict)

    def require(self, right: bool, text: str) -> None:
        """Raise, unless it is right."""
        if not right:
            raise ConformanceError(f"{self.vocoder.name}: {self.check}: {text}", check=self.check)

    def same(self, got: Tensor, expected: Tensor, text: str, *, within: float | None = None) -> None:
        """Raise, unless two waves are the same but for rounding; the text says how it fails and what to do."""
        self.require(got.shape == expected.shape, f"{text} (it is {list(got.shape)}, not {list(expected.shape)})")
        within, found = self.tolerance if within is None else within, apart(got, expected)
        self.require(found <= within, f"{text} (by {found:.3g}, more than {within:g})")

    def refused(self, call: Callable[[], object], kind: type[Exception], what: str) -> None:
        """Raise, unless a call raises what it should."""
        try:
            call()
        except kind:
            return
        except Exception as error:
            found = f"{kind_of(error)} ({error})"
        else:
            found = "no error"
        self.require(False, f"{what} is {found}, but it is a {kind.__name__}; leave the checks to melvoc.Vocoder")

    @property
    def tolerance(self) -> float:
        """For two waves that are computed in different ways."""
        return _ROUNDING.get(self.vocoder.dtype, 1e-4)

    @cached_property
    def frames(self) -> int:
        """Of the mel: more than a stream waits for, where that is not too many."""
        return 6 + min(40, self.vocoder.stream().latency_frames if self.vocoder.can_stream else 0)

    @cached_property
    def mel(self) -> Tensor:
        """`[2, n_mels, frames]` of sound: a tone in noise, one louder than the other."""
        spec = self.vocoder.spec
        time = torch.arange(self.frames * spec.hop_length + 2 * spec.n_fft) / spec.sample_rate
        tones = torch.stack([0.5 * torch.sin(2 * math.pi * 440 * time), 0.1 * torch.sin(2 * math.pi * 1500 * time)])
        noise = 0.05 * torch.randn(tones.shape, generator=self.generator)
        return self.vocoder.mel(tones + noise, sample_rate=spec.sample_rate)[..., : self.frames]

    @cached_property
    def conditions(self) -> dict[str, Tensor]:
        """For that mel, `[2, channels, frames]` each, all over their range."""
        made = {}
        for name, what in self.vocoder.conditions.items():
            low, high = max(what.low, -1e3), min(what.high, 1e3)
            share = torch.rand(2, what.channels, self.frames, generator=self.generator)
            made[name] = (low + (high - low) * share).to(self.mel)
        return made

    @cached_property
    def whole(self) -> Tensor:
        """The sound of the mel."""
        return self.sound()

    def alone(self, row: int) -> Tensor:
        """The sound of one of its rows, by itself."""
        if row not in self._alone:
            self._alone[row] = self.sound(slice(row, row + 1))
        return self._alone[row]

    def sound(self, rows: slice = BOTH, frames: slice = ALL, **options: Any) -> Tensor:
        """The sound of a part of the mel."""
        conditions = self.part(rows, frames)
        return self.vocoder.mel_to_waveform(
            self.mel[rows, :, frames], spec=self.vocoder.spec, conditions=conditions, **options
        )

    def part(self, rows: slice | list[int], frames: slice) -> dict[str, Tensor] | None:
        """The conditions of a part of the mel; None where there are none."""
        return {name: value[rows, :, frames] for name, value in self.conditions.items()} or None

    def open(self, **options: Any) -> VocoderStream:
        """A stream for parts of the mel."""
        return self.vocoder.stream(spec=self.vocoder.spec, **options)

    def push(self, stream: VocoderStream, frames: slice, rows: slice | list[int] = BOTH) -> Tensor:
        """What a stream makes of the next part of the mel."""
        return stream.push(self.mel[rows][..., frames], conditions=self.part(rows, frames))

    def streamed(self, cuts: list[int], **options: Any) -> Tensor:
        """The joined pieces of a stream that takes the mel cut at the given frames."""
        stream, hop = self.open(**options), self.vocoder.samples_per_frame
        pieces, given = [], 0
        for start, end in zip([0, *cuts], [*cuts, self.frames], strict=True):
            pieces.append(self.push(stream, slice(start, end)))
            given += pieces[-1].shape[-1]
            self.require(
                given >= end * hop - stream.latency_samples,
                f"after {end} frames a stream had given {given} samples, but with latency_samples="
                f"{stream.latency_samples} at least {end * hop - stream.latency_samples} are due; correct delay()",
            )
        return torch.cat([*pieces, stream.flush()], dim=-1)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference of two waves; infinite where one is not finite."""
    if not one.numel():
        return 0.0
    largest = float((one.double() - other.double()).abs().max())
    return largest if math.isfinite(largest) else math.inf
