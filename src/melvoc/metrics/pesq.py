"""PESQ, wide band: the predicted opinion of listeners to speech over the telephone."""

from __future__ import annotations

import math

from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_sounding, needed

RATE = 16000
LONGEST = 30.0  # seconds; P.862's longest, and far below the two minutes at which the package's C code has crashed


def pesq(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The MOS-LQO of P.862.2; of a sound longer than 30 s the mean over equal parts.

    Raises:
        MissingPackageError: without the package.
        MelvocError: silence, no speech, or less than a quarter of a second.
    """
    return pesq_at_16_khz(resample(reference, sample_rate, RATE), resample(sound, sample_rate, RATE))


def pesq_at_16_khz(reference: Tensor, sound: Tensor) -> float:
    """The same of signals `[N]` that have this rate; they may be of any scale, which PESQ evens out."""
    package = needed("pesq", "pesq")
    check_sounding(reference, sound)
    parts = math.ceil(len(reference) / (LONGEST * RATE))
    pairs = zip(reference.chunk(parts), sound.chunk(parts), strict=True)
    try:
        scores = [float(package.pesq(RATE, theirs.numpy(), mine.numpy(), "wb")) for theirs, mine in pairs]
    except (package.PesqError, ValueError) as error:
        why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise MelvocError(f"PESQ has no figure for this sound: {why}") from error
    return sum(scores) / len(scores)


METRIC = Metric(
    name="pesq",
    title="PESQ, wide band (MOS-LQO)",
    function=pesq,
    better="higher",
    low=1.0,
    high=4.65,
    source="ITU-T P.862.2, as the package pesq computes it",
    deaf_to="much of what makes Griffin-Lim sound phasey, which it prefers to good networks; everything above 7 kHz",
    speech=True,
    packages=("pesq",),
)
