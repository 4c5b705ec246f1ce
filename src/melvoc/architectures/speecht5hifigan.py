"""transformers' HiFi-GANs (`SpeechT5HifiGan`, `FastSpeech2ConformerHifiGan`): HiFi-GAN's generator after a learned
normalisation of the mel.

They compute `generator((mel - mean) / scale)`. The scale is folded into the first convolution. The mean cannot be: that
convolution pads with zeros, and beyond the ends it sees zeros of the normalised mel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from melvoc.architecture import Architecture, Layout, NetworkConfig
from melvoc.architectures.hifigan import LEAKY_SLOPE, HiFiGAN, HiFiGANConfig, ends_and_snakes
from melvoc.errors import OptionError, SpecError, quoted
from melvoc.nn.graph import Chain, Map, Node
from melvoc.spectrogram.spec import MelSpec

PUBLISHED_NAMES = {"n_mels": "model_in_dim"}  # where transformers has another name
SPEECHT5 = {"sampling_rate": 16000, "model_in_dim": 80}  # with a hop of 256: the one mel that is known


@dataclass(frozen=True, kw_only=True)
class SpeechT5HiFiGANConfig(HiFiGANConfig):
    """HiFi-GAN's fields; the defaults are SpeechT5's.

    Raises:
        OptionError: the values do not describe a network.
    """

    upsample_rates: tuple[int, ...] = (4, 4, 4, 4)
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 8, 8)

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From transformers' `config.json`, whose keys that are every model's are ignored.

        Raises:
            OptionError: a key of the generator is missing, or one says what this network does not have.
        """
        names = [entry.name for entry in fields(cls) if entry.name != "resblock"]
        keys = {name: PUBLISHED_NAMES.get(name, name) for name in names}
        if missing := [key for key in keys.values() if values.get(key) is None]:
            raise OptionError(f"the config has no {missing[0]!r}, which {cls.__name__} needs; is it a config.json?")
        if values.get("leaky_relu_slope", LEAKY_SLOPE) != LEAKY_SLOPE:
            raise OptionError(
                f"leaky_relu_slope={quoted(values['leaky_relu_slope'])}, but melvoc only reads {LEAKY_SLOPE}"
            )
        return cls(**{name: values[key] for name, key in keys.items()})


class BandMean(nn.Module):
    """Subtracts a mean from each band.

    Args:
        n_mels: bands.

    Shape:
        `[B, n_mels, T]` to the same.
    """

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_mels))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on each frame independently."""
        return mel - self.mean[:, None]


class SpeechT5HiFiGAN(HiFiGAN):
    """The network.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: SpeechT5HiFiGANConfig) -> None:
        super().__init__(config)
        self.center = BandMean(config.n_mels)
        self.graph: Node = Chain((Map(self.center), self.graph))


def fold_scale(tensors: dict[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """The tensors of a checkpoint with its scale in the first convolution's weight.

    Raises:
        OptionError: a scale of another shape, or none.
    """
    scale, weight = tensors.get("scale"), tensors.get("conv_pre.weight")
    if scale is None or weight is None or weight.dim() != 3 or scale.shape != weight.shape[1:2]:
        raise OptionError(
            f"its scale has shape {scale if scale is None else list(scale.shape)}, but it is a number for each of the "
            f"{config.n_mels} bands; the file is another model's, or damaged"
        )
    kept = {name: tensor for name, tensor in tensors.items() if name != "scale"}
    return kept | {"conv_pre.weight": (weight.double() / scale.double()[:, None]).float()}


def drop_normalisation(tensors: dict[str, Tensor], config: NetworkConfig) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose mean and scale are there, but not used."""
    kept = {name: tensor for name, tensor in tensors.items() if name != "scale"}
    return kept | {"center.mean": torch.zeros(config.n_mels)}


def mel_of(values: Mapping[str, Any]) -> MelSpec:
    """The mel of SpeechT5's feature extractor, where the configuration is that of its vocoder.

    Raises:
        SpecError: any other model's, whose configuration does not say its mel.
    """
    is_speecht5 = all(values.get(key) == value for key, value in SPEECHT5.items())
    if is_speecht5 and SpeechT5HiFiGANConfig.from_published(values).hop_length == 256:
        return MelSpec.preset("speecht5_16khz_80band_log10")
    raise SpecError("transformers' config.json does not say it, and only SpeechT5's vocoder is known; pass its MelSpec")


def _layout(title: str, normalises: bool, adapt: Any) -> Layout:
    return Layout(
        title=title,
        recognises=lambda values: (
            "model_in_dim" in values
            and "upsample_rates" in values
            and bool(values.get("normalize_before", True)) is normalises
        ),
        config=SpeechT5HiFiGANConfig.from_published,
        spec=mel_of,
        renames=((r"(^|\.)upsampler\.", r"\1ups."), (r"(^|\.)mean$", r"\1center.mean")),
        adapt=adapt,
        files=((r"pytorch_model\.bin|model\.safetensors", "config.json"),),
    )


ARCHITECTURE = Architecture(
    name="speecht5hifigan",
    title="SpeechT5-HiFi-GAN",
    config=SpeechT5HiFiGANConfig,
    network=SpeechT5HiFiGAN,
    layouts=(
        _layout("transformers' HiFi-GAN (model_in_dim)", True, fold_scale),
        _layout("transformers' HiFi-GAN without normalisation", False, drop_normalisation),
    ),
    float32=lambda network: [*ends_and_snakes(network), network.get_submodule("center")],
)
