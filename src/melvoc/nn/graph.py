"""A network as an expression: one description, run whole or piece by piece.

A `Node` maps a signal `[B, C, N]` to a signal `[B, C', N * rate]`. Calling it runs the whole signal at once
(differentiable, any device). `Engine.open` gives a `Machine` for it instead: a small state that takes the signal in
pieces of any length and returns, for each, every output that no later input can change. Joined, the pieces are what
the call gives, to float rounding; nothing is computed twice, and the state does not grow with the signal:

    whole:   node(x)                                  == cat([m(x1, False), m(x2, False), m(x3, True)])
    pieces:  m = engine.open(node), x = cat([x1, x2, x3])

The composites below hold references to layers, not copies: the same code and weights run both ways. An engine may
open any node, a single layer or a whole pattern of them, with arithmetic of its own; what it does not know is opened
by the node itself.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F


class Machine(ABC):
    """The state of one node in one stream. Not shared between threads; the node and its weights are.

    A machine declares its state, by which it is forked, recorded and moved: a step may change nothing else.

    Attributes:
        parts: names of the attributes that are machines, or lists of them, or None.
        state: names of the attributes that a step reads and replaces: tensors, numbers, None, or lists of them.
        positions: names of the attributes that only count samples, by as many in each equal piece.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    state: ClassVar[tuple[str, ...]] = ()
    positions: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples and return the outputs that are now final.

        Args:
            x: the next samples `[B, C, n]`; n may be 0.
            last: the signal ends with x; the machine must not be used afterwards.

        Returns:
            `[B, C', m]`; m may be 0, and then C' means nothing.
        """

    def machines_inside(self) -> Iterator[Machine]:
        """The machines that this one is made of."""
        for name in self.parts:
            value = getattr(self, name)
            yield from value if isinstance(value, list) else () if value is None else (value,)

    def fork(self) -> Self:
        """A copy with a state of its own; cheap, since machines replace their tensors and never write into them."""
        twin = copy.copy(self)
        for name in self.parts:
            value = getattr(self, name)
            several = isinstance(value, list)
            setattr(twin, name, [part.fork() for part in value] if several else value and value.fork())
        for name in self.state:
            if isinstance(value := getattr(self, name), list):
                setattr(twin, name, list(value))
        return twin


@runtime_checkable
class Node(Protocol):
    """What a network is made of: layers (`torch.nn.Module`) and the composites of this file."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Run on the complete signal `[B, C, N]`."""

    def open(self, engine: Engine) -> Machine:
        """The machine that runs this node piece by piece in plain torch, its parts opened by the engine."""

    def delay(self, samples: int) -> int:
        """How many outputs are missing at the end when `samples` inputs are (the look-ahead, in output samples)."""


class Engine:
    """Opens machines. This one is plain torch; others override `open` for the nodes that they run faster."""

    def open(self, node: Node) -> Machine:
        """A fresh machine for the node."""
        return node.open(self)

    def finite(self, wave: Tensor) -> bool:
        """Whether a wave has neither NaN nor Inf; a sum shows it at once, unless it overflows. On CUDA it is taken for
        granted, because asking would wait for all that is in the queue."""
        return wave.device.type == "cuda" or math.isfinite(float(wave.sum())) or bool(wave.isfinite().all())

    def clamp(self, wave: Tensor, out: Tensor) -> None:
        """Clamp a wave to [-1, 1] into another tensor of its shape."""
        torch.clamp(wave, -1.0, 1.0, out=out)


def join(*parts: Tensor | None) -> Tensor:
    """Concatenate along time; a single part is not copied. None stands for nothing, and the channels of a piece
    without samples do not matter: a machine that has no output yet may return any."""
    present = [part for part in parts if part is not None]
    filled = [part for part in present if part.shape[-1]] or present[:1]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=-1)


