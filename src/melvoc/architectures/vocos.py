"""Vocos (Siuzdak 2023, arXiv 2306.00814): a ConvNeXt backbone at the mel's rate, and an inverse STFT.

Parameters are named as in the published checkpoint (`backbone.*`, `head.*`). The published code gives
`(T - 1) * hop_length` samples for T frames; this one gives `T * hop_length`, which begin with the same samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.architecture import ADDED, Architecture, Layout, NetworkConfig, Pin
from melvoc.errors import OptionError, SpecError, quoted
from melvoc.nn.graph import Chain, Map, Node, Residual
from melvoc.nn.layers import Conv1d, FrameLinear, FrameNorm, FrameScale
from melvoc.nn.stft import InverseSTFT
from melvoc.spectrogram.spec import MelSpec

PADDINGS = ("center", "same")  # what the published classes call them
LARGEST_MAGNITUDE = 1e2  # as published: keeps the exponential from running away


@dataclass(frozen=True, kw_only=True)
class VocosConfig(NetworkConfig):
    """Hyperparameters of the network. The defaults are those of the published 24 kHz model.

    Attributes:
        n_mels: mel bands of the input.
        dim: channels of the backbone.
        intermediate_dim: channels inside its blocks.
        num_layers: ConvNeXt blocks.
        n_fft: of the inverse STFT, even.
        hop_length: of the inverse STFT, at most `n_fft // 2`.
        padding: "center" (frame t is centred on sample `t * hop_length`) or "same" (on the middle of its hop).

    Raises:
        OptionError: the values do not describe a network.
    """

    n_mels: int = 100
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    n_fft: int = 1024
    hop_length: int = 256
    padding: Literal["center", "same"] = field(default="center", metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding not in PADDINGS:
            raise OptionError(f"padding={quoted(self.padding)}, but the published ones are {' and '.join(PADDINGS)}")
        if self.n_fft % 2 or self.hop_length > self.n_fft // 2:
            raise OptionError(
                f"n_fft={self.n_fft} and hop_length={self.hop_length}, but n_fft is even and the hop at most half of it"
            )

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        return max(self.dim, self.intermediate_dim, self.n_fft + 2)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From a published model's parsed `config.yaml`, or its `init_args` alone (`{"backbone": ..., "head": ...}`).

        Raises:
            OptionError: an unsupported backbone, head or padding; a missing or an unknown key.
        """
        backbone = _arguments(values, "backbone", "vocos.models.VocosBackbone", (*BACKBONE, CONDITIONED))
        head = _arguments(values, "head", "vocos.heads.ISTFTHead", HEAD)
        if backbone.get(CONDITIONED) is not None:
            raise OptionError(f"the backbone is conditioned ({CONDITIONED}), but melvoc only reads Vocos on mels")
        try:
            config = cls(
                n_mels=backbone["input_channels"],
                n_fft=head["n_fft"],
                hop_length=head["hop_length"],
                padding=head.get("padding", "center"),
                **{name: backbone[name] for name in ("dim", "intermediate_dim", "num_layers")},
            )
        except KeyError as error:
            raise OptionError(f"the config has no {error.args[0]!r}, which Vocos needs; is it a config.yaml?") from None
        if head.get("dim", config.dim) != config.dim:
            raise OptionError(
                f"head dim={quoted(head['dim'])}, but the backbone's is {config.dim}; they belong together"
            )
        return config


# The arguments of the published classes; layer_scale_init_value is where training began.
BACKBONE = ("input_channels", "dim", "intermediate_dim", "num_layers", "layer_scale_init_value")
CONDITIONED = "adanorm_num_embeddings"
HEAD = ("dim", "n_fft", "hop_length", "padding")
FEATURES = ("sample_rate", "n_fft", "hop_length", "n_mels", "padding")
MATCHA_FEATURES = ("f_min", "f_max", "norm", "mel_scale")  # of a fork, whose logarithm has another floor, too


def _arguments(values: Mapping[str, Any], part: str, expected: str, takes: tuple[str, ...]) -> Mapping[str, Any]:
    """The arguments of one part of a published config, whose class path is compared but never imported.

    Raises:
        OptionError: another class, or an argument that it does not take.
    """
    section = values.get(part)
    if not isinstance(section, Mapping):
        raise OptionError(f"the config has no {part!r} section, which Vocos needs; is it a config.yaml?")
    class_path = section.get("class_path", expected)
    if class_path not in (expected, expected.rpartition(".")[2]):
        given = quoted(class_path).strip("'")
        raise OptionError(f"{part} is a {given}, but melvoc only reads Vocos with a {expected.rpartition('.')[2]}")
    rest = {key: value for key, value in section.items() if key != "class_path"}
    arguments = rest.pop("init_args", None) if "init_args" in rest else rest
    if not isinstance(arguments, Mapping) or (arguments is not rest and rest):
        raise OptionError(f"{part} is {quoted(section)}, but it is a class_path with init_args")
    if odd := [key for key in arguments if key not in takes]:
        raise OptionError(f"{part} has {quoted(odd[0])}, which {expected} does not take; it takes {', '.join(takes)}")
    return arguments


class Vocos(nn.Module):
    """The network.

    Args:
        config: its hyperparameters.

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
        """Run on the complete signal `[B, C, T]`."""
        return self.graph(mel)


class Backbone(nn.Module):
    """ConvNeXt blocks (Liu et al. 2022) over frames.

    Args:
        config: its hyperparameters.

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
        """Run on the complete signal `[B, C, T]`."""
        return Chain(self.nodes)(mel)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a two-layer perceptron per frame, scaled by gamma.

    Args:
        config: determines the channels.

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
        """Run on the complete signal `[B, C, T]`."""
        return x + Chain(self.nodes)(x)


