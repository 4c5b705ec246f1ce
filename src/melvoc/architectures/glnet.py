"""Griffin-Lim corrected by a network, for small sets of sounds: it begins where Griffin-Lim ends, and learns the rest.

A sound is made without any weights, by rounds of refinement from random phases (`melvoc.post.refine`); ConvNeXt (Liu
et al. 2022, arXiv 2201.03545) then corrects the magnitudes of its short frames, which the long frames of the mel say
little about. The idea of a network beside Griffin and Lim's rounds is Masuyama et al.'s (2019, arXiv 1903.03971); here
it stands after them, and before training it changes nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError, quoted
from melvoc.nn.convnext import ConvNeXt, pointwise
from melvoc.nn.framing import Repeat, Select, ToFrames, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, concatenate
from melvoc.nn.layers import FrameLinear
from melvoc.nn.stft import STFT, InverseSTFT
from melvoc.post.refine import MOST
from melvoc.recipe import LossWeights, Recipe
from melvoc.rounded import Rounded
from melvoc.spectrogram.spec import MelSpec

QUIETEST = 1e-5  # of the magnitudes that the network sees
FURTHEST = 3.0  # nepers by which it corrects one


@dataclass(frozen=True, kw_only=True)
class GLNetConfig(NetworkConfig):
    """Hyperparameters of the network.

    Attributes:
        n_mels: mel bands of the input.
        mel: the mel that it inverts: `MelSpec.to_dict` as JSON. By default, Griffin-Lim's.
        rounds: of refinement, before the network.
        n_fft: samples of the frames that are corrected, even.
        stft_hop_length: samples from one of them to the next, at most half of that; the mel's hop is a multiple of it.
        dim: channels of the backbone.
        intermediate_dim: channels inside its blocks.
        num_layers: ConvNeXt blocks.

    Raises:
        OptionError: the values do not describe a network.
    """

    n_mels: int = 128
    mel: str = json.dumps(MelSpec.preset("griffinlim").to_dict())
    rounds: int = 32
    n_fft: int = 512
    stft_hop_length: int = 128
    dim: int = 192
    intermediate_dim: int = 576
    num_layers: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        spec, hop = self.spec, self.stft_hop_length
        if spec.n_mels != self.n_mels:
            raise OptionError(f"n_mels={self.n_mels}, but its mel has {spec.n_mels} bands; they belong together")
        if self.rounds > MOST:
            raise OptionError(f"rounds={self.rounds}, but at most {MOST} are made")
        for n_fft, step in ((self.n_fft, hop), (spec.n_fft, spec.hop_length)):
            if n_fft % 2 or step > n_fft // 2:
                raise OptionError(
                    f"frames of {n_fft} samples every {step}, but they are even, and the hop at most half"
                )
        if spec.hop_length % hop:
            raise OptionError(f"stft_hop_length={hop}, but it is a part of the mel's hop_length={spec.hop_length}")

    @property
    def spec(self) -> MelSpec:
        """The mel that it inverts."""
        return _spec(self.mel)

    @property
    def hop_length(self) -> int:
        """Samples of sound per mel frame: the mel's."""
        return self.spec.hop_length

    @property
    def frame_values(self) -> int:
        """Values per mel frame of the largest signal inside."""
        faster = self.hop_length // self.stft_hop_length
        return max(2 * self.spec.n_bins, faster * max(self.intermediate_dim, self.n_fft + 2 + self.n_mels))


@functools.lru_cache(maxsize=16)
def _spec(mel: str) -> MelSpec:
    """Read once: every call asks for the hop."""
    try:
        return MelSpec.from_dict(json.loads(mel))
    except (ValueError, RecursionError) as error:  # a SpecError is a ValueError
        raise OptionError(f"mel={quoted(mel)}, but it is a MelSpec as JSON: {error}") from None


class GLNet(nn.Module):
    """The network.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`, not clamped.
    """

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        self.config = config
        bins, bands, hop = config.n_fft // 2 + 1, config.n_mels, config.hop_length
        self.stft = STFT(config.n_fft, config.stft_hop_length, center=False)
        self.backbone = ConvNeXt(bins + bands, config.dim, config.intermediate_dim, config.num_layers)
        self.out = FrameLinear(config.dim, bins)
        self.istft = InverseSTFT(config.n_fft, config.stft_hop_length, center=False)
        nn.init.zeros_(self.out.weight)  # nothing is corrected before training
        nn.init.zeros_(self.out.bias)
        griffin_lim = Chain((Rounded(config.spec, config.rounds), ToFrames(hop)))
        spectra = Chain((Select(bands, bands + hop), ToSamples(hop), self.stft))
        seen = Chain((Map(Features(bins)), *self.backbone.nodes, Map(self.out)))
        self.graph: Node = Chain(
            (
                Branches((Chain(), griffin_lim), concatenate),  # [mel, samples of the frame]
                Branches((spectra, Chain((Select(0, bands), Repeat(hop // config.stft_hop_length)))), concatenate),
                Branches((seen, Select(0, 2 * bins)), corrected),
                self.istft,
            )
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Run on the complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


@dataclass(frozen=True)
class Features:
    """What the network sees of a frame: the logarithms of its magnitudes, and the mel.

    Shape:
        `[B, 2 * bins + n_mels, T]` to `[B, bins + n_mels, T]`.
    """

    bins: int

    def __call__(self, x: Tensor) -> Tensor:
        """Of each frame."""
        real, imaginary, mel = x.split([self.bins, self.bins, x.shape[1] - 2 * self.bins], dim=1)
        powers = real.square() + imaginary.square()
        return torch.cat([0.5 * powers.clamp(min=QUIETEST**2).log(), mel], dim=1)


def corrected(parts: Iterable[Tensor]) -> Tensor:
    """A spectrum with its magnitudes corrected: `[B, bins, T]` in nepers and `[B, 2 * bins, T]` to the latter."""
    nepers, spectrum = parts
    gains = nepers.clamp(-FURTHEST, FURTHEST).exp()
    return torch.cat([gains, gains], dim=1) * spectrum


def sized(dim: int, num_layers: int, spec: MelSpec) -> GLNetConfig:
    """A configuration for a spec: frames as long as its hop, every quarter of it.

    Raises:
        SpecError: a hop that is no multiple of 4, or frames that do not overlap enough.
    """
    if spec.hop_length % 4:
        raise SpecError(
            f"hop_length={spec.hop_length}, but GLNet corrects quarters of a hop; take a multiple of 4, "
            "or another architecture"
        )
    try:
        return GLNetConfig(
            n_mels=spec.n_mels,
            mel=json.dumps(spec.to_dict()),
            n_fft=spec.hop_length,
            stft_hop_length=spec.hop_length // 4,
            dim=dim,
            intermediate_dim=3 * dim,
            num_layers=num_layers,
        )
    except OptionError as error:
        raise SpecError(
            f"GLNet works in the mel's frames: {error}; change the spec, or take another architecture"
        ) from error


ARCHITECTURE = Architecture(
    name="glnet",
    title="GLNet",
    config=GLNetConfig,
    network=GLNet,
    recipe=Recipe(
        sizes={"small": lambda spec: sized(192, 6, spec), "base": lambda spec: sized(384, 8, spec)},
        discriminators={"mpd": 1 / 5, "mrd": 0.1 / 3},
        weights=LossWeights(multi_scale_mel=15.0),
        segment=16384,
        learning_rate=1e-3,
        betas=(0.8, 0.95),
        autocast=pointwise,
        quick=True,
    ),
    speed=lambda config: "medium" if config.dim <= 192 else None,
)
