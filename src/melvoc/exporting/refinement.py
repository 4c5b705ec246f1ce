"""Rounds of refinement in an ONNX graph: the arithmetic of `melvoc.post.refine` on a complete sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from melvoc.exporting.functions import LARGEST, lower_function
from melvoc.exporting.graph import Builder, Name, Signal, array_of
from melvoc.exporting.spectra import inverse_transform, overlap_add, pad_signal, transform, window_sums
from melvoc.post import Sound
from melvoc.post.refine import CARE, FIRST_STEPS, MOMENTUM, Refine, sound_spec
from melvoc.spectrogram.conversion import FURTHEST, TINY
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
    spec = sound_spec(sound)
    arithmetic = projection(spec, torch.device("cpu"), torch.float32)
    gain = float((sound.sample_rate / sound.spec.sample_rate) ** sound.spec.power)
    linear = lower_function(builder, arithmetic.target, mel).name  # [B, T, n_mels]
    target = builder.node("Mul", builder.transpose(linear, 0, 2, 1), gain)
    rounds = _Rounds(builder, spec, wave.channels, target, float(arithmetic.weakest))
    name, earlier = wave.name, None
    for number in range(step.rounds):
        name, earlier = rounds.one(name, earlier, FIRST_STEPS if number == 0 else 1)
    return Signal(name, wave.channels)


@dataclass(frozen=True)
class _Rounds:
    """What all rounds share. Spectra are `[B, C, 2, n_bins, T]`."""

    builder: Builder
    spec: MelSpec
    channels: int
    target: Name
    weakest: float

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

    def _step(self, seen: Name) -> Name:
        """`FilterBank.correct`, with care."""
        node = self.builder.node
        filters = array_of(constants(self.spec, torch.device("cpu"), torch.float32)[1])
        columns = filters.sum(0)
        shares = (filters / np.where(columns > 0, columns, 1.0)).T.astype(np.float32)
        mel = node("Clip", node("MatMul", filters, seen), TINY, LARGEST)
        gaps = node("Sub", node("Log", node("Clip", self.target, TINY, LARGEST)), node("Log", mel))
        bounded = node("Clip", gaps, -FURTHEST, math.log(CARE.most))
        ratios = node("Exp", node("Mul", bounded, 1.0 - CARE.softness))
        outside = (columns <= 0).astype(np.float32)[:, None]
        return node("Add", node("MatMul", np.ascontiguousarray(shares), ratios), outside)

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
