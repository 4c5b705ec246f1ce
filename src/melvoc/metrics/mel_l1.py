"""The log-mel L1 distance, in one mel for every vocoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from torch import Tensor

from melvoc.errors import SpecError
from melvoc.metrics import Metric, check_length
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import log_mel


@lru_cache(maxsize=16)
def common_spec(sample_rate: int) -> MelSpec:
    """The mel in which sounds of a rate are compared, whatever their vocoders' own: about 46 ms, 128 bands (fewer below
    4 kHz)."""
    n_fft = 2 ** round(math.log2(2048 * sample_rate / 44100))
    return fitting(
        128, lambda bands: MelSpec(sample_rate=sample_rate, n_fft=n_fft, hop_length=n_fft // 4, n_mels=bands)
    )


def fitting(bands: int, make: Callable[[int], MelSpec]) -> MelSpec:
    """The mel of so many bands, or of the most below that of which each has a bin."""
    for count in range(bands, 1, -1):
        with suppress(SpecError):
            return make(count)
    return make(1)


def mel_distance(reference: Tensor, sound: Tensor, spec: MelSpec) -> Tensor:
    """Mean absolute difference of the log-mels of waves `[B, N]`, in the spec's unit; differentiable, unchecked."""
    return (log_mel(sound, spec) - log_mel(reference, spec)).abs().mean()


def mel_l1(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """Mean absolute difference of log-mels in the common mel, in nepers.

    Raises:
        MelvocError: fewer than `common_spec(sample_rate).n_fft` samples.
    """
    spec = common_spec(sample_rate)
    check_length(reference, spec.n_fft)
    return float(mel_distance(reference[None], sound[None], spec))


METRIC = Metric(
    name="mel_l1",
    title="log-mel L1 (nepers)",
    function=mel_l1,
    better="lower",
    low=0.0,
    high=math.inf,
    source="Kong et al. 2020 (HiFi-GAN), the mel-spectrogram loss, in a common mel",
    deaf_to="phase",
)
