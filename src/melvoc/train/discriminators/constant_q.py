"""BigVGAN-v2's discriminator of constant-Q spectra in octaves (Gu et al., ICASSP 2024, arXiv 2311.14957).

The transform is that of Schörkhuber and Klapuri (2010): the kernels of the top octave, and for each octave below the
same ones on the wave at half the rate. Filters, kernels and their lengths are those of nnAudio's `CQT2010v2`, and
buffers are named as there and in the published checkpoints.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.train.discriminators.normed import Judgement, NormedConv, activated

LOWEST = 32.70  # Hz, of the first bin
OCTAVES = 9
SCALES = ((24, 512), (36, 256), (48, 256))  # bins per octave, hop in samples at twice the rate
CHANNELS = 128
DILATIONS = (1, 2, 4)  # over frames
TAPS = 256  # of the low-pass filters
CROSSINGS, ROLLOFF = 6, 0.99  # of the sinc that doubles the rate: torchaudio's defaults
HANN = 1.5  # the window's bandwidth, in bins
LEAST = 256  # samples, so that a frame is left of the lowest octave


def octaves_below(sample_rate: int) -> int:
    """How many octaves above 32.7 Hz a transform at twice the rate can hold: nine from 16.8 kHz on, fewer below."""
    return min(OCTAVES, int(math.log2(sample_rate / LOWEST)))


class ConstantQTransform(nn.Module):
    """The complex constant-Q spectrum of a wave.

    A bin at `f` Hz looks at `Q / f` seconds, Q being 34 to 69 for 24 to 48 bins per octave: 1 to 2 s at 32.7 Hz. What
    lies beyond either end of the wave counts as silence.

    Args:
        sample_rate: of the wave.
        bins: per octave.
        hop: samples from frame to frame, divisible by `2 ** (octaves - 1)`.
        octaves: from 32.7 Hz upwards.

    Shape:
        `[B, 1, N]` to real and imaginary parts `[B, 2, octaves * bins, 1 + N // hop]`.
    """

    def __init__(self, *, sample_rate: float, bins: int, hop: int, octaves: int) -> None:
        super().__init__()
        q, top = 1 / (2 ** (1 / bins) - 1), LOWEST * 2 ** (octaves - 1)
        highest = top * 2 ** ((bins - 1) / bins)
        early = self._early(sample_rate, highest * (1 + HANN / 2 / q), hop, octaves)
        rate = sample_rate / early
        self.hop, self.octaves, self.bins, self.early = hop // early, octaves, bins, early
        kernels = _kernels(q, rate, top * 2 ** (np.arange(bins) / bins))
        lengths = np.ceil(q * rate / (LOWEST * 2 ** (np.arange(octaves * bins) / bins)))
        self.reach = kernels.shape[1] // 2
        self._keep("lowpass_filter", _lowpass(0.5, 0.001)[None, None])
        if early > 1:
            self._keep("early_downsample_filter", _lowpass(1 / early, 0.03)[None, None])
        self._keep("lenghts", lengths)  # the published spelling
        self._keep("cqt_kernels_real", kernels.real[:, None])
        self._keep("cqt_kernels_imag", kernels.imag[:, None])

    @staticmethod
    def _early(rate: float, needed: float, hop: int, octaves: int) -> int:
        """By how much the wave is downsampled first: librosa's rule, which leaves some room above the highest bin."""
        spare = math.ceil(math.log2(0.85 * (rate // 2) / needed)) - 2
        halvings = math.ceil(math.log2(hop)) - octaves + 1
        return int(2 ** max(0, min(spare, halvings)))

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))

    def forward(self, wave: Tensor) -> Tensor:
        """Transform."""
        if self.early > 1:
            wave = self._downsampled(wave, self.get_buffer("early_downsample_filter"), self.early)
        kernels = torch.cat([self.get_buffer("cqt_kernels_real"), -self.get_buffer("cqt_kernels_imag")])
        found, hop = [], self.hop
        for octave in range(self.octaves):
            if octave:
                wave, hop = self._downsampled(wave, self.get_buffer("lowpass_filter"), 2), hop // 2
            found.append(F.conv1d(wave, kernels, stride=hop, padding=self.reach).unflatten(1, (2, self.bins)))
        loudness = self.early * self.get_buffer("lenghts").sqrt()[:, None]
        return torch.cat(found[::-1], dim=2) * loudness

    @staticmethod
    def _downsampled(wave: Tensor, lowpass: Tensor, factor: int) -> Tensor:
        return F.conv1d(wave, lowpass, stride=factor, padding=(TAPS - 1) // 2)


@functools.lru_cache
def _lowpass(band: float, transition: float) -> np.ndarray:
    """A linear-phase filter that passes the lower `band` (as a share of Nyquist)."""
    from scipy import signal

    edges = [0.0, band / (1 + transition), band * (1 + transition), 1.0]
    return np.asarray(signal.firwin2(TAPS, edges, [1.0, 1.0, 0.0, 0.0]))


def _kernels(q: float, rate: float, frequencies: np.ndarray) -> np.ndarray:
    """Windowed complex sinusoids of `q` periods, of absolute sum 1, in the middle of rows of a power of 2."""
    from scipy import signal

    lengths = [math.ceil(q * rate / frequency) for frequency in frequencies]
    width = 2 ** math.ceil(math.log2(max(lengths)))
    rows = np.zeros((len(lengths), width), dtype=np.complex128)
    for row, frequency, length in zip(rows, frequencies, lengths, strict=True):
        first = -(-length // 2)  # samples before the middle; nnAudio's, one more of an odd number
        times = np.arange(-first, length - first)
        kernel = signal.get_window("hann", length) * np.exp(2j * np.pi * frequency / rate * times)
        start = width // 2 - first
        row[start : start + length] = kernel / np.abs(kernel).sum()
    return rows


class DoubledRate(nn.Module):
    """A wave at twice its rate, by a short windowed sinc.

    Shape:
        `[B, 1, N]` to `[B, 1, 2 * N]`.
    """

    def __init__(self) -> None:
        super().__init__()
        width = math.ceil(CROSSINGS / ROLLOFF)
        self.width = width
        times = torch.arange(-width, width + 1, dtype=torch.float64) - torch.tensor([[0.0], [0.5]], dtype=torch.float64)
        crossings = (times * ROLLOFF).clamp(-CROSSINGS, CROSSINGS)
        window = torch.cos(crossings * math.pi / CROSSINGS / 2).square()
        self.register_buffer("kernel", (torch.sinc(crossings) * window * ROLLOFF).float()[:, None])

    def forward(self, wave: Tensor) -> Tensor:
        """Resample."""
        phases = F.conv1d(wave, self.get_buffer("kernel"), padding=self.width)
        return phases.transpose(1, 2).flatten(1)[:, None]


class ConstantQDiscriminator(nn.Module):
    """Judges a wave by its complex constant-Q spectrum; each octave has a first convolution of its own.

    Args:
        bins: per octave.
        hop: from frame to frame, in samples at twice the rate.
        sample_rate: of the wave.
        divisor: of the published channels.

    Shape:
        `[B, 1, N]`, N at least 256, to a score `[B, n]` and the outputs of all layers but the octaves' own and the
        last, `[B, C, frames, bins]`.
    """

    def __init__(self, bins: int, hop: int, *, sample_rate: int, divisor: int = 1) -> None:
        super().__init__()
        octaves, width = octaves_below(sample_rate), max(1, CHANNELS // divisor)
        self.bins = bins
        self.resample = DoubledRate()
        self.cqt_transform = ConstantQTransform(sample_rate=2 * sample_rate, bins=bins, hop=hop, octaves=octaves)
        self.conv_pres = nn.ModuleList(nn.Conv2d(2, 2, (3, 9), padding=(1, 4)) for _ in range(octaves))
        self.convs = nn.ModuleList([nn.Conv2d(2, width, (3, 9), padding=(1, 4))])
        for gap in DILATIONS:
            self.convs.append(NormedConv(width, width, (3, 9), stride=(1, 2), dilation=(gap, 1)))
        self.convs.append(NormedConv(width, width, (3, 3)))
        self.conv_post = NormedConv(width, 1, (3, 3))

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        planes = self.spectrum(wave).split(self.bins, dim=-1)
        x = torch.cat([conv(plane) for conv, plane in zip(self.conv_pres, planes, strict=True)], dim=-1)
        features = activated(x, self.convs)
        return Judgement(self.conv_post(features[-1]).flatten(1), features)

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[B, 1, N]` to real and imaginary parts `[B, 2, frames, bins]`, in float32 whatever autocast says."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum: Tensor = self.cqt_transform(self.resample(wave.float()))
        return spectrum.transpose(2, 3)


class MultiScaleSubbandCQTDiscriminator(nn.Module):
    """One `ConstantQDiscriminator` for 24, 36 and 48 bins per octave.

    It hears nothing above 16.5 kHz, and below some frequency filters that are longer than a segment, mostly silence:
    at 44.1 kHz and 16384 samples, below 92, 138 and 185 Hz.

    Args:
        sample_rate: of the waves; below 16.8 kHz it has fewer than the nine published octaves.
        divisor: of the published channels.

    Shape:
        `[B, 1, N]`, N at least 256, to three judgements.
    """

    def __init__(self, *, sample_rate: int, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ConstantQDiscriminator(bins, hop, sample_rate=sample_rate, divisor=divisor) for bins, hop in SCALES
        )

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [discriminator(wave) for discriminator in self.discriminators]
