"""How many frames around one a network's sound depends on, so that a whole graph can be run in overlapping pieces."""

from __future__ import annotations

import math

import torch

from melvoc.nn.graph import Node, children
from melvoc.nn.noise import Noise
from melvoc.vocoder import Vocoder

_FARTHEST = 2048  # frames that are looked at
_OTHERS = (math.nan, 1e3, -1e3)  # values that are tried in place of the first frame's


@torch.no_grad()
def context_frames(vocoder: Vocoder) -> tuple[int, int] | None:
    """The frames before and after one that its samples depend on.

    Those after it are the graph's delay. Those before it are seen by how far a frame reaches that is NaN, which
    arithmetic passes on, or another one, which comparisons see.

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
        before = _spread(graph, channels, 1 + reach) // hop
        if before < reach:
            return before, after
        reach *= 4
    return None


def _spread(graph: Node, channels: int, frames: int) -> int:
    """The last sample that the first frame reaches."""
    mel = 4 * torch.randn(1, channels, frames, generator=torch.Generator().manual_seed(0)) - 2
    wave, reached = graph(mel)[0], 0
    far = 1e-6 * wave.abs().max()  # and not the rounding of other sums
    for value in _OTHERS:
        mel[..., 0] = value
        changed = graph(mel)[0]
        places = ((changed - wave).abs() > far).logical_or(changed.isnan()).any(0).nonzero()
        reached = max(reached, int(places.max()) if len(places) else 0)
    return reached


def _draws_noise(node: Node) -> bool:
    return isinstance(node, Noise) or any(_draws_noise(inner) for inner in children(node))
