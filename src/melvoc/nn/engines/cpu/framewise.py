"""What a ConvNeXt block has besides its large products: a depthwise convolution, layer normalisation, GELU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import View, instructions, kernel
from melvoc.nn.engines.cpu.finish import After
from melvoc.nn.engines.cpu.memory import POOL, Workspace, zeros
from melvoc.nn.engines.cpu.rows import GELU, ROW_CHUNK, SCALED_SUM, blocks_of, constant, move, view
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import (
    FLOAT,
    LANES,
    ROW_BYTES,
    VECTOR,
    Vec,
    at,
    everywhere,
    integer,
    load,
    looped,
    store,
)
from melvoc.nn.graph import Machine
from melvoc.nn.layers import BiasNorm, Conv1d, FrameNorm

DEPTHWISE_TAPS = 7  # ConvNeXt's; others go to torch
FRAMES = 8  # per job of a normalisation


def _depthwise(rows: int) -> Any:
    """Instructions: `rows` outputs; the first input row, taps and bias of a block, the first output row."""

    def emit(builder: ir.IRBuilder, source: ir.Value, taps: ir.Value, bias: ir.Value, out: ir.Value) -> None:
        inputs = [load(builder, at(builder, source, i)) for i in range(rows + DEPTHWISE_TAPS - 1)]
        factors = [load(builder, at(builder, taps, i)) for i in range(DEPTHWISE_TAPS)]
        for i in range(rows):
            total = load(builder, bias)
            for tap, factor in enumerate(factors):
                total = total + inputs[i + tap] * factor
            store(builder, at(builder, out, i), total)

    return instructions(4, emit)


def _sum(row: Vec) -> Vec:
    """The sum of the lanes, in each lane."""
    for distance in (4, 2, 1):
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [lane ^ distance for lane in range(LANES)])
        row = row + Vec(row.builder, row.builder.shuffle_vector(row.value, row.value, order))
    return row


class _Rows:
    """Rows of several blocks, side by side in registers while a kernel is compiled.

    Args:
        count: of rows.
        block: bytes from block to block.
        blocks: how many.
    """

    def __init__(self, builder: ir.IRBuilder, count: int, source: ir.Value, block: ir.Value, blocks: ir.Value) -> None:
        self.builder, self.count, self.source, self.block, self.blocks = builder, count, source, block, blocks

    def of(self, number: ir.Value) -> list[Vec]:
        """The rows of a block."""
        first = self.builder.add(self.source, self.builder.mul(number, self.block))
        return [load(self.builder, at(self.builder, first, i)) for i in range(self.count)]

    def totals(self, change: Callable[[ir.Value, int, Vec], Vec]) -> list[Vec]:
        """The sums over all channels of what a block's number, a row's and its values become."""
        nothing = Vec(self.builder, ir.Constant(VECTOR, [0.0] * LANES))

        def turn(number: ir.Value, totals: Sequence[Vec]) -> list[Vec]:
            return [totals[i] + change(number, i, row) for i, row in enumerate(self.of(number))]

        return [_sum(total) for total in looped(self.builder, self.blocks, [nothing] * self.count, turn)]

    def inverse_roots(self, totals: Sequence[Vec], share: Vec, least: Vec | None = None) -> list[Vec]:
        """One over the roots of means, in each lane, from the sums."""
        return [self._inverse_root(total * share + least if least else total * share) for total in totals]

    def _inverse_root(self, mean: Vec) -> Vec:
        first = self.builder.extract_element(mean.value, ir.Constant(ir.IntType(32), 0))  # the same in each lane
        root = self.builder.call(self.builder.module.declare_intrinsic("llvm.sqrt", [FLOAT]), [first])
        return everywhere(self.builder, self.builder.fdiv(ir.Constant(FLOAT, 1.0), root))

    def write(self, out: ir.Value, block: ir.Value, change: Callable[[ir.Value, int, Vec], Vec]) -> None:
        """What a block's number, a row's and its values become, from `out` on."""

        def turn(number: ir.Value, _: Sequence[Vec]) -> list[Vec]:
            first = self.builder.add(out, self.builder.mul(number, block))
            for i, row in enumerate(self.of(number)):
                store(self.builder, at(self.builder, first, i), change(number, i, row))
            return []

        looped(self.builder, self.blocks, [], turn)


def _row_of(builder: ir.IRBuilder, table: ir.Value, number: ir.Value) -> Vec:
    """A block's row of a table."""
    return load(builder, builder.add(table, builder.mul(number, integer(ROW_BYTES))))


