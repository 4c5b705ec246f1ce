"""HiFi-GAN's generator (Kong, Kim and Bae 2020, arXiv 2010.05646).

A mel is upsampled by transposed convolutions; after each, blocks of residual dilated convolutions with different
kernel sizes see the same signal, and their mean goes on (multi-receptive-field fusion). V1, V2 and V3 of the paper are
settings of one configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from melvoc.errors import CheckpointError
from melvoc.nn.graph import Chain, Map, Mean, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d

LEAKY_SLOPE = 0.1
LAST_SLOPE = 0.01  # the published code leaves torch's default before conv_post; the weights were trained with it

PUBLISHED_NAMES = {"n_mels": "num_mels"}  # where a published config.json says it differently


@dataclass(frozen=True, kw_only=True)
class HiFiGANConfig:
    """What the generator is made of. The defaults are V1's.

    Attributes:
        n_mels: mel bands of the input.
        upsample_rates: factor of each upsampling; their product is the hop length.
        upsample_kernel_sizes: taps of each transposed convolution, at least its rate.
        upsample_initial_channel: channels after the first convolution; each upsampling halves them.
        resblock: "1" (pairs of convolutions, V1 and V2) or "2" (single ones, V3).
        resblock_kernel_sizes: one block an entry, odd numbers.
        resblock_dilation_sizes: the dilations of each block's convolutions.

    Raises:
        CheckpointError: the values do not describe a network.
    """

    n_mels: int = 80
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _frozen(field.name, getattr(self, field.name), str(field.type)))
        if self.resblock not in ("1", "2"):
            raise CheckpointError(f"resblock={self.resblock!r}, but the published blocks are '1' and '2'")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise CheckpointError(
                f"upsample_rates has {len(self.upsample_rates)} entries and upsample_kernel_sizes "
                f"{len(self.upsample_kernel_sizes)}; each upsampling needs both"
            )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise CheckpointError(
                f"resblock_kernel_sizes has {len(self.resblock_kernel_sizes)} entries and resblock_dilation_sizes "
                f"{len(self.resblock_dilation_sizes)}; each block needs both"
            )
        for rate, taps in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if taps < rate:
                raise CheckpointError(
                    f"upsample_kernel_sizes has {taps} for rate {rate}, but a kernel shorter than its rate leaves "
                    f"samples without input; use {2 * rate}"
                )
        for taps in self.resblock_kernel_sizes:
            if taps % 2 == 0:
                raise CheckpointError(f"resblock_kernel_sizes has {taps}, but only odd kernels keep the length")
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise CheckpointError(
                f"upsample_initial_channel={self.upsample_initial_channel} cannot be halved "
                f"{len(self.upsample_rates)} times; use a multiple of {2 ** len(self.upsample_rates)}"
            )

    @property
    def hop_length(self) -> int:
        """Samples a mel frame: the product of the rates."""
        return math.prod(self.upsample_rates)

    @property
    def frame_values(self) -> int:
        """Values a mel frame of the largest signal inside."""
        stages = range(len(self.upsample_rates) + 1)
        return max(self.channels(stage) * math.prod(self.upsample_rates[:stage]) for stage in stages)

    def channels(self, stage: int) -> int:
        """Channels after so many upsamplings."""
        return self.upsample_initial_channel >> stage

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` gives the same configuration back."""
        values = dataclasses.asdict(self)
        return {name: _listed(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From `to_dict`'s values.

        Raises:
            CheckpointError: a field that does not exist, or a value that is not allowed.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"
                raise CheckpointError(f"{cls.__name__} has no field {name!r}; {hint}")
        return cls(**values)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From a published `config.json`, whose other keys (training, mel) are not looked at.

        Raises:
            CheckpointError: a key of the generator is missing.
        """
        chosen = {}
        for field in dataclasses.fields(cls):
            key = PUBLISHED_NAMES.get(field.name, field.name)
            if values.get(key) is not None:
                chosen[field.name] = values[key]
            elif field.name in dataclasses.asdict(HiFiGANConfig()):
                raise CheckpointError(f"the config has no {key!r}, which {cls.__name__} needs; is it a config.json?")
        return cls(**chosen)


class HiFiGAN(nn.Module):
    """The generator, weight norm folded; parameters are named as in the published checkpoints.

    Args:
        config: what it is made of.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = Conv1d(config.n_mels, config.channels(0), 7)
        ups: list[ConvTranspose1d] = []
        resblocks: list[ResBlock1 | ResBlock2] = []
        for stage, (rate, taps) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
            channels = config.channels(stage + 1)
            ups.append(ConvTranspose1d(config.channels(stage), channels, taps, rate, slope=LEAKY_SLOPE))
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                block = ResBlock1 if config.resblock == "1" else ResBlock2
                resblocks.append(block(channels, kernel, dilations))
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(resblocks)
        self.conv_post = Conv1d(config.channels(len(config.upsample_rates)), 1, 7, slope=LAST_SLOPE)
        for module in [*self.ups.modules(), *self.resblocks.modules(), self.conv_post]:
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not module.weight.is_meta:
                nn.init.normal_(module.weight, 0.0, 0.01)  # as published; on meta it would import torch._dynamo, in 1 s
        branches = iter([block.graph for block in resblocks])
        nodes: list[Node] = [self.conv_pre]
        for up in ups:
            nodes += [up, Mean(tuple(next(branches) for _ in config.resblock_kernel_sizes))]
        self.graph: Node = Chain((*nodes, self.conv_post, Map(torch.tanh)))

    def forward(self, mel: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(mel)


class ResBlock1(nn.Module):
    """Residual pairs of convolutions, the first of each dilated.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one pair an entry.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        firsts = [Conv1d(channels, channels, kernel_size, dilation=gap, slope=LEAKY_SLOPE) for gap in dilations]
        seconds = [Conv1d(channels, channels, kernel_size, slope=LEAKY_SLOPE) for _ in dilations]
        self.convs1, self.convs2 = nn.ModuleList(firsts), nn.ModuleList(seconds)
        self.graph: Node = Chain(tuple(Residual(Chain(pair)) for pair in zip(firsts, seconds, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(x)


class ResBlock2(nn.Module):
    """Residual dilated convolutions, one by one.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one convolution an entry.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        convs = [Conv1d(channels, channels, kernel_size, dilation=gap, slope=LEAKY_SLOPE) for gap in dilations]
        self.convs = nn.ModuleList(convs)
        self.graph: Node = Chain(tuple(Residual(conv) for conv in convs))

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(x)


def _frozen(name: str, value: Any, kind: str) -> Any:
    """A JSON value as the field's type (lists become tuples), or a CheckpointError that names the field."""
    if kind == "int":
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{name}={value!r}, but it is a whole number of at least 1")
        return value
    if kind == "bool":
        if type(value) is not bool:
            raise CheckpointError(f"{name}={value!r}, but it is true or false")
        return value
    if kind.startswith("tuple"):
        inner = kind[len("tuple[") : -len(", ...]")]
        if not isinstance(value, list | tuple) or not value:
            raise CheckpointError(f"{name}={value!r}, but it is a list with at least one entry")
        return tuple(_frozen(name, item, inner) for item in value)
    return value


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
