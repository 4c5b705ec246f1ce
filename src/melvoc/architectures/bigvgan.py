"""BigVGAN's generator, v1 and v2 (Lee et al., ICLR 2023, arXiv 2206.04658).

HiFi-GAN's, with alias-free snake activations in place of the leaky ReLUs ("anti-aliased multi-periodicity", AMP).
v2 ends with a clamp and no bias where v1 has tanh and a bias.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.errors import CheckpointError
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.graph import Chain, Map, Mean, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d


@dataclass(frozen=True, kw_only=True)
class BigVGANConfig(HiFiGANConfig):
    """HiFi-GAN's fields, and what BigVGAN adds. The defaults are those of a published config without the key (v1).

    Attributes:
        activation: "snakebeta" or "snake".
        snake_logscale: whether the activations' parameters are logarithms.
        use_tanh_at_final: tanh at the end (v1), else a clamp to [-1, 1] (v2).
        use_bias_at_final: whether the last convolution has a bias (v1).
    """

    activation: Literal["snake", "snakebeta"] = "snakebeta"
    snake_logscale: bool = True
    use_tanh_at_final: bool = True
    use_bias_at_final: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("snake", "snakebeta"):
            raise CheckpointError(f"activation={self.activation!r}, but the published ones are 'snake' and 'snakebeta'")

    def snake(self, channels: int) -> AliasFreeSnake:
        """An activation for so many channels."""
        return AliasFreeSnake(channels, kind=self.activation, logscale=self.snake_logscale)


class BigVGAN(nn.Module):
    """The generator, weight norm folded; parameters are named as in the published checkpoints.

    Args:
        config: what it is made of.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = Conv1d(config.n_mels, config.channels(0), 7)
        ups: list[ConvTranspose1d] = []
        resblocks: list[AMPBlock1 | AMPBlock2] = []
        for stage, (rate, taps) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
            channels = config.channels(stage + 1)
            ups.append(ConvTranspose1d(config.channels(stage), channels, taps, rate))
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                block = AMPBlock1 if config.resblock == "1" else AMPBlock2
                resblocks.append(block(channels, kernel, dilations, config))
        self.ups = nn.ModuleList(nn.ModuleList([up]) for up in ups)  # the published names are ups.0.0, ups.1.0, ...
        self.resblocks = nn.ModuleList(resblocks)
        channels = config.channels(len(config.upsample_rates))
        self.activation_post = config.snake(channels)
        self.conv_post = Conv1d(channels, 1, 7, bias=config.use_bias_at_final)
        for module in [*self.ups.modules(), *self.resblocks.modules(), self.conv_post]:
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not module.weight.is_meta:
                nn.init.normal_(module.weight, 0.0, 0.01)  # as published; on meta it would import torch._dynamo, in 1 s
        branches = iter([block.graph for block in resblocks])
        nodes: list[Node] = [self.conv_pre]
        for up in ups:
            nodes += [up, Mean(tuple(next(branches) for _ in config.resblock_kernel_sizes))]
        final = torch.tanh if config.use_tanh_at_final else functools.partial(torch.clamp, min=-1.0, max=1.0)
        self.graph: Node = Chain((*nodes, self.activation_post, self.conv_post, Map(final)))

    def forward(self, mel: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(mel)


class AMPBlock1(nn.Module):
    """Residual pairs of convolutions, the first of each dilated, each after an alias-free activation.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one pair an entry.
        config: for the kind of activation.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...], config: BigVGANConfig) -> None:
        super().__init__()
        firsts = [Conv1d(channels, channels, kernel_size, dilation=gap) for gap in dilations]
        seconds = [Conv1d(channels, channels, kernel_size) for _ in dilations]
        snakes = [config.snake(channels) for _ in range(2 * len(dilations))]
        self.convs1, self.convs2 = nn.ModuleList(firsts), nn.ModuleList(seconds)
        self.activations = nn.ModuleList(snakes)
        layers = zip(snakes[::2], firsts, snakes[1::2], seconds, strict=True)
        self.graph: Node = Chain(tuple(Residual(Chain(pair)) for pair in layers))

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(x)


class AMPBlock2(nn.Module):
    """Residual dilated convolutions, each after an alias-free activation.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one convolution an entry.
        config: for the kind of activation.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...], config: BigVGANConfig) -> None:
        super().__init__()
        convs = [Conv1d(channels, channels, kernel_size, dilation=gap) for gap in dilations]
        snakes = [config.snake(channels) for _ in dilations]
        self.convs, self.activations = nn.ModuleList(convs), nn.ModuleList(snakes)
        self.graph: Node = Chain(tuple(Residual(Chain(pair)) for pair in zip(snakes, convs, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(x)
