"""Memory of large signals: used again, and never while something still looks at it."""

from __future__ import annotations

import gc
import mmap

import pytest
import torch

from melvoc.nn.engines.cpu.memory import HUGE, LARGE, MOST_BYTES, MOST_FREE, Pool, settled

ROWS = LARGE // 8 + 1


def test_memory_is_used_again_when_nothing_has_it() -> None:
    pool = Pool()
    first = pool.empty(1, 1, ROWS, 8)
    assert first.shape == (1, 1, ROWS, 8)
    assert first.is_contiguous()
    address = first.data_ptr()
    assert pool.empty(1, 1, ROWS, 8).data_ptr() != address
    del first
    gc.collect()
    addresses = {tensor.data_ptr() for tensor in [pool.empty(1, 1, ROWS, 8) for _ in range(2)]}
    assert address in addresses


def test_a_view_keeps_the_memory() -> None:
    pool = Pool()
    tensor = pool.empty(1, 1, ROWS, 8).fill_(1.0)
    view = tensor[:, :, 5:9]
    del tensor
    gc.collect()
    others = [pool.empty(1, 1, ROWS, 8).fill_(2.0) for _ in range(3)]
    assert len({other.data_ptr() for other in others}) == 3
    assert torch.equal(view, torch.ones(1, 1, 4, 8))


def test_sizes_that_are_near_share_memory_and_little_is_left_lying() -> None:
    pool = Pool()
    address = pool.empty(1, 1, ROWS, 8).data_ptr()
    assert pool.empty(1, 1, ROWS + 10, 8).data_ptr() == address
    many = [pool.empty(1, 1, ROWS, 8) for _ in range(3 * MOST_FREE)]
    del many
    gc.collect()
    assert [len(free) for free in pool._free.values()] == [MOST_FREE]


def test_very_large_signals_leave_little_and_all_goes_when_it_is_cleared() -> None:
    pool = Pool()
    many = [pool.empty(MOST_BYTES // 8) for _ in range(4)]  # half of it each
    del many
    gc.collect()
    assert [len(free) for free in pool._free.values()] == [2]
    pool.clear()
    assert [len(free) for free in pool._free.values()] == [0]


def test_small_signals_are_torchs() -> None:
    pool = Pool()
    assert pool.empty(2, 1, 3, 8).shape == (2, 1, 3, 8)
    assert not pool._free


def test_weights_in_large_pages_are_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, HUGE // 4 + 5)
    found = settled(x)
    assert torch.equal(found, x)
    assert found.is_contiguous()
    small = x[:, :100].contiguous()
    assert settled(small) is small
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)  # another system
    assert settled(x) is x


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="needs Linux")
def test_large_pages_begin_where_pages_do() -> None:
    assert settled(torch.randn(HUGE // 4)).data_ptr() % HUGE == 0
