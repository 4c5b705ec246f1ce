"""BigVGAN's generator, v1 and v2 (Lee et al., ICLR 2023, arXiv 2206.04658).

HiFi-GAN's, with alias-free snake activations instead of the leaky ReLUs ("anti-aliased multi-periodicity", AMP).
v2 ends with a clamp and no bias where v1 has tanh and a bias.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from melvoc.architecture import Architecture, Layout, Pin
from melvoc.architectures.hifigan import HiFiGANConfig, ends_and_snakes, fitted, fusion, initialise, stages
from melvoc.errors import OptionError
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.graph import Chain, Map, Node, Residual
from melvoc.nn.layers import Conv1d
from melvoc.recipe import LossWeights, Recipe, convolutions
from melvoc.spectrogram.spec import MelSpec


@dataclass(frozen=True, kw_only=True)
class BigVGANConfig(HiFiGANConfig):
    """HiFi-GAN's fields, and what BigVGAN adds. The defaults apply to a published config without the key (v1).

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
            raise OptionError(f"activation={self.activation!r}, but the published ones are 'snake' and 'snakebeta'")

    def snake(self, channels: int) -> AliasFreeSnake:
        """An activation for the given number of channels."""
        return AliasFreeSnake(channels, kind=self.activation, logscale=self.snake_logscale)


class BigVGAN(nn.Module):
    """The generator, weight norm folded; parameters are named as in the published checkpoints.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = Conv1d(config.n_mels, config.width(0), 7)
        block = functools.partial(AMPBlock1 if config.resblock == "1" else AMPBlock2, config)
        ups, resblocks = stages(config, block, slope=None)
        self.ups = nn.ModuleList(nn.ModuleList([up]) for up in ups)  # the published names are ups.0.0, ups.1.0, ...
        self.resblocks = nn.ModuleList(resblocks)
        self.activation_post = config.snake(config.width(len(ups)))
        self.conv_post = Conv1d(config.width(len(ups)), 1, 7, bias=config.use_bias_at_final)
        initialise(self.ups, self.resblocks, self.conv_post)
        final = torch.tanh if config.use_tanh_at_final else functools.partial(torch.clamp, min=-1.0, max=1.0)
        body = (self.conv_pre, *fusion(ups, resblocks), self.activation_post, self.conv_post)
        self.graph: Node = Chain((*body, Map(final)))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


class AMPBlock1(nn.Module):
    """Residual pairs of convolutions, the first of each pair dilated, each after an alias-free activation.

    Args:
        config: determines the kind of activation.
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one pair per entry.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, config: BigVGANConfig, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        firsts = [Conv1d(channels, channels, kernel_size, dilation=gap) for gap in dilations]
        seconds = [Conv1d(channels, channels, kernel_size) for _ in dilations]
        snakes = [config.snake(channels) for _ in range(2 * len(dilations))]
        self.convs1, self.convs2 = nn.ModuleList(firsts), nn.ModuleList(seconds)
        self.activations = nn.ModuleList(snakes)
        layers = zip(snakes[::2], firsts, snakes[1::2], seconds, strict=True)
        self.graph: Node = Chain(tuple(Residual(Chain(pair)) for pair in layers))

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        return self.graph(x)