def _norm(count: int) -> Any:
    """Instructions: layer normalisation of `count` rows."""

    def emit(builder: ir.IRBuilder, *addresses: ir.Value) -> None:
        source, block, blocks, weight, bias, share, least, out, out_block = addresses
        rows, part = _Rows(builder, count, source, block, blocks), load(builder, share)
        means = [total * part for total in rows.totals(lambda number, i, row: row)]
        squares = rows.totals(lambda number, i, row: (row - means[i]) * (row - means[i]))
        scales = rows.inverse_roots(squares, part, load(builder, least))

        def normed(number: ir.Value, i: int, row: Vec) -> Vec:
            factor, offset = _row_of(builder, weight, number), _row_of(builder, bias, number)
            return (row - means[i]) * scales[i] * factor + offset

        rows.write(out, out_block, normed)

    return instructions(9, emit)


def _bias_norm(count: int) -> Any:
    """Instructions: `count` rows over the root mean square of them less a bias."""

    def emit(builder: ir.IRBuilder, *addresses: ir.Value) -> None:
        source, block, blocks, bias, factor, share, out, out_block = addresses
        rows, whole = _Rows(builder, count, source, block, blocks), load(builder, factor)

        def square(number: ir.Value, i: int, row: Vec) -> Vec:
            rest = row - _row_of(builder, bias, number)
            return rest * rest

        scales = rows.inverse_roots(rows.totals(square), load(builder, share))
        rows.write(out, out_block, lambda number, i, row: row * scales[i] * whole)

    return instructions(8, emit)


_eight, _single = _depthwise(8), _depthwise(1)
_four_normed, _one_normed = _norm(4), _norm(1)
_four_bias_normed, _one_bias_normed = _bias_norm(4), _bias_norm(1)


class DepthwiseRows(NamedTuple):
    """Arguments of `depthwise`; `taps` is the address of seven rows per block, `bias` of one."""

    blocks: int
    rows: int
    source: View
    taps: int
    bias: int
    out: View


@kernel(DepthwiseRows)
def depthwise(
    counter: int,
    jobs: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    taps: int,
    bias: int,
    out: int,
    out_batch: int,
    out_block: int,
) -> None:
    """Each channel on its own; a job is a block of channels and up to ROW_CHUNK rows."""
    chunk_count = (rows + ROW_CHUNK - 1) // ROW_CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        i = (chunk % chunk_count) * ROW_CHUNK
        end = min(rows, i + ROW_CHUNK)
        x = source + entry * source_batch + block * source_block
        y = out + entry * out_batch + block * out_block
        while i + 8 <= end:
            _eight(x + i * 32, taps + block * 7 * 32, bias + block * 32, y + i * 32)
            i += 8
        while i < end:
            _single(x + i * 32, taps + block * 7 * 32, bias + block * 32, y + i * 32)
            i += 1


class Normalise(NamedTuple):
    """Arguments of `normalise`; `weight` and `bias` are addresses of a row per block."""

    blocks: int
    rows: int
    source: View
    weight: int
    bias: int
    share: int
    least: int
    out: View


