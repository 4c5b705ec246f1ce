"""PulseNet: an architecture plugin for melvoc, small enough to read at a glance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from melvoc import MelSpec
from melvoc.architecture import Architecture, Layout, NetworkConfig
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.recipe import LossWeights, Recipe, convolutions


@dataclass(frozen=True, kw_only=True)
class PulseConfig(NetworkConfig):
    """Hyperparameters of the network.

    Attributes:
        n_mels: mel bands of the input.
        hop_length: samples per mel frame.
        width: channels inside.
    """

    n_mels: int = 40
    hop_length: int = 128
    width: int = 64


class PulseNet(nn.Module):
    """A convolution over frames, then a transposed convolution to samples.

    Args:
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]` in [-1, 1].
    """

    def __init__(self, config: PulseConfig) -> None:
        super().__init__()
        self.config = config
        self.frames = Conv1d(config.n_mels, config.width, 7)
        self.pulse = ConvTranspose1d(config.width, 1, 2 * config.hop_length, config.hop_length, slope=0.1)
        self.graph: Node = Chain((self.frames, self.pulse, Map(torch.tanh)))

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel `[B, n_mels, T]`."""
        return self.graph(mel)


def published_config(values: dict[str, int]) -> PulseConfig:
    """The network's configuration in a published `pulse.json`."""
    return PulseConfig(n_mels=values["bands"], hop_length=values["hop"], width=values["width"])


def published_spec(values: dict[str, int]) -> MelSpec:
    """The mel of a published `pulse.json`: windows of four hops."""
    hop = values["hop"]
    return MelSpec(sample_rate=values["rate"], n_fft=4 * hop, hop_length=hop, n_mels=values["bands"])


PULSE = Architecture(
    name="pulse",
    title="PulseNet",
    config=PulseConfig,
    network=PulseNet,
    layouts=(
        Layout(
            title="PulseNet's pulse.json (bands, hop, width, rate)",
            recognises=lambda values: {"bands", "hop", "width", "rate"} <= set(values),
            config=published_config,
            spec=published_spec,
            files=((r"pulse\.pt", "pulse.json"),),
        ),
    ),
    float32=lambda network: [network.get_submodule("frames"), network.get_submodule("pulse")],
    recipe=Recipe(
        sizes={"small": lambda spec: PulseConfig(n_mels=spec.n_mels, hop_length=spec.hop_length)},
        discriminators={"mpd": 1.0},
        weights=LossWeights(adversarial=1.0, feature=2.0, mel=45.0),
        segment=16384,
        learning_rate=2e-4,
        betas=(0.8, 0.99),
        weight_norm=convolutions,
    ),
)
