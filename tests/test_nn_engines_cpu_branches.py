"""Branches over rows, against plain torch: every join, every order of delays, whole, in pieces and recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpu_layers import engine
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces, randomised
from torch import Tensor, nn

from melvoc.architectures.flow2gan import Flow2GAN, Flow2GANConfig
from melvoc.nn.engines.cpu.branches import AddedRows, SelectRows, StackedRows, SumRows
from melvoc.nn.engines.cpu.engine import Border, Quiet
from melvoc.nn.framing import Select
from melvoc.nn.graph import Branches, Chain, Machine, Map, Node, add, concatenate, join, mean
from melvoc.nn.layers import Conv1d, ConvTranspose1d, PReLU


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.single = Conv1d(16, 24, 5), Conv1d(16, 24, 1)
        self.other, self.last = Conv1d(8, 24, 3), Conv1d(24, 24, 1)
        self.act, self.odd = PReLU(24), Conv1d(16, 12, 3)
        self.up = ConvTranspose1d(24, 8, 4, 2)


LAYERS = randomised(Layers())
FIRST, REST = Select(0, 16), Select(16, 24)
LATE, SOON = Chain((FIRST, LAYERS.wide)), Chain((FIRST, LAYERS.single))
NODES: dict[str, Node] = {
    "the sum is in the convolution, which waits": Branches((LATE, SOON), add),
    "the sum is in the convolution, which is late": Branches((SOON, Chain((LATE, Map(LAYERS.act), LAYERS.last))), add),
    "a sum of three": Branches((LATE, SOON, Chain((REST, LAYERS.other))), add),
    "the mean": Branches((LATE, Chain((REST, LAYERS.other))), mean),
    "channels below one another": Branches((LATE, REST, SOON), concatenate),
    "branches in branches": Branches((Branches((LATE, SOON), add), Chain((REST, LAYERS.other))), concatenate),
    "a mean with other channels, and what keeps its last samples": Chain((Branches((SOON, LATE), mean), LAYERS.up)),
}


def signal(count: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 24, count, generator=torch.Generator().manual_seed(count))


def run(machine: Machine, parts: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])


@pytest.mark.parametrize("name", NODES)
@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_any_pieces_of_any_join(name: str, count: int, cuts: list[int]) -> None:
    x, node = signal(count), NODES[name]
    with torch.no_grad():
        expected = node(x)
    torch.testing.assert_close(run(engine().open(Chain((node,))), pieces(x, cuts)), expected, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NODES)
def test_recorded_steps(name: str) -> None:
    x, node = signal(200, batch=1), NODES[name]
    with torch.no_grad():
        expected = node(x)
    torch.testing.assert_close(run(engine().open(Chain((node,))), list(x.split(5, -1))), expected, atol=5e-6, rtol=1e-5)


def inside(machine: Machine) -> list[Machine]:
    """A machine and all within it, where borders are opened."""
    if isinstance(machine, Border):
        machine.machine = machine.opened()
    return [machine, *[one for part in machine.inside() if isinstance(part, Machine) for one in inside(part)]]


def test_a_sum_with_a_convolution_of_one_tap_is_one_machine() -> None:
    kinds = {type(one) for one in inside(engine().open(Chain((NODES["the sum is in the convolution, which waits"],))))}
    assert SumRows in kinds
    assert kinds.isdisjoint({AddedRows, StackedRows})


@pytest.mark.parametrize("join_of", [add, mean])
def test_one_channel_is_added_to_each_of_several(join_of: Any) -> None:
    layers = randomised(nn.ModuleList([Conv1d(8, 1, 1), Conv1d(8, 16, 1)]))
    node = Branches((layers[0], layers[1]), join_of)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 9)
    with torch.no_grad():
        expected = node(x)
    torch.testing.assert_close(run(engine().open(Chain((node,))), [x[..., :4], x[..., 4:]]), expected)


def test_channels_below_some_that_fill_no_block() -> None:
    node, x = Branches((Chain((FIRST, LAYERS.odd)), REST), concatenate), signal(9)
    with torch.no_grad():
        expected = node(x)
    torch.testing.assert_close(run(engine().open(Chain((node,))), list(x.split(4, -1))), expected, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("channels", [(4, 16), (0, 12)])
def test_channels_that_are_no_whole_blocks_go_to_torch(channels: tuple[int, int]) -> None:
    node = Branches((Select(*channels), Select(*channels)), add)
    opened = inside(engine().open(Chain((node,))))
    assert not any(isinstance(one, SelectRows | AddedRows | StackedRows) for one in opened)
    x = signal(9)
    torch.testing.assert_close(run(engine().open(Chain((node,))), list(x.split(4, -1))), node(x))


def test_a_join_that_the_engine_does_not_know_goes_to_torch() -> None:
    node = Branches((SOON, Chain((REST, LAYERS.other))), lambda parts: torch.stack(list(parts)).amax(dim=0))
    x, machine = signal(30), engine().open(Chain((node,)))
    with torch.no_grad():
        expected = node(x)
    torch.testing.assert_close(run(machine, list(x.split(7, -1))), expected, atol=5e-6, rtol=1e-5)


def test_a_published_kind_of_decoder_runs_in_the_engine() -> None:
    """Between the transforms nothing is left to torch."""
    config = Flow2GANConfig(
        n_mels=16, hop_length=32, n_ffts=(64, 32), hop_lengths=(32, 16), widths=(24, 16), num_layers=(2, 2),
        kernel_sizes=(7, 7), encoder_channels=24, encoder_layers=2, time_channels=4,
    )  # fmt: skip
    network = randomised(Flow2GAN(config))
    opened = inside(engine().open(network.graph))
    assert sum(isinstance(one, Border) for one in opened) == 5, "the encoder; of each branch spectrum and blocks"
    left = {type(one.machine).__name__ for one in opened if isinstance(one, Quiet)}
    assert left == {"MapMachine", "Window", "NoiseMachine", "EndMachine", "InverseTransforms"}
    mel = torch.randn(2, 16, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(mel)
    for size in (60, 4):
        got = run(engine().open(network.graph), list(mel.split(size, -1)))
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
