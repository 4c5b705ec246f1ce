"""A function of whole mels in overlapping blocks: the pieces are the whole, whatever the cuts and the context."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.graph import Engine
from melvoc.onnx.blocks import Blocks

HOP = 3


@given(
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    extra=st.integers(0, 2),
    cuts=st.lists(st.integers(0, 7), min_size=1, max_size=8),
)
def test_pieces_are_the_whole(before: int, after: int, extra: int, cuts: list[int]) -> None:
    kernel = torch.randn(HOP, 1, before + 1 + after)

    def whole(x: Tensor) -> Tensor:
        """Of each frame HOP sums over the frames around it, zeros beyond the ends."""
        return F.conv1d(F.pad(x, (before, after)), kernel).transpose(1, 2).flatten(1)[:, None]

    x = torch.randn(2, 1, sum(cuts) + 1)
    node = Blocks(whole, before + extra, after + extra, HOP)
    assert node.delay(0) == (after + extra) * HOP
    machine, given_back = Engine().open(node), 0
    pieces = []
    for number, piece in enumerate(x.split([*cuts, 1], dim=-1)):
        pieces.append(machine(piece, number == len(cuts)))
        given_back += pieces[-1].shape[-1]
        taken = sum([*cuts, 1][: number + 1])
        assert given_back >= max(0, taken - after - extra) * HOP, "it waits for no more than it must"
    wave = torch.cat([piece for piece in pieces if piece.shape[-1]], dim=-1)
    assert torch.allclose(wave, whole(x), atol=1e-5)
