"""Torch's own operations beside the engine's kernels, on short pieces, without waking torch's threads.

For 2048 values of an exponential, or for 32,000 values that are copied, torch wakes its threads, which then wait for
more for milliseconds, on the processors that the kernels want next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melvoc.nn.graph import Machine, join

SERIAL = 32_000  # values that torch copies or sums without waking its threads
FEW_FRAMES = 64


def parts_of(wave: Tensor) -> Sequence[Tensor]:
    """A wave `[B, C, n]` in parts that torch works on without its threads."""
    return (wave,) if wave.numel() <= SERIAL else wave.split(max(1, SERIAL // (wave.shape[0] * wave.shape[1])), dim=-1)


def short(x: Tensor) -> bool:
    """Whether x is a piece that must not wake torch's threads."""
    return x.device.type == "cpu" and 0 < x.shape[-1] <= FEW_FRAMES and not torch.is_grad_enabled()


@dataclass(frozen=True)
class FrameByFrame:
    """A function `[B, C, T]` to `[B, C', T]` of single frames, of a short piece one frame after the other."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 1 or not short(x):
            return self.function(x)
        return torch.cat([self.function(frame) for frame in x.split(1, dim=-1)], dim=-1)


class Quiet(Machine):
    """Runs a machine of torch's, a short piece in parts so small that torch does not wake its threads for it.

    Args:
        machine: the machine.
        part: samples of a part, at the rate of a mel, as after Vocos' backbone.
        short: samples of a short piece.
    """

    parts = ("machine",)

    def __init__(self, machine: Machine, *, part: int = 16, short: int = FEW_FRAMES) -> None:
        self.machine, self.part, self.short = machine, part, short

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not self.part < x.shape[-1] <= self.short:
            return self.machine(x, last)
        parts = x.split(self.part, dim=-1)
        return join(*[self.machine(part, last and number == len(parts)) for number, part in enumerate(parts, 1)])
