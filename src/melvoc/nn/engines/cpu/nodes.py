"""What the engine asks about the nodes of a network: consecutive parts, channels, parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.framing import Select
from melvoc.nn.graph import Branches, Chain, Composite, Map, Node, concatenate
from melvoc.nn.layers import BiasNorm, FrameLinear, FrameNorm, FrameScale, PReLU


@dataclass(frozen=True)
class Scaled:
    """A linear map and the factors that follow it."""

    linear: FrameLinear
    scale: FrameScale

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale(self.linear(x))


def flat(node: Node) -> list[Node]:
    """The node as consecutive nodes, without chains in them; factors are joined to the linear map before them."""
    if not isinstance(node, Chain):
        return [node]
    nodes: list[Node] = []
    for inner in [inner for part in node.nodes for inner in flat(part)]:
        scale, linear = _function(inner), _function(nodes[-1]) if nodes else None
        if isinstance(scale, FrameScale) and isinstance(linear, FrameLinear):
            nodes[-1] = Map(Scaled(linear, scale))
        else:
            nodes.append(inner)
    return nodes


def _function(node: Node) -> object:
    """What a `Map` does."""
    return node.function if isinstance(node, Map) else None


class Borders(NamedTuple):
    """Channels of a node.

    Attributes:
        taken: of the input; the least if it selects.
        given: of the output.
        selects: whether it may select from further input channels.
    """

    taken: int
    given: int
    selects: bool


def borders(node: Node) -> Borders | None:
    """The channels of a node; None if no layer in it says them."""
    taken, given = _taken(node), _given(node)
    return Borders(taken, given, _selects(node)) if taken and given and _has_layer(node) else None


def through(node: Node, count: int) -> int | None:
    """Channels that come out where so many go in; None where a layer takes another number, or joined parts differ.

    torch then broadcasts or refuses, which kernels do not.
    """
    if isinstance(node, Chain):
        for part in node.nodes:
            if (found := through(part, count)) is None:
                return None
            count = found
        return count
    if isinstance(node, Branches):
        given = [through(part, count) for part in node.nodes]
        known = [channels for channels in given if channels is not None]
        if len(known) < len(given):
            return None
        return sum(known) if node.join is concatenate else known[0] if len(set(known)) == 1 else None
    if isinstance(node, Select):
        return node.stop - node.start if node.stop <= count else None
    layer = _layer(node)
    taken, made = (count, count) if layer is None else _channels(layer)
    return made if taken == count else None


def fills_blocks(node: Node) -> bool:
    """Whether its output channels are known to be whole blocks, so that others can stand below them."""
    count = _given(node)
    return count > 0 and count % LANES == 0


def alike(nodes: Iterable[Node]) -> bool:
    """Whether their outputs have as many channels, as far as it is known."""
    return len({_given(node) for node in nodes} - {0}) <= 1


def _has_layer(node: Node) -> bool:
    return any(map(_has_layer, node.nodes)) if isinstance(node, Composite) else _layer(node) is not None


def _selects(node: Node) -> bool:
    if isinstance(node, Chain):
        return bool(node.nodes) and _selects(node.nodes[0])
    return isinstance(node, Select) or (isinstance(node, Composite) and any(map(_selects, node.nodes)))


def _taken(node: Node) -> int:
    """Input channels, the least if the node selects; 0 if any number will do."""
    if isinstance(node, Chain):
        return next((count for part in node.nodes if (count := _taken(part))), 0)
    if isinstance(node, Composite):
        return max(map(_taken, node.nodes))
    layer = _layer(node)
    return node.stop if isinstance(node, Select) else 0 if layer is None else _channels(layer)[0]


def _given(node: Node) -> int:
    """Output channels; 0 for as many as come in."""
    if isinstance(node, Chain):
        return next((count for part in reversed(node.nodes) if (count := _given(part))), 0)
    if isinstance(node, Branches):
        counts = list(map(_given, node.nodes))
        return sum(counts) if node.join is concatenate else max(counts)
    layer = _layer(node)
    return node.stop - node.start if isinstance(node, Select) else 0 if layer is None else _channels(layer)[1]


def _layer(node: Node) -> nn.Module | None:
    function = _function(node) or node
    one = function.linear if isinstance(function, Scaled) else function
    return one if isinstance(one, nn.Module) else None


def _channels(layer: Any) -> tuple[int, int]:
    if isinstance(layer, AliasFreeSnake):
        return len(layer.act.alpha), len(layer.act.alpha)
    if isinstance(layer, FrameNorm | PReLU):
        return len(layer.weight), len(layer.weight)
    if isinstance(layer, BiasNorm):
        return len(layer.bias), len(layer.bias)
    if isinstance(layer, FrameLinear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def needs_grad(x: Tensor, node: Node) -> bool:
    """Whether autograd has to see what the node does with x."""
    return x.requires_grad or any(parameter.requires_grad for parameter in weights_of(holders(node)))


def holders(node: Node) -> list[nn.Module | FrameScale]:
    """What holds the parameters of a node."""
    if isinstance(node, Composite):
        return [holder for part in node.nodes for holder in holders(part)]
    function = _function(node)
    scale = function.scale if isinstance(function, Scaled) else function
    scales: list[nn.Module | FrameScale] = [scale] if isinstance(scale, FrameScale) else []
    layer = _layer(node)
    return scales if layer is None else [*scales, layer]


def weights_of(holding: Iterable[nn.Module | FrameScale]) -> list[Tensor]:
    """All parameters of `holders`."""
    return [weight for holder in holding for weight in parameters(holder)]


def plain(layer: nn.Module | FrameScale) -> bool:
    """Whether all of a layer is float32, and in CPU memory."""
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters(layer))


def parameters(layer: object) -> list[Tensor]:
    """A layer's own, quickly: `Module.parameters` searches everything, on each call of a vocoder."""
    if isinstance(layer, FrameScale):
        return [layer.factors]
    if not isinstance(layer, nn.Module):
        return []
    if layer._modules:
        return list(layer.parameters())
    return [parameter for parameter in layer._parameters.values() if parameter is not None]
