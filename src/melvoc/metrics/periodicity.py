"""Periodicity: whether what has a pitch in the recording has one in the sound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.metrics import Metric, check_length, check_sounding, needed

RATE, CREPE_RATE = 22050, 16000
WINDOW, HOP = 1024, 256
LOWEST, HIGHEST = 50.0, 550.0  # Hz
BATCH = 128  # frames


@dataclass(frozen=True)
class Pitch:
    """What CREPE hears.

    Attributes:
        periodicity: `[T]` in [0, 1], 0 in silence.
        voiced: `[T]`, whether there is a pitch.
    """

    periodicity: Tensor
    voiced: Tensor


def pitch(wave: Tensor, sample_rate: int) -> Pitch:
    """CREPE's pitch every 11.6 ms, of frames centred as a mel's, voiced by hysteresis: CARGAN's definition.

    Raises:
        MissingPackageError: without torchcrepe.
        MelvocError: less than 46 ms.
    """
    return _pitch(wave.float().numpy().tobytes(), sample_rate)


@lru_cache(maxsize=4)  # a recording is compared with several sounds, and by two metrics
def _pitch(samples: bytes, sample_rate: int) -> Pitch:
    crepe = needed("torchcrepe", "torchcrepe")
    wave = resample(torch.tensor(memoryview(samples).cast("f")), sample_rate, RATE)
    check_length(wave, WINDOW)
    frames, hop = len(wave) // HOP, HOP * CREPE_RATE // RATE
    reach = (WINDOW - hop) // 2
    padded = F.pad(resample(wave, RATE, CREPE_RATE)[None, None], (reach, reach), mode="reflect")[0]
    hertz, periodicity = predict(padded, hop)
    periodicity = crepe.threshold.Silence()(periodicity, padded, CREPE_RATE, hop, pad=False)
    hertz, periodicity = (_resized(row, frames) for row in (hertz.log2(), periodicity))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the mean of no pitch at all
        voiced = ~crepe.threshold.Hysteresis()(2**hertz, periodicity)[0].isnan()
    return Pitch(periodicity[0], voiced)


def predict(padded: Tensor, hop: int) -> tuple[Tensor, Tensor]:
    """CREPE's pitch in Hz and its periodicity, both `[1, T]`, of a wave `[1, N]` at 16 kHz, in frames of 1024 samples.

    Raises:
        MissingPackageError: without torchcrepe.
    """
    hertz, periodicity = needed("torchcrepe", "torchcrepe").predict(
        padded, CREPE_RATE, hop, LOWEST, HIGHEST, "full", return_periodicity=True, batch_size=BATCH, pad=False
    )
    return hertz, periodicity


def _resized(row: Tensor, frames: int) -> Tensor:
    """`[1, T]` to as many frames as the hop of 256 has; CREPE's is a whole number of its own samples."""
    return F.interpolate(row[None], size=frames, mode="linear", align_corners=False)[0]


def pitches(reference: Tensor, sound: Tensor, sample_rate: int) -> tuple[Pitch, Pitch]:
    """Those of the recording and of the sound.

    Raises:
        MelvocError: silence, or as `pitch`.
    """
    check_sounding(reference, sound)
    return pitch(reference, sample_rate), pitch(sound, sample_rate)


def periodicity_parts(theirs: Pitch, mine: Pitch) -> tuple[float, float]:
    """The sum of the squares of the differences of periodicity, and the number of frames."""
    return float((theirs.periodicity - mine.periodicity).square().sum()), float(len(theirs.periodicity))


def periodicity_error(parts: Sequence[tuple[float, ...]]) -> float:
    """The root mean square of the differences over all frames of one or several files."""
    return math.sqrt(sum(total for total, _ in parts) / sum(count for _, count in parts))


def periodicity(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The root mean square of the differences of periodicity.

    Raises:
        MelvocError: as `pitches`.
    """
    return periodicity_error([periodicity_parts(*pitches(reference, sound, sample_rate))])


METRIC = Metric(
    name="periodicity",
    title="periodicity error",
    function=periodicity,
    better="lower",
    low=0.0,
    high=1.0,
    source="Morrison et al. 2022 (CARGAN), with torchcrepe",
    deaf_to="which pitch it is; everything that has none",
    speech=True,
    packages=("torchcrepe",),
)
