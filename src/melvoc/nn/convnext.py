"""ConvNeXt over frames (Liu et al. 2022, arXiv 2201.03545), the backbone of Vocos and its relatives.

Parameters are named as in Vocos' published checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.graph import Chain, Map, Node, Residual
from melvoc.nn.layers import Conv1d, FrameLinear, FrameNorm, FrameScale


class ConvNeXt(nn.Module):
    """A convolution into the blocks' channels, the blocks, and a normalisation on either side of them.

    Args:
        inputs: channels of the input.
        channels: of the blocks.
        hidden: channels inside a block.
        blocks: how many.

    Shape:
        `[B, inputs, T]` to `[B, channels, T]`.
    """

    def __init__(self, inputs: int, channels: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.embed = Conv1d(inputs, channels, 7)
        self.norm = FrameNorm(channels)
        layers = [ConvNeXtBlock(channels, hidden, scale=1.0 / blocks) for _ in range(blocks)]
        self.convnext = nn.ModuleList(layers)
        self.final_layer_norm = FrameNorm(channels)
        inside = tuple(Residual(Chain(block.nodes)) for block in layers)
        self.nodes: tuple[Node, ...] = (self.embed, Map(self.norm), *inside, Map(self.final_layer_norm))
        for module in self.modules():  # as published for Vocos
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Run on all frames `[B, inputs, T]`."""
        return Chain(self.nodes)(x)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a two-layer perceptron per frame, scaled by gamma, beside the signal itself.

    Args:
        channels: C.
        hidden: channels between the perceptron's layers.
        scale: what gamma is before training.

    Shape:
        `[B, C, T]` to the same.
    """

    def __init__(self, channels: int, hidden: int, *, scale: float) -> None:
        super().__init__()
        self.dwconv = Conv1d(channels, channels, 7, groups=channels)
        self.norm = FrameNorm(channels)
        self.pwconv1 = FrameLinear(channels, hidden)
        self.pwconv2 = FrameLinear(hidden, channels)
        self.gamma = nn.Parameter(torch.full((channels,), scale))
        perceptron = (self.pwconv1, F.gelu, self.pwconv2, FrameScale(self, "gamma"))
        self.nodes: tuple[Node, ...] = (self.dwconv, Map(self.norm), *[Map(function) for function in perceptron])

    def forward(self, x: Tensor) -> Tensor:
        """Run on all frames `[B, C, T]`."""
        return x + Chain(self.nodes)(x)


def pointwise(network: nn.Module) -> list[nn.Module]:
    """The perceptrons' layers of every block: most of the products, none of the scales, and what they give is added to
    a signal in full precision."""
    blocks = [module for module in network.modules() if isinstance(module, ConvNeXtBlock)]
    return [layer for block in blocks for layer in (block.pwconv1, block.pwconv2)]
