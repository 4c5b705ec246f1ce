"""STOI: how intelligible speech is."""

from __future__ import annotations

import warnings

from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.metrics import Metric, check_sounding, needed


def stoi(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The short-time objective intelligibility, at 10 kHz.

    Raises:
        MissingPackageError: without the package.
        MelvocError: silence, or less than about 0.4 s of speech.
    """
    package = needed("pystoi", "pystoi")
    check_sounding(reference, sound)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # where it would return 1e-5 in place of a figure
        try:
            return float(package.stoi(reference.numpy(), sound.numpy(), sample_rate))
        except (RuntimeWarning, ValueError) as error:
            raise MelvocError("STOI needs about 0.4 s of speech, and there is less in this sound") from error


METRIC = Metric(
    name="stoi",
    title="STOI",
    function=stoi,
    better="higher",
    low=-1.0,
    high=1.0,
    source="Taal et al. 2011, as the package pystoi computes it",
    deaf_to="nearly all that tells vocoders apart: it asks for intelligibility, not for quality",
    speech=True,
    packages=("pystoi",),
)
