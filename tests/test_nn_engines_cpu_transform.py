"""The transforms are exact convolutions, as numbers and as programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melvoc.nn.engines.cpu.plan import WORTH, CostModel
from melvoc.nn.engines.cpu.transform import TRANSFORMS, Fourier, ToomCook, Transform, apply, inverse_real_dft, real_dft

MORE = (Fourier(5, 14), Fourier(3, 4), Fourier(3, 10), Fourier(7, 18), Fourier(11, 66), ToomCook(2, 3, (0.0, 1.0)))


def correlate(transform: Transform, tile: list[float], taps: list[float]) -> list[float]:
    slots = transform.forward(tile)
    spectrum = transform.weights() @ np.array(taps)
    assert len(slots) == len(spectrum) == transform.products
    return transform.inverse([slot * factor for slot, factor in zip(slots, spectrum, strict=True)])


@pytest.mark.parametrize("transform", [*TRANSFORMS, *MORE], ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_transforms_correlate(transform: Transform, data: st.DataObject) -> None:
    numbers = st.floats(-8, 8, allow_subnormal=False)
    tile = data.draw(st.lists(numbers, min_size=transform.size, max_size=transform.size))
    taps = data.draw(st.lists(numbers, min_size=transform.taps, max_size=transform.taps))
    result = correlate(transform, tile, taps)
    assert len(result) == transform.outputs
    np.testing.assert_allclose(result, np.correlate(tile, taps, "valid"), rtol=0, atol=1e-10)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_transforms_of_arrays_are_those_of_each_row(transform: Transform) -> None:
    rng = np.random.default_rng(0)
    tiles, taps = rng.normal(size=(transform.size, 5)), rng.normal(size=transform.taps)
    slots = transform.forward(list(tiles))
    factors = transform.weights() @ taps
    result = np.stack(transform.inverse([slot * factor for slot, factor in zip(slots, factors, strict=True)]))
    expected = np.stack([np.correlate(column, taps, "valid") for column in tiles.T], axis=1)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_a_transform_is_known_by_its_size_and_by_its_products() -> None:
    """Compiled code is told which one it is by these numbers."""
    assert len({transform.size for transform in TRANSFORMS}) == len(TRANSFORMS)
    assert len({transform.products for transform in TRANSFORMS}) == len(TRANSFORMS)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_a_transform_saves_products(transform: Transform) -> None:
    assert transform.products < transform.taps * transform.outputs


@pytest.mark.parametrize("size", [2, 3, 4, 6, 8, 12, 16, 24, 32, 48])
def test_the_real_dft_is_numpys_and_goes_back(size: int) -> None:
    x = np.random.default_rng(size).normal(size=size)
    bins = real_dft(list(x))
    complete = np.array([complex(real, 0.0 if imaginary is None else imaginary) for real, imaginary in bins])
    np.testing.assert_allclose(complete, np.fft.rfft(x), atol=1e-12)
    np.testing.assert_allclose(np.array(inverse_real_dft(bins, size)) / size, x, atol=1e-12)


def test_apply_is_a_matrix_product() -> None:
    matrix = np.array([[1.0, -1.0, 0.0], [0.5, 0.0, 2.0], [0.0, 1.0, 1.0]])
    assert apply(matrix, [3.0, 5.0, 7.0]) == (matrix @ np.array([3.0, 5.0, 7.0])).tolist()


@settings(max_examples=200)
@given(
    taps=st.sampled_from([1, 2, 3, 5, 7, 11]),
    dilation=st.integers(1, 12),
    rate=st.sampled_from([1, 1, 4]),
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 200),
    batch=st.integers(1, 4),
    rows=st.integers(1, 5000),
)
def test_the_plan_is_about_the_cheapest(
    taps: int, dilation: int, rate: int, inputs: int, outputs: int, batch: int, rows: int
) -> None:
    costs = CostModel()
    chosen = costs.choose(taps, dilation, rate, inputs, outputs, batch, rows)
    prices = {None: costs.direct(taps, inputs, outputs, batch * rows)}
    for transform in TRANSFORMS:
        if transform.taps == taps:
            tiles = batch * dilation * -(-rows // (dilation * transform.outputs))
            prices[transform] = costs.transformed(transform, rate, inputs, outputs, tiles)
    assert prices[chosen] <= min(prices.values()) / WORTH
    smaller = list(prices)[: list(prices).index(chosen)]
    assert all(prices[chosen] < prices[way] for way in smaller), prices


def test_smaller_weights_come_first() -> None:
    assert len({transform.size for transform in TRANSFORMS}) == len(TRANSFORMS)  # a kernel knows them by it
    for taps in {transform.taps for transform in TRANSFORMS}:
        products = [transform.products for transform in TRANSFORMS if transform.taps == taps]
        assert products == sorted(products)


def test_larger_weights_must_be_worth_it() -> None:
    costs, blocks, rows = CostModel(), 4, 480
    small, large = Fourier(11, 26), Fourier(11, 50)
    prices = [costs.transformed(way, 1, blocks, blocks, -(-rows // way.outputs)) for way in (small, large)]
    assert WORTH * prices[0] < prices[1] < prices[0]
    assert costs.choose(11, 1, 1, blocks, blocks, 1, rows) == small


def test_what_a_machine_is_good_at_decides() -> None:
    shape = {"taps": 11, "dilation": 1, "rate": 1, "inputs": 48, "outputs": 48, "batch": 1, "rows": 768}
    assert CostModel(element=0.0).choose(**shape) is not None
    assert CostModel(element=1.0).choose(**shape) is None
    assert CostModel(multiply=0.0, element=0.0).choose(**shape) is None  # the direct one reads fewest weights
