"""Every way to convolve, for every layer of every published network, against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cpu_layers import Shape, engine, error, exact, open_native, published_shapes, run
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces

from melvoc.nn.engines.cpu.conv import division, slot_step
from melvoc.nn.engines.cpu.plan import cached_tiles
from melvoc.nn.engines.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.graph import Chain, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d

EXACT = 3e-6  # of the largest output: 1.3e-6 was the worst seen (F(4, 3)), 6e-7 without transforms
LARGE = 500  # channels, from which a layer takes too long for every run of the suite

pytestmark = pytest.mark.usefixtures("one_thread")


def shapes() -> list[object]:
    found = sorted(published_shapes(), key=lambda shape: (shape.inputs, str(shape)))
    return [
        pytest.param(shape, id=str(shape), marks=[pytest.mark.slow] if max(shape.inputs, shape.outputs) > LARGE else [])
        for shape in found
    ]


def test_the_published_shapes_are_found() -> None:
    found = published_shapes()
    assert len(found) > 180
    up = Shape(inputs=1536, outputs=768, taps=16, dilation=1, rate=8, bias=True, slope=None)
    last = Shape(inputs=24, outputs=1, taps=7, dilation=1, rate=0, bias=False, slope=None)
    assert found[up] == [1]
    assert found[last] == [256, 512]
    assert {len(shape.plans) for shape in found} == {1, 2, 3}


@pytest.mark.parametrize("shape", shapes())
def test_every_layer_of_every_published_network(shape: Shape) -> None:
    torch.manual_seed(0)
    layer = shape.layer()
    node: Node = Residual(layer) if shape.inputs == shape.outputs and not shape.rate else layer
    reference, skipping = exact(layer), exact(node)
    rates = published_shapes()[shape]
    signals = [torch.randn(1, shape.inputs, length) for length in sorted({f * r for f in (1, 2, 3) for r in rates})]
    batch = torch.randn(3, shape.inputs, 3 * rates[0])
    cuts = [1, 1, rates[0], 2 * rates[0] + 1]
    whole, joined = [reference(x) for x in signals], skipping(batch)
    for transform in shape.plans:
        opener = engine(transform)
        for x, expected in zip(signals, whole, strict=True):
            assert error(run(opener.open(layer), [x]), expected) < EXACT, f"{transform}, {x.shape[-1]} samples"
        assert error(run(opener.open(node), pieces(batch, cuts)), joined) < EXACT, f"{transform}, a batch in pieces"


torch.manual_seed(0)  # the same weights, whichever tests were imported before
ODD = [  # channels that fill no block of eight, even kernels of transposed convolutions, remainders
    Conv1d(5, 3, 3, dilation=2),
    Conv1d(9, 17, 7, bias=False),
    Conv1d(20, 44, 11, dilation=3, slope=0.2),
    Conv1d(3, 7, 1),
    Conv1d(8, 8, 5, slope=0.0),
    ConvTranspose1d(5, 3, 4, 3),
    ConvTranspose1d(12, 30, 7, 2, slope=0.1),
    ConvTranspose1d(9, 9, 5, 5),
    ConvTranspose1d(4, 10, 9, 3),
]


@pytest.mark.parametrize("layer", ODD, ids=str)
@settings(max_examples=15, deadline=None)
@given(
    length=st.integers(1, 90),
    cuts=st.lists(st.integers(0, 90), max_size=5),
    batch=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_odd_shapes_in_any_pieces(
    layer: Conv1d | ConvTranspose1d, length: int, cuts: list[int], batch: int, seed: int
) -> None:
    x = torch.randn(batch, layer.in_channels, length, generator=torch.Generator().manual_seed(seed))
    layer.requires_grad_(False)
    expected = exact(layer)(x)
    up = isinstance(layer, ConvTranspose1d)
    shape = Shape(
        inputs=layer.in_channels, outputs=layer.out_channels, taps=layer.kernel_size[0], dilation=layer.dilation[0],
        rate=layer.stride[0] if up else 0, bias=True, slope=layer.slope,
    )  # fmt: skip
    for transform in shape.plans:
        assert error(run(open_native(layer, transform), pieces(x, cuts)), expected) < EXACT, transform


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.1, 1.0])
def test_a_leaky_relu_is_folded_into_the_layer(slope: float) -> None:
    layer = Conv1d(16, 16, 3, slope=slope).requires_grad_(False)
    x = torch.randn(2, 16, 50)
    x[0, 0, :3] = torch.tensor([0.0, -0.0, -1e-30])
    assert error(run(open_native(layer), [x]), exact(layer)(x)) < EXACT


def test_nan_reaches_the_outputs_that_see_it_and_no_others() -> None:
    layer = Conv1d(8, 8, 3).requires_grad_(False)
    x = torch.randn(1, 8, 40)
    x[0, 3, 20] = torch.nan
    bad = run(open_native(layer), [x]).isnan().any(dim=1)[0]
    assert bad.nonzero().flatten().tolist() == [19, 20, 21]


def test_equal_layers_in_a_chain_do_not_share_buffers() -> None:
    layer = Conv1d(16, 16, 7).requires_grad_(False)
    node = Chain((layer, layer, layer))
    x = torch.randn(1, 16, 70)
    assert error(run(open_native(node), pieces(x, [20, 21, 60])), exact(node)(x)) < EXACT


@pytest.mark.parametrize("transform", [way for way in TRANSFORMS if way.taps == 11], ids=str)
@pytest.mark.parametrize(("channels", "tiles"), [(128, 50), (256, 2), (256, 33), (256, 70)])
def test_more_slots_than_a_cache_holds(transform: Transform, channels: int, tiles: int) -> None:
    """In many runs that stay there; step by step for a few tiles, for as many as a job has, and for more."""
    layer = Conv1d(channels, channels, 11, dilation=3).requires_grad_(False)
    assert (cached_tiles(transform, 1, channels // 8, channels // 8) == 0) == (channels == 256)
    x = torch.randn(2, channels, 3 * tiles * transform.outputs + 1)
    assert error(run(engine(transform).open(layer), [x]), exact(layer)(x)) < EXACT


AS_WITH_AVX_512 = """
from melvoc.nn.engines.cpu import compile
real = compile.target_features
compile.target_features = lambda: {"avx512f"}
from melvoc.nn.engines.cpu import gemm
compile.target_features = real
assert gemm.FAR_WIDER and gemm.panel_width(4) == 4

