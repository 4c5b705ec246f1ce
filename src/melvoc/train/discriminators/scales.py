"""HiFi-GAN's multi-scale discriminator (Kong, Kim and Bae 2020, section 2.3)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.train.discriminators.normed import Judgement, NormedConv, judge

SCALES = 3

# channels, taps, stride, groups of each layer
LAYERS = (
    (128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16), (1024, 41, 4, 16), (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)  # fmt: skip


class ScaleDiscriminator(nn.Module):
    """Judges a wave as it is, in grouped convolutions with long kernels.

    Args:
        norm: "weight" or "spectral".
        divisor: of the published channels and groups.

    Shape:
        `[B, 1, N]` to a score `[B, n]` and the eight layers' outputs `[B, C, m]`.
    """

    def __init__(self, *, norm: Literal["weight", "spectral"] = "weight", divisor: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        channels = 1
        for published, taps, stride, groups in LAYERS:
            width = published // divisor
            few = max(1, groups // divisor)
            self.convs.append(NormedConv(channels, width, (taps,), stride=(stride,), groups=few, norm=norm))
            channels = width
        self.conv_post = NormedConv(channels, 1, (3,), norm=norm)

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        return judge(wave, self.convs, self.conv_post)


class MultiScaleDiscriminator(nn.Module):
    """One `ScaleDiscriminator` for the wave, its half and its quarter (by average pooling); the first spectral-normed.

    Args:
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to three judgements.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(norm="weight" if scale else "spectral", divisor=divisor) for scale in range(SCALES)
        )

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        judgements = []
        for scale, discriminator in enumerate(self.discriminators):
            wave = F.avg_pool1d(wave, 4, 2, padding=2) if scale else wave
            judgements.append(discriminator(wave))
        return judgements
