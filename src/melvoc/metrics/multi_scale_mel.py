"""The multi-scale mel distance of BigVGAN-v2: seven mels, from windows of 32 samples to 2048."""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch import Tensor

from melvoc.metrics import Metric, check_length
from melvoc.metrics.mel_l1 import fitting, mel_distance
from melvoc.spectrogram.spec import MelSpec

SCALES = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}  # bands by window, in samples at any rate


@lru_cache(maxsize=16)
def scales(sample_rate: int) -> tuple[MelSpec, ...]:
    """The seven mels at a rate; above 44.1 kHz with fewer bands where some would have no bin of their window."""

    def scale(window: int, bands: int) -> MelSpec:
        return MelSpec(
            sample_rate=sample_rate,
            n_fft=window,
            hop_length=window // 4,
            n_mels=bands,
            log="log10",
            log_floor=1e-5,
            magnitude_eps=0.0,
            center=True,
        )

    return tuple(fitting(bands, partial(scale, window)) for window, bands in SCALES.items())


def multi_scale_mel_distance(reference: Tensor, sound: Tensor, sample_rate: int) -> Tensor:
    """The sum over seven scales of the mean absolute difference of log10-mels; differentiable, unchecked.

    Shape:
        `[B, N]`, N above 1024.
    """
    return torch.stack([mel_distance(reference, sound, spec) for spec in scales(sample_rate)]).sum()


def multi_scale_mel(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The distance of two sounds.

    Raises:
        MelvocError: no more than 1024 samples.
    """
    check_length(reference, 1025)
    return float(multi_scale_mel_distance(reference[None], sound[None], sample_rate))


METRIC = Metric(
    name="multi_scale_mel",
    title="multi-scale mel distance (decades)",
    function=multi_scale_mel,
    better="lower",
    low=0.0,
    high=math.inf,
    source="the loss of BigVGAN-v2 (NVIDIA/BigVGAN), after descript-audio-codec (Kumar et al. 2023)",
    deaf_to="phase within a window of 32 samples",
)