import sys
import torch
from cpu_layers import engine, error, exact, run
from melvoc.nn.engines.cpu.transform import TRANSFORMS
from melvoc.nn.layers import Conv1d
torch.set_num_threads(1)
for channels in (8, 16, 32):
    for transform in (None, TRANSFORMS[0]):
        layer = Conv1d(16, channels, 3, slope=0.1).requires_grad_(False)
        for length in range(1, 30):
            x = torch.randn(1, 16, length)
            found = error(run(engine(transform).open(layer), [x]), exact(layer)(x))
            assert found < float(sys.argv[1]), f"{channels} channels, {transform}, {length} rows: {found}"
"""


@pytest.mark.slow
def test_products_are_the_same_in_the_tiles_of_avx_512(tmp_path: Path) -> None:
    """On any machine: LLVM makes what there is of the wider vectors."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", AS_WITH_AVX_512, str(EXACT)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr


@given(
    slots=st.integers(1, 50),
    rows=st.integers(1, 5000),
    inputs=st.integers(1, 200),
    panels=st.integers(1, 100),
    rows_first=st.integers(0, 1),
)
def test_jobs_cover_all_rows_and_panels(slots: int, rows: int, inputs: int, panels: int, rows_first: int) -> None:
    row_chunk, panel_chunk, jobs = division(slots, rows, inputs, panels, rows_first)
    assert row_chunk >= 1
    assert 1 <= panel_chunk <= panels
    assert jobs == slots * -(-rows // row_chunk) * -(-panels // panel_chunk)


@given(rows=st.integers(1, 10**6))
def test_slots_of_a_tile_lie_in_different_sets_of_a_cache(rows: int) -> None:
    assert slot_step(rows) >= rows * 32
    assert slot_step(rows) % 4096 == 64
