"""Every node gives in pieces what it gives whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces
from torch import Tensor

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.graph import Chain, Engine, Map, Mean, Node, Residual, join
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.stft import InverseSTFT

CHANNELS = 6


def nodes() -> dict[str, Node]:
    torch.manual_seed(0)
    conv = Conv1d(CHANNELS, CHANNELS, 3, dilation=2, slope=0.1)
    wide = Conv1d(CHANNELS, CHANNELS, 7, dilation=3)
    act = AliasFreeSnake(CHANNELS)
    return {
        "conv": conv,
        "conv k=1": Conv1d(CHANNELS, 4, 1),
        "depthwise": Conv1d(CHANNELS, CHANNELS, 7, groups=CHANNELS),
        "snake": act,
        "map": Map(torch.tanh),
        "chain": Chain((act, conv, act, wide)),
        "residual": Residual(Chain((act, conv))),
        "mean": Mean((Residual(conv), Residual(wide), Chain((act, wide)))),
        "mean of one": Mean((conv,)),
        **{
            f"up {stride}/{kernel}": ConvTranspose1d(CHANNELS, 3, kernel, stride)
            for stride, kernel in [(2, 4), (8, 16), (4, 8), (5, 11), (3, 3), (7, 14), (4, 7), (1, 3)]
        },
        "two ups": Chain((ConvTranspose1d(CHANNELS, CHANNELS, 4, 2), conv, ConvTranspose1d(CHANNELS, 2, 8, 4))),
        "istft": InverseSTFT(4, 2),
        "istft, odd hop": InverseSTFT(4, 1),
    }


NODES = nodes()


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 70), cuts=st.lists(st.integers(0, 70), max_size=8), seed=st.integers(0, 99))
def test_pieces_join_to_the_whole(name: str, length: int, cuts: list[int], seed: int) -> None:
    node = NODES[name]
    x = torch.randn(2, CHANNELS, length, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = node(x)
        machine = Engine().open(node)
        parts = pieces(x, cuts)
        joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    torch.testing.assert_close(joined, whole, atol=2e-6, rtol=0, msg=lambda m: f"{name}, cuts {cuts}: {m}")


@pytest.mark.parametrize("name", NODES)
def test_delay_is_what_is_missing_before_the_end(name: str) -> None:
    node = NODES[name]
    x = torch.randn(1, CHANNELS, 200)
    with torch.no_grad():
        missing = node(x).shape[-1] - Engine().open(node)(x, False).shape[-1]
    assert missing == node.delay(0)


@pytest.mark.parametrize("name", NODES)
def test_a_fork_goes_its_own_way_and_leaves_the_original_alone(name: str) -> None:
    node = NODES[name]
    a, b, other = torch.randn(3, 1, CHANNELS, 60).unbind(0)
    with torch.no_grad():
        machine = Engine().open(node)
        first = machine(a, False)
        fork = machine.fork()
        forked = join(first, fork(other, True))
        joined = join(first, machine(b, True))
        torch.testing.assert_close(forked, node(torch.cat([a, other], -1)), atol=2e-6, rtol=0)
        torch.testing.assert_close(joined, node(torch.cat([a, b], -1)), atol=2e-6, rtol=0)


def test_state_does_not_grow_with_the_signal() -> None:
    node = NODES["mean"]

    def held(machine: object) -> int:
        if isinstance(machine, Tensor):
            return machine.untyped_storage().nbytes()
        if isinstance(machine, list):
            return sum(map(held, machine))
        return sum(map(held, vars(machine).values())) if type(machine).__module__ == "melvoc.nn.graph" else 0

    machine = Engine().open(node)
    sizes = []
    with torch.no_grad():
        for _ in range(20):
            machine(torch.randn(1, CHANNELS, 50), False)
            sizes.append(held(machine))
    assert sizes[2] > 0
    assert len(set(sizes[2:])) == 1, sizes


def test_an_engine_may_take_over_any_node() -> None:
    class Doubling(Engine):
        def open(self, node: Node):  # type: ignore[no-untyped-def]
            return super().open(Map(lambda x: 2 * x)) if isinstance(node, Conv1d) else super().open(node)

    x = torch.ones(1, CHANNELS, 5)
    machine = Doubling().open(Chain((NODES["conv"], Map(lambda x: x + 1))))
    assert torch.equal(machine(x, True), torch.full_like(x, 3.0))
