"""Machines for a GPU: fused activations, and as few passes over memory around a convolution as possible.

- The alias-free activation is one kernel, which reads its context and the new piece in place.
- The bias of a convolution is added by the kernel of the activation that follows it; at the end of a residual branch,
  together with the residual sum; before a leaky ReLU, together with that.
- A signal that comes in one piece runs as a whole: the convolutions do the padding and nothing is joined or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.alias_free import DOWN_RIGHT, UP_REACH, AliasFreeSnake
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.graph import (
    BranchesMachine,
    Chain,
    ChainMachine,
    Engine,
    Join,
    Machine,
    Node,
    Residual,
    by_kind,
    children,
    join,
)
from melvoc.nn.layers import Conv1d, ConvTranspose1d, rectify
from melvoc.nn.window import Window

REACH = 5  # inputs on either side that an activation's output really sees
DELAY = UP_REACH + DOWN_RIGHT // 2  # as its node says: one more, so that all engines give the same pieces


class FusedEngine(Engine):
    """Opens machines that use the kernels.

    Args:
        kernels: they run the arithmetic.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def open(self, node: Node) -> Machine:
        """A fresh machine for the node."""
        opener = by_kind(OPENERS, node)
        return opener(self, node) if opener else node.open(self)

    def _residual(self, node: Residual) -> Machine:
        inner = node.nodes[1]
        end = biased_end(inner)
        if end is None:
            return node.open(self)
        branch = self._chain(children(inner), last_bias=False)
        return BranchesMachine([ChainMachine([]), branch], self._biased(end))

    def _biased(self, layer: Conv1d) -> Join:
        """Adds the skipped signal and the bias that a branch's last convolution left out."""

        def join(parts: Iterable[Tensor]) -> Tensor:
            skipped, y = parts
            assert layer.bias is not None  # ensured by biased_end
            return self.kernels.finish(y, layer.bias, skip=skipped)

        return join

    def _chain(self, nodes: tuple[Node, ...], *, last_bias: bool = True) -> Machine:
        """One machine after the other, with convolutions' biases left to what follows them."""
        machines: list[Machine] = []
        owed: Conv1d | None = None  # the convolution before, if its bias is still to be added
        for position, node in enumerate(nodes):
            follower = nodes[position + 1] if position + 1 < len(nodes) else None
            if isinstance(node, Conv1d):
                rectified = node.slope
                if owed is not None:
                    machines.append(FinishMachine(self.kernels, owed, node.slope))
                    rectified = None
                left = follower is None and not last_bias
                leaves = node.bias is not None and (left or adds_bias(follower))
                machines.append(convolution(node, slope=rectified, bias=not leaves))
                owed = node if leaves else None
            elif isinstance(node, AliasFreeSnake):
                machines.append(SnakeMachine(self.kernels, node, after=owed))
                owed = None
            else:
                machines.append(self.open(node))
        return ChainMachine(machines)


OPENERS: dict[type, Callable[[FusedEngine, Any], Machine]] = {
    AliasFreeSnake: lambda engine, node: SnakeMachine(engine.kernels, node),
    Conv1d: lambda _, node: convolution(node, slope=node.slope),
    ConvTranspose1d: lambda engine, node: WholeMachine(node, node.open(engine)),
    Chain: lambda engine, node: engine._chain(node.nodes),
    Residual: FusedEngine._residual,
}


def adds_bias(follower: Node | None) -> bool:
    """Whether what follows a convolution passes over its output anyway: an activation, or a leaky ReLU."""
    return isinstance(follower, AliasFreeSnake) or (isinstance(follower, Conv1d) and follower.slope is not None)


def biased_end(node: Node) -> Conv1d | None:
    """The convolution with a bias that ends a chain, if there is one."""
    last = node.nodes[-1] if isinstance(node, Chain) else None
    return last if isinstance(last, Conv1d) and last.bias is not None else None


class WholeMachine(Machine):
    """Runs a signal that comes in one piece as a whole, and others piece by piece.

    Args:
        whole: the node's function of the whole signal.
        pieces: the machine for pieces.
    """

    parts = ("pieces",)
    state = ("fresh",)

    def __init__(self, whole: Callable[[Tensor], Tensor], pieces: Machine) -> None:
        self.whole, self.pieces = whole, pieces
        self.fresh = True

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples; see `Machine`."""
        if self.fresh and last and x.shape[-1]:
            return self.whole(x)
        self.fresh = self.fresh and not x.shape[-1]
        return self.pieces(x, last)


def convolution(layer: Conv1d, *, slope: float | None, bias: bool = True) -> Machine:
    """A machine for a convolution.

    Args:
        layer: it has the weights.
        slope: of the leaky ReLU before it, None if there is none or it has been applied.
        bias: whether to add it.
    """

    def run(x: Tensor, padding: int) -> Tensor:
        offset = layer.bias if bias else None
        x = rectify(x.to(layer.weight.dtype), slope)
        return F.conv1d(x, layer.weight, offset, 1, padding, layer.dilation, layer.groups)

    window = Window(lambda x: run(x, 0), span=2 * layer.reach + 1, left=layer.reach, right=layer.reach)
    return WholeMachine(lambda x: run(x, layer.reach), window)


class FinishMachine(Machine):
    """Adds a convolution's bias and applies the leaky ReLU that follows.

    Args:
        kernels: they run it.
        layer: the convolution that left its bias out.
        slope: of the leaky ReLU.
    """

    def __init__(self, kernels: Kernels, layer: Conv1d, slope: float | None) -> None:
        self.kernels, self.layer, self.slope = kernels, layer, slope

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples; see `Machine`."""
        assert self.layer.bias is not None  # ensured by the engine
        return self.kernels.finish(x, self.layer.bias, slope=self.slope) if x.shape[-1] else x


class SnakeMachine(Machine):
    """Runs an `AliasFreeSnake` with one kernel.

    It keeps the inputs that the next output sees: all of them up to the fifth output, and the last 11 later on.

    Args:
        kernels: they run it.
        layer: the activation.
        after: the convolution before, if it left its bias out.
    """

    state = ("tail", "given")

    def __init__(self, kernels: Kernels, layer: AliasFreeSnake, after: Conv1d | None = None) -> None:
        self.kernels, self.layer, self.after = kernels, layer, after
        self.tail: Tensor | None = None
        self.given = 0  # outputs given, in tail's time; below 5, tail begins where the signal does

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples; see `Machine`."""
        held = 0 if self.tail is None else self.tail.shape[-1]
        length = held + x.shape[-1]
        end = length if last else length - DELAY
        if end <= self.given:
            self.tail = join(self.tail, x).clone() if length else None
            return x[..., :0]
        context = self.tail if held else None
        bias = None if self.after is None else self.after.bias
        # The first outputs see the signal's start, from which the kernel has to begin: they are computed again.
        first = self.given if self.given >= REACH else 0
        if x.shape[-1]:
            y = self.kernels.snake(self.layer, x, context=context, bias=bias, first=first, count=end - first)
        else:
            assert self.tail is not None  # length is not 0
            y = self.kernels.snake(self.layer, self.tail, bias=bias, first=first, count=end - first)
        dropped = max(0, end - REACH)
        rest = join(context, x)[..., dropped:] if dropped < held else x[..., dropped - held :]
        self.tail, skipped, self.given = rest.clone(), self.given - first, end - dropped
        return y[..., skipped:]
