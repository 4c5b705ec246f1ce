"""Nodes that move channels and samples about, without arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from melvoc.nn.graph import Engine, Machine, MapMachine, Node, join
from melvoc.nn.window import Mode, Window, padded


@dataclass(frozen=True)
class Select:
    """Some of the channels: a part of the input of a branch, or a condition, which stands below the mel.

    Args:
        start: the first channel.
        stop: the channel after the last one.

    Shape:
        `[B, C, N]` to `[B, stop - start, N]`.
    """

    start: int
    stop: int

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.stop]

    def open(self, engine: Engine) -> Machine:
        """A machine without state."""
        return MapMachine(self)

    def delay(self, samples: int) -> int:
        """No look-ahead."""
        return samples


@dataclass(frozen=True)
class Repeat:
    """Each frame held for several samples, or for several faster frames.

    Args:
        rate: how many.

    Shape:
        `[B, C, N]` to `[B, C, N * rate]`.
    """

    rate: int

    def __call__(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.rate, dim=-1)

    def open(self, engine: Engine) -> Machine:
        """A machine without state."""
        return MapMachine(self)

    def delay(self, samples: int) -> int:
        """The same, at the output's rate."""
        return samples * self.rate


@dataclass(frozen=True)
class Pad:
    """Further samples before the signal and after it.

    Args:
        left: how many before it.
        right: how many after it.
        mode: what they are: "zeros", "replicate" or "reflect", as in `melvoc.nn.window.padded`.

    Shape:
        `[B, C, N]` to `[B, C, left + N + right]`.
    """

    left: int
    right: int
    mode: Mode = "zeros"

    def __call__(self, x: Tensor) -> Tensor:
        return padded(x, self.left, self.right, self.mode)

    def open(self, engine: Engine) -> Machine:
        """A window of one sample."""
        return Window(_as_it_is, span=1, left=self.left, right=self.right, mode=self.mode)

    def delay(self, samples: int) -> int:
        """What comes after the signal."""
        return samples + self.right


@dataclass(frozen=True)
class End:
    """A further sample after the signal: what a node makes of zeros.

    So `Chain((Pad(0, 1), node))` is `Chain((node, End(node, C)))`, if the node maps each sample on its own; and a
    `Repeat` in front of both can stand before the `End`, for the node to see each frame once.

    Args:
        node: without look-ahead.
        channels: of its input.

    Shape:
        `[B, C', N]`, C' the channels of the node's output, to `[B, C', N + 1]`.
    """

    node: Node
    channels: int

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.made(x)], dim=-1)

    def made(self, x: Tensor) -> Tensor:
        """The further sample `[B, C', 1]` of a signal."""
        return self.node(x.new_zeros(x.shape[0], self.channels, 1))

    def open(self, engine: Engine) -> Machine:
        """A machine that waits for the end."""
        return EndMachine(self.made)

    def delay(self, samples: int) -> int:
        """What comes after the signal."""
        return samples + 1


@dataclass
class EndMachine(Machine):
    """Runs an `End`."""

    made: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return join(x, self.made(x)) if last else x


@dataclass(frozen=True)
class ToSamples:
    """Frames laid out in time: the channels of a frame are consecutive samples.

    Args:
        size: samples per frame.

    Shape:
        `[B, C * size, T]` to `[B, C, T * size]`.
    """

    size: int

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, count = x.shape
        parts = x.reshape(batch, channels // self.size, self.size, count)
        return parts.transpose(2, 3).reshape(batch, channels // self.size, count * self.size)

    def open(self, engine: Engine) -> Machine:
        """A machine without state."""
        return MapMachine(self)

    def delay(self, samples: int) -> int:
        """The same, at the output's rate."""
        return samples * self.size


@dataclass(frozen=True)
class ToFrames:
    """The inverse of `ToSamples`: consecutive samples become the channels of a frame.

    A wave in this form runs beside signals at frame rate, in the channels of the same signal.

    Args:
        size: samples per frame; the signal has a multiple of it, and what is left is dropped.

    Shape:
        `[B, C, T * size]` to `[B, C * size, T]`.
    """

    size: int

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, count = x.shape[0], x.shape[1], x.shape[2] // self.size
        parts = x[..., : count * self.size].reshape(batch, channels, count, self.size)
        return parts.transpose(2, 3).reshape(batch, channels * self.size, count)

    def open(self, engine: Engine) -> Machine:
        """A window of a frame."""
        return Window(self, span=self.size, stride=self.size, left=0, right=0)

    def delay(self, samples: int) -> int:
        """Every frame that lacks a sample."""
        return -(-samples // self.size)


def _as_it_is(x: Tensor) -> Tensor:
    return x
