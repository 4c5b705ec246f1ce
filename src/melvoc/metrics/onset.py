"""The sharpness of onsets: whether sound has leaked into the time before them."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_length

SPAN = 20  # ms before and after
APART = 50  # ms; of onsets that are closer the sharpest counts
LEAST = 10.0  # dB that the recording rises at an onset
FLOOR = 1e-8  # of powers: -80 dB


def onset(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """How many dB more the sound rises at the recording's onsets than the recording does; negative: smeared.

    The rise is the power in the 20 ms after a moment over that in the 20 ms before it, looked at every millisecond.
    Onsets are the moments at which that of the recording is the largest within 50 ms and at least 10 dB; the figure is
    the mean over them.

    Raises:
        MelvocError: the recording has no onset (the start of the file is none), or is shorter than 40 ms.
    """
    step = max(1, sample_rate // 1000)
    check_length(reference, 2 * SPAN * step + 1)
    rise, made = _rises(reference, step), _rises(sound, step)
    highest = F.max_pool1d(rise[None, None], 2 * APART + 1, 1, APART)[0, 0]
    onsets = (rise == highest) & (rise >= LEAST)
    if not onsets.any():
        raise MelvocError(f"no onset: the recording nowhere rises by {LEAST:g} dB within {SPAN} ms")
    return float((made - rise)[onsets].mean())


def _rises(wave: Tensor, step: int) -> Tensor:
    """In dB, every `step` samples, wherever there is a span before and after."""
    energy = F.pad(wave.double().square().cumsum(0), (1, 0))[::step]
    power = (energy[SPAN:] - energy[:-SPAN]) / (SPAN * step) + FLOOR
    return 10 * (power[SPAN:] / power[:-SPAN]).log10()


METRIC = Metric(
    name="onset",
    title="onset sharpness (dB)",
    function=onset,
    better="nearer 0",
    low=-math.inf,
    high=math.inf,
    source="melvoc: docs/metrics.md, after the pre-echo of transform codecs",
    deaf_to="everything but the 20 ms around loud onsets",
)
