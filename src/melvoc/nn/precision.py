"""What to compute in.

In float16 or bfloat16 only what is inside a network: the weights and signals of all convolutions but the first and
the last. Measured with real HiFi-GAN weights (docs/gpu.md): a mel rounded to float16 costs 8 to 14 dB by itself, and a
last convolution in a half type adds noise where the sound is quiet. The parameters of snake activations stay float32
as well: they are frequencies and divisors, a few numbers a channel, and their arithmetic is float32 anyway.
"""

from __future__ import annotations

import torch
from torch import nn

from melvoc.errors import MelvocError
from melvoc.nn.alias_free import Snake

HALF = (torch.float16, torch.bfloat16)
FLOAT32_LAYERS = ("conv_pre", "conv_post")

HALF_ON_CUDA: dict[str, torch.dtype] = {}
"""Architectures whose sound in a half type was measured on a GPU and found unharmed. None has been measured so far
(docs/gpu.md says how, and what is missing): BigVGAN in bfloat16 is known to lose quality in other projects."""


def automatic_dtype(architecture: str, device: torch.device) -> torch.dtype:
    """The type that `dtype=None` means.

    Args:
        architecture: "bigvgan", "hifigan" or "vocos".
        device: where it will run.
    """
    return HALF_ON_CUDA.get(architecture, torch.float32) if device.type == "cuda" else torch.float32


def float32_parameters(network: nn.Module) -> set[int]:
    """The parameters that no half type may take, by `id`.

    With the others in a half type the network takes a float32 mel and gives a float32 wave.

    Args:
        network: BigVGAN or HiFi-GAN.

    Raises:
        MelvocError: another network, which has no half form.
    """
    first_and_last = [getattr(network, name, None) for name in FLOAT32_LAYERS]
    if not all(isinstance(layer, nn.Conv1d) for layer in first_and_last):
        raise MelvocError(
            f"{type(network).__name__} does not run in float16 or bfloat16 (its inverse STFT needs more, and it is "
            "fast as it is); leave dtype away"
        )
    kept = [layer for layer in network.modules() if isinstance(layer, Snake) or layer in first_and_last]
    return {id(parameter) for layer in kept for parameter in layer.parameters()}
