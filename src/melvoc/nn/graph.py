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

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from melvoc.nn.state import Stateful

T = TypeVar("T")


class Machine(Stateful, ABC):
    """The state of one node in one stream, declared as `Stateful` says. Not shared between threads; the node and its
    weights are."""

    @abstractmethod
    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples and return the outputs that are now final.

        Args:
            x: the next samples `[B, C, n]`; n may be 0.
            last: the signal ends with x; the machine must not be used afterwards.

        Returns:
            `[B, C', m]`; m may be 0, and then C' means nothing.
        """

    def of_rows(self, rows: Tensor) -> None:
        """Be told which rows of a batch come, where they are not 0, 1, 2, ...: noise depends on it, nothing else does.

        Args:
            rows: `[B]`, int64.
        """
        for part in self.inside():
            if isinstance(part, Machine):
                part.of_rows(rows)


@runtime_checkable
class Node(Protocol):
    """What a network is made of: layers (`torch.nn.Module`), and composites, which are made of nodes (`children`)."""

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


class Composite:
    """A node that is made of others; an engine that does not know it can still look inside.

    Attributes:
        nodes: what it is made of.
    """

    nodes: tuple[Node, ...]


def children(node: object) -> tuple[Node, ...]:
    """The nodes that a node is made of, none for a layer."""
    return node.nodes if isinstance(node, Composite) else ()


def by_kind(table: Mapping[type, T], node: object) -> T | None:
    """An engine's entry for the class of a node, or for the nearest of its base classes; None if there is none."""
    known = table.get(type(node))
    return known or next((table[kind] for kind in type(node).__mro__ if kind in table), None)


@dataclass(frozen=True)
class Chain(Composite):
    """One node after the other."""

    nodes: tuple[Node, ...] = ()

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


Join = Callable[[Iterable[Tensor]], Tensor]


@dataclass(frozen=True)
class Branches(Composite):
    """Nodes that see the same signal, and what joins their outputs, which have the same rate.

    A branch that begins with `Select` has its own channels for its input; one that is an empty `Chain` passes on what
    it gets.

    Args:
        nodes: the branches.
        join: takes their outputs in order and makes one signal of them, sample by sample; it may write into none.

    Example: `Branches((Chain((Select(0, 80), encoder)), Select(80, 81)), concatenate)`.
    """

    nodes: tuple[Node, ...]
    join: Join

    def __call__(self, x: Tensor) -> Tensor:
        return self.join(node(x) for node in self.nodes)

    def open(self, engine: Engine) -> Machine:
        """The branches' machines, and a queue for each that is ahead of the slowest."""
        return BranchesMachine([engine.open(node) for node in self.nodes], self.join)

    def delay(self, samples: int) -> int:
        """The slowest branch's."""
        return max(node.delay(samples) for node in self.nodes)


class BranchesMachine(Machine):
    """Runs `Branches`."""

    parts = ("machines",)
    state = ("queues",)

    def __init__(self, machines: list[Machine], join: Join) -> None:
        self.machines, self.join = machines, join
        self.queues: list[Tensor | None] = [None] * len(machines)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        ready = [join(queue, machine(x, last)) for queue, machine in zip(self.queues, self.machines, strict=True)]
        count = min(part.shape[-1] for part in ready)
        ahead = [part.shape[-1] > count for part in ready]  # the others are taken as they are: a slice costs, too
        self.queues = [part[..., count:].clone() if more else None for part, more in zip(ready, ahead, strict=True)]
        if not count:
            return ready[0][..., :0]
        return self.join(part[..., :count] if more else part for part, more in zip(ready, ahead, strict=True))


class Residual(Branches):
    """`x + inner(x)`."""

    def __init__(self, inner: Node) -> None:
        super().__init__((Chain(), inner), add)


class Mean(Branches):
    """The mean of branches that see the same signal (HiFi-GAN's multi-receptive-field fusion)."""

    def __init__(self, branches: tuple[Node, ...]) -> None:
        super().__init__(branches, mean)


def add(parts: Iterable[Tensor]) -> Tensor:
    """The sum of branches; each may be forgotten once it is added."""
    return _sum(parts)[0]


def mean(parts: Iterable[Tensor]) -> Tensor:
    """The mean of branches."""
    total, count = _sum(parts)
    return total.div_(count) if count > 1 else total


def concatenate(parts: Iterable[Tensor]) -> Tensor:
    """The channels of all branches, in order."""
    return torch.cat(list(parts), dim=1)


def _sum(parts: Iterable[Tensor]) -> tuple[Tensor, int]:
    every = iter(parts)
    total, count = next(every), 1
    for count, part in enumerate(every, start=2):
        total = total + part if count == 2 else total.add_(part)  # the first sum is nobody else's
    return total, count
