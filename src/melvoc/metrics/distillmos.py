"""DistillMOS: the opinion of listeners to speech, predicted without a reference."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.metrics import Metric, check_length, check_sounding, needed

RATE = 16000


def distillmos(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The mean opinion score of a sound by itself, at 16 kHz; the reference is not listened to.

    Raises:
        MissingPackageError: without the package.
        MelvocError: silence, or less than 0.1 s.
    """
    network = _network()
    check_sounding(sound)
    check_length(sound, sample_rate // 10)
    with torch.inference_mode():
        return float(network(resample(sound, sample_rate, RATE)[None]))


@lru_cache(maxsize=1)
def _network() -> Any:
    package = needed("distillmos.sqa", "distillmos")
    network = package.ConvTransformerSQAModel(load_weights=False)  # it would print where the weights are
    stored = torch.load(package.DEFAULT_WEIGHTS_CHKPT, map_location="cpu", weights_only=True)
    network.load_state_dict(stored["model"])
    return network.eval()


METRIC = Metric(
    name="distillmos",
    title="DistillMOS, no reference (MOS)",
    function=distillmos,
    better="higher",
    low=1.0,
    high=5.0,
    source="Stahl and Gamper 2025, as the package distillmos computes it",
    deaf_to="whether it is the recording's speech at all; music; everything above 8 kHz",
    speech=True,
    reference=False,
    packages=("distillmos",),
)
