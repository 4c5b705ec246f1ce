"""WaveNeXt (Okamoto et al., ASRU 2023): Vocos' ConvNeXt backbone, and linear maps from each frame to its samples.

Parameters are named as in the published checkpoint (`backbone.*`, `head.*`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from melvoc.architecture import Architecture, Layout, NetworkConfig, Pin
from melvoc.architectures.vocos import BACKBONE, BACKBONE_CLASS, HEAD, RECIPE, arguments, mel_of_features
from melvoc.errors import OptionError, quoted
from melvoc.nn.convnext import ConvNeXt
from melvoc.nn.framing import ToSamples
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import FrameLinear
from melvoc.spectrogram.spec import MelSpec

HEAD_CLASS = "vocos.heads.WaveNextHead"


@dataclass(frozen=True, kw_only=True)
class WaveNeXtConfig(NetworkConfig):
    """Hyperparameters of the network. The defaults are those of the published 22.05 kHz model.

    Attributes:
        n_mels: mel bands of the input.
        dim: channels of the backbone.
        intermediate_dim: channels inside its blocks.
        num_layers: ConvNeXt blocks.
        n_fft: two less than the channels between the head's linear maps, as in the published code.
        hop_length: samples per frame.

    Raises:
        OptionError: the values do not describe a network.
    """

    n_mels: int = 80
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    n_fft: int = 1024
    hop_length: int = 256

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        return max(self.dim, self.intermediate_dim, self.n_fft + 2, self.hop_length)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From a published model's parsed configuration, or the section of it that has `backbone` and `head`.

        Raises:
            OptionError: an unsupported backbone or head; a missing or an unknown key.
        """
        backbone = arguments(values, "backbone", BACKBONE_CLASS, BACKBONE, "WaveNeXt")
        head = arguments(values, "head", HEAD_CLASS, HEAD, "WaveNeXt")
        sizes: dict[str, Any] = {"n_mels": backbone.get("input_channels")}
        sizes |= {name: backbone.get(name) for name in ("dim", "intermediate_dim", "num_layers")}
        sizes |= {name: head.get(name) for name in ("n_fft", "hop_length")}
        if missing := [name for name, value in sizes.items() if value is None]:
            raise OptionError(f"the config has no {missing[0]!r}, which WaveNeXt needs; is it the model's own?")
        if head.get("dim", sizes["dim"]) != sizes["dim"]:
            raise OptionError(f"head dim={quoted(head['dim'])}, but the backbone's is {sizes['dim']}; they differ")
        return cls(**sizes)


class WaveNeXt(nn.Module):
    """The network.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`, not clamped.
    """

    def __init__(self, config: WaveNeXtConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ConvNeXt(config.n_mels, config.dim, config.intermediate_dim, config.num_layers)
        self.head = Head(config)
        self.graph: Node = Chain((*self.backbone.nodes, *self.head.nodes))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


class Head(nn.Module):
    """Two linear maps in place of a Fourier transform; the second one's outputs are the frame's samples.

    Args:
        config: its hyperparameters.

    Shape:
        `[B, dim, T]` to `[B, 1, T * hop_length]`.
    """

    def __init__(self, config: WaveNeXtConfig) -> None:
        super().__init__()
        self.linear_1 = FrameLinear(config.dim, config.n_fft + 2)
        self.linear_2 = FrameLinear(config.n_fft + 2, config.hop_length, bias=False)
        for module in (self.linear_1, self.linear_2):  # as in the published code
            nn.init.trunc_normal_(module.weight, std=0.02)
        self.nodes: tuple[Node, ...] = (Map(self.linear_1), Map(self.linear_2), ToSamples(config.hop_length))

    def forward(self, x: Tensor) -> Tensor:
        """Run on all frames `[B, dim, T]`."""
        return Chain(self.nodes)(x)


def recognises(values: Mapping[str, Any]) -> bool:
    """Whether a configuration, or a section of one, has this head."""
    head = values.get("head")
    return "backbone" in values and isinstance(head, Mapping) and head.get("class_path") in (HEAD_CLASS, "WaveNextHead")


def sized(dim: int, num_layers: int, spec: MelSpec) -> WaveNeXtConfig:
    """A configuration for a spec: a frame's samples are the hop, whatever it is.

    Args:
        dim: channels of the backbone; its blocks have three times as many inside.
        num_layers: its blocks.
        spec: of the mels.
    """
    return WaveNeXtConfig(
        n_mels=spec.n_mels,
        dim=dim,
        intermediate_dim=3 * dim,
        num_layers=num_layers,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
    )


ARCHITECTURE = Architecture(
    name="wavenext",
    title="WaveNeXt",
    config=WaveNeXtConfig,
    network=WaveNeXt,
    layouts=(
        Layout(
            title="WaveNeXt's config.yaml (backbone, head: WaveNextHead)",
            recognises=recognises,
            config=WaveNeXtConfig.from_published,
            spec=lambda values: mel_of_features(values, HEAD_CLASS, "WaveNeXt"),
            not_weights=re.compile(r"^(feature_extractor|melspec_loss|mel_loss)\."),
            files=((r"pytorch_model\.bin", "config.yaml"),),
        ),
    ),
    pins=(
        Pin(  # the file's sha256 is not known: it loads where the caller allows it
            name="wavenext_mel",
            repo="BSC-LT/wavenext-mel",
            filename="pytorch_model.bin",
            revision="bff92f2448bb6a2e7db22d3ae33c556c5e71be47",
            bytes=None,
            sha256=None,
            config=WaveNeXtConfig(),
            spec=MelSpec.preset("wavenext_mel"),
            parameters=13_722_626,
            licence="Apache-2.0",
        ),
    ),
    recipe=dataclasses.replace(  # the published code trains it as Vocos
        RECIPE, sizes={"small": lambda spec: sized(256, 6, spec), "base": lambda spec: sized(512, 8, spec)}
    ),
    speed=lambda config: "fast",
)
