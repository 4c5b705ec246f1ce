"""The kernels of ConvNeXt blocks, against plain torch in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from cpu_layers import engine
from networks import randomised
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.nn.engines.cpu.branches import SumRows
from melvoc.nn.engines.cpu.engine import Border, Quiet
from melvoc.nn.engines.cpu.framewise import GeluMachine, NormMachine
from melvoc.nn.engines.cpu.machines import Section
from melvoc.nn.engines.cpu.quiet import FEW_FRAMES, FrameByFrame
from melvoc.nn.engines.cpu.spectra import PolarMachine
from melvoc.nn.graph import Chain, Machine, Map, Node, Residual, join
from melvoc.nn.layers import BiasNorm, Conv1d, FrameLinear, FrameNorm, FrameScale, PReLU

SMALL = VocosConfig(n_mels=12, dim=48, intermediate_dim=72, num_layers=3, n_fft=32, hop_length=8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = FrameNorm(24), FrameLinear(24, 20)
        self.depthwise = Conv1d(24, 24, 7, groups=24)
        self.gamma = nn.Parameter(torch.ones(20))
        self.bias_norm, self.prelu = BiasNorm(24), PReLU(24)
        self.factors = nn.Parameter(torch.ones(24, 1))

    def activated(self, x: Tensor) -> Tensor:
        return self.prelu(self.bias_norm(x))


BLOCK = randomised(Block())
NODES: dict[str, tuple[Node, Callable[[Tensor], Tensor]]] = {
    "depthwise": (BLOCK.depthwise, lambda x: copy.deepcopy(BLOCK.depthwise).double()(x)),
    "norm": (Chain((Map(BLOCK.norm),)), lambda x: copy.deepcopy(BLOCK.norm).double()(x)),
    "linear": (Chain((Map(BLOCK.linear),)), lambda x: copy.deepcopy(BLOCK.linear).double()(x)),
    "scaled": (
        Chain((Map(BLOCK.linear), Map(FrameScale(BLOCK, "gamma")))),
        lambda x: BLOCK.gamma.double()[:, None] * copy.deepcopy(BLOCK.linear).double()(x),
    ),
    "norm and gelu": (Chain((Map(BLOCK.norm), Map(F.gelu))), lambda x: F.gelu(copy.deepcopy(BLOCK.norm).double()(x))),
    "bias norm": (Chain((Map(BLOCK.bias_norm),)), lambda x: copy.deepcopy(BLOCK.bias_norm).double()(x)),
    "prelu": (Chain((Map(BLOCK.bias_norm), Map(BLOCK.prelu))), lambda x: copy.deepcopy(BLOCK).double().activated(x)),
    "factors": (
        Chain((Map(FrameScale(BLOCK, "factors")), Map(BLOCK.prelu))),
        lambda x: F.prelu(x * BLOCK.factors.double(), BLOCK.prelu.weight.double()),
    ),
    "residual": (
        Residual(Chain((BLOCK.depthwise, Map(BLOCK.norm)))),
        lambda x: x + copy.deepcopy(BLOCK).double().norm(copy.deepcopy(BLOCK).double().depthwise(x)),
    ),
}


def pieces(machine: Machine, x: Tensor, size: int) -> Tensor:
    parts = x.split(size, -1)
    with torch.inference_mode():
        return join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])


@pytest.mark.parametrize("size", [1, 3, 20, 100])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 9, 100])
@pytest.mark.parametrize("name", NODES)
def test_nodes(name: str, count: int, batch: int, size: int, rng: torch.Generator) -> None:
    node, exact = NODES[name]
    x = torch.randn(batch, 24, count, generator=rng)
    with torch.no_grad():
        expected = exact(x.double())
    torch.testing.assert_close(pieces(engine().open(node), x, size).double(), expected, atol=2e-6, rtol=1e-5)


def test_gelu_over_all_sizes() -> None:
    x = torch.cat([torch.linspace(-15, 15, 200_000), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 88.0, -88.0])])
    got = GeluMachine()(x.view(1, 1, -1, 8), True).view(-1).double()
    exact = F.gelu(x.double())
    size = x.double().abs() + 1e-30
    assert float(((got - exact).abs() / size).max()) < 3e-7, "half the formula's 1.5e-7, and four roundings of 6e-8"
    assert GeluMachine()(torch.full((1, 1, 1, 8), float("nan")), True).isnan().all()


def test_norm_of_a_constant_and_of_large_values() -> None:
    with torch.inference_mode():
        machine = engine().open(Chain((Map(BLOCK.norm),)))
        torch.testing.assert_close(
            machine(torch.full((1, 24, 5), 3.0), False), BLOCK.norm(torch.full((1, 24, 5), 3.0)), atol=2e-3, rtol=0
        )
        x = 1000.0 + torch.randn(1, 24, 50)
        exact = copy.deepcopy(BLOCK.norm).double()(x.double())
        torch.testing.assert_close(machine(x, True).double(), exact, atol=1e-3, rtol=0)  # as much as the input rounds


@pytest.mark.parametrize("size", [1, 7, 16, 33, 64, 65, 400])
def test_vocos_whole_and_in_pieces(size: int, rng: torch.Generator) -> None:
    network = randomised(Vocos(SMALL))
    mel = torch.randn(2, 12, 200, generator=rng)
    with torch.no_grad():
        exact = copy.deepcopy(network).double()(mel.double())
    got = pieces(engine().open(network.graph), mel, size)
    torch.testing.assert_close(got.double(), exact, atol=1e-5, rtol=0)


def test_which_machines_run_vocos() -> None:
    machine = engine().open(randomised(Vocos(SMALL)).graph)
    assert [type(part) for part in machine.machines] == [Border, PolarMachine, Quiet]
    inside = machine.machines[0].opened().machine.machines
    kinds = [Section, NormMachine, *[SumRows] * 3, NormMachine, Section]
    assert [type(part) for part in inside] == kinds
    assert [type(part) for part in inside[2].second.machines] == [Section, NormMachine, Section]
    assert inside[2].second.machines[-1].after == GeluMachine().after()


def test_factors_that_change_or_want_a_gradient() -> None:
    block, cpu = copy.deepcopy(BLOCK), engine()
    node, x = Chain((Map(block.linear), Map(FrameScale(block, "gamma")))), torch.randn(1, 24, 9)
    block.requires_grad_(False)
    for change in (lambda: None, lambda: block.gamma.copy_(torch.randn(20)), lambda: replace(block)):
        with torch.no_grad():
            change()
            torch.testing.assert_close(cpu.open(node)(x, True), node(x), atol=1e-5, rtol=1e-5)
    block.gamma.requires_grad_(True)
    cpu.open(node)(x, True).sum().backward()
    assert block.gamma.grad is not None


def replace(block: Block) -> None:
    block.load_state_dict({name: tensor * 0.5 for name, tensor in block.state_dict().items()}, assign=True)


@pytest.mark.parametrize("frames", [0, 1, 2, FEW_FRAMES, FEW_FRAMES + 1])
def test_frame_by_frame(frames: int) -> None:
    calls = []

    def function(x: Tensor) -> Tensor:
        calls.append(x.shape[-1])
        return x * 2

    x = torch.randn(2, 3, frames)
    with torch.no_grad():
        torch.testing.assert_close(FrameByFrame(function)(x), x * 2)
    assert calls == ([1] * frames if 1 < frames <= FEW_FRAMES else [frames])