class Window(Machine):
    """A sliding window: the last inputs are kept, and the signal is padded only at its true start and end.

        padded input:  [left | x ........................ | right]
        output j sees        [j * stride, j * stride + span)

    Args:
        valid: maps `[B, C, L]` to the outputs of the `(L - span) // stride + 1` windows that fit.
        span: samples that one output sees.
        stride: samples from one window to the next.
        left: samples of padding before the signal.
        right: samples of padding after it.
        mode: what the padding is: zeros, the edge sample repeated, or the signal mirrored at its edge sample (zeros
            for a signal that is too short).
    """

    state = ("tail", "begun")

    def __init__(
        self,
        valid: Callable[[Tensor], Tensor],
        *,
        span: int,
        stride: int = 1,
        left: int,
        right: int,
        mode: Literal["zeros", "replicate", "reflect"] = "zeros",
    ) -> None:
        self.valid = valid
        self.span, self.stride, self.left, self.right = span, stride, left, right
        self.mode = "constant" if mode == "zeros" else mode
        self.needed = max(left, right) if mode == "reflect" else 0  # samples that a mirror shows, its edge apart
        self.tail: Tensor | None = None
        self.begun = False  # whether the start has been padded

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = join(self.tail, x)
        short = not self.begun and x.shape[-1] <= self.needed
        if short and (not last or not x.shape[-1]):
            self.tail = x
            return x[..., :0]
        padding = (0 if self.begun else self.left, self.right if last else 0)
        if any(padding):
            x = F.pad(x, padding, "constant" if short else self.mode)
        self.begun = True
        count = max(0, (x.shape[-1] - self.span) // self.stride + 1)
        self.tail = x[..., count * self.stride :].clone()  # a view would keep the whole piece alive
        return self.valid(x) if count else x[..., :0]


@dataclass(frozen=True)
class Map:
    """A function of single samples (clamp, tanh, a leaky ReLU): the same on pieces as on the whole."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def open(self, engine: Engine) -> Machine:
        """A machine without state."""
        return MapMachine(self.function)

    def delay(self, samples: int) -> int:
        """No look-ahead."""
        return samples


@dataclass
class MapMachine(Machine):
    """Runs a `Map`."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return self.function(x) if x.shape[-1] else x


@dataclass(frozen=True)
class Chain:
    """One node after the other."""

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for node in self.nodes:
            x = node(x)
        return x

    def open(self, engine: Engine) -> Machine:
        """One machine after the other."""
        return ChainMachine([engine.open(node) for node in self.nodes])

    def delay(self, samples: int) -> int:
        """The delays one after the other, each at its own rate."""
        for node in self.nodes:
            samples = node.delay(samples)
        return samples


@dataclass
class ChainMachine(Machine):
    """Runs a `Chain`."""

    parts = ("machines",)

    machines: list[Machine]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        for machine in self.machines:
            x = machine(x, last)
        return x


@dataclass(frozen=True)
class Residual:
    """`x + inner(x)`."""

    inner: Node

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.inner(x)

    def open(self, engine: Engine) -> Machine:
        """The inner machine, and a queue on the skip path that waits for it."""
        return ResidualMachine(engine.open(self.inner))

    def delay(self, samples: int) -> int:
        """The inner node's."""
        return self.inner.delay(samples)


class ResidualMachine(Machine):
    """Runs a `Residual`."""

    parts = ("inner",)
    state = ("queue",)

    def __init__(self, inner: Machine) -> None:
        self.inner = inner
        self.queue: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        y = self.inner(x, last)
        skip = join(self.queue, x)
        count = y.shape[-1]
        self.queue = skip[..., count:].clone()
        return y + skip[..., :count] if count else y


@dataclass(frozen=True)
class Mean:
    """The mean of branches that see the same signal (HiFi-GAN's multi-receptive-field fusion)."""

    branches: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total / len(self.branches)

    def open(self, engine: Engine) -> Machine:
        """The branches' machines, and a queue for each that is ahead of the slowest."""
        return MeanMachine([engine.open(branch) for branch in self.branches])

    def delay(self, samples: int) -> int:
        """The slowest branch's."""
        return max(branch.delay(samples) for branch in self.branches)


class MeanMachine(Machine):
    """Runs a `Mean`."""

    parts = ("machines",)
    state = ("queues",)

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.queues: list[Tensor | None] = [None] * len(machines)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        ready = [join(queue, machine(x, last)) for queue, machine in zip(self.queues, self.machines, strict=True)]
        count = min(part.shape[-1] for part in ready)
        self.queues = [part[..., count:].clone() for part in ready]
        if not count:
            return ready[0][..., :0]
        total = ready[0][..., :count] + ready[1][..., :count] if len(ready) > 1 else ready[0][..., :count].clone()
        for part in ready[2:]:
            total += part[..., :count]
        return total.div_(len(ready)) if len(ready) > 1 else total
