"""Voiced or unvoiced: the F1 score of the sound's decision against the recording's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric
from melvoc.metrics.periodicity import Pitch, pitches


def vuv_parts(theirs: Pitch, mine: Pitch) -> tuple[float, float, float]:
    """Frames that are voiced in both, in the sound alone, and in the recording alone."""
    both = theirs.voiced & mine.voiced
    return tuple(float(x.sum()) for x in (both, mine.voiced & ~both, theirs.voiced & ~both))  # type: ignore[return-value]


def f1(parts: Sequence[tuple[float, ...]]) -> float:
    """The F1 score of one or several files together.

    Raises:
        MelvocError: neither recording nor sound is voiced anywhere.
    """
    both, added, lost = (sum(column) for column in zip(*parts, strict=True))
    if not both + added + lost:
        raise MelvocError("neither the recording nor the sound is voiced anywhere, so there is nothing to find")
    return float(2 * both / (2 * both + added + lost))


def vuv_f1(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The F1 score of one sound.

    Raises:
        MelvocError: nothing is voiced, or as `melvoc.metrics.periodicity.pitches`.
    """
    return f1([vuv_parts(*pitches(reference, sound, sample_rate))])


METRIC = Metric(
    name="vuv_f1",
    title="voiced/unvoiced F1",
    function=vuv_f1,
    better="higher",
    low=0.0,
    high=1.0,
    source="Morrison et al. 2022 (CARGAN), with torchcrepe",
    deaf_to="which pitch it is, and how clear; everything that has none",
    speech=True,
    packages=("torchcrepe",),
)
