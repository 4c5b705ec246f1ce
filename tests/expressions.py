"""Random expressions of nodes, and a stand-in for a CUDA graph, for several test modules."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.framing import Pad, Repeat, Select, ToFrames, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Mean, Node, Residual, children, concatenate
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.noise import Noise
from melvoc.nn.stft import STFT, InverseSTFT

WAVE = 8  # channels of a frame that are the samples of a wave, in `spectral`


def expression(seed: int, channels: int, depth: int = 3) -> tuple[Node, int]:
    """A node of `[B, channels, N]` to `[B, C, N]`, and C; the same for the same arguments."""
    torch.manual_seed(seed)
    return _expression(random.Random(seed), channels, depth)


def _expression(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    kinds = (_leaf, _leaf, _chain, _branches, _residual, _mean, _faster, _spectral)
    return choice.choice(kinds if depth else kinds[:1])(choice, channels, depth - 1)


def _leaf(choice: random.Random, channels: int, _depth: int) -> tuple[Node, int]:
    start = choice.randrange(channels)
    stop = choice.randrange(start + 1, channels + 1)
    width = choice.choice((1, 3, 8, 16))
    return choice.choice(
        (
            (Select(start, stop), stop - start),
            (Map(torch.tanh), channels),
            (Conv1d(channels, width, choice.choice((1, 3, 7)), dilation=choice.choice((1, 2)), slope=0.1), width),
            (AliasFreeSnake(channels), channels),
            (Chain(), channels),
            (Noise(width, choice.randrange(9)), width),
        )
    )


def _chain(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    nodes: list[Node] = []
    for _ in range(choice.randrange(1, 4)):
        node, channels = _expression(choice, channels, depth)
        nodes.append(node)
    return Chain(tuple(nodes)), channels


def _branches(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    parts = [_expression(choice, channels, depth) for _ in range(choice.randrange(1, 4))]
    return Branches(tuple(node for node, _ in parts), concatenate), sum(width for _, width in parts)


def _same(choice: random.Random, channels: int, depth: int) -> Node:
    """With as many channels as it takes."""
    node, width = _expression(choice, channels, depth)
    return Chain((node, Conv1d(width, channels, 3)))


def _residual(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    return Residual(_same(choice, channels, depth)), channels


def _mean(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    return Mean(tuple(_same(choice, channels, depth) for _ in range(choice.randrange(1, 4)))), channels


def _faster(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    """At a faster rate and back."""
    rate = choice.choice((2, 3))
    up = choice.choice((Repeat(rate), ConvTranspose1d(channels, channels, 2 * rate, rate)))
    inner, width = _expression(choice, channels, depth)
    return Chain((up, inner, ToFrames(rate))), width * rate


def _spectral(choice: random.Random, channels: int, depth: int) -> tuple[Node, int]:
    """Flow2GAN's shape: a wave beside its condition, frames of its spectrum with the condition held, and back."""
    n_fft, hop = choice.choice(((16, 8), (8, 4), (16, 4), (8, 2)))
    held = WAVE // hop
    wave = Chain((Conv1d(channels, WAVE, 1), ToSamples(WAVE), STFT(n_fft, hop)))
    condition = Chain((Conv1d(channels, 4, 1), Repeat(held), Pad(0, 1)))
    inner, width = _expression(choice, n_fft + 2 + 4, depth)
    frames = Chain((Branches((wave, condition), concatenate), inner, Conv1d(width, n_fft + 2, 1)))
    return Chain((frames, InverseSTFT(n_fft, hop, trim=True), ToFrames(WAVE))), WAVE


def frozen(node: Node) -> Node:
    """The node, its layers in evaluation and without gradients."""
    for part in children(node):
        frozen(part)
    if isinstance(node, nn.Module):
        node.eval().requires_grad_(False)
    return node


class Graph(TorchDispatchMode):
    """Stands for a CUDA graph: torch's operations and their arguments, run again without Python.

    Whatever Python computed while it was recorded, a position for example, is a constant in it. Recording changes no
    buffer: copies into tensors that were there before wait for the first run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = function is torch.ops.aten.copy_.default and not any(args[0] is one[3] for one in self.operations)
        result = args[0] if waits else function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Run all operations again, each result where it was."""
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            several = isinstance(result, tuple | list)
            for old, new in zip(result if several else [result], again if several else [again], strict=True):
                if isinstance(old, Tensor) and old.numel() and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A recorder's `record`; see `Graph`."""
    with Graph() as graph:
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
