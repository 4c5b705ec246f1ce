"""iSTFTNet (Kaneko et al., ICASSP 2022, arXiv 2203.02395): HiFi-GAN's first stages, then a small inverse STFT.

The last upsamplings are replaced: the network makes magnitudes and phases of short frames, 16 samples every 4 in the
published ones. The paper's C8C8I has two upsamplings by 8 before it. Parameters are named as in the public
implementation (rishikksh20/iSTFTNet-pytorch).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from melvoc.architecture import Architecture, Layout
from melvoc.architectures.hifigan import (
    LAST_SLOPE,
    LEAKY_SLOPE,
    RECIPE,
    HiFiGANConfig,
    ResBlock1,
    ResBlock2,
    ends_and_snakes,
    fusion,
    initialise,
    stages,
)
from melvoc.errors import OptionError, SpecError
from melvoc.nn.framing import Pad
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import Conv1d
from melvoc.nn.rates import upsampling
from melvoc.nn.stft import InverseSTFT, LogPolar
from melvoc.spectrogram.spec import MelSpec

HOPS = range(2, 17)  # of an inverse STFT that is fitted to a spec; it has frames of four hops, as published
OWN_KEYS = ("gen_istft_n_fft", "gen_istft_hop_size")  # in a config.json, beside HiFi-GAN's


@dataclass(frozen=True, kw_only=True)
class ISTFTNetConfig(HiFiGANConfig):
    """Hyperparameters of the generator: HiFi-GAN's, and the inverse STFT's. The defaults are those of C8C8I.

    Attributes:
        gen_istft_n_fft: samples per frame of the inverse STFT, even.
        gen_istft_hop_size: samples from one of its frames to the next, at most half of that.

    Raises:
        OptionError: the values do not describe a network.
    """

    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16)
    gen_istft_n_fft: int = 16
    gen_istft_hop_size: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        n_fft, hop = self.gen_istft_n_fft, self.gen_istft_hop_size
        if n_fft % 2 or hop > n_fft // 2:
            raise OptionError(
                f"gen_istft_n_fft={n_fft} and gen_istft_hop_size={hop}, but n_fft is even, and the hop at most its half"
            )

    @property
    def hop_length(self) -> int:
        """Samples per mel frame: the product of the rates and the hop of the inverse STFT."""
        return math.prod(self.upsample_rates) * self.gen_istft_hop_size

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        return max(super().frame_values, math.prod(self.upsample_rates) * (self.gen_istft_n_fft + 2))


class ISTFTNet(nn.Module):
    """The generator, weight norm folded.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`, not clamped.
    """

    def __init__(self, config: ISTFTNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = Conv1d(config.n_mels, config.width(0), 7)
        ups, resblocks = stages(config, ResBlock1 if config.resblock == "1" else ResBlock2, slope=LEAKY_SLOPE)
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(resblocks)
        self.conv_post = Conv1d(config.width(len(ups)), config.gen_istft_n_fft + 2, 7, slope=LAST_SLOPE)
        self.istft = InverseSTFT(config.gen_istft_n_fft, config.gen_istft_hop_size, trim=True)
        initialise(self.ups, self.resblocks, self.conv_post)
        # F frames of a centred inverse STFT make F - 1 hops, so there is one more, mirrored before the first one.
        tail = (Pad(1, 0, "reflect"), self.conv_post, Map(LogPolar(sine=True)), self.istft)
        self.graph: Node = Chain((self.conv_pre, *fusion(ups, resblocks), *tail))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


def mel_of(values: Mapping[str, Any]) -> MelSpec:
    """The mel of a published `config.json`, which has HiFi-GAN's keys for it.

    Raises:
        SpecError: no mel is described, or one that is not supported.
    """
    return MelSpec.from_config({key: value for key, value in values.items() if key not in OWN_KEYS})


def sized(width: int, spec: MelSpec) -> ISTFTNetConfig:
    """A configuration for a spec: the fewest upsamplings, and the hop of the inverse STFT next to C8C8I's 4.

    Two upsamplings by 8 lead to 256 samples with a hop of 4, and to 512 with a hop of 8.

    Args:
        width: channels after the first convolution.
        spec: of the mels.

    Raises:
        SpecError: a hop length that is no product of upsampling rates and such a hop.
    """
    found = []
    for hop in HOPS:
        if spec.hop_length % hop == 0:
            with suppress(SpecError):
                rates, kernels = upsampling(spec.hop_length // hop)
                found.append((len(rates), abs(hop - 4), hop, rates, kernels))
    if not found:
        raise SpecError(
            f"hop_length={spec.hop_length}, but iSTFTNet makes {HOPS[0]} to {HOPS[-1]} samples of each frame that its "
            "upsamplings lead to; take a hop_length such as 256 or 512, or give the generator's configuration"
        )
    *_, hop, rates, kernels = min(found)
    return ISTFTNetConfig(
        n_mels=spec.n_mels,
        upsample_rates=rates,
        upsample_kernel_sizes=kernels,
        upsample_initial_channel=width,
        gen_istft_n_fft=4 * hop,
        gen_istft_hop_size=hop,
    )


ARCHITECTURE = Architecture(
    name="istftnet",
    title="iSTFTNet",
    config=ISTFTNetConfig,
    network=ISTFTNet,
    layouts=(
        Layout(
            title="iSTFTNet's config.json (upsample_rates, gen_istft_n_fft, gen_istft_hop_size)",
            recognises=lambda values: {"upsample_rates", *OWN_KEYS} <= set(values),
            config=ISTFTNetConfig.from_published,
            spec=mel_of,
            files=((r"(generator|g_)[^/]*", "config.json"),),
        ),
    ),
    float32=lambda network: [*ends_and_snakes(network), network.get_submodule("istft")],
    recipe=dataclasses.replace(  # the paper's: HiFi-GAN's
        RECIPE,
        sizes={"small": lambda spec: sized(128, spec), "base": lambda spec: sized(512, spec)},
        autocast=None,  # of a spectrum in bfloat16 there is no inverse
        default=False,
    ),
    speed=lambda config: "medium" if config.upsample_initial_channel > 128 else "fast",
)
