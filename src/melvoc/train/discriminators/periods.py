"""HiFi-GAN's multi-period discriminator (Kong, Kim and Bae 2020, section 2.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.train.discriminators.normed import Judgement, NormedConv, judge

PERIODS = (2, 3, 5, 7, 11)
LAYERS = ((32, 5, 3), (128, 5, 3), (512, 5, 3), (1024, 5, 3), (1024, 5, 1))  # channels, taps, stride


class PeriodDiscriminator(nn.Module):
    """Judges a wave folded into columns of every p-th sample.

    Args:
        period: p.
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to a score `[B, n]` and the six layers' outputs `[B, C, m, p]`.
    """

    def __init__(self, period: int, *, divisor: int = 1) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList()
        channels = 1
        for published, taps, stride in LAYERS:
            width = max(1, published // divisor)
            self.convs.append(NormedConv(channels, width, (taps, 1), stride=(stride, 1)))
            channels = width
        self.conv_post = NormedConv(channels, 1, (3, 1))

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        missing = -wave.shape[-1] % self.period
        x = F.pad(wave, (0, missing), mode="reflect") if missing else wave
        return judge(x.unflatten(-1, (-1, self.period)), self.convs, self.conv_post)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` for each of the periods 2, 3, 5, 7 and 11.

    Args:
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to five judgements.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, divisor=divisor) for period in PERIODS)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [discriminator(wave) for discriminator in self.discriminators]
