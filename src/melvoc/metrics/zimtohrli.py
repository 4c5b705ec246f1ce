"""Zimtohrli: the predicted opinion of listeners, from a model of the ear."""

from __future__ import annotations

from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.metrics import Metric, check_sounding, needed

RATE = 48000


def zimtohrli(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The mean opinion score, at 48 kHz, with full scale at 80 dB SPL.

    Raises:
        MissingPackageError: without the package.
        MelvocError: silence.
    """
    package = needed("zimtohrli", "zimtohrli")
    check_sounding(reference, sound)
    return float(package.mos_from_signals(*(resample(wave, sample_rate, RATE).numpy() for wave in (reference, sound))))


METRIC = Metric(
    name="zimtohrli",
    title="Zimtohrli (MOS)",
    function=zimtohrli,
    better="higher",
    low=1.0,
    high=5.0,
    source="Alakuijala et al. 2025, as the package zimtohrli computes it",
    deaf_to="phase within its bands; made for small losses of codecs",
    packages=("zimtohrli",),
)
