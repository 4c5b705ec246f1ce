"""Random expressions of nodes: whole, in pieces, batched, forked and recorded, on every engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expressions import expression, frozen, record
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces
from torch import Tensor

from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.graphs import GraphEngine, GraphRecorder
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.engines.mps import CutEngine
from melvoc.nn.graph import Branches, Engine, Machine, Node, add, join
from melvoc.nn.noise import Noise
from melvoc.nn.recording import RecordingMachine
from melvoc.nn.stft import STFT, InverseSTFT

CHANNELS = 5
ENGINES: dict[str, Any] = {
    "torch": Engine,
    "cpu": CpuEngine,
    "cuda": lambda: FusedEngine(Kernels(None)),
    "mps": lambda: CutEngine(frames=7, rows=2),
    "graphs": lambda: GraphEngine(FusedEngine(Kernels(None)), GraphRecorder(record=record, devices=("cpu",))),
}
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def signal(seed: int, length: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, CHANNELS, length, generator=torch.Generator().manual_seed(seed))


def run(machine: Machine, parts: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return join(*[machine(part, number == len(parts)).clone() for number, part in enumerate(parts, 1)])


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "graphs"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_pieces_join_to_the_whole(engine: str, seed: int, length: int, cuts: list[int]) -> None:
    node = frozen(expression(seed, CHANNELS)[0])
    x = signal(seed, length)
    with torch.no_grad():
        whole = node(x)
    assert whole.shape[-1] == length
    torch.testing.assert_close(run(ENGINES[engine]().open(node), pieces(x, cuts)), whole, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_delay_is_what_is_missing(seed: int) -> None:
    node = frozen(expression(seed, CHANNELS)[0])
    x = signal(seed, 120, batch=1)
    machine = Engine().open(node)
    with torch.no_grad():
        assert x.shape[-1] - machine(x, False).shape[-1] == node.delay(0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rows_and_forks(seed: int) -> None:
    """A row does not depend on those after it, a fork goes its own way, and a row may be told which it is."""
    node = frozen(expression(seed, CHANNELS)[0])
    x = signal(seed, 30)
    with torch.no_grad():
        whole = node(x)
    torch.testing.assert_close(run(CpuEngine().open(node), pieces(x[:1], [9])), whole[:1], **CLOSE)
    third = Engine().open(node)
    third.of_rows(torch.tensor([2]))
    torch.testing.assert_close(run(third, pieces(x[2:], [9])), whole[2:], **CLOSE)
    machine = CpuEngine().open(node)
    with torch.inference_mode():
        first = machine(x[..., :17], False)
        twin = machine.fork()
        machine(signal(seed + 1, 11), False)
        torch.testing.assert_close(join(first, twin(x[..., 17:], True)), whole, **CLOSE)


@pytest.mark.parametrize("engine", ["graphs", "cpu"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_recorded_steps(engine: str, seed: int, size: int) -> None:
    """On a stand-in for CUDA graphs, in which what Python computes is constant, and on the CPU's recordings."""
    node = frozen(expression(seed, CHANNELS)[0])
    steps = 40 // size + 10
    x = signal(seed, steps * size + 3)
    with torch.no_grad():
        whole = node(x)
    machine = ENGINES[engine]().open(node)
    torch.testing.assert_close(run(machine, list(x.split(size, -1))), whole, **CLOSE)
    if engine == "graphs":
        assert isinstance(machine, RecordingMachine)
        assert machine._recording is not None, "nothing was recorded"


@pytest.mark.parametrize("node", [STFT(16, 4), InverseSTFT(16, 4), Noise(2), Branches((STFT(16, 4), STFT(16, 4)), add)])
def test_layers_that_an_engine_does_not_know(node: Node) -> None:
    x = torch.randn(1, 18 if isinstance(node, InverseSTFT) else 1, 24)
    for name in ENGINES:
        torch.testing.assert_close(run(ENGINES[name]().open(node), pieces(x, [5, 16])), node(x), **CLOSE)
