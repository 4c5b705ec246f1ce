"""Rounds of refinement in an ONNX graph: the arithmetic of `melvoc.post.refine` on a complete sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from melvoc.exporting.functions import LARGEST, lower_function
from melvoc.exporting.graph import Builder, Name, Signal, array_of
from melvoc.exporting.noise import lower_noise
from melvoc.exporting.spectra import (
    inverse_transform,
    lower_inverse_stft,
    overlap_add,
    pad_signal,
    transform,
    window_sums,
)
from melvoc.post import Sound
from melvoc.post.refine import CARE, FIRST_STEPS, MOMENTUM, Refine, sound_spec
from melvoc.rounded import FIRST_STEPS as INVERSION_STEPS
from melvoc.rounded import Rounded, turned
from melvoc.spectrogram.conversion import FURTHEST, TINY, Care
from melvoc.spectrogram.projection import QUIETEST, projection
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants

INERTIA = MOMENTUM / (1.0 + MOMENTUM)


def lower_refine(builder: Builder, step: Refine, sound: Sound, mel: Signal, wave: Signal) -> Signal:
    """The rounds, one after the other.

    Args:
        builder: of the graph.
        step: which has their number.
        sound: that is refined.
        mel: `[B, n_mels, T]`.
        wave: `[B, C, T * samples_per_frame]`.

    Raises:
        SpecError: this sound cannot be refined.
    """
    gain = float((sound.sample_rate / sound.spec.sample_rate) ** sound.spec.power)
    rounds = _rounds(builder, sound_spec(sound), wave.channels, mel, gain=gain, care=CARE)
    return Signal(rounds.all(wave.name, step.rounds, FIRST_STEPS), wave.channels)


def lower_rounded(builder: Builder, node: Rounded, mel: Signal) -> Signal:
    """GLNet's start: magnitudes that have the mel, the noise's phases, and the rounds, without care."""
    rounds = _rounds(builder, node.spec, 1, mel, gain=1.0, care=None)
    powers = rounds.inverted(INVERSION_STEPS)
    magnitude = powers if node.spec.power == 1.0 else builder.node("Sqrt", powers)
    noise = lower_noise(builder, node.phases, mel)
    spectra = lower_function(builder, turned, [Signal(magnitude, node.spec.n_bins), noise])
    wave = lower_inverse_stft(builder, node.start.nodes[1], spectra)  # type: ignore[arg-type]
    return Signal(rounds.all(wave.name, node.rounds, 1), 1)


def _rounds(builder: Builder, spec: MelSpec, channels: int, mel: Signal, *, gain: float, care: Care | None) -> _Rounds:
    arithmetic = projection(spec, torch.device("cpu"), torch.float32)
    linear = lower_function(builder, arithmetic.target, mel).name  # [B, T, n_mels]
    target = builder.node("Mul", builder.transpose(linear, 0, 2, 1), gain)
    return _Rounds(builder, spec, channels, target, float(arithmetic.weakest), care)


@dataclass(frozen=True)
class _Rounds:
    """What all rounds share. Spectra are `[B, C, 2, n_bins, T]`."""

    builder: Builder
    spec: MelSpec
    channels: int
    target: Name
    weakest: float
    care: Care | None

    def all(self, wave: Name, count: int, first_steps: int) -> Name:
        """The sound after so many rounds."""
        earlier = None
        for number in range(count):
            wave, earlier = self.one(wave, earlier, 1 if number else first_steps)
        return wave

    def one(self, wave: Name, earlier: Name | None, steps: int) -> tuple[Name, Name]:
        """The sound after a round, and the spectra that it found."""
        node = self.builder.node
        found = self._analyse(wave)
        powers = self._squares(found)
        gains = self._correct(powers, steps)
        if earlier is None:
            aim = found
        else:
            aim = node("Sub", found, node("Mul", earlier, INERTIA))
            gains = node("Mul", gains, node("Div", powers, self._squares(aim)))
        factors = node("Sqrt", node("Max", gains, TINY))
        change = node("Sub", node("Mul", aim, factors), found)
        return node("Add", wave, self._synthesise(change, wave)), found

    def _analyse(self, wave: Name) -> Name:
        spec, builder = self.spec, self.builder
        after = spec.n_fft - spec.hop_length - spec.pad
        mode = "reflect" if spec.pad_mode == "reflect" else "zeros"
        single = builder.reshape(wave, -1, 1, builder.length(wave))
        spectra = transform(builder, pad_signal(builder, single, spec.pad, after, mode), self._window, spec.hop_length)
        return builder.reshape(spectra, -1, self.channels, 2, spec.n_bins, builder.length(spectra))

    def _squares(self, spectra: Name) -> Name:
        """`[B, C, 1, n_bins, T]`, never quite 0."""
        squares = self.builder.node("Mul", spectra, spectra)
        return self.builder.node("Add", self.builder.node("ReduceSum", squares, np.array([2])), QUIETEST)

    def _correct(self, powers: Name, steps: int) -> Name:
        """`Projection.correct`: factors `[B, 1, 1, n_bins, T]` for the powers."""
        node, spec = self.builder.node, self.spec
        mean = node("ReduceMean", powers, np.array([1, 2]), keepdims=0)
        seen = node("Add", mean, spec.magnitude_eps) if spec.magnitude_eps else mean
        seen = seen if spec.power == 2.0 else node("Sqrt", seen)
        factors = self._step(seen)
        for _ in range(steps - 1):
            factors = node("Mul", factors, self._step(node("Mul", seen, factors)))
        factors = factors if spec.power == 2.0 else node("Mul", factors, factors)
        if spec.magnitude_eps:
            more = node("Mul", node("Sub", factors, 1.0), node("Div", spec.magnitude_eps, mean))
            factors = node("Add", factors, more)
        return node("Unsqueeze", factors, np.array([1, 2]))

    def inverted(self, steps: int) -> Name:
        """`FilterBank.invert`: spectra `[B, n_bins, T]` that have the mel, 0 outside all bands."""
        node = self.builder.node
        spectra = self._spread(node("Div", self.target, self._filters.sum(1)[:, None]), 0.0)
        for _ in range(steps):
            ratios = node("Div", self.target, self._mel(spectra))
            spectra = node("Mul", spectra, self._spread(ratios, 0.0))
        return spectra

    def _step(self, seen: Name) -> Name:
        """`FilterBank.correct`."""
        node, mel = self.builder.node, self._mel(seen)
        if self.care is None:
            return self._spread(node("Div", self.target, mel), 1.0)
        gaps = node("Sub", node("Log", node("Clip", self.target, TINY, LARGEST)), node("Log", mel))
        bounded = node("Clip", gaps, -FURTHEST, math.log(self.care.most))
        return self._spread(node("Exp", node("Mul", bounded, 1.0 - self.care.softness)), 1.0)

    def _mel(self, seen: Name) -> Name:
        """The mel of what the filters see, never quite 0."""
        return self.builder.node("Clip", self.builder.node("MatMul", self._filters, seen), TINY, LARGEST)

    def _spread(self, bands: Name, outside: float) -> Name:
        """Each bin's mean of its bands."""
        columns = self._filters.sum(0)
        shares = (self._filters / np.where(columns > 0, columns, 1.0)).T.astype(np.float32)
        inside = self.builder.node("MatMul", np.ascontiguousarray(shares), bands)
        beyond = outside * (columns <= 0).astype(np.float32)[:, None]
        return self.builder.node("Add", inside, beyond) if outside else inside

    def _synthesise(self, change: Name, wave: Name) -> Name:
        """What the frames of a change add to each sample, `[B, C, N]`."""
        spec, builder = self.spec, self.builder
        count = builder.length(change)
        spectra = builder.reshape(change, -1, 2 * spec.n_bins, count)
        frames = inverse_transform(builder, spectra, self._window, spec.hop_length)
        stop = builder.node("Add", builder.length(wave), np.array([spec.pad]))
        sums, weights = (
            builder.slice(one, spec.pad, stop)
            for one in (
                overlap_add(builder, frames, spec.hop_length, spec.n_fft),
                window_sums(builder, count, self._window, spec.hop_length),
            )
        )
        added = builder.node("Div", sums, builder.node("Max", weights, self.weakest))
        return builder.reshape(added, -1, self.channels, builder.length(wave))

    @property
    def _window(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return array_of(constants(self.spec, torch.device("cpu"), torch.float32)[0])

    @property
    def _filters(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return array_of(constants(self.spec, torch.device("cpu"), torch.float32)[1])