class AMPBlock2(nn.Module):
    """Residual dilated convolutions, each after an alias-free activation.

    Args:
        config: determines the kind of activation.
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one convolution per entry.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, config: BigVGANConfig, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        convs = [Conv1d(channels, channels, kernel_size, dilation=gap) for gap in dilations]
        snakes = [config.snake(channels) for _ in dilations]
        self.convs, self.activations = nn.ModuleList(convs), nn.ModuleList(snakes)
        self.graph: Node = Chain(tuple(Residual(Chain(pair)) for pair in zip(snakes, convs, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        return self.graph(x)


_512X = ((8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), 1536)
_256X = ((4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4), 1536)
_BASE = ((8, 8, 2, 2), (16, 16, 4, 4), 512)
_V2_SHAPES = {512: _512X, 256: _256X}


def _pin(
    name: str, n_mels: int, shape: tuple[tuple[int, ...], tuple[int, ...], int], parameters: int, *,
    revision: str | None, size: int, sha256: str | None, sources: str = "",
) -> Pin:  # fmt: skip
    v1 = "_v2_" not in name
    config = BigVGANConfig(
        n_mels=n_mels, upsample_rates=shape[0], upsample_kernel_sizes=shape[1], upsample_initial_channel=shape[2],
        use_tanh_at_final=v1, use_bias_at_final=v1,
    )  # fmt: skip
    return Pin(
        name=name, repo=f"nvidia/{name}", filename="bigvgan_generator.pt", revision=revision, bytes=size, sha256=sha256,
        sources=sources, config=config, spec=MelSpec.preset(name), parameters=parameters,
    )  # fmt: skip


TWO, ONE = "two or more sources", "one source"
# Identities were looked up in public places in November 2026.
PINS = (
    _pin(
        "bigvgan_v2_44khz_128band_512x", 128, _512X, 122_152_752, size=489041291, sources=TWO,
        revision="95a9d1dcb12906c03edd938d77b9333d6ded7dfb",
        sha256="d9fe7ec6bd0b44ed9d66973d5012d8181c1570b01e5c72df51973e241dccd357",
    ),
    _pin(
        "bigvgan_v2_44khz_128band_256x", 128, _256X, 112_715_568, size=451292555, revision=None, sha256=None,
    ),
    _pin(
        "bigvgan_v2_24khz_100band_256x", 100, _256X, 112_414_512, size=450088331, sources=TWO,
        revision="c329ede9e9bbc100ddf5c91e2330a61921262370",
        sha256="6f9c5715550c9d0f11159ceb8935638da5aeb19e27d1e63677632df095e376f5",
    ),
    _pin(
        "bigvgan_v2_22khz_80band_256x", 80, _256X, 112_199_472, size=449228171, sources=TWO,
        revision="633ff708ed5b74903e86ff1298cf4a98e921c513",
        sha256="e95ba25972d3de0628d99cd156e9315a9c018899bf739988959ebe3544080ced",
    ),
    _pin(
        "bigvgan_v2_22khz_80band_fmax8k_256x", 80, _256X, 112_199_472, size=449228171, sha256=None,
        revision="a9d8b711c344f3c49cc1a05d0c8b6741cf733aa8",
    ),
    _pin(
        "bigvgan_24khz_100band", 100, _256X, 112_414_513, size=450077473, revision=None, sha256=None,
    ),
    _pin(
        "bigvgan_22khz_80band", 80, _256X, 112_199_473, size=449217313, sources=ONE,
        revision="a628d29c709b442509d8c383838e6d86d4f159ef",
        sha256="88a217b20d46f1607f1f7c298673d73ce0f20443ccc1e90b3cc9b776c6144f05",
    ),
    _pin(
        "bigvgan_base_24khz_100band", 100, _BASE, 14_015_041, size=56297637, sources=TWO,
        revision="0f6305d0e010eaafdbf649978f46c3b5af099343",
        sha256="ca8bced4d3ef588e654742f732455c16abb004e49d7d3bf03edade84d3e982f2",
    ),
    _pin(
        "bigvgan_base_22khz_80band", 80, _BASE, 13_943_361, size=56010917, sources=ONE,
        revision="760f0c694aba68b8c200dd52ffd3b4ecafa7028c",
        sha256="e2a93f92971e1b6750d8f9b701121597cd271e473e6c189c8072be7080047735",
    ),
)  # fmt: skip


def sized_v2(width: int, spec: MelSpec) -> BigVGANConfig:
    """A configuration of v2 for a spec, with the published rates where there are such.

    Args:
        width: channels after the first convolution.
        spec: of the mels.

    Raises:
        SpecError: a hop length that is no product of upsampling rates.
    """
    config = replace(fitted(BigVGANConfig, width, spec), use_tanh_at_final=False, use_bias_at_final=False)
    if spec.hop_length not in _V2_SHAPES:
        return config
    rates, kernels, _ = _V2_SHAPES[spec.hop_length]
    return replace(config, upsample_rates=rates, upsample_kernel_sizes=kernels)


V2 = Recipe(  # bigvgan_v2_44khz_128band_512x's config.json, which goes on from the published optimizers
    sizes={
        "small": lambda spec: sized_v2(128, spec),
        "base": lambda spec: sized_v2(512, spec),
        "large": lambda spec: sized_v2(1536, spec),
    },
    discriminators={"mpd": 1.0, "cqt": 1.0},
    weights=LossWeights(adversarial=1.0, feature=2.0, multi_scale_mel=15.0),
    segment=65536,
    learning_rate=1e-4,
    betas=(0.8, 0.99),
    lr_decay=0.9999996,
    lr_decay_steps=1,
    continues=True,
    weight_norm=convolutions,
)

RECIPE = Recipe(  # BigVGAN-base's (v1), but for what docs/training.md lists
    sizes={
        "small": lambda spec: fitted(BigVGANConfig, 128, spec),
        "base": lambda spec: fitted(BigVGANConfig, 512, spec),
    },
    discriminators={"mpd": 1.0, "mrd": 1.0},
    weights=LossWeights(adversarial=1.0, feature=2.0, mel=45.0),
    segment=8192,
    learning_rate=1e-4,
    betas=(0.8, 0.99),
    profiles={"bigvgan_v2": V2},
    weight_norm=convolutions,
)

ARCHITECTURE = Architecture(
    name="bigvgan",
    title="BigVGAN",
    config=BigVGANConfig,
    network=BigVGAN,
    layouts=(
        Layout(
            title="BigVGAN's config.json (activation)",
            recognises=lambda values: "activation" in values or "snake_logscale" in values,
            config=BigVGANConfig.from_published,
            spec=MelSpec.from_config,
            not_weights=re.compile(r"(\.upsample|\.lowpass)\.filter$"),  # the activations' filters
            files=((r"bigvgan_generator\.pt", "config.json"),),
        ),
    ),
    pins=PINS,
    float32=ends_and_snakes,
    recipe=RECIPE,
    speed=lambda config: "slow" if config.upsample_initial_channel > 512 else "medium",
)
