"""The golden networks, and small random ones, for several test modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.neural import NeuralVocoder
from melvoc.registry import own_architectures
from melvoc.spectrogram.spec import MelSpec
from melvoc.vocoder import Vocoder

RECORDS = {record.network: record for record in own_architectures()}
GOLDEN = Path(__file__).parent / "golden"
TINY = ("bigvgan_v2_tiny", "bigvgan_v1_tiny", "bigvgan_resblock2_snake_tiny", "vocos_tiny")


def folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm folded, plainly: an oracle for the converter, and independent of it."""
    result = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("generator.")
        if name.endswith(".weight_g"):
            direction = tensors[key[:-1] + "v"].double()
            norm = direction.flatten(1).norm(dim=1).view(-1, 1, 1)
            result[name.removesuffix("_g")] = (tensor.double() * direction / norm).float()
        elif not name.endswith((".weight_v", ".filter", "istft.window")):
            result[name] = tensor
    return result


def golden_network(folder: Path, name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, its mel `[B, n_mels, T]` and the published code's wave `[B, 1, N]`."""
    config = json.loads((folder / f"{name}.json").read_text())
    tensors = load_file(folder / f"{name}.safetensors")
    mel, wave = tensors.pop("mel"), tensors.pop("wav")
    network: nn.Module
    if name.startswith("bigvgan"):
        network = BigVGAN(BigVGANConfig.from_published(config))
    elif name.startswith("hifigan"):
        network = HiFiGAN(HiFiGANConfig.from_published(config))
    else:
        network = Vocos(VocosConfig.from_published(config))
    network.load_state_dict(folded(tensors), strict=True)
    return network.eval(), mel, wave if wave.dim() == 3 else wave[:, None]


def pieces(x: Tensor, cuts: list[int]) -> list[Tensor]:
    """Cut along time at the given places (taken into the signal), empty pieces included."""
    places = sorted(min(cut, x.shape[-1]) for cut in cuts)
    return [x[..., a:b] for a, b in zip([0, *places], [*places, x.shape[-1]], strict=True)]


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep the signal alive through every layer, snakes included, and the wave below 1 like speech.

    With the last layer at full size three samples of four would sit in the clamp, and rounding errors of the rest
    would be those of a wave several times too loud.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel() if "ups" not in name else parameter.shape[0] * parameter.shape[2] / 2
                gain = 0.1 if name.startswith("conv_post") else 1.0
                parameter.normal_(0, gain * fan_in**-0.5, generator=generator)
            else:
                parameter.normal_(0, 0.2, generator=generator)
    return network.eval()


SPECS = {
    "bigvgan_v2_tiny": "bigvgan_v2_44khz_128band_512x",
    "bigvgan_v1_tiny": "bigvgan_v2_24khz_100band_256x",
    "bigvgan_resblock2_snake_tiny": "hifigan_22khz_80band_256x",
    "vocos_tiny": "vocos_24khz_100band",
}


def neural(network: Any, **options: Any) -> NeuralVocoder:
    """A vocoder of one of melvoc's networks, with its record."""
    return NeuralVocoder(network, architecture=RECORDS[type(network)], **options)


def vocoder(name: str, engine: str = "auto") -> NeuralVocoder:
    network, _, _ = golden_network(GOLDEN, name)
    return neural(network, name=name, spec=MelSpec.preset(SPECS[name]), engine=engine)


def random_mel(voc: Vocoder, frames: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(batch, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(seed))
    return 2 * noise - 4


VOCODERS = {name: vocoder(name) for name in TINY}