@kernel(Normalise)
def normalise(
    counter: int,
    jobs: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    weight: int,
    bias: int,
    share: int,
    least: int,
    out: int,
    out_batch: int,
    out_block: int,
) -> None:
    """Each row over all blocks; a job is up to FRAMES rows. `share` is a row of 1 / channels, `least` of epsilon."""
    chunk_count = (rows + FRAMES - 1) // FRAMES
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        i = (job % chunk_count) * FRAMES
        end = min(rows, i + FRAMES)
        x = source + (job // chunk_count) * source_batch
        y = out + (job // chunk_count) * out_batch
        while i + 4 <= end:
            _four_normed(x + i * 32, source_block, blocks, weight, bias, share, least, y + i * 32, out_block)
            i += 4
        while i < end:
            _one_normed(x + i * 32, source_block, blocks, weight, bias, share, least, y + i * 32, out_block)
            i += 1


class BiasNormalise(NamedTuple):
    """Arguments of `bias_normalise`; `bias` is the address of a row per block, `factor` and `share` of one."""

    blocks: int
    rows: int
    source: View
    bias: int
    factor: int
    share: int
    out: View


@kernel(BiasNormalise)
def bias_normalise(
    counter: int,
    jobs: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    bias: int,
    factor: int,
    share: int,
    out: int,
    out_batch: int,
    out_block: int,
) -> None:
    """Each row over the root mean square of it less a bias, over all blocks; a job is up to FRAMES rows.

    `share` is a row of 1 / channels, `factor` of what multiplies the result.
    """
    chunk_count = (rows + FRAMES - 1) // FRAMES
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        i = (job % chunk_count) * FRAMES
        end = min(rows, i + FRAMES)
        x = source + (job // chunk_count) * source_batch
        y = out + (job // chunk_count) * out_batch
        while i + 4 <= end:
            _four_bias_normed(x + i * 32, source_block, blocks, bias, factor, share, y + i * 32, out_block)
            i += 4
        while i < end:
            _one_bias_normed(x + i * 32, source_block, blocks, bias, factor, share, y + i * 32, out_block)
            i += 1


@dataclass(frozen=True)
class Sizes:
    """Input and output blocks of channels."""

    inputs: int
    outputs: int


class Depthwise:
    """A depthwise layer as a `Convolution`.

    Args:
        layer: one that `takes` accepts.
    """

    slope = None

    def __init__(self, layer: Conv1d) -> None:
        blocks = blocks_of(layer.in_channels)
        self.weights, self.span = Sizes(blocks, blocks), DEPTHWISE_TAPS - 1
        self._taps = zeros(DEPTHWISE_TAPS, blocks * LANES)
        self._taps[:, : layer.in_channels] = layer.weight.detach()[:, 0].T
        self._taps = self._taps.view(DEPTHWISE_TAPS, blocks, LANES).transpose(0, 1).contiguous()
        self._bias = zeros(blocks * LANES)
        if layer.bias is not None:
            self._bias[: layer.in_channels] = layer.bias.detach()

    @staticmethod
    def takes(layer: Conv1d) -> bool:
        """Whether the kernel can run this layer."""
        alone = layer.groups == layer.in_channels == layer.out_channels
        return alone and layer.kernel_size[0] == DEPTHWISE_TAPS and layer.dilation[0] == 1 and layer.slope is None

    def run(
        self, window: Tensor, out: Tensor, extra: Tensor | None, workspace: Workspace, *, after: After | None = None
    ) -> None:
        """Convolve; see `Convolution.run`. No activation follows."""
        assert after is None
        batch, blocks, rows, _ = out.shape
        arguments = DepthwiseRows(
            blocks=blocks,
            rows=rows,
            source=view(window),
            taps=self._taps.data_ptr(),
            bias=self._bias.data_ptr(),
            out=view(out),
        )
        TEAM.run(depthwise, batch * blocks * -(-rows // ROW_CHUNK), arguments, vectors=batch * blocks * rows * 10)
        if extra is not None:
            move(SCALED_SUM, extra[:, :, :rows], out)


class NormCoefficients:
    """Weight and bias of a `FrameNorm`, as rows."""

    def __init__(self, layer: FrameNorm) -> None:
        self.weight = layer.weight.detach().contiguous()
        self.bias = layer.bias.detach().contiguous()
        self.share, self.least = constant(1.0 / len(self.weight)), constant(layer.eps)


class BiasNormCoefficients:
    """Bias and factor of a `BiasNorm`, as rows."""

    def __init__(self, layer: BiasNorm) -> None:
        channels = len(layer.bias)
        self.bias = zeros(blocks_of(channels) * LANES)
        self.bias[:channels] = layer.bias.detach()
        self.factor = zeros(LANES) + layer.log_scale.detach().exp()
        self.share = constant(1.0 / channels)


class BiasNormMachine(Machine):
    """Runs a `BiasNorm`."""

    def __init__(self, coefficients: BiasNormCoefficients) -> None:
        self.coefficients = coefficients

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        own = self.coefficients
        batch, blocks, rows, _ = x.shape
        out = POOL.empty(batch, blocks, rows, LANES)
        if rows:
            arguments = BiasNormalise(
                blocks=blocks,
                rows=rows,
                source=view(x),
                bias=own.bias.data_ptr(),
                factor=own.factor.data_ptr(),
                share=own.share.address,
                out=view(out),
            )
            TEAM.run(bias_normalise, batch * -(-rows // FRAMES), arguments, vectors=batch * blocks * rows * 8)
        return out


class NormMachine(Machine):
    """Runs a `FrameNorm` of a multiple of eight channels."""

    def __init__(self, coefficients: NormCoefficients) -> None:
        self.coefficients = coefficients

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        own = self.coefficients
        batch, blocks, rows, _ = x.shape
        out = POOL.empty(batch, blocks, rows, LANES)
        if rows:
            arguments = Normalise(
                blocks=blocks,
                rows=rows,
                source=view(x),
                weight=own.weight.data_ptr(),
                bias=own.bias.data_ptr(),
                share=own.share.address,
                least=own.least.address,
                out=view(out),
            )
            TEAM.run(normalise, batch * -(-rows // FRAMES), arguments, vectors=batch * blocks * rows * 12)
        return out


class GeluMachine(Machine):
    """Runs a GELU."""

    def after(self) -> After:
        """The same, of a product."""
        return After(GELU, constant(0.0).address, 0)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        batch, blocks, rows, _ = x.shape
        out = POOL.empty(batch, blocks, rows, LANES)
        move(GELU, x, out, work=40)
        return out
