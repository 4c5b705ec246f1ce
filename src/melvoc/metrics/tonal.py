"""Tonal artefacts: lines at multiples of the frame rate that the recording does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_length
from melvoc.metrics.beating import usual_rates

FRAMES = 16  # in a window, so that the lines of one spectrum are this many bins apart
WINDOWS = 3  # at least


def line_levels(wave: Tensor, sample_rate: int, frame_rate: float) -> Tensor:
    """The power at each multiple of the frame rate, below Nyquist, over that between the multiples.

    What lies between is the louder of the two sides, so that the edge of a band is no line.

    Returns:
        `[lines]`, ratios.
    """
    size = round(FRAMES * sample_rate / frame_rate)
    spectrum = torch.stft(wave, size, size // 4, window=torch.hann_window(size), center=False, return_complex=True)
    power = spectrum.abs().square().mean(1) + 1e-9
    lines = (torch.arange(1, int(sample_rate / 2 / frame_rate)) * (frame_rate * size / sample_rate)).round().long()
    sides = [torch.stack([power[lines + side * away] for away in range(3, 8)]).median(0).values for side in (-1, 1)]
    return power[lines] / torch.maximum(*sides)


def tonal_at(reference: Tensor, sound: Tensor, sample_rate: int, frame_rate: float) -> float:
    """How far the lines at multiples of the frame rate stand out, in dB; 0 where there are none.

    The mean over the multiples of the ratio of the sound to that of the recording, where a line of the recording
    stands out itself; both are of what lies beside the line.

    Raises:
        MelvocError: the sound is shorter than 48 frames, or a frame than 4 samples.
    """
    if frame_rate > sample_rate / 4:
        raise MelvocError(f"{frame_rate:g} frames a second have no multiples below {sample_rate / 2:g} Hz")
    check_length(reference, round(WINDOWS * FRAMES * sample_rate / frame_rate))
    theirs, mine = (line_levels(wave, sample_rate, frame_rate) for wave in (reference, sound))
    return max(0.0, 10 * math.log10(float((mine / theirs.clamp(min=1.0)).mean())))


def tonal(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The largest figure at the frame rates of the usual hops.

    Raises:
        MelvocError: as `tonal_at`.
    """
    rates = usual_rates(reference.shape[-1], sample_rate, WINDOWS * FRAMES)
    return max(tonal_at(reference, sound, sample_rate, rate) for rate in rates)


METRIC = Metric(
    name="tonal",
    title="tonal lines at the frame rate (dB)",
    function=tonal,
    better="lower",
    low=0.0,
    high=math.inf,
    source="melvoc: docs/metrics.md",
    deaf_to="everything but steady lines at multiples of the frame rate",
    at_frame_rate=tonal_at,
)
