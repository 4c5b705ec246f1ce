"""Float32 numbers as three of the matrix unit's, and where there is such a unit."""

from __future__ import annotations

import pytest
import torch
from numba.core import config

from melvoc.nn.engines.cpu import amx


def test_three_parts_are_the_number() -> None:
    x = torch.randn(10_000) * torch.logspace(-20, 20, 10_000)
    parts = amx.split(x)
    assert parts.dtype == torch.bfloat16
    assert torch.equal(parts.double().sum(0), x.double())


def test_packed_weights_are_the_weights_and_zeros() -> None:
    weight = torch.randn(40, 33, 3)
    packed = amx.packed(weight)
    assert packed.shape == (2, 3, 2, 3, 2, 16, 16, 2)
    again = packed.double().sum(3).permute(0, 3, 5, 2, 4, 6, 1).reshape(64, 64, 3)
    assert torch.equal(again[:40, :33], weight.double())
    assert not again[40:].any()
    assert not again[:, 33:].any()


@pytest.mark.parametrize(("name", "value"), [("CPU_FEATURES", ""), ("ENABLE_AVX", 0)])
def test_where_numba_compiles_for_another_processor_there_is_no_unit(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NUMBA_CPU_NAME=generic, for example: there LLVM would end the process."""
    monkeypatch.setattr(config, name, value)
    assert not amx.available.__wrapped__()
