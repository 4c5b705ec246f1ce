"""What a ConvNeXt block has besides its large products: a depthwise convolution, layer normalisation, GELU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import View, instructions, keep, kernel
from melvoc.nn.engines.cpu.finish import After
from melvoc.nn.engines.cpu.memory import POOL, Workspace, zeros
from melvoc.nn.engines.cpu.rows import GELU, ROW_CHUNK, SCALED_SUM, blocks_of, constant, move, view
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import FLOAT, LANES, Vec, at, load, spread, store, zero_row
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


def _emit_add(builder: ir.IRBuilder, source: ir.Value, total: ir.Value) -> None:
    store(builder, total, load(builder, total) + load(builder, source))


def _emit_add_square(builder: ir.IRBuilder, source: ir.Value, mean: ir.Value, total: ir.Value) -> None:
    rest = load(builder, source) - load(builder, mean)
    store(builder, total, load(builder, total) + rest * rest)


def _sum(row: Vec) -> Vec:
    """The sum of the lanes, in each lane."""
    for distance in (4, 2, 1):
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [lane ^ distance for lane in range(LANES)])
        row = row + Vec(row.builder, row.builder.shuffle_vector(row.value, row.value, order))
    return row


def _emit_mean(builder: ir.IRBuilder, total: ir.Value, share: ir.Value) -> None:
    store(builder, total, _sum(load(builder, total)) * load(builder, share))


def _emit_inverse_root(builder: ir.IRBuilder, total: ir.Value, share: ir.Value, least: ir.Value) -> None:
    variance = _sum(load(builder, total)) * load(builder, share) + load(builder, least)  # the same in each lane
    first = builder.extract_element(variance.value, ir.Constant(ir.IntType(32), 0))
    root = builder.call(builder.module.declare_intrinsic("llvm.sqrt", [FLOAT]), [first])
    builder.store(builder.fdiv(ir.Constant(FLOAT, 1.0), root), builder.inttoptr(total, FLOAT.as_pointer()), align=4)
    store(builder, total, spread(builder, total))


def _emit_normed(builder: ir.IRBuilder, *addresses: ir.Value) -> None:
    source, mean, scale, weight, bias = (load(builder, address) for address in addresses[:5])
    store(builder, addresses[5], (source - mean) * scale * weight + bias)


_eight, _single = _depthwise(8), _depthwise(1)
_add, _add_square = instructions(2, _emit_add), instructions(3, _emit_add_square)
_mean, _inverse_root = instructions(2, _emit_mean), instructions(3, _emit_inverse_root)
_normed = instructions(6, _emit_normed)


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
    scratch = np.empty(2 * 8, np.float32)
    mean = scratch.ctypes.data
    scale = mean + 32
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        first = (job % chunk_count) * FRAMES
        for i in range(first, min(rows, first + FRAMES)):
            x = source + (job // chunk_count) * source_batch + i * 32
            y = out + (job // chunk_count) * out_batch + i * 32
            zero_row(mean)
            zero_row(scale)
            for block in range(blocks):
                _add(x + block * source_block, mean)
            _mean(mean, share)
            for block in range(blocks):
                _add_square(x + block * source_block, mean, scale)
            _inverse_root(scale, share, least)
            for block in range(blocks):
                _normed(
                    x + block * source_block, mean, scale, weight + block * 32, bias + block * 32, y + block * out_block
                )
    keep(scratch)


class BiasNormalise(NamedTuple):
    """Arguments of `bias_normalise`; `bias` is the address of a row per block, `factor`, `share`, `none` of one."""

    blocks: int
    rows: int
    source: View
    bias: int
    factor: int
    share: int
    none: int
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
    none: int,
    out: int,
    out_batch: int,
    out_block: int,
) -> None:
    """Each row over the root mean square of it less a bias, over all blocks; a job is up to FRAMES rows.

    `share` is a row of 1 / channels, `factor` of what multiplies the result, `none` of zeros.
    """
    chunk_count = (rows + FRAMES - 1) // FRAMES
    scratch = np.empty(8, np.float32)
    scale = scratch.ctypes.data
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        first = (job % chunk_count) * FRAMES
        for i in range(first, min(rows, first + FRAMES)):
            x = source + (job // chunk_count) * source_batch + i * 32
            y = out + (job // chunk_count) * out_batch + i * 32
            zero_row(scale)
            for block in range(blocks):
                _add_square(x + block * source_block, bias + block * 32, scale)
            _inverse_root(scale, share, none)
            for block in range(blocks):
                _normed(x + block * source_block, none, scale, factor, none, y + block * out_block)
    keep(scratch)


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
        self.share, self.none = constant(1.0 / channels), constant(0.0)


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
                none=own.none.address,
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
