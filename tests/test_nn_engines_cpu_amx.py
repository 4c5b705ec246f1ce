"""Float32 numbers as three of the matrix unit's, and where there is such a unit."""

from __future__ import annotations

import pytest
import torch
from numba.core import config

from melvoc.nn.engines.cpu import amx
from melvoc.nn.engines.cpu.compile import routine, target_features


@routine
def split(plain: int, parts: int, slots: int) -> None:
    for slot in range(slots + 3):  # what is beyond the last does no harm
        amx.split_slot(plain, plain, parts, slot, slots)


@pytest.mark.skipif("avx512bw" not in target_features(), reason="needs a processor with AVX-512")
def test_three_parts_are_the_number() -> None:
    plain = torch.randn(8, 1024) * torch.logspace(-20, 20, 1024)
    parts = torch.full((8, 3, 1024), torch.nan, dtype=torch.bfloat16)
    split(plain.data_ptr(), parts.data_ptr(), 64)
    assert torch.equal(parts.double().sum(1), plain.double())


def test_packed_weights_are_the_weights_and_zeros() -> None:
    weight = torch.randn(40, 33, 3)
    packed = amx.packed(weight)[: -3 * 1024].view(2, 3, 2, 2, 16, 16, 2)
    again = packed.permute(0, 3, 5, 2, 4, 6, 1).reshape(64, 64, 3)
    assert torch.equal(again[:40, :33], weight)
    assert not again[40:].any()
    assert not again[:, 33:].any()


@pytest.mark.parametrize(("name", "value"), [("CPU_FEATURES", ""), ("ENABLE_AVX", 0)])
def test_where_numba_compiles_for_another_processor_there_is_no_unit(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NUMBA_CPU_NAME=generic, for example: there LLVM would end the process."""
    monkeypatch.setattr(config, name, value)
    assert not amx.available.__wrapped__()
