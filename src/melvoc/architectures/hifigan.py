"""HiFi-GAN's generator (Kong, Kim and Bae 2020, arXiv 2010.05646).

A mel is upsampled by transposed convolutions; after each, blocks of residual dilated convolutions with different
kernel sizes see the same signal, and their mean is passed on (multi-receptive-field fusion). The paper's V1, V2 and V3
are settings of one configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from melvoc.architecture import Architecture, Layout, NetworkConfig, Pin
from melvoc.errors import OptionError, quoted
from melvoc.nn.alias_free import Snake
from melvoc.nn.graph import Chain, Map, Mean, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.rates import upsampling
from melvoc.recipe import LossWeights, Recipe, convolutions
from melvoc.spectrogram.keys import NETWORK, unaccounted
from melvoc.spectrogram.spec import MelSpec

LEAKY_SLOPE = 0.1
LARGEST_SPAN = 1 << 14  # samples that a dilated kernel sees; the published ones see at most 51
LAST_SLOPE = 0.01  # the published code uses torch's default before conv_post; the weights were trained with it

PUBLISHED_NAMES = {"n_mels": "num_mels"}  # where a published config.json uses another name
IMPLIED = {"use_tanh_at_final": True, "use_bias_at_final": True}  # what a config.json may say of this network anyway


@dataclass(frozen=True, kw_only=True)
class HiFiGANConfig(NetworkConfig):
    """Hyperparameters of the generator. The defaults are V1's.

    Attributes:
        n_mels: mel bands of the input.
        upsample_rates: factor of each upsampling; their product is the hop length.
        upsample_kernel_sizes: taps of each transposed convolution, at least its rate.
        upsample_initial_channel: channels after the first convolution; each upsampling halves them.
        resblock: "1" (pairs of convolutions, V1 and V2) or "2" (single ones, V3).
        resblock_kernel_sizes: odd, one per block.
        resblock_dilation_sizes: the dilations of each block's convolutions.

    Raises:
        OptionError: the values do not describe a network.
    """

    n_mels: int = 80
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resblock not in ("1", "2"):
            raise OptionError(f"resblock={self.resblock!r}, but the published blocks are '1' and '2'")
        for one, other, what in (
            ("upsample_rates", "upsample_kernel_sizes", "upsampling"),
            ("resblock_kernel_sizes", "resblock_dilation_sizes", "block"),
        ):
            counts = len(getattr(self, one)), len(getattr(self, other))
            if counts[0] != counts[1]:
                raise OptionError(f"{one} has {counts[0]} entries and {other} {counts[1]}; each {what} needs both")
        for rate, taps in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if taps < rate:
                raise OptionError(
                    f"upsample_kernel_sizes has {taps} for rate {rate}, but a kernel shorter than its rate leaves "
                    f"samples without input; use {2 * rate}"
                )
        for taps, gaps in zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True):
            if taps % 2 == 0:
                raise OptionError(f"resblock_kernel_sizes has {taps}, but only odd kernels keep the length")
            if (taps - 1) * max(gaps) > LARGEST_SPAN:
                raise OptionError(
                    f"a kernel of {taps} taps, {max(gaps)} apart, sees over {LARGEST_SPAN} samples; lower the dilation"
                )
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise OptionError(
                f"upsample_initial_channel={self.upsample_initial_channel} cannot be halved "
                f"{len(self.upsample_rates)} times; use a multiple of {2 ** len(self.upsample_rates)}"
            )

    @property
    def hop_length(self) -> int:
        """Samples per mel frame: the product of the rates."""
        return math.prod(self.upsample_rates)

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        stages = range(len(self.upsample_rates) + 1)
        return max(self.width(stage) * math.prod(self.upsample_rates[:stage]) for stage in stages)

    def width(self, stage: int) -> int:
        """Channels after `stage` upsamplings."""
        return self.upsample_initial_channel >> stage

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> Self:
        """From a published `config.json`, whose other keys (training, mel) are ignored.

        Raises:
            OptionError: a key of the generator is missing, or one says what this network does not have.
        """
        keys = {entry.name: PUBLISHED_NAMES.get(entry.name, entry.name) for entry in fields(cls)}
        needed = {entry.name for entry in fields(HiFiGANConfig)}
        if missing := [key for name, key in keys.items() if name in needed and values.get(key) is None]:
            raise OptionError(f"the config has no {missing[0]!r}, which {cls.__name__} needs; is it a config.json?")
        implied = [key for key, value in IMPLIED.items() if values.get(key) is value]
        if odd := unaccounted(values, {*keys.values(), *implied}, NETWORK):
            raise OptionError(
                f"the config says {odd}={quoted(values[odd])}, which {cls.__name__} does not have; is it another "
                "network's?"
            )
        return cls(**{name: values[key] for name, key in keys.items() if values.get(key) is not None})


class HiFiGAN(nn.Module):
    """The generator, weight norm folded; parameters are named as in the published checkpoints.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = Conv1d(config.n_mels, config.width(0), 7)
        ups, resblocks = stages(config, ResBlock1 if config.resblock == "1" else ResBlock2, slope=LEAKY_SLOPE)
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(resblocks)
        self.conv_post = Conv1d(config.width(len(ups)), 1, 7, slope=LAST_SLOPE)
        initialise(self.ups, self.resblocks, self.conv_post)
        self.graph: Node = Chain((self.conv_pre, *fusion(ups, resblocks), self.conv_post, Map(torch.tanh)))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


