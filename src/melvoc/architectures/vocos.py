"""Vocos (Siuzdak 2023, arXiv 2306.00814): a ConvNeXt backbone at the mel's rate, and an inverse STFT.

Parameters are named as in the published checkpoint (`backbone.*`, `head.*`). The published code gives
`(T - 1) * hop_length` samples for T frames; this one gives `T * hop_length`, which begin with the same samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from torch import Tensor, nn

from melvoc.architecture import ADDED, Architecture, Layout, NetworkConfig, Pin
from melvoc.errors import OptionError, SpecError, quoted
from melvoc.nn.convnext import ConvNeXt, pointwise
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import FrameLinear
from melvoc.nn.stft import InverseSTFT, LogPolar
from melvoc.recipe import LossWeights, Recipe
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
        backbone = arguments(values, "backbone", BACKBONE_CLASS, (*BACKBONE, CONDITIONED))
        head = arguments(values, "head", HEAD_CLASS, HEAD)
        if backbone.get(CONDITIONED) is not None:
            raise OptionError(f"the backbone is conditioned ({CONDITIONED}), but melvoc only reads Vocos on mels")
        try:
            config = cls(
                n_mels=backbone["input_channels"],
                n_fft=head["n_fft"],
                hop_length=head["hop_length"],
                padding=head.get("padding", HEAD_PADDING),
                **{name: backbone[name] for name in ("dim", "intermediate_dim", "num_layers")},
            )
        except KeyError as error:
            raise OptionError(f"the config has no {error.args[0]!r}, which Vocos needs; is it a config.yaml?") from None
        if head.get("dim", config.dim) != config.dim:
            raise OptionError(
                f"head dim={quoted(head['dim'])}, but the backbone's is {config.dim}; they belong together"
            )
        return config


BACKBONE_CLASS, HEAD_CLASS = "vocos.models.VocosBackbone", "vocos.heads.ISTFTHead"
FEATURES_CLASS = "vocos.feature_extractors.MelSpectrogramFeatures"
# The arguments of the published classes; layer_scale_init_value is where training began.
BACKBONE = ("input_channels", "dim", "intermediate_dim", "num_layers", "layer_scale_init_value")
CONDITIONED = "adanorm_num_embeddings"
HEAD = ("dim", "n_fft", "hop_length", "padding")
HEAD_PADDING, FEATURES_PADDING = "same", "center"  # where a config does not say: the defaults of the published classes
FEATURES = ("sample_rate", "n_fft", "hop_length", "n_mels", "padding")
FORKS_FEATURES = ("f_min", "f_max", "norm", "mel_scale", "clip_val")  # whose logarithm has another floor, too


def arguments(
    values: Mapping[str, Any], part: str, expected: str, takes: tuple[str, ...], title: str = "Vocos"
) -> Mapping[str, Any]:
    """The arguments of one part of a published config, whose class path is compared but never imported.

    Args:
        values: the config, or the section of it that has the parts.
        part: its key.
        expected: the class path.
        takes: the arguments' names.
        title: the architecture's, for messages.

    Raises:
        OptionError: another class, or an argument that it does not take.
    """
    section = values.get(part)
    if not isinstance(section, Mapping):
        raise OptionError(f"the config has no {part!r} section, which {title} needs; is it a config.yaml?")
    class_path = section.get("class_path", expected)
    if class_path not in (expected, expected.rpartition(".")[2]):
        given = quoted(class_path).strip("'")
        raise OptionError(f"{part} is a {given}, but melvoc only reads {title} with a {expected.rpartition('.')[2]}")
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
        self.backbone = ConvNeXt(config.n_mels, config.dim, config.intermediate_dim, config.num_layers)
        self.head = Head(config)
        self.graph: Node = Chain((*self.backbone.nodes, *self.head.nodes))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, T]`."""
        return self.graph(mel)


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
        self.nodes: tuple[Node, ...] = (Map(self.out), Map(LogPolar(LARGEST_MAGNITUDE)), self.istft)

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, T]`."""
        return Chain(self.nodes)(x)


def mel_of_features(values: Mapping[str, Any], head_class: str = HEAD_CLASS, title: str = "Vocos") -> MelSpec:
    """The mel of a published `config.yaml`: torchaudio's defaults at the configured size, then a clipped natural log.

    The floor is 1e-7 in the published code, whose config does not say it; 1e-5 in the forks that know the further
    arguments, one of which may say it (`clip_val`).

    Args:
        values: the config, or the section of it that has the parts.
        head_class: the class path of its head.
        title: the architecture's, for messages.

    Raises:
        SpecError: no mel is described, or one that is not supported.
    """
    if "feature_extractor" not in values:
        raise SpecError(
            "it has no feature_extractor section, so that nothing says which mel it takes; pass its MelSpec"
        )
    takes = FEATURES + FORKS_FEATURES
    try:
        given = arguments(values, "feature_extractor", FEATURES_CLASS, takes, title)
        head = arguments(values, "head", head_class, HEAD, title)
    except OptionError as error:
        raise SpecError(str(error)) from error
    padding = given.get("padding", FEATURES_PADDING)
    expected = head.get("padding", HEAD_PADDING if head_class == HEAD_CLASS else padding)  # others take it for nothing
    if padding != expected:
        raise SpecError(
            f"feature padding={quoted(padding)}, but the head's is {quoted(expected)}, and sound would come half a hop "
            "apart from its frames"
        )
    fork = any(name in given for name in FORKS_FEATURES)
    sizes = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100} | {"mel_scale": "htk", "norm": None}
    said = {name: value for name, value in given.items() if value is not None or name == "norm"}
    said.pop("padding", None)
    floor = _number(said.pop("clip_val", 1e-5 if fork else 1e-7))
    return MelSpec.from_dict(sizes | said | {"log_floor": floor, "magnitude_eps": 0.0, "center": padding == "center"})


def _number(value: Any) -> Any:
    """YAML reads 1e-5, without a point, as text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def sized(dim: int, num_layers: int, spec: MelSpec) -> VocosConfig:
    """A configuration for a spec: the inverse STFT is that of the mel's own frames.

    Args:
        dim: channels of the backbone; its blocks have three times as many inside.
        num_layers: its blocks.
        spec: of the mels.

    Raises:
        SpecError: frames that do not overlap enough for an inverse STFT.
    """
    try:
        return VocosConfig(
            n_mels=spec.n_mels,
            dim=dim,
            intermediate_dim=3 * dim,
            num_layers=num_layers,
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            padding="center" if spec.center else "same",
        )
    except OptionError as error:
        raise SpecError(f"Vocos' inverse STFT has the mel's frames: {error}; change the spec") from error


RECIPE = Recipe(  # vocos.yaml's, which takes the mean over a discriminator's parts; docs/training.md has what is not
    sizes={"small": lambda spec: sized(256, 6, spec), "base": lambda spec: sized(512, 8, spec)},
    discriminators={"mpd": 1 / 5, "mrd": 0.1 / 3},
    weights=LossWeights(adversarial=1.0, feature=1.0, mel=45.0),
    segment=16384,
    learning_rate=5e-4,
    betas=(0.8, 0.9),
    autocast=pointwise,
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
    recipe=RECIPE,
    speed=lambda config: "fast",
)
