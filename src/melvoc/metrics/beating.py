"""Beating at the frame rate: whether the envelope of a sound fluctuates with the frames that it was made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_length

HOPS = (128, 240, 256, 300, 320, 480, 512, 1024)  # samples: what vocoders have, for a sound whose frames are unknown
PART = 10.0  # seconds that are looked at together; the lines are then 0.1 Hz wide
LEAST_FRAMES, LEAST_SECONDS = 40, 0.4
HARMONICS = 4  # of the frame rate, as far as the envelope resolves them


def envelopes(wave: Tensor, sample_rate: int) -> Iterator[tuple[Tensor, float]]:
    """Magnitudes in Hann windows of about 6 ms, an eighth apart, in parts of equal length, at most 10 s.

    Args:
        wave: `[N]`.
        sample_rate: in Hz.

    Returns:
        For each part: magnitudes `[bins, T]` without the one at 0 Hz, and their rate in Hz.
    """
    window = _window(sample_rate)
    hop = window // 8
    for part in wave.chunk(math.ceil(len(wave) / (PART * sample_rate))):
        if len(part) >= PART * sample_rate / 2 or len(part) == len(wave):
            spectrum = torch.stft(
                part, window, hop, window=torch.hann_window(window), center=False, return_complex=True
            )
            yield spectrum.abs()[1:], sample_rate / hop


def _window(sample_rate: int) -> int:
    return 1 << round(math.log2(0.0058 * sample_rate))


def smooth(magnitudes: Tensor, rate: float, seconds: float) -> Tensor:
    """A running mean of magnitudes `[bins, T]` over twice this time, shortened at both ends."""
    reach = max(1, round(seconds * rate))
    return F.avg_pool1d(magnitudes[:, None], 2 * reach + 1, 1, reach, count_include_pad=False)[:, 0]


def loudness_weights(powers: Tensor) -> Tensor:
    """How much bands `[bins]` of these powers count, in sum 1: by their loudness, power to the 0.3 (Stevens 1957)."""
    loud = powers**0.3 + 1e-9
    return loud / loud.sum()


@dataclass(frozen=True)
class Fluctuation:
    """The spectrum of how the envelopes of a sound fluctuate, mean over parts and, by loudness, bands.

    Attributes:
        powers: `[T // 2 + 1]`, of envelopes relative to their running mean.
        spacing: of the powers, in Hz.
        fastest: what the windows of the envelopes still resolve, in Hz.
    """

    powers: Tensor
    spacing: float
    fastest: float

    @classmethod
    def of(cls, wave: Tensor, sample_rate: int) -> Self:
        """That of a sound `[N]`."""
        powers, spacing, fastest = [], 0.0, 0.0
        for magnitudes, rate in envelopes(wave, sample_rate):
            slow = smooth(magnitudes, rate, 0.05)
            relative = magnitudes / (slow + 1e-4 * slow.max() + 1e-9) - 1
            spectrum = torch.fft.rfft(relative * torch.hann_window(relative.shape[1])).abs().square()
            powers.append(loudness_weights(magnitudes.square().mean(1)) @ spectrum)
            spacing, fastest = rate / relative.shape[1], 0.12 * rate
        least = min(len(power) for power in powers)  # a sample more or less
        return cls(torch.stack([power[:least] for power in powers]).mean(0), spacing, fastest)

    def at(self, frame_rate: float) -> float:
        """How far the frame rate and its resolved harmonics stand out of the rates beside them, in dB."""
        ratios = []
        for harmonic in range(1, HARMONICS + 1):
            line = round(harmonic * frame_rate / self.spacing)
            if harmonic > 1 and harmonic * frame_rate > self.fastest:
                break
            beside = torch.cat([self.powers[max(0, line - 40) : line - 4], self.powers[line + 5 : line + 41]])
            ratios.append(self.powers[line - 1 : line + 2].max() / (beside.median() + 1e-20))
        return 10 * math.log10(float(torch.stack(ratios).mean()) + 1e-6)


def _added(reference: Tensor, sound: Tensor, sample_rate: int, frame_rates: list[float]) -> float:
    check_length(reference, least_samples(sample_rate, min(frame_rates)))
    theirs, mine = (Fluctuation.of(wave, sample_rate) for wave in (reference, sound))
    return max(0.0, *(mine.at(rate) - theirs.at(rate) for rate in frame_rates))


def fastest(sample_rate: int) -> float:
    """The fastest fluctuation in Hz of which an envelope's window lets anything through."""
    return 2 * sample_rate / _window(sample_rate)


def least_samples(sample_rate: int, frame_rate: float) -> int:
    """What a sound has to have: 40 frames, and 0.4 s."""
    return round(max(LEAST_SECONDS, LEAST_FRAMES / frame_rate) * sample_rate)


def usual_rates(samples: int, sample_rate: int, frames: int) -> list[float]:
    """The frame rates in Hz of the usual hops of which a sound has at least this many frames.

    Raises:
        MelvocError: of none.
    """
    hops = [hop for hop in HOPS if samples >= frames * hop]
    if not hops:
        raise MelvocError(f"the sound has {samples} samples, but this figure needs at least {frames * min(HOPS)}")
    return [sample_rate / hop for hop in hops]


def beating_at(reference: Tensor, sound: Tensor, sample_rate: int, frame_rate: float) -> float:
    """How many dB more the sound beats at the frame rate than the recording does; 0 where it does not.

    Raises:
        MelvocError: fewer than 40 frames or 0.4 s of sound, or frames of less than about 3 ms.
    """
    if frame_rate > fastest(sample_rate):
        raise MelvocError(
            f"{frame_rate:g} frames a second are too many for this figure, which sees up to {fastest(sample_rate):g}"
        )
    return _added(reference, sound, sample_rate, [frame_rate])


def beating(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The largest beating at the frame rates of the usual hops.

    Raises:
        MelvocError: fewer than 40 frames or 0.4 s of sound.
    """
    rates = usual_rates(reference.shape[-1], sample_rate, LEAST_FRAMES)
    check_length(reference, round(LEAST_SECONDS * sample_rate))  # or no usual rate might be slow enough
    return _added(reference, sound, sample_rate, [rate for rate in rates if rate <= fastest(sample_rate)])


METRIC = Metric(
    name="beating",
    title="beating at the frame rate (dB)",
    function=beating,
    better="lower",
    low=0.0,
    high=math.inf,
    source="melvoc: docs/metrics.md",
    deaf_to="everything that does not repeat with the frames",
    at_frame_rate=beating_at,
)