def stages(
    config: HiFiGANConfig, block: Callable[[int, int, tuple[int, ...]], nn.Module], *, slope: float | None
) -> tuple[list[ConvTranspose1d], list[nn.Module]]:
    """The upsamplings, and the blocks that follow each of them, in order.

    Args:
        config: of the generator.
        block: makes a block from its channels, kernel size and dilations.
        slope: of the leaky ReLU before each upsampling; None for none.
    """
    ups: list[ConvTranspose1d] = []
    blocks: list[nn.Module] = []
    for stage, (rate, taps) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        ups.append(ConvTranspose1d(config.width(stage), config.width(stage + 1), taps, rate, slope=slope))
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
            blocks.append(block(config.width(stage + 1), kernel, dilations))
    return ups, blocks


def fusion(ups: Sequence[ConvTranspose1d], blocks: Sequence[nn.Module]) -> list[Node]:
    """Each upsampling, followed by the mean of its blocks (multi-receptive-field fusion)."""
    size = len(blocks) // len(ups)
    graphs = [cast(Node, block.graph) for block in blocks]
    groups = [tuple(graphs[i * size :][:size]) for i in range(len(ups))]
    return [node for up, branches in zip(ups, groups, strict=True) for node in (up, Mean(branches))]


def initialise(*parts: nn.Module) -> None:
    """Random weights as published: normally distributed with standard deviation 0.01 in each convolution."""
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            nn.init.normal_(module.weight, 0.0, 0.01)


def ends_and_snakes(network: nn.Module) -> list[nn.Module]:
    """The layers that stay float32 when the rest is in half precision.

    Rounding the mel to float16 alone costs 8 to 14 dB, and a last convolution in half precision adds noise where the
    sound is quiet (docs/gpu.md). The parameters of snakes are frequencies and divisors.
    """
    snakes = [module for module in network.modules() if isinstance(module, Snake)]
    return [network.get_submodule("conv_pre"), network.get_submodule("conv_post"), *snakes]


def inside(network: nn.Module) -> list[nn.Module]:
    """The layers that bfloat16 does no harm to in training: those between the first and the last convolution.

    These two stay float32: bfloat16's 8 bits would round the mel, and each sample of the wave.
    """
    return [layer for name in ("ups", "resblocks") for layer in network.get_submodule(name).children()]


class ResBlock1(nn.Module):
    """Residual pairs of convolutions, the first of each pair dilated.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one pair per entry.

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
        """Run on the complete signal `[B, C, N]`."""
        return self.graph(x)


class ResBlock2(nn.Module):
    """Residual dilated convolutions, one after another.

    Args:
        channels: C.
        kernel_size: taps of every convolution.
        dilations: one convolution per entry.

    Shape:
        `[B, C, N]` to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        convs = [Conv1d(channels, channels, kernel_size, dilation=gap, slope=LEAKY_SLOPE) for gap in dilations]
        self.convs = nn.ModuleList(convs)
        self.graph: Node = Chain(tuple(Residual(conv) for conv in convs))

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""
        return self.graph(x)


C = TypeVar("C", bound=HiFiGANConfig)


def fitted(config: type[C], width: int, spec: MelSpec) -> C:
    """A configuration for a spec: rates and kernels follow from its hop length.

    Args:
        config: the class, whose other fields keep their defaults.
        width: channels after the first convolution.
        spec: of the mels.

    Raises:
        SpecError: a hop length that is no product of upsampling rates.
    """
    rates, kernels = upsampling(spec.hop_length)
    return config(
        n_mels=spec.n_mels, upsample_rates=rates, upsample_kernel_sizes=kernels, upsample_initial_channel=width
    )


RECIPE = Recipe(  # as published (config_v1.json, config_v2.json), but for what docs/training.md lists
    sizes={  # V2 and V1
        "small": lambda spec: fitted(HiFiGANConfig, 128, spec),
        "base": lambda spec: fitted(HiFiGANConfig, 512, spec),
    },
    discriminators={"mpd": 1.0, "msd": 1.0},
    weights=LossWeights(adversarial=1.0, feature=2.0, mel=45.0),
    segment=16384,
    learning_rate=2e-4,
    betas=(0.8, 0.99),
    weight_norm=convolutions,
    autocast=inside,
    default=True,
)


ARCHITECTURE = Architecture(
    name="hifigan",
    title="HiFi-GAN",
    config=HiFiGANConfig,
    network=HiFiGAN,
    layouts=(
        Layout(
            title="HiFi-GAN's config.json (upsample_rates)",
            recognises=lambda values: (
                "upsample_rates" in values and not {"activation", "snake_logscale", "model_in_dim"} & set(values)
            ),
            config=HiFiGANConfig.from_published,
            spec=MelSpec.from_config,
            files=((r"(generator|g_)[^/]*", "config.json"),),
        ),
    ),
    pins=(
        Pin(  # jik876's UNIVERSAL_V1/g_02500000, in a repository that holds the same file under another name
            name="hifigan_universal_v1",
            repo="Voicemod/fastspeech2-en-200_speaker-cv4",
            filename="hifigan.bin",
            revision="8229178c8e9d34c6449eaed7f0e7428d0241506a",
            bytes=55788858,
            sha256="771eaf4876485a35e25577563d390c262e23c2421e4a8c929eacfde34a5b7a60",
            sources="two or more sources",
            config=HiFiGANConfig(),
            spec=MelSpec.preset("hifigan_universal_v1"),
            parameters=13_926_017,
        ),
    ),
    float32=ends_and_snakes,
    recipe=RECIPE,
    speed=lambda config: "medium" if config.upsample_initial_channel > 128 else "fast",
)
