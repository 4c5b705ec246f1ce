"""What discriminators are made of: convolutions with normed weights, and judgements.

Parameters and buffers are named as in the published checkpoints (`weight_g`, `weight_v`; under spectral norm
`weight_orig`, `weight_u`, `weight_v`), so state dicts are interchangeable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAKY_SLOPE = 0.1

_CONVOLUTIONS: dict[int, tuple[Callable[..., Tensor], Any]] = {1: (F.conv1d, nn.Conv1d), 2: (F.conv2d, nn.Conv2d)}


class Judgement(NamedTuple):
    """What one discriminator says of a batch.

    Attributes:
        score: `[B, n]`; 1 is real, 0 generated.
        features: every layer's output.
        weight: of this judgement in the losses of both sides.
    """

    score: Tensor
    features: list[Tensor]
    weight: float = 1.0


class NormedConv(nn.Module):
    """A convolution whose weight is normed: `g v / |v|` (weight norm) or `w / sigma(w)` (spectral norm).

    torch's own norms would work, but the newer ones name their tensors differently from the published checkpoints, and
    the older ones are deprecated.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps, odd: one number for signals `[B, C, N]`, two for planes `[B, C, N, M]`.
        stride: from output to output, as many numbers. None: 1.
        dilation: from tap to tap, as many numbers. None: 1.
        groups: as in `torch.nn.Conv1d`.
        norm: "weight" or "spectral".

    Shape:
        `[B, in_channels, N]` to `[B, out_channels, ceil(N / stride)]`, or the same of planes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        *,
        stride: tuple[int, ...] | None = None,
        dilation: tuple[int, ...] | None = None,
        groups: int = 1,
        norm: Literal["weight", "spectral"] = "weight",
    ) -> None:
        super().__init__()
        self.convolve, convolution = _CONVOLUTIONS[len(kernel_size)]
        plain = convolution(
            in_channels, out_channels, kernel_size, groups=groups
        )  # torch's random weights, as published
        once = (1,) * len(kernel_size)
        self.stride, self.dilation, self.groups, self.norm = stride or once, dilation or once, groups, norm
        self.reach = tuple(taps // 2 * gap for taps, gap in zip(kernel_size, self.dilation, strict=True))
        self.weight_u: Tensor
        self.weight_v: Tensor  # the direction under weight norm, a singular vector under spectral norm
        weight: Tensor = plain.weight.detach()
        self.bias = nn.Parameter(plain.bias.detach())
        if norm == "weight":
            self.weight_g = nn.Parameter(weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1)))
            self.weight_v = nn.Parameter(weight)
        else:
            self.weight_orig = nn.Parameter(weight)
            self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0))
            self.register_buffer("weight_v", F.normalize(torch.randn(weight[0].numel()), dim=0))
            for _ in range(15):
                self._power_iteration()

    @torch.no_grad()
    def _power_iteration(self) -> None:
        """One step towards the largest singular value; new tensors, because autograd may still hold the old ones."""
        rows = self.weight_orig.flatten(1)
        self.weight_v = F.normalize(rows.T @ self.weight_u, dim=0)
        self.weight_u = F.normalize(rows @ self.weight_v, dim=0)

    def weight(self) -> Tensor:
        """The normed weight; under spectral norm, each use that trains it runs one power iteration, as published."""
        if self.norm == "weight":
            return torch._weight_norm(self.weight_v, self.weight_g, 0)
        with torch.autocast(
            self.weight_orig.device.type, enabled=False
        ):  # or the vectors would be bfloat16 from now on
            if self.training and self.weight_orig.requires_grad:
                self._power_iteration()
            return self.weight_orig / torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return self.convolve(x, self.weight(), self.bias, self.stride, self.reach, self.dilation, self.groups)


def activated(x: Tensor, convs: nn.ModuleList) -> list[Tensor]:
    """The outputs of convolutions one after the other, each with a leaky ReLU."""
    outputs = []
    for conv in convs:
        x = F.leaky_relu(conv(x), LEAKY_SLOPE)
        outputs.append(x)
    return outputs


def judge(x: Tensor, convs: nn.ModuleList, last: nn.Module) -> Judgement:
    """The judgement of a stack of convolutions."""
    features = activated(x, convs)
    features.append(last(features[-1]))
    return Judgement(features[-1].flatten(1), features)
