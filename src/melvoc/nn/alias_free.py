"""Snake activations between a twofold upsampler and a twofold downsampler (BigVGAN, section 3.3).

A periodic non-linearity makes harmonics above the Nyquist frequency, which fold back as aliases. Applied at twice the
rate, between two low-pass filters (alias-free GAN, Karras et al. 2021), most of them are removed. Both filters are
Kaiser-windowed sincs of 12 taps; in polyphase form the upsampler is two filters of 6 taps, one for the even and one
for the odd samples. Edges are repeated: those of the input before the upsampler and those of the activated signal, at
twice the rate, before the downsampler.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.graph import ChainMachine, Engine, Machine
from melvoc.nn.window import Window

TAPS = 12
UP_REACH = 3  # inputs on either side that an upsampled pair sees
DOWN_LEFT, DOWN_RIGHT = 5, 6  # samples at twice the rate before and after 2 t that output t sees


def kaiser_sinc(cutoff: float = 0.25, half_width: float = 0.3, taps: int = TAPS) -> Tensor:
    """A Kaiser-windowed sinc low-pass of unit gain, with beta from Kaiser's formula.

    Args:
        cutoff: in cycles per sample, in (0, 0.5].
        half_width: of the transition, in cycles per sample.
        taps: an even number.

    Returns:
        `[taps]`, float64.
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64, device="cpu")
    time = torch.arange(taps, dtype=torch.float64, device="cpu") - taps / 2 + 0.5
    response = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return response / response.sum()


class Snake(nn.Module):
    """`x + sin(a x)^2 / b` with a and b per channel (Ziyin et al. 2020; BigVGAN's snake where b = a, else snakebeta).

    Args:
        channels: C.
        kind: "snake" (one parameter, alpha) or "snakebeta" (alpha for the frequency, beta for the magnitude).
        logscale: whether the parameters are logarithms.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(
        self, channels: int, *, kind: Literal["snake", "snakebeta"] = "snakebeta", logscale: bool = True
    ) -> None:
        super().__init__()
        start = torch.zeros if logscale else torch.ones
        self.logscale = logscale
        self.alpha = nn.Parameter(start(channels))
        self.beta = nn.Parameter(start(channels)) if kind == "snakebeta" else None

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """The frequency a and the factor `1 / (b + 1e-9)` before the square, each `[C]`."""
        alpha = self.alpha.exp() if self.logscale else self.alpha
        if self.beta is None:
            return alpha, 1.0 / (alpha + 1e-9)
        return alpha, 1.0 / ((self.beta.exp() if self.logscale else self.beta) + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each sample."""
        frequency, factor = self.coefficients()
        y = x + factor[:, None] * torch.sin(frequency[:, None] * x).square()
        return y.to(x.dtype)  # the parameters may be float32 where x is not


class AliasFreeSnake(nn.Module):
    """Up by 2, snake, down by 2.

    Args:
        channels: C.
        kind: as in `Snake`.
        logscale: as in `Snake`.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(
        self, channels: int, *, kind: Literal["snake", "snakebeta"] = "snakebeta", logscale: bool = True
    ) -> None:
        super().__init__()
        self.act = Snake(channels, kind=kind, logscale=logscale)
        # Constants, not weights: they are on the CPU even when a model is built on the meta device.
        response = kaiser_sinc()
        self.register_buffer("down_filter", response.float()[None, None], persistent=False)
        self.register_buffer("up_filter", polyphase(response).float()[:, None], persistent=False)
        self.down_filter: Tensor
        self.up_filter: Tensor

    def upsample(self, x: Tensor) -> Tensor:
        """`[B, C, N]` to `[B, C, 2 (N - 6)]`, without padding."""
        batch, channels, _ = x.shape
        x = x.to(self.up_filter.dtype)  # float32 for a signal in a half type
        pairs = F.conv1d(x.reshape(batch * channels, 1, -1), self.up_filter)  # [B * C, 2, N - 6]
        return pairs.transpose(1, 2).reshape(batch, channels, -1)

    def downsample(self, x: Tensor) -> Tensor:
        """`[B, C, N]` to `[B, C, (N - 12) // 2 + 1]`, without padding."""
        batch, channels, _ = x.shape
        return F.conv1d(x.reshape(batch * channels, 1, -1), self.down_filter, stride=2).reshape(batch, channels, -1)

    def activate(self, x: Tensor) -> Tensor:
        """Upsample without padding, then snake."""
        return self.act(self.upsample(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        y = self.activate(F.pad(x, (UP_REACH, UP_REACH), "replicate"))
        return self.downsample(F.pad(y, (DOWN_LEFT, DOWN_RIGHT), "replicate")).to(x.dtype)

    def open(self, engine: Engine) -> Machine:
        """One window at each rate."""
        up = Window(self.activate, span=2 * UP_REACH + 1, left=UP_REACH, right=UP_REACH, mode="replicate")
        down = Window(self.downsample, span=TAPS, stride=2, left=DOWN_LEFT, right=DOWN_RIGHT, mode="replicate")
        return ChainMachine([up, down])

    def delay(self, samples: int) -> int:
        """Three samples for the way up, three for the way down."""
        return samples + UP_REACH + DOWN_RIGHT // 2


def polyphase(response: Tensor) -> Tensor:
    """The upsampler as two filters over inputs t - 3 to t + 3, for the outputs 2 t and 2 t + 1: `[2, 7]`.

    Output n of the transposed convolution is `2 sum_j x[j] f[n + 5 - 2 j]`; each phase uses every other tap, backwards.
    """
    zero = response.new_zeros(1)
    even = torch.cat([response[1::2].flip(0), zero])  # j = t - 3 ... t + 2: taps 11, 9, ... 1
    odd = torch.cat([zero, response[0::2].flip(0)])  # j = t - 2 ... t + 3: taps 10, 8, ... 0
    return 2 * torch.stack([even, odd])
