"""What processes agree on, and what one says when another is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from melvoc import MelvocError
from melvoc.train.distributed import World

EXCHANGES: dict[str, Callable[[World], object]] = {
    "share": lambda world: world.share(nn.Linear(2, 2)),
    "average_gradients": lambda world: world.average_gradients(with_gradients()),
    "mean": lambda world: world.mean(torch.zeros(2)),
    "any": lambda world: world.any(False),
    "wait": lambda world: world.wait(),
}


def with_gradients() -> nn.Module:
    module = nn.Linear(2, 2)
    module(torch.ones(1, 2)).sum().backward()
    return module


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_process_that_is_gone_is_one_line_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object, **options: object) -> None:
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    monkeypatch.setattr("torch.distributed.all_reduce", gone)
    monkeypatch.setattr("torch.distributed.broadcast", gone)
    with pytest.raises(
        MelvocError, match=r"^process 1 of 2 stops, since another one has ended .* \(--resume\)$"
    ) as found:
        EXCHANGES[name](World(rank=1, size=2))
    assert "gloo" not in str(found.value)


@pytest.mark.parametrize("name", EXCHANGES)
def test_one_process_exchanges_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch.distributed.all_reduce")
    monkeypatch.delattr("torch.distributed.broadcast")
    result = EXCHANGES[name](World())
    assert torch.equal(result, torch.zeros(2)) if isinstance(result, torch.Tensor) else not result
