"""The tanh that a network ends with: exact, at any length, as torch's at the ends of the numbers."""

from __future__ import annotations

import math

import pytest
import torch

from melvoc.nn.engines.cpu import make_cpu_engine
from melvoc.nn.engines.cpu.tanh import CHUNK, TanhMachine
from melvoc.nn.graph import Map


def opened() -> TanhMachine:
    machine = make_cpu_engine("auto", None).open(Map(torch.tanh))
    assert isinstance(machine, TanhMachine)
    return machine


@pytest.mark.parametrize("count", [1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_it_is_tanh(count: int) -> None:
    x = torch.randn(2, 1, count, generator=torch.Generator().manual_seed(count)) * 3
    torch.testing.assert_close(opened()(x, False).double(), x.double().tanh(), atol=2.5e-7, rtol=0)


def test_the_whole_range() -> None:
    x = torch.linspace(-12, 12, 400_001)[None, None]
    y = opened()(x, True)
    torch.testing.assert_close(y.double(), x.double().tanh(), atol=2.5e-7, rtol=0)
    assert y.abs().max() <= 1


def test_infinities_and_nan_are_torchs() -> None:
    x = torch.tensor([[[math.nan, math.inf, -math.inf, 0.0, 3e38, -3e38, 1e-30]]])
    torch.testing.assert_close(opened()(x, True), x.tanh(), atol=1e-7, rtol=0, equal_nan=True)


def test_a_piece_without_samples_and_one_with_steps() -> None:
    assert opened()(torch.zeros(1, 1, 0), False).shape == (1, 1, 0)
    x = torch.randn(1, 20, 2).transpose(1, 2)
    torch.testing.assert_close(opened()(x, True), x.tanh(), atol=2.5e-7, rtol=0)


def test_what_the_kernel_does_not_take_goes_to_torch() -> None:
    x = torch.randn(1, 1, 9, dtype=torch.float64)
    assert torch.equal(opened()(x, True), x.tanh())
    x = torch.randn(1, 1, 9, requires_grad=True)
    opened()(x, True).sum().backward()
    torch.testing.assert_close(x.grad, 1 - x.detach().tanh().square())
