"""Protocols: how the papers prepared sounds, and how they made one figure of many files, by name.

`bigvgan` is what sony/bigvsan_eval computes, of files as BigVGAN's evaluation writes them; `vocos` is the validation of
gemelo-ai/vocos. docs/metrics.md says where melvoc's arithmetic is another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from melvoc.audio.resampling import resample
from melvoc.errors import MelvocError
from melvoc.metrics import check_length, check_sounding, mcd, periodicity, pesq, vuv_f1
from melvoc.metrics.periodicity import Pitch

Parts = tuple[float, ...]

FULL_SCALE = 32768.0
VOCOS_SECONDS = 2.016  # 48384 samples at 24 kHz
VOCOS_PEAK = 10 ** (-3 / 20)
VOCOS_FULL_SCALE = 20.0  # dB, that torchcrepe subtracts from levels
VOCOS_SILENCE = -60.0  # dB
VOCOS_VOICED = 0.21
VOCOS_BATCH = 16  # files, of which V/UV F1 is one figure


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A figure that a protocol defines over a whole set, in place of the mean of the files' own figures.

    Attributes:
        parts: of one file: of reference and sound (both `[N]`, after `Protocol.listen`) and the sample rate. Raises
            MelvocError as a metric's function does.
        figure: of the parts of all files, in their order; of one file's parts, that file's own figure. Raises
            MelvocError where the parts have none.
    """

    parts: Callable[[Tensor, Tensor, int], Parts]
    figure: Callable[[Sequence[Parts]], float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to measure.

    Attributes:
        name: as `--protocol` has it.
        prepare: the reference `[C, N]` and its rate in Hz to those that the vocoders get.
        listen: reference and sound (any equal shapes) and their rate to the pair that is measured.
        metrics: names of what it measures; None: everything there is.
        pool: by name, the figures that are not the mean of the files' own.
    """

    name: str
    prepare: Callable[[Tensor, int], tuple[Tensor, int]]
    listen: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    metrics: tuple[str, ...] | None = None
    pool: Mapping[str, Pool] = field(default_factory=lambda: MappingProxyType({}))


def quantised(wave: Tensor) -> Tensor:
    """As a 16-bit file would have it, rounded towards zero: multiples of 1/32768 in [-1, 1)."""
    return (wave * FULL_SCALE).trunc().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE


def scaled(wave: Tensor, peak: float) -> Tensor:
    """The wave with this largest magnitude.

    Raises:
        MelvocError: it is silent.
    """
    largest = float(wave.abs().max()) if wave.numel() else 0.0
    if largest == 0:
        raise MelvocError("the sound is silent, but the protocol scales it by its peak; leave it out")
    return wave * (peak / largest)


def _as_it_is(reference: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    return reference, sample_rate


def _both(reference: Tensor, sound: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    return reference, sound


def _bigvgan_prepare(reference: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    return scaled(reference, 0.95), sample_rate


def _bigvgan_listen(reference: Tensor, sound: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    return quantised(reference), quantised(sound)


def _vocos_prepare(reference: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    """Mono, -3 dB below full scale, and the first 2.016 s; what is shorter is repeated."""
    mono = scaled(reference.mean(0, keepdim=True), VOCOS_PEAK)
    samples = round(VOCOS_SECONDS * sample_rate)
    return mono.repeat(1, math.ceil(samples / mono.shape[1]))[:, :samples], sample_rate


def _mean(parts: Sequence[Parts]) -> float:
    return sum(value for (value,) in parts) / len(parts)


def _pesq_of_integers(reference: Tensor, sound: Tensor, sample_rate: int) -> Parts:
    signals = (resample(wave, sample_rate, pesq.RATE) for wave in (reference, sound))
    return (pesq.pesq_at_16_khz(*((quantised(wave) * FULL_SCALE).short() for wave in signals)),)


def _periodicity_parts(reference: Tensor, sound: Tensor, sample_rate: int) -> Parts:
    return periodicity.periodicity_parts(*periodicity.pitches(reference, sound, sample_rate))


def _vuv_parts(reference: Tensor, sound: Tensor, sample_rate: int) -> Parts:
    return vuv_f1.vuv_parts(*periodicity.pitches(reference, sound, sample_rate))


def _vocos_pitches(reference: Tensor, sound: Tensor, sample_rate: int) -> tuple[Pitch, Pitch]:
    check_sounding(reference, sound)
    first, second = (
        _vocos_pitch(resample(wave, sample_rate, periodicity.CREPE_RATE).numpy().tobytes())
        for wave in (reference, sound)
    )
    return first, second


@lru_cache(maxsize=4)  # a recording is compared with several sounds, and by two metrics
def _vocos_pitch(samples: bytes) -> Pitch:
    """CREPE's pitch every 10 ms; 0 where the A-weighted level is below -60 dB, voiced from a periodicity of 0.21."""
    from librosa import fft_frequencies, perceptual_weighting

    wave = torch.tensor(memoryview(samples).cast("f"))
    check_length(wave, periodicity.WINDOW)
    size, hop = periodicity.WINDOW, periodicity.CREPE_RATE // 100
    found = periodicity.predict(wave[None], hop)[1][0]
    spectrum = torch.stft(wave, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    frequencies = fft_frequencies(sr=periodicity.CREPE_RATE, n_fft=size)
    with np.errstate(divide="ignore"):  # at 0 Hz, whose weight is limited
        levels = perceptual_weighting(spectrum.abs().square().numpy(), frequencies) - VOCOS_FULL_SCALE
    found = found.masked_fill(torch.from_numpy(levels.mean(0) < VOCOS_SILENCE), 0.0)
    return Pitch(found, found >= VOCOS_VOICED)


def _vocos_periodicity(reference: Tensor, sound: Tensor, sample_rate: int) -> Parts:
    return (
        periodicity.periodicity_error([periodicity.periodicity_parts(*_vocos_pitches(reference, sound, sample_rate))]),
    )


def _vocos_vuv(reference: Tensor, sound: Tensor, sample_rate: int) -> Parts:
    return vuv_f1.vuv_parts(*_vocos_pitches(reference, sound, sample_rate))


def _by_batches(parts: Sequence[Parts]) -> float:
    batches = [vuv_f1.f1(parts[first : first + VOCOS_BATCH]) for first in range(0, len(parts), VOCOS_BATCH)]
    return sum(batches) / len(batches)


_DEFAULT = Protocol(name="default", prepare=_as_it_is, listen=_both)
_BIGVGAN = Protocol(
    name="bigvgan",
    prepare=_bigvgan_prepare,
    listen=_bigvgan_listen,
    metrics=("mr_stft", "pesq", "mcd", "periodicity", "vuv_f1"),
    pool=MappingProxyType(
        {
            "pesq": Pool(parts=_pesq_of_integers, figure=_mean),
            "mcd": Pool(parts=mcd.mcd_parts, figure=mcd.distortion),
            "periodicity": Pool(parts=_periodicity_parts, figure=periodicity.periodicity_error),
            "vuv_f1": Pool(parts=_vuv_parts, figure=vuv_f1.f1),
        }
    ),
)
_VOCOS = Protocol(
    name="vocos",
    prepare=_vocos_prepare,
    listen=_both,
    metrics=("visqol", "pesq", "vuv_f1", "periodicity"),
    pool=MappingProxyType(
        {
            "periodicity": Pool(parts=_vocos_periodicity, figure=_mean),
            "vuv_f1": Pool(parts=_vocos_vuv, figure=_by_batches),
        }
    ),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({one.name: one for one in (_DEFAULT, _BIGVGAN, _VOCOS)})
