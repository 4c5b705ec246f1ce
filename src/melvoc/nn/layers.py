"""Convolutions that run whole or in pieces. Weights are named and shaped like `torch.nn`'s.

A convolution computes in its weights' type, whatever its input's, so a network can keep some layers in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.graph import Engine, Machine
from melvoc.nn.window import Window


class FrameNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each frame.

    Args:
        channels: C.

    Shape:
        `[B, C, T]` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Run on each frame independently."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class BiasNorm(nn.Module):
    """Each frame over the root mean square of it less a bias, times a factor (Yao et al. 2024, Zipformer, section 3.2).

    Args:
        channels: C.

    Shape:
        `[B, C, T]` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, input: Tensor) -> Tensor:
        """Run on each frame independently."""
        power = (input - self.bias[:, None]).square().mean(dim=1, keepdim=True)
        return input * (power.rsqrt() * self.log_scale.exp())


class PReLU(nn.PReLU):
    """A leaky ReLU with a slope for each channel (He et al. 2015).

    Args:
        channels: C.

    Shape:
        `[B, C, T]` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)


class FrameLinear(nn.Linear):
    """A linear map of the channels of each frame.

    Shape:
        `[B, in_features, T]` to `[B, out_features, T]`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Run on each frame independently."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


def dtype_of(layer: nn.Conv1d | nn.ConvTranspose1d) -> torch.dtype:
    """The type that a layer computes in, without asking for a weight that may have to be made first (weight norm)."""
    return layer.weight.dtype if layer.bias is None else layer.bias.dtype


class FrameScale:
    """One factor per channel.

    Args:
        owner: the layer that owns the factors; they may be replaced there.
        name: of the parameter, `[C]` or `[C, 1]`.

    Shape:
        `[B, C, T]` to the same.
    """

    def __init__(self, owner: nn.Module, name: str) -> None:
        self._owner, self._name = owner, name

    @property
    def factors(self) -> Tensor:
        """`[C]`."""
        parameter: Tensor = getattr(self._owner, self._name)  # faster than `get_parameter`, and asked for in each call
        return parameter.flatten()

    def __call__(self, x: Tensor) -> Tensor:
        return self.factors[:, None] * x


class Conv1d(nn.Conv1d):
    """A convolution that keeps the length ("same" padding with zeros), after an optional leaky ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps, an odd number.
        dilation: samples from tap to tap.
        groups: as in `torch.nn.Conv1d`.
        bias: whether to add one.
        slope: slope below zero of a leaky ReLU applied to the input; None for none. It maps 0 to 0, so that it
            does not matter whether it comes before or after the padding.

    Shape:
        `[B, in_channels, N]` to `[B, out_channels, N]`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        slope: float | None = None,
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}, but only an odd one keeps the length; use {kernel_size + 1}")
        self.reach = (kernel_size - 1) * dilation // 2
        super().__init__(
            in_channels, out_channels, kernel_size, padding=self.reach, dilation=dilation, groups=groups, bias=bias
        )
        self.slope = slope

    def forward(self, input: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        return super().forward(rectify(input.to(dtype_of(self)), self.slope))

    def valid(self, x: Tensor) -> Tensor:
        """Without padding: `[B, in_channels, N]` to `[B, out_channels, N - 2 * reach]`."""
        x = rectify(x.to(dtype_of(self)), self.slope)
        return F.conv1d(x, self.weight, self.bias, dilation=self.dilation, groups=self.groups)

    def open(self, engine: Engine) -> Machine:
        """A window over the last `2 * reach` inputs."""
        return Window(self.valid, span=2 * self.reach + 1, left=self.reach, right=self.reach)

    def delay(self, samples: int) -> int:
        """Half the kernel."""
        return samples + self.reach


class ConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution to exactly `stride` times the length, after an optional leaky ReLU.

    The padding is HiFi-GAN's, `(kernel_size - stride) // 2`. Where that gives one sample too many (an odd
    difference), the last one is dropped.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps, at least the stride.
        stride: upsampling factor.
        slope: of a leaky ReLU applied to the input; None for none.

    Shape:
        `[B, in_channels, N]` to `[B, out_channels, N * stride]`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, slope: float | None = None
    ) -> None:
        if kernel_size < stride:
            raise ValueError(
                f"kernel_size={kernel_size} is less than stride={stride}: some output samples would see no input; "
                f"use a kernel of at least {stride}, usually {2 * stride}"
            )
        self.crop = (kernel_size - stride) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=self.crop)
        self.slope = slope

    @property
    def rate(self) -> int:
        """Output samples per input sample."""
        return int(self.stride[0])

    @property
    def taps(self) -> int:
        """At most how many inputs one output sees."""
        return -(-self.kernel_size[0] // self.rate)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        return super().forward(rectify(input.to(dtype_of(self)), self.slope))[..., : input.shape[-1] * self.rate]

    def valid(self, x: Tensor) -> Tensor:
        """The outputs between the first and the last input that have all their inputs.

        `[B, in_channels, N]` to `[B, out_channels, (N - taps + 1) * stride]`.
        """
        first, end = (self.taps - 1) * self.rate, x.shape[-1] * self.rate
        x = rectify(x.to(dtype_of(self)), self.slope)
        return F.conv_transpose1d(x, self.weight, self.bias, self.stride)[..., first:end]

    def open(self, engine: Engine) -> Machine:
        """A window over the inputs whose taps are still open, and a count of what to emit."""
        return TransposeMachine(self, Window(self.valid, span=self.taps, left=self.taps - 1, right=self.tail))

    @property
    def tail(self) -> int:
        """Zeros after the end, in input samples, that the last outputs need."""
        return -(-self.crop // self.rate)

    def delay(self, samples: int) -> int:
        """The inputs' delay at the output's rate, and the crop."""
        return samples * self.rate + self.crop


class TransposeMachine(Machine):
    """Runs a `ConvTranspose1d`: drops the first `crop` samples and emits exactly `rate` samples per input in total."""

    parts = ("window",)
    state = ("drop", "owed")

    def __init__(self, layer: ConvTranspose1d, window: Machine) -> None:
        self.layer, self.window = layer, window
        self.drop = layer.crop
        self.owed = 0

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        self.owed += x.shape[-1] * self.layer.rate
        y = self.window(x, last)
        dropped = min(self.drop, y.shape[-1])
        self.drop -= dropped
        y = y[..., dropped : dropped + self.owed]
        self.owed -= y.shape[-1]
        return y


def rectify(x: Tensor, slope: float | None) -> Tensor:
    """A leaky ReLU, or nothing where the slope is None."""
    return x if slope is None else F.leaky_relu(x, slope)
