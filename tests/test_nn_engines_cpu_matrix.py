"""Products on the matrix unit, and the same without one: as exact as float32, for any shape, in any pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cpu_layers import engine, error, exact, run
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.engines.cpu import amx, conv, matrix, weights
from melvoc.nn.graph import Chain, Map, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d, FrameLinear, PReLU

EXACT = 1e-6  # of the largest output

needs_amx = pytest.mark.skipif(not amx.available(), reason="needs a processor with AMX")
WAYS = [pytest.param(True, marks=needs_amx, id="matrix unit"), pytest.param(False, id="vector unit")]


@pytest.fixture(scope="module", autouse=True)
def layers_of_any_size() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "REUSE", 1)
        yield


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(amx, "available", lambda: request.param)
    monkeypatch.setattr(conv, "ENOUGH", 1)
    return bool(request.param)


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize(
    "layer", [Conv1d(32, 32, 1), Conv1d(100, 72, 7), Conv1d(65, 136, 3, dilation=2), Conv1d(512, 40, 1)], ids=str
)
@pytest.mark.parametrize(("batch", "count"), [(1, 1), (1, 16), (3, 17), (1, 33), (2, 95)])
def test_any_shape(way: bool, layer: Conv1d, batch: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "SOURCE_BYTES", 2**15)  # several jobs of rows
    layer.requires_grad_(False)
    x = torch.randn(batch, layer.in_channels, count)
    assert error(run(engine().open(layer), [x]), exact(layer)(x)) < EXACT


@needs_amx
@pytest.mark.parametrize("layer", [Conv1d(300, 100, 3), Conv1d(260, 33, 1), Conv1d(1000, 72, 1)], ids=str)
@pytest.mark.parametrize(("batch", "count"), [(1, 33), (3, 40), (2, 95)])
def test_many_inputs_are_multiplied_block_by_block(
    layer: Conv1d, batch: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums wait for the next block, and come out the same to the bit."""
    layer.requires_grad_(False)
    x = torch.randn(batch, layer.in_channels, count)
    at_once = run(engine().open(layer), [x])
    for name, value in (("SOURCE_BYTES", 2**15), ("BLOCK", 2), ("MOST_PANELS", 2)):
        monkeypatch.setattr(matrix, name, value)
    assert matrix.division(count * batch + 32, layer.in_channels // 32, 99, 4, 1).chunks == 2
    assert torch.equal(run(engine().open(layer), [x]), at_once)
    assert error(at_once, exact(layer)(x)) < EXACT


LINEAR, PRELU = FrameLinear(48, 64), PReLU(64)
nn.init.normal_(PRELU.weight)
BACK = FrameLinear(64, 48)
NODES: dict[str, tuple[Node, Callable[[Tensor], Tensor]]] = {
    "gelu": (Chain((Map(LINEAR), Map(F.gelu))), lambda x: F.gelu(exact(LINEAR)(x))),
    "prelu": (Chain((Map(LINEAR), Map(PRELU))), lambda x: exact(PRELU)(exact(LINEAR)(x))),
    "residual": (
        Residual(Chain((Map(LINEAR), Map(F.gelu), Map(BACK)))),
        lambda x: x + exact(BACK)(F.gelu(exact(LINEAR)(x))),
    ),
}


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("name", NODES)
def test_activations_and_sums_are_part_of_the_product(way: bool, name: str) -> None:
    node, expected = NODES[name]
    x = torch.randn(2, 48, 50)
    with torch.no_grad():
        assert error(run(engine().open(Chain((node,))), [x]), expected(x.double()).float()) < EXACT


@needs_amx
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 150), max_size=5), seed=st.integers(0, 99))
def test_pieces_join_to_the_whole(cuts: list[int], seed: int) -> None:
    """Short ones run without the unit."""
    node, expected = NODES["residual"]
    x = torch.randn(1, 48, 150, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert error(run(engine().open(Chain((node,))), pieces(x, cuts)), expected(x.double()).float()) < EXACT


@needs_amx
def test_nan_stays_in_its_row() -> None:
    layer = Conv1d(64, 64, 3).requires_grad_(False)
    x = torch.randn(1, 64, 40)
    x[0, 3, 20], x[0, 5, 30] = torch.nan, torch.inf
    bad = ~run(engine().open(layer), [x]).isfinite().all(dim=1)[0]
    assert bad.nonzero().flatten().tolist() == [19, 20, 21, 29, 30, 31]


def test_where_there_is_no_unit_nothing_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Conv1d(64, 320, 1)
    monkeypatch.setattr(amx, "available", lambda: True)
    assert weights.SplitWeights.of(layer, weights.Budget(limited=False))
    assert weights.SplitWeights.of(layer, weights.Budget(limited=True)) is None
    monkeypatch.setattr(amx, "available", lambda: False)
    assert weights.SplitWeights.of(layer, weights.Budget(limited=False)) is None


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Conv1d(32, 32, 11), True),
        (Conv1d(32, 33, 5), True),  # two panels
        (Conv1d(512, 320, 1), True),
        (Conv1d(31, 320, 1), False),  # tiles would be part empty
        (Conv1d(64, 31, 11), False),
        (Conv1d(64, 64, 3), False),  # a split row is read six times only
        (ConvTranspose1d(64, 64, 16, 8), False),
    ],
    ids=str,
)
def test_layers_that_use_each_split_row_often_run_on_the_unit(
    layer: Conv1d | ConvTranspose1d, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splitting the rows of a small layer takes longer than the unit saves."""
    monkeypatch.setattr(matrix, "REUSE", 10)
    assert matrix.pays(layer) is expected
