"""How many frames around one a network's sound depends on, so that a whole graph can be run in overlapping pieces."""

from __future__ import annotations

import math

import torch

from melvoc.nn.graph import Node, children
from melvoc.nn.noise import Noise
from melvoc.vocoder import Vocoder

_FARTHEST = 2048  # frames that are looked at


@torch.no_grad()
def context_frames(vocoder: Vocoder) -> tuple[int, int] | None:
    """The frames before and after one that its samples depend on.

    Those after it are the graph's delay. Those before it are seen by how far NaN in one frame spreads, which nothing in
    a network stops.

    Args:
        vocoder: with a graph, on the CPU.

    Returns:
        Both counts; None where noise depends on a frame's position, or where a frame has no last one.
    """
    graph, hop = vocoder.graph(), vocoder.samples_per_frame
    if _draws_noise(graph):
        return None
    after = -(-graph.delay(0) // hop)
    channels = vocoder.spec.n_mels + sum(one.channels for one in vocoder.conditions.values())
    reach = 2 * after + 8
    while reach <= _FARTHEST:
        frames = torch.zeros(1, channels, 1 + reach)
        frames[..., 0] = math.nan
        spread = graph(frames)[0].isnan().any(0).nonzero()
        before = int(spread.max()) // hop
        if before < reach:
            return before, after
        reach *= 4
    return None


def _draws_noise(node: Node) -> bool:
    return isinstance(node, Noise) or any(_draws_noise(inner) for inner in children(node))
