"""Vocos (Siuzdak 2023, arXiv 2306.00814): a ConvNeXt backbone at the mel's rate, and an inverse STFT.

Parameters are named as in the published checkpoint (`backbone.*`, `head.*`). The published code gives
`(T - 1) * hop_length` samples for T frames; this gives `T * hop_length`, of which the first are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.errors import CheckpointError
from melvoc.nn.graph import Chain, Map, Node, Residual
from melvoc.nn.layers import Conv1d, FrameLinear, FrameNorm, FrameScale, frame_by_frame
from melvoc.nn.stft import InverseSTFT

LARGEST_MAGNITUDE = 1e2  # as published: an exponential must not run away


@dataclass(frozen=True, kw_only=True)
class VocosConfig:
    """What the network is made of. The defaults are those of the published 24 kHz model.

    Attributes:
        n_mels: mel bands of the input.
        dim: channels of the backbone.
        intermediate_dim: channels inside its blocks.
        num_layers: ConvNeXt blocks.
        n_fft: of the inverse STFT, an even number.
        hop_length: of the inverse STFT, at most `n_fft // 2`.

    Raises:
        CheckpointError: the values do not describe a network.
    """

    n_mels: int = 100
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    n_fft: int = 1024
    hop_length: int = 256

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or value < 1:
                raise CheckpointError(f"{name}={value!r}, but it is a whole number of at least 1")
        if self.n_fft % 2 or self.hop_length > self.n_fft // 2:
            raise CheckpointError(
                f"n_fft={self.n_fft} and hop_length={self.hop_length}, but n_fft is even and the hop at most half of it"
            )

    @property
    def frame_values(self) -> int:
        """Values a mel frame of the largest signal inside."""
        return max(self.dim, self.intermediate_dim, self.n_fft + 2)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` gives the same configuration back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From `to_dict`'s values.

        Raises:
            CheckpointError: a field that does not exist, or a value that is not allowed.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise CheckpointError(f"VocosConfig has no field {unknown[0]!r}; the fields are {', '.join(known)}")
        return cls(**values)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From a published model's parsed `config.yaml`, or its `init_args` alone (`{"backbone": ..., "head": ...}`).

        Raises:
            CheckpointError: another backbone, head or padding, or a missing key.
        """
        backbone = _arguments(values, "backbone", "VocosBackbone")
        head = _arguments(values, "head", "ISTFTHead")
        if head.get("padding", "center") != "center":
            raise CheckpointError(f"head padding={head['padding']!r}, but melvoc reads Vocos with 'center' only")
        try:
            return cls(
                n_mels=backbone["input_channels"],
                dim=backbone["dim"],
                intermediate_dim=backbone["intermediate_dim"],
                num_layers=backbone["num_layers"],
                n_fft=head["n_fft"],
                hop_length=head["hop_length"],
            )
        except KeyError as error:
            raise CheckpointError(
                f"the config has no {error.args[0]!r}, which Vocos needs; is it a config.yaml?"
            ) from error


def _arguments(values: Mapping[str, Any], part: str, expected: str) -> Mapping[str, Any]:
    """The arguments of one part of a published config, whose class path is compared and never imported."""
    section = values.get(part)
    if not isinstance(section, Mapping):
        raise CheckpointError(f"the config has no {part!r} section, which Vocos needs; is it a config.yaml?")
    class_path = str(section.get("class_path", expected))
    if class_path.rsplit(".", 1)[-1] != expected:
        raise CheckpointError(f"{part} is a {class_path}, but melvoc reads Vocos with a {expected} only")
    arguments = section.get("init_args", section)
    if arguments.get("adanorm_num_embeddings") is not None:
        raise CheckpointError(
            "the backbone is conditioned (adanorm_num_embeddings), but melvoc reads Vocos on mels only"
        )
    return arguments  # type: ignore[no-any-return]


class Vocos(nn.Module):
    """The network.

    Args:
        config: what it is made of.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`, not clamped.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.head = Head(config)
        self.graph: Node = Chain((*self.backbone.nodes, *self.head.nodes))

    def forward(self, mel: Tensor) -> Tensor:
        """The whole signal."""
        return self.graph(mel)


class Backbone(nn.Module):
    """ConvNeXt blocks (Liu et al. 2022) over frames.

    Args:
        config: what it is made of.

    Shape:
        `[B, n_mels, T]` to `[B, dim, T]`.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.embed = Conv1d(config.n_mels, config.dim, 7)
        self.norm = FrameNorm(config.dim)
        layers = [ConvNeXtBlock(config) for _ in range(config.num_layers)]
        self.convnext = nn.ModuleList(layers)
        self.final_layer_norm = FrameNorm(config.dim)
        blocks = tuple(Residual(Chain(block.nodes)) for block in layers)
        self.nodes: tuple[Node, ...] = (self.embed, Map(self.norm), *blocks, Map(self.final_layer_norm))

    def forward(self, mel: Tensor) -> Tensor:
        """The whole signal."""
        return Chain(self.nodes)(mel)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a two-layer perceptron a frame, scaled by gamma.

    Args:
        config: for the channels.

    Shape:
        `[B, dim, T]` to the same.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.dwconv = Conv1d(config.dim, config.dim, 7, groups=config.dim)
        self.norm = FrameNorm(config.dim)
        self.pwconv1 = FrameLinear(config.dim, config.intermediate_dim)
        self.pwconv2 = FrameLinear(config.intermediate_dim, config.dim)
        self.gamma = nn.Parameter(torch.full((config.dim,), 1.0 / config.num_layers))
        perceptron = (self.pwconv1, F.gelu, self.pwconv2, FrameScale(self, "gamma"))
        self.nodes: tuple[Node, ...] = (self.dwconv, Map(self.norm), *[Map(function) for function in perceptron])

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return x + Chain(self.nodes)(x)


class Head(nn.Module):
    """Log-magnitude and phase of each frame, and the inverse STFT.

    Args:
        config: what it is made of.

    Shape:
        `[B, dim, T]` to `[B, 1, T * hop_length]`.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.out = FrameLinear(config.dim, config.n_fft + 2)
        self.istft = InverseSTFT(config.n_fft, config.hop_length)
        self.nodes: tuple[Node, ...] = (Map(self.out), Map(spectrum), self.istft)

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        return Chain(self.nodes)(x)


def spectrum(x: Tensor) -> Tensor:
    """Log-magnitudes and phases to real parts and imaginary parts, both `[B, n_fft + 2, T]`."""
    return frame_by_frame(_spectrum, x)


def _spectrum(x: Tensor) -> Tensor:
    log_magnitude, phase = x.chunk(2, dim=1)
    magnitude = log_magnitude.exp().clamp(max=LARGEST_MAGNITUDE)
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
