"""What the engine asks about the nodes of a network: consecutive parts, channels, parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.graph import Chain, Composite, Map, Node
from melvoc.nn.layers import Conv1d, ConvTranspose1d, FrameLinear, FrameNorm, FrameScale


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


def borders(node: Node) -> tuple[int, int] | None:
    """Input and output channels of a node whose branches have the same; None if no layer in it says them."""
    first, last = _end(node, 1), _end(node, -1)
    return None if first is None or last is None else (_channels(first)[0], _channels(last)[1])


def _end(node: Node, direction: int) -> nn.Module | None:
    """The first layer in a node, or the last (-1)."""
    if isinstance(node, Composite):
        return next((found for part in node.nodes[::direction] if (found := _end(part, direction))), None)
    return _layer(node)


def _layer(node: Node) -> nn.Module | None:
    function = _function(node) or node
    one = function.linear if isinstance(function, Scaled) else function
    return one if isinstance(one, nn.Module) else None


def _channels(layer: Any) -> tuple[int, int]:
    if isinstance(layer, AliasFreeSnake):
        return len(layer.act.alpha), len(layer.act.alpha)
    if isinstance(layer, FrameNorm):
        return len(layer.weight), len(layer.weight)
    if isinstance(layer, FrameLinear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def needs_grad(x: Tensor, node: Node) -> bool:
    """Whether autograd has to see what the node does with x."""
    return x.requires_grad or any(parameter.requires_grad for parameter in _weights(node))


def _weights(node: Node) -> list[Tensor]:
    """All parameters of a node."""
    if isinstance(node, Composite):
        return [weight for part in node.nodes for weight in _weights(part)]
    function = _function(node)
    scale = function.scale if isinstance(function, Scaled) else function
    factors = [scale.factors] if isinstance(scale, FrameScale) else []
    layer = _layer(node)
    return factors if layer is None else [*factors, *layer.parameters()]


def plain(layer: nn.Module) -> bool:
    """Whether all of a layer is float32, and in CPU memory."""
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters(layer))


def parameters(layer: nn.Module) -> list[Tensor]:
    """A layer's own, quickly: `Module.parameters` searches everything, on each call of a vocoder."""
    if isinstance(layer, Conv1d | ConvTranspose1d):
        return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return list(layer.parameters())
