"""The multi-resolution discriminator of complex spectra in bands (Kumar et al. 2023, arXiv 2306.06546, section 3.3).

Named and computed as in Vocos' published code, which has it of the Descript Audio Codec.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from melvoc.train.discriminators.normed import Judgement, NormedConv, activated

WINDOWS = (2048, 1024, 512)  # samples at any rate; the hop is a quarter
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges, as shares of the bins
CHANNELS = 32
LAYERS = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))  # taps, stride
PEAK = 0.8  # to which each wave is scaled


class ResolutionDiscriminator(nn.Module):
    """Judges a wave by its complex spectrum, cut into five bands with convolutions of their own.

    The wave is scaled to a fixed peak first, so that this discriminator does not hear how loud it is.

    Args:
        window: samples of the STFT.
        divisor: of the published channels.

    Shape:
        `[B, 1, N]`, N above `window // 2`, to a score `[B, n]` and the outputs of every band's layers but its first,
        and of the last layer, `[B, C, frames, bins]`.
    """

    def __init__(self, window: int, *, divisor: int = 1) -> None:
        super().__init__()
        edges = [int(edge * (window // 2 + 1)) for edge in BANDS]
        self.sizes = [high - low for low, high in itertools.pairwise(edges)]
        width = max(1, CHANNELS // divisor)
        stacks = []
        for _ in self.sizes:
            inputs = (2, *[width] * (len(LAYERS) - 1))
            convs = (NormedConv(n, width, taps, stride=step) for n, (taps, step) in zip(inputs, LAYERS, strict=True))
            stacks.append(nn.ModuleList(convs))
        self.stacks, self.band_convs = stacks, nn.ModuleList(stacks)
        self.conv_post = NormedConv(width, 1, (3, 3))
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.window: Tensor

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        planes = self.spectrum(wave[:, 0]).split(self.sizes, dim=-1)
        outputs = [activated(plane, convs) for plane, convs in zip(planes, self.stacks, strict=True)]
        last = self.conv_post(torch.cat([band[-1] for band in outputs], dim=-1))
        features = [output for band in outputs for output in band[1:]]
        return Judgement(last.flatten(1), [*features, last])

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[B, N]` to real and imaginary parts `[B, 2, frames, bins]`."""
        wave = wave.float() - wave.float().mean(-1, keepdim=True)
        wave = PEAK * wave / (wave.abs().amax(-1, keepdim=True) + 1e-9)
        size = len(self.window)
        complex_ = torch.stft(wave, size, size // 4, window=self.window, return_complex=True)
        return torch.view_as_real(complex_).permute(0, 3, 2, 1)


class MultiResolutionDiscriminator(nn.Module):
    """One `ResolutionDiscriminator` for windows of 2048, 1024 and 512 samples.

    Args:
        divisor: of the published channels.

    Shape:
        `[B, 1, N]`, N at least `least`, to three judgements.
    """

    least = WINDOWS[0] // 2 + 1  # samples; the STFT reflects half a window at both ends

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(ResolutionDiscriminator(window, divisor=divisor) for window in WINDOWS)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [discriminator(wave) for discriminator in self.discriminators]
