"""ViSQOL, speech mode."""

from __future__ import annotations

from torch import Tensor

from melvoc.metrics import Metric
from melvoc.metrics.visqol import similarity


def visqol_speech(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The MOS-LQO in speech mode, at 16 kHz, scaled so that a sound against itself has 5.

    Raises:
        MelvocError: as `similarity`.
    """
    return similarity(reference, sound, sample_rate, mode="speech")


METRIC = Metric(
    name="visqol_speech",
    title="ViSQOL, speech mode (MOS-LQO)",
    function=visqol_speech,
    better="higher",
    low=1.0,
    high=5.0,
    source="Hines et al. 2015, Chinen et al. 2020, as the package visqol-python computes it",
    deaf_to="phase; everything above 8 kHz",
    speech=True,
    packages=("visqol-python",),
)
