"""What to compute in, where the user did not say."""

from __future__ import annotations

import torch

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
