"""ViSQOL, audio mode: the predicted opinion of listeners to coded music."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_sounding, needed

RATES = {"audio": 48000, "speech": 16000}


def similarity(reference: Tensor, sound: Tensor, sample_rate: int, *, mode: Literal["audio", "speech"]) -> float:
    """The MOS-LQO in one of ViSQOL's two modes, without its optional lattice network.

    Raises:
        MissingPackageError: without the package.
        MelvocError: silence, or what ViSQOL refuses.
    """
    programme = _programme(mode)
    check_sounding(reference, sound)
    signals = (resample(wave, sample_rate, RATES[mode]).double().numpy() for wave in (reference, sound))
    try:
        return float(programme.measure_from_arrays(*signals, RATES[mode]).moslqo)
    except (ValueError, IndexError, RuntimeError) as error:
        raise MelvocError(f"ViSQOL has no figure for this sound: {error}") from error


@lru_cache(maxsize=2)
def _programme(mode: str) -> Any:
    programme = needed("visqol", "visqol-python").VisqolApi()
    programme.create(mode=mode, use_lattice_model=False)
    return programme


def visqol(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The MOS-LQO in audio mode, at 48 kHz.

    Raises:
        MelvocError: as `similarity`.
    """
    return similarity(reference, sound, sample_rate, mode="audio")


METRIC = Metric(
    name="visqol",
    title="ViSQOL, audio mode (MOS-LQO)",
    function=visqol,
    better="higher",
    low=1.0,
    high=4.74,
    source="Chinen et al. 2020 (ViSQOL v3), as the package visqol-python computes it",
    deaf_to="phase: with 128 bands it gives Griffin-Lim nearly its highest figure",
    packages=("visqol-python",),
)
