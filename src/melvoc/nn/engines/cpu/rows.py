"""Signals as rows of eight channels, `[B, ceil(C / 8), N, 8]`, and the passes over them that are not convolutions.

The last two dimensions are contiguous, the others may have any step: a slice along time is a view.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import View, instructions, kernel
from melvoc.nn.engines.cpu.functions import gelu
from melvoc.nn.engines.cpu.memory import POOL, floats
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import LANES, ROW_BYTES, copy_row, copy_value, load, store, zero_row, zero_value

ROW_CHUNK = 2048


def _emit_leaky(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, slope: ir.Value) -> None:
    store(builder, target, load(builder, source).leaky(load(builder, slope)))


def _emit_scaled(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, scale: ir.Value) -> None:
    store(builder, target, load(builder, source) * load(builder, scale))


def _emit_scaled_sum(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, scale: ir.Value) -> None:
    store(builder, target, load(builder, target) + load(builder, source) * load(builder, scale))


def _emit_gelu(builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
    store(builder, target, gelu(load(builder, source)))


def _emit_prelu(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, slope: ir.Value) -> None:
    store(builder, target, load(builder, source).rectified(load(builder, slope)))


_leaky = instructions(3, _emit_leaky)
_prelu = instructions(3, _emit_prelu)
_gelu = instructions(2, _emit_gelu)
_scaled = instructions(3, _emit_scaled)
_scaled_sum = instructions(3, _emit_scaled_sum)


class PassOver(NamedTuple):
    """Arguments of `pass_over`; `factor` is the address of a row for all blocks, or of one per block."""

    mode: int
    blocks: int
    rows: int
    source: View
    out: View
    factor: int
    factor_block: int


@kernel(PassOver)
def pass_over(
    counter: int,
    jobs: int,
    mode: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    out: int,
    out_batch: int,
    out_block: int,
    factor: int,
    factor_block: int,
) -> None:
    """Each row of `out` from that of `source`: times factor (mode 0), times factor and added to what is there (1), its
    GELU (2), or through a ReLU of slope `factor` below 0 (3)."""
    chunk_count = (rows + ROW_CHUNK - 1) // ROW_CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        start = (chunk % chunk_count) * ROW_CHUNK
        x = source + entry * source_batch + block * source_block
        y = out + entry * out_batch + block * out_block
        f = factor + block * factor_block
        if mode == 0:
            for i in range(start, min(rows, start + ROW_CHUNK)):
                _scaled(x + i * 32, y + i * 32, f)
        elif mode == 2:
            for i in range(start, min(rows, start + ROW_CHUNK)):
                _gelu(x + i * 32, y + i * 32)
        elif mode == 3:
            for i in range(start, min(rows, start + ROW_CHUNK)):
                _prelu(x + i * 32, y + i * 32, f)
        else:
            for i in range(start, min(rows, start + ROW_CHUNK)):
                _scaled_sum(x + i * 32, y + i * 32, f)


class Fill(NamedTuple):
    """Arguments of `fill`; `slope` is the address of a row."""

    blocks: int
    before: int
    rows: int
    total: int
    context: View
    source: View
    out: View
    slope: int


@kernel(Fill)
def fill(
    counter: int,
    jobs: int,
    blocks: int,
    before: int,
    rows: int,
    total: int,
    context: int,
    context_batch: int,
    context_block: int,
    source: int,
    source_batch: int,
    source_block: int,
    out: int,
    out_batch: int,
    out_block: int,
    slope: int,
) -> None:
    """`before` rows of context, `rows` of source through a leaky ReLU, zeros up to `total`.

    A context at address 0 is zeros; a source at 0 does not exist yet, and its rows are left as they are.
    """
    chunk_count = (total + ROW_CHUNK - 1) // ROW_CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        start = (chunk % chunk_count) * ROW_CHUNK
        end = min(total, start + ROW_CHUNK)
        y = out + entry * out_batch + block * out_block
        c = context + entry * context_batch + block * context_block
        for i in range(start, min(before, end)):
            if context != 0:
                copy_row(c + i * 32, y + i * 32)
            else:
                zero_row(y + i * 32)
        if source != 0:
            x = source + entry * source_batch + block * source_block - before * 32
            for i in range(max(before, start), min(before + rows, end)):
                _leaky(x + i * 32, y + i * 32, slope)
        for i in range(max(before + rows, start), end):
            zero_row(y + i * 32)


class Gather(NamedTuple):
    """Arguments of `gather`."""

    channels: int
    blocks: int
    rows: int
    source: int
    source_batch: int
    source_channel: int
    source_step: int
    out: int


@kernel(Gather)
def gather(
    counter: int,
    jobs: int,
    channels: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_channel: int,
    source_step: int,
    out: int,
) -> None:
    """Rows from signals with any steps; a job is a block and up to ROW_CHUNK rows."""
    chunk_count = (rows + ROW_CHUNK - 1) // ROW_CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        start = (chunk % chunk_count) * ROW_CHUNK
        y = out + (entry * blocks + block) * rows * 32
        for lane in range(8):
            channel = block * 8 + lane
            x = source + entry * source_batch + channel * source_channel
            for i in range(start, min(rows, start + ROW_CHUNK)):
                if channel < channels:
                    copy_value(x + i * source_step, y + i * 32 + 4 * lane)
                else:
                    zero_value(y + i * 32 + 4 * lane)


class Scatter(NamedTuple):
    """Arguments of `scatter`."""

    channels: int
    blocks: int
    rows: int
    source: View
    out: int


@kernel(Scatter)
def scatter(
    counter: int,
    jobs: int,
    channels: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    out: int,
) -> None:
    """Contiguous signals from rows; a job is a block and up to ROW_CHUNK rows."""
    chunk_count = (rows + ROW_CHUNK - 1) // ROW_CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        start = (chunk % chunk_count) * ROW_CHUNK
        x = source + entry * source_batch + block * source_block
        for lane in range(min(8, channels - block * 8)):
            y = out + (entry * channels + block * 8 + lane) * rows * 4
            for i in range(start, min(rows, start + ROW_CHUNK)):
                copy_value(x + i * 32 + 4 * lane, y + i * 4)


SCALED, SCALED_SUM, GELU, PRELU = 0, 1, 2, 3
NOTHING = View(0, 0, 0)


class Constant:
    """A row of one value, in memory."""

    def __init__(self, value: float) -> None:
        self._values = np.full(LANES, value, np.float32)
        self.address = int(self._values.ctypes.data)


_CONSTANTS: dict[float, Constant] = {}


def constant(value: float) -> Constant:
    """A row of one value, which is never freed: kernels are given only its address."""
    found = _CONSTANTS.get(value)
    return _CONSTANTS.setdefault(value, Constant(value)) if found is None else found  # all threads get the same


def view(x: Tensor, row: int = 0) -> View:
    """Rows `row` and later of a signal, as kernels are given them."""
    return View(x.data_ptr() + row * ROW_BYTES, 4 * x.stride(0), 4 * x.stride(1))


def move(
    mode: int, source: Tensor, out: Tensor, factor: float | Tensor = 1.0, *, first: int = 0, to: int = 0, work: int = 4
) -> None:
    """Run `pass_over` for rows `first` and later of source, and `to` and later of out, as many as both have.

    A row of eight channels takes about `work` vector operations. Factors may differ by channel: then they are a tensor
    that the caller keeps, with a row for each block.
    """
    batch, blocks, rows, _ = source.shape
    rows = min(rows - first, out.shape[2] - to)
    if rows > 0:
        jobs = batch * blocks * -(-rows // ROW_CHUNK)
        arguments = PassOver(
            mode=mode,
            blocks=blocks,
            rows=rows,
            source=view(source, first),
            out=view(out, to),
            factor=factor.data_ptr() if isinstance(factor, Tensor) else constant(factor).address,
            factor_block=ROW_BYTES if isinstance(factor, Tensor) else 0,
        )
        TEAM.run(pass_over, jobs, arguments, vectors=batch * blocks * rows * work)


def copied(x: Tensor, first: int = 0) -> Tensor:
    """A copy of rows `first` and later: for what has to outlive its buffer."""
    batch, blocks, rows, _ = x.shape
    result = POOL.empty(batch, blocks, rows - first, LANES)
    move(SCALED, x, result, first=first)
    return result


def fill_window(
    window: Tensor, context: Tensor | None, before: int, x: Tensor | None, rows: int, slope: float | None
) -> None:
    """What came before (None: zeros), `rows` rows of x through a leaky ReLU (None: left as they are), then zeros."""
    batch, blocks, total, _ = window.shape
    jobs = batch * blocks * -(-total // ROW_CHUNK)
    arguments = Fill(
        blocks=blocks,
        before=before,
        rows=rows,
        total=total,
        context=NOTHING if context is None else view(context),
        source=NOTHING if x is None else view(x),
        out=view(window),
        slope=constant(1.0 if slope is None else slope).address,
    )
    TEAM.run(fill, jobs, arguments, vectors=batch * blocks * total * 4)


def blocks_of(channels: int) -> int:
    """Blocks of eight that hold `channels` channels."""
    return -(-channels // LANES)


def to_rows(x: Tensor) -> Tensor:
    """`[B, C, N]` to rows; missing channels are 0."""
    batch, channels, count = x.shape
    rows = POOL.empty(batch, blocks_of(channels), count, LANES)
    jobs = batch * rows.shape[1] * -(-count // ROW_CHUNK)
    arguments = Gather(
        channels=channels,
        blocks=rows.shape[1],
        rows=count,
        source=x.data_ptr(),
        source_batch=4 * x.stride(0),
        source_channel=4 * x.stride(1),
        source_step=4 * x.stride(2),
        out=rows.data_ptr(),
    )
    TEAM.run(gather, jobs, arguments, vectors=batch * rows.shape[1] * count * LANES)
    return rows


def from_rows(x: Tensor, channels: int) -> Tensor:
    """Rows to `[B, C, N]`."""
    batch, blocks, count, _ = x.shape
    result = floats(batch, channels, count)
    if count:
        jobs = batch * blocks * -(-count // ROW_CHUNK)
        arguments = Scatter(channels=channels, blocks=blocks, rows=count, source=view(x), out=result.data_ptr())
        TEAM.run(scatter, jobs, arguments, vectors=batch * blocks * count * LANES)
    return result
