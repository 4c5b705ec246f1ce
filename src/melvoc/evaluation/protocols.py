"""Protocols: how the papers prepared sounds, and how they made one figure of many files, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from melvoc.errors import MelvocError

Parts = tuple[float, ...]

FULL_SCALE = 32768.0
VOCOS_SECONDS = 2.016  # 48384 samples at 24 kHz


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
    mono = scaled(reference.mean(0, keepdim=True), 10 ** (-3 / 20))
    samples = round(VOCOS_SECONDS * sample_rate)
    return mono.repeat(1, math.ceil(samples / mono.shape[1]))[:, :samples], sample_rate


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(name="default", prepare=_as_it_is, listen=_both),
            Protocol(
                name="bigvgan",
                prepare=_bigvgan_prepare,
                listen=_bigvgan_listen,
                metrics=("mr_stft", "pesq", "mcd", "periodicity", "vuv_f1"),
            ),
            Protocol(
                name="vocos",
                prepare=_vocos_prepare,
                listen=_both,
                metrics=("visqol", "pesq", "vuv_f1", "periodicity"),
            ),
        )
    }
)
