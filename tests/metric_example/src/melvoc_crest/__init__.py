"""The difference of crest factors: a metric for melvoc."""

from __future__ import annotations

import math

from torch import Tensor

from melvoc import MelvocError
from melvoc.metrics import Metric


def crest(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """How many dB the crest factor of the sound is above the recording's.

    Raises:
        MelvocError: one of them is silent.
    """
    return _level(sound) - _level(reference)


def _level(wave: Tensor) -> float:
    power = float(wave.square().mean()) if wave.numel() else 0.0
    if not power:
        raise MelvocError("the sound is silent, and has no crest factor")
    return 20 * math.log10(float(wave.abs().max()) / math.sqrt(power))


CREST = Metric(
    name="crest",
    title="crest factor difference (dB)",
    function=crest,
    better="nearer 0",
    low=-math.inf,
    high=math.inf,
    source="peak over root mean square",
    deaf_to="everything but the peak and the level",
)
