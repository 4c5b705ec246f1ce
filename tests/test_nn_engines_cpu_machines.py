"""Snakes, residuals, means and whole blocks of layers over rows, against float64, whole and in pieces."""

from __future__ import annotations

import copy

import pytest
import torch
from cpu_layers import engine, error, exact, layers_of, open_native, published_snakes, run
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu.branches import AddedRows
from melvoc.nn.engines.cpu.engine import Border
from melvoc.nn.engines.cpu.machines import ResidualSections, Section, SnakeMachine, UpsamplingMachine
from melvoc.nn.engines.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.graph import Chain, ChainMachine, Engine, Machine, Map, Mean, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.recording import RecordingMachine

EXACT = 3e-6  # of the largest output
SNAKE = 1e-6

pytestmark = pytest.mark.usefixtures("one_thread")


def snake(channels: int, kind: str = "snakebeta", logscale: bool = True) -> AliasFreeSnake:
    layer = AliasFreeSnake(channels, kind=kind, logscale=logscale)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.7) if logscale else parameter.uniform_(0.1, 3.0)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("channels", sorted(published_snakes()))
def test_snakes_of_every_published_network(channels: int) -> None:
    torch.manual_seed(channels)
    layer = snake(channels)
    samples = published_snakes()[channels]
    reference = exact(layer)
    for frames in (1, 2, 3):
        x = torch.randn(1, channels, frames * samples)
        assert error(run(open_native(layer), [x]), reference(x)) < SNAKE, f"{frames} frames"
    x = torch.randn(3, channels, samples)
    assert error(run(open_native(layer), pieces(x, [1, samples // 2])), reference(x)) < SNAKE


@pytest.mark.parametrize("logscale", [True, False])
@pytest.mark.parametrize("kind", ["snake", "snakebeta"])
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    batch=st.integers(1, 3),
    channels=st.integers(1, 17),
)
def test_a_snake_in_any_pieces(
    kind: str, logscale: bool, length: int, cuts: list[int], batch: int, channels: int
) -> None:
    torch.manual_seed(length)
    layer = snake(channels, kind, logscale)
    x = torch.randn(batch, channels, length)
    result, expected = run(open_native(layer), pieces(x, cuts)), exact(layer)(x)
    frequency, factor = layer.act.coefficients()
    slope = 1 + (frequency * factor).max()  # at most, of the snake: x is rounded before it
    largest = slope * x.abs().max() + factor.max()
    assert (result - expected).abs().max() < SNAKE * largest


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 60.0, 1e4, 1e6])
def test_a_snake_of_small_and_large_signals(size: float) -> None:
    layer = snake(8)
    x = size * torch.randn(1, 8, 500)
    assert error(run(open_native(layer), [x]), exact(layer)(x)) < SNAKE


def test_a_snake_of_a_huge_signal_stays_what_it_is_to_rounding() -> None:
    layer = snake(8)
    x = 1e12 * torch.randn(1, 8, 500)  # no fraction is left of a x / pi: the square is anything from 0 to 1
    assert error(run(open_native(layer), [x]), exact(layer)(x)) < SNAKE


def conv(channels: int, taps: int, dilation: int = 1, slope: float | None = None, bias: bool = True) -> Conv1d:
    layer = Conv1d(channels, channels, taps, dilation=dilation, slope=slope, bias=bias)
    return layer.requires_grad_(False)


def amp(channels: int, taps: int) -> Node:
    pairs = [(snake(channels), conv(channels, taps, d), snake(channels), conv(channels, taps)) for d in (1, 3, 5)]
    return Chain(tuple(Residual(Chain(pair)) for pair in pairs))


def leaky(channels: int, taps: int) -> Node:
    pairs = [(conv(channels, taps, d, 0.1), conv(channels, taps, 1, 0.1)) for d in (1, 3, 5)]
    return Chain(tuple(Residual(Chain(pair)) for pair in pairs))


def up(inputs: int, outputs: int, taps: int, rate: int, slope: float | None = None) -> ConvTranspose1d:
    return ConvTranspose1d(inputs, outputs, taps, rate, slope=slope).requires_grad_(False)


torch.manual_seed(0)
NODES: dict[str, Node] = {
    "AMP": amp(16, 7),
    "leaky ReLUs": leaky(16, 11),
    "a residual of a layer": Residual(conv(16, 3, 2, 0.1)),
    "a residual without bias": Residual(Chain((conv(8, 3, bias=False), snake(8), conv(8, 7, bias=False)))),
    "a residual after a snake": Chain((snake(8), Residual(conv(8, 3)))),
    "mean of AMPs": Mean((amp(16, 3), amp(16, 7), amp(16, 11))),
    "mean of leaky ReLUs": Mean((leaky(8, 3), leaky(8, 7))),
    "mean of one": Mean((conv(8, 3),)),
    "mean of two snakes": Mean((snake(8), snake(8))),
    "a snake, twice": Chain((snake(8), snake(8), conv(8, 3))),
    "leaky after a snake": Chain((snake(8), conv(8, 7, slope=0.1))),
    "BigVGAN": Chain((conv(16, 7), up(16, 8, 8, 4), Mean((amp(8, 3), amp(8, 7))), snake(8), Conv1d(8, 1, 7))),
    "HiFi-GAN": Chain((conv(12, 7), up(12, 6, 16, 8, 0.1), Mean((leaky(6, 3), leaky(6, 11))), Conv1d(6, 1, 7))),
    "two stages": Chain((up(16, 8, 4, 2), amp(8, 3), up(8, 4, 4, 2), amp(4, 11))),
    "odd channels": Chain((amp(5, 7), up(5, 3, 5, 2), snake(3), Conv1d(3, 2, 3))),
}
for _node in NODES.values():
    for _layer in layers_of(_node):
        _layer.requires_grad_(False)


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=12, deadline=None)
@given(
    length=st.integers(1, 120),
    cuts=st.lists(st.integers(0, 120), max_size=6),
    batch=st.integers(1, 3),
    transforms=st.sampled_from([(), TRANSFORMS, TRANSFORMS[::-1], TRANSFORMS[1:3]]),
)
def test_nodes_in_any_pieces(
    name: str, length: int, cuts: list[int], batch: int, transforms: tuple[Transform, ...]
) -> None:
    node = NODES[name]
    x = torch.randn(batch, channels_of(node), length, generator=torch.Generator().manual_seed(length))
    assert error(run(open_native(node, *transforms), pieces(x, cuts)), exact(node)(x)) < EXACT


