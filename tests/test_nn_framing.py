"""Nodes that move channels and samples: what they do, and that pieces are the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.framing import Pad, Repeat, Select, ToFrames, ToSamples
from melvoc.nn.graph import Branches, Chain, Engine, Node, concatenate, join

NODES: dict[str, Node] = {
    "select": Select(1, 3),
    "repeat": Repeat(3),
    "to samples": ToSamples(2),
    "to frames": Chain((Repeat(4), ToFrames(4))),
    **{f"pad {mode}": Pad(3, 2, mode) for mode in ("zeros", "replicate", "reflect")},
    "pad after, reflect": Pad(0, 4, "reflect"),
}


def signal(length: int) -> Tensor:
    return torch.randn(2, 4, length, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 30), cuts=st.lists(st.integers(0, 30), max_size=8))
def test_pieces_join_to_the_whole(name: str, length: int, cuts: list[int]) -> None:
    node, parts = NODES[name], pieces(signal(length), cuts)
    machine = Engine().open(node)
    joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    assert torch.equal(joined, node(signal(length)))


@pytest.mark.parametrize("name", NODES)
def test_the_delay_is_what_is_missing(name: str) -> None:
    node, x = NODES[name], signal(40)
    machine = Engine().open(node)
    total = join(machine(x, False)).shape[-1]
    whole = total + machine(x[..., :0], True).shape[-1]
    assert whole - total == node.delay(0)


def test_what_they_do() -> None:
    x = torch.arange(12.0).view(1, 4, 3)
    assert Select(1, 3)(x).tolist() == [[[3, 4, 5], [6, 7, 8]]]
    assert Repeat(2)(x)[0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert ToSamples(4)(x).tolist() == [[[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]]]
    assert ToSamples(2)(x).tolist() == [[[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]]
    assert torch.equal(ToFrames(2)(ToSamples(2)(x)), x)
    assert ToFrames(2)(x[..., :3]).shape == (1, 8, 1)
    assert torch.equal(Pad(1, 2, "reflect")(x), F.pad(x, (1, 2), "reflect"))
    assert not Pad(0, 3, "reflect")(x)[..., 3:].any()  # too short for a mirror


def test_conditions_are_further_channels() -> None:
    """A branch has its own channels for its input, at a faster rate than the frames too."""
    node = Branches((Chain((Select(0, 3), Repeat(2))), Chain((Select(3, 4), Repeat(2)))), concatenate)
    assert torch.equal(node(signal(5)), Repeat(2)(signal(5)))
