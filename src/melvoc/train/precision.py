"""bfloat16 in training: where it is faster, and layers that compute in it inside a network that does not."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melvoc.train.config import TrainConfig

_CPUINFO = Path("/proc/cpuinfo")


def halved(config: TrainConfig, device: torch.device) -> bool:
    """Whether a run computes in bfloat16 where its recipe allows it: by the configuration, else on CUDA and on CPUs
    that multiply matrices in bfloat16 (AMX)."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return device.type == "cuda" or (device.type == "cpu" and _amx())


def _amx() -> bool:
    """Whether this CPU has AMX for bfloat16; False where the system does not say.

    With less (AVX-512's dot products) bfloat16 convolutions were not measured.
    """
    with suppress(OSError):
        return re.search(r"^flags\s*:.*\bamx_bf16\b", _CPUINFO.read_text(), re.MULTILINE) is not None
    return False


def compute_in_bfloat16(layer: nn.Module, device: torch.device) -> None:
    """From now on, run a layer under bfloat16 autocast; what is around it stays as it is.

    Args:
        layer: its weights stay float32.
        device: that it runs on.
    """
    entered: list[torch.autocast] = []

    def enter(module: nn.Module, args: Any) -> None:
        entered.append(torch.autocast(device.type, dtype=torch.bfloat16))
        entered[-1].__enter__()

    def leave(module: nn.Module, args: Any, output: Tensor) -> None:
        entered.pop().__exit__(None, None, None)

    layer.register_forward_pre_hook(enter)
    layer.register_forward_hook(leave, always_call=True)  # after an error, too