def channels_of(node: object) -> int:
    """Of the first layer's input."""
    first = layers_of(node)[0]
    return len(first.act.alpha) if isinstance(first, AliasFreeSnake) else first.in_channels


def test_which_machines_run_what() -> None:
    def kinds(machine: Machine) -> object:
        inner = machine.machines if isinstance(machine, ChainMachine | AddedRows) else ()
        return [type(machine).__name__, *(kinds(part) for part in inner)] if inner else type(machine)

    border = engine().open(NODES["BigVGAN"])
    assert isinstance(border, ChainMachine)
    (one,) = border.machines
    assert isinstance(one, Border)
    block = ["ChainMachine", ResidualSections, ResidualSections, ResidualSections]
    recording = one.opened()
    assert isinstance(recording, RecordingMachine)
    chain = recording.machine
    assert kinds(chain) == ["ChainMachine", Section, UpsamplingMachine, ["AddedRows", block, block], Section]
    sections = chain.machines[2].machines[0].machines[0].sections
    assert all(isinstance(section.activation, SnakeMachine) for section in sections)


def test_unknown_nodes_stay_plain_between_fast_ones() -> None:
    node = Chain((conv(8, 3), Map(torch.tanh), Residual(Map(torch.sin)), conv(8, 7), Conv1d(8, 8, 3, groups=2)))
    machine = engine().open(node)
    assert [isinstance(part, Border) for part in machine.machines] == [True, False, False, True, False]
    x = torch.randn(2, 8, 60)
    assert error(run(machine, pieces(x, [0, 10, 11])), exact(node)(x)) < EXACT
    grouped = Mean((conv(8, 3), Conv1d(8, 8, 3, groups=8)))
    assert error(run(engine().open(grouped), pieces(x, [20])), exact(grouped)(x)) < EXACT


@pytest.mark.parametrize("name", ["BigVGAN", "HiFi-GAN"])
def test_a_fork_goes_its_own_way(name: str) -> None:
    node = NODES[name]
    x, y = torch.randn(2, 1, channels_of(node), 40)
    machine = open_native(node)
    with torch.inference_mode():
        first = machine(x, False)
        twin = machine.fork()
        ends = [machine(y, True), twin(x, True)]
    for second, end in zip((y, x), ends, strict=True):
        expected = exact(node)(torch.cat([x, second], dim=-1))
        assert error(torch.cat([first, end], dim=-1), expected) < EXACT


def test_two_streams_of_one_engine_do_not_meet() -> None:
    node, opener = NODES["BigVGAN"], engine()
    signals = [torch.randn(1, 16, 50) for _ in range(2)]
    machines = [opener.open(node) for _ in signals]
    with torch.inference_mode():
        starts = [machine(x[..., :30], False) for machine, x in zip(machines, signals, strict=True)]
        ends = [machine(x[..., 30:], True) for machine, x in zip(machines, signals, strict=True)]
    for x, start, end in zip(signals, starts, ends, strict=True):
        assert error(torch.cat([start, end], dim=-1), exact(node)(x)) < EXACT


def test_what_a_stream_has_given_is_never_written_again() -> None:
    node = NODES["BigVGAN"]
    machine = open_native(node)
    with torch.inference_mode():
        first = machine(torch.randn(1, 16, 40), False)
        kept = copy.deepcopy(first)
        machine(torch.randn(1, 16, 40), False)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_plain_torch_opens_the_same_machines_for_other_inputs() -> None:
    node, x = NODES["HiFi-GAN"], torch.randn(1, 12, 30, dtype=torch.float64)
    twin = copy.deepcopy(node)
    machine = engine().open(twin)
    assert run(machine, [x.float()]).dtype == torch.float32
    expected = run(twin.open(Engine()), [x.float()])
    assert error(run(engine().open(twin), [x]), expected.double()) < 1e-5  # float32 weights decide