class Head(nn.Module):
    """Log-magnitude and phase of each frame, then the inverse STFT.

    Args:
        config: its hyperparameters.

    Shape:
        `[B, dim, T]` to `[B, 1, T * hop_length]`.
    """

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.out = FrameLinear(config.dim, config.n_fft + 2)
        self.istft = InverseSTFT(config.n_fft, config.hop_length, center=config.padding == "center")
        self.nodes: tuple[Node, ...] = (Map(self.out), Map(spectrum), self.istft)

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, T]`."""
        return Chain(self.nodes)(x)


def spectrum(x: Tensor) -> Tensor:
    """Log-magnitudes and phases to real parts and imaginary parts, both `[B, n_fft + 2, T]`."""
    log_magnitude, phase = x.chunk(2, dim=1)
    magnitude = log_magnitude.exp().clamp(max=LARGEST_MAGNITUDE)
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def mel_of_features(values: Mapping[str, Any]) -> MelSpec:
    """The mel of a published `config.yaml`: torchaudio's defaults at the configured size, then a clipped natural log.

    The floor is in no config: 1e-7 in the published code; 1e-5 in the fork that knows the further arguments.

    Raises:
        SpecError: no mel is described, or one that is not supported.
    """
    if "feature_extractor" not in values:
        raise SpecError(
            "it has no feature_extractor section, so that nothing says which mel it takes; pass its MelSpec"
        )
    takes = FEATURES + MATCHA_FEATURES
    try:
        given = _arguments(values, "feature_extractor", "vocos.feature_extractors.MelSpectrogramFeatures", takes)
        expected = _arguments(values, "head", "vocos.heads.ISTFTHead", HEAD).get("padding", "center")
    except OptionError as error:
        raise SpecError(str(error)) from error
    padding = given.get("padding", "center")
    if padding != expected:
        raise SpecError(
            f"feature padding={quoted(padding)}, but the head's is {quoted(expected)}, and sound would come half a hop "
            "apart from its frames"
        )
    fork = any(name in given for name in MATCHA_FEATURES)
    sizes = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100} | {"mel_scale": "htk", "norm": None}
    said = {name: value for name, value in given.items() if value is not None or name == "norm"}
    said.pop("padding", None)
    return MelSpec.from_dict(
        sizes | said | {"log_floor": 1e-5 if fork else 1e-7, "magnitude_eps": 0.0, "center": padding == "center"}
    )


ARCHITECTURE = Architecture(
    name="vocos",
    title="Vocos",
    config=VocosConfig,
    network=Vocos,
    layouts=(
        Layout(
            title="Vocos' config.yaml (backbone, head)",
            recognises=lambda values: "backbone" in values and "head" in values,
            config=VocosConfig.from_published,
            spec=mel_of_features,
            not_weights=re.compile(r"^head\.istft\.window$|^feature_extractor\."),
            files=((r"pytorch_model\.bin|model\.safetensors", "config.yaml"),),
        ),
    ),
    pins=(
        Pin(
            name="vocos_mel_24khz",
            repo="charactr/vocos-mel-24khz",
            filename="pytorch_model.bin",
            revision="0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21",
            bytes=54365991,
            sha256="97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a",
            sources="two or more sources",
            config=VocosConfig(),
            spec=MelSpec.preset("vocos_mel_24khz"),
            parameters=13_531_650,
        ),
        Pin(
            name="lucasnewman_vocos_mel_24khz",
            repo="lucasnewman/vocos-mel-24khz",
            filename="model.safetensors",
            revision="ee89d00fac94b61e1235e0869f3e8d49711b7484",
            bytes=54348264,
            sha256="7fd11dcafe62b373156b3a12c0199bbc09b0ce1636692f97eef99ffec02fadb2",
            sources="one source",
            config=VocosConfig(),
            spec=MelSpec.preset("lucasnewman_vocos_mel_24khz"),
            parameters=13_531_650,
        ),
        Pin(
            name="vocos_mel_22khz",
            repo="BSC-LT/vocos-mel-22khz",
            filename="pytorch_model.bin",
            revision="b4b331d85370cdd94c644b5d1922a27a0b219c15",
            bytes=54051047,
            sha256="0af7b6f4b153819ada44a917135acf33944cdbb70cde0701eda3d100153799c7",
            sources="one source",
            config=VocosConfig(n_mels=80, padding="same"),
            spec=MelSpec.preset("vocos_mel_22khz"),
            parameters=13_459_970,
            licence="Apache-2.0",
        ),
        Pin(
            name="vocos_mel_hifigan_compat_44100khz",
            repo="patriotyk/vocos-mel-hifigan-compat-44100khz",
            filename="pytorch_model.bin",
            revision="e7d50512f731887429abfa9ba1e82d1a76f2360d",
            bytes=None,
            sha256="310df58f31cd77e56c494df8389f7ebd57bf7b594c585d9221eb9fe888785572",
            sources="one source",
            config=VocosConfig(n_mels=80, n_fft=2048, hop_length=512, padding="same"),
            spec=MelSpec.preset("vocos_mel_hifigan_compat_44100khz"),
            parameters=13_985_282,
        ),
    ),
)
