"""Engines: the same networks with other arithmetic, and what suits a device.

- `cpu`: fused and transform-domain kernels (numba); `cuda`: Triton kernels and CUDA graphs; `mps`: in pieces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from melvoc.nn.graph import Engine

if TYPE_CHECKING:
    from melvoc.nn.engines.cpu.plan import CostModel

# Values of the largest signal of a block on a CPU. Below, what a block costs besides its arithmetic counts; above, time
# changes little and memory grows (docs/performance.md).
_BLOCK_VALUES = 1_600_000
_MOST_FRAMES = 1024
_CUDA_FRAMES = 2048


def make_engine(
    network: nn.Module,
    *,
    device: torch.device,
    dtype: torch.dtype,
    hop_length: int,
    choice: Literal["auto", "torch"],
    memory: Literal["auto", "low"],
    costs: Callable[[], CostModel | None],
) -> Engine:
    """The engine for a network where it is now.

    Args:
        network: as a whole.
        device: of its weights.
        dtype: of its weights.
        hop_length: samples per frame.
        choice: "auto" for the fastest exact one, "torch" for plain torch.
        memory: "low" to hold less than 1.3 times the weights, slower.
        costs: those that were measured on this machine, if any; asked for where they matter.
    """
    name = engine_name(device, dtype, choice)
    if name != "torch":
        _count_fused_steps()
    if name == "mps":
        from melvoc.nn.engines.mps import make_mps_engine

        return make_mps_engine(network, hop_length)
    if name == "cpu":
        from melvoc.nn.engines.cpu import make_cpu_engine

        return make_cpu_engine(memory, costs())
    if name == "cuda":
        from melvoc.nn.engines.cuda import make_cuda_engine

        return make_cuda_engine()
    return Engine()


@functools.cache
def _count_fused_steps() -> None:
    """Let torch count what its fused optimizers write, which by themselves they do not.

    Else what engines have prepared would outlive the weights that it was made of.
    """

    def stepped(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"] if group.get("fused") else ():
                if weight.grad is not None and not weight.is_inference():
                    torch.autograd.graph.increment_version(weight)

    register_optimizer_step_post_hook(stepped)


def engine_name(device: torch.device, dtype: torch.dtype, choice: Literal["auto", "torch"]) -> str:
    """Which engine suits a device: "cpu", "cuda", "mps", or "torch" for the plain one."""
    if device.type == "mps":
        return "mps"
    fast = device.type == "cuda" or (device.type == "cpu" and dtype == torch.float32)
    return device.type if choice == "auto" and fast else "torch"


def block_frames(device: torch.device, *, hop_length: int, frame_values: int) -> int:
    """Frames per block, at most: what stays in a CPU's caches, fills a GPU, or is what MPS takes at a time anyway.

    Args:
        device: that runs the network.
        hop_length: samples per frame.
        frame_values: values per frame of the network's largest signal; 0 where that is not known.
    """
    if device.type == "cuda":
        return _CUDA_FRAMES
    if device.type == "mps":
        from melvoc.nn.engines.mps import SAMPLES

        return max(1, SAMPLES // hop_length)
    return min(_MOST_FRAMES, max(16, _BLOCK_VALUES // frame_values)) if frame_values else 128
