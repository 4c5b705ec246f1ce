"""Signals as rows of eight channels, `[B, ceil(C / 8), N, 8]`, and the passes over them that are not convolutions.

The last two dimensions are contiguous, the others may have any step: a slice along time is a view.
"""

from __future__ import annotations

import threading

import torch
from llvmlite import ir
from torch import Tensor

from melvoc.nn.cpu.threads import TEAM
from melvoc.nn.cpu.vector import LANES, copy_value, instructions, kernel, load, store, take_job, zero_value

ROW_CHUNK = 2048
TORCH_ALONE = 32768  # values up to which torch copies without waking its own threads, which then spin beside ours


def _emit_leaky(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, slope: ir.Value) -> None:
    store(builder, target, load(builder, source).leaky(load(builder, slope)))


def _emit_scaled(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, scale: ir.Value) -> None:
    store(builder, target, load(builder, source) * load(builder, scale))


def _emit_scaled_sum(builder: ir.IRBuilder, source: ir.Value, target: ir.Value, scale: ir.Value) -> None:
    store(builder, target, load(builder, target) + load(builder, source) * load(builder, scale))


_leaky = instructions(3, _emit_leaky)
_scaled = instructions(3, _emit_scaled)
_scaled_sum = instructions(3, _emit_scaled_sum)


@kernel
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
) -> None:
    """Each row of `out` from that of `source`.

    Mode 0: leaky ReLU, factor is its slope. 1: times factor. 2: added to what is there, times factor.
    """
    chunk_count = (rows + 2048 - 1) // 2048
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = (job // chunk_count) % blocks
        entry = job // chunk_count // blocks
        start = (job % chunk_count) * 2048
        x = source + entry * source_batch + block * source_block
        y = out + entry * out_batch + block * out_block
        if mode == 0:
            for i in range(start, min(rows, start + 2048)):
                _leaky(x + i * 32, y + i * 32, factor)
        elif mode == 1:
            for i in range(start, min(rows, start + 2048)):
                _scaled(x + i * 32, y + i * 32, factor)
        else:
            for i in range(start, min(rows, start + 2048)):
                _scaled_sum(x + i * 32, y + i * 32, factor)


@kernel
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
    """Rows of signals with any steps; a job is a block and up to 2048 rows."""
    chunk_count = (rows + 2048 - 1) // 2048
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = (job // chunk_count) % blocks
        entry = job // chunk_count // blocks
        start = (job % chunk_count) * 2048
        y = out + (entry * blocks + block) * rows * 32
        for lane in range(8):
            channel = block * 8 + lane
            x = source + entry * source_batch + channel * source_channel
            for i in range(start, min(rows, start + 2048)):
                if channel < channels:
                    copy_value(x + i * source_step, y + i * 32 + 4 * lane)
                else:
                    zero_value(y + i * 32 + 4 * lane)


@kernel
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
    """Contiguous signals of rows; a job is a block and up to 2048 rows."""
    chunk_count = (rows + 2048 - 1) // 2048
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = (job // chunk_count) % blocks
        entry = job // chunk_count // blocks
        start = (job % chunk_count) * 2048
        x = source + entry * source_batch + block * source_block
        for lane in range(min(8, channels - block * 8)):
            y = out + (entry * channels + block * 8 + lane) * rows * 4
            for i in range(start, min(rows, start + 2048)):
                copy_value(x + i * 32 + 4 * lane, y + i * 4)


LEAKY, SCALED, SCALED_SUM = 0, 1, 2
_FACTORS = threading.local()


def constant(value: float) -> Tensor:
    """A row of one value; each thread keeps those that it has used."""
    known: dict[float, Tensor] = _FACTORS.__dict__.setdefault("known", {})
    if value not in known:
        known[value] = torch.full((LANES,), value)
    return known[value]


def steps(x: Tensor) -> tuple[int, int, int]:
    """Address, and bytes from batch entry to entry and from block to block."""
    return x.data_ptr(), 4 * x.stride(0), 4 * x.stride(1)


def move(mode: int, source: Tensor, out: Tensor, factor: float) -> None:
    """Run `pass_over` for all rows of source."""
    batch, blocks, rows, _ = source.shape
    if rows:
        jobs = batch * blocks * -(-rows // ROW_CHUNK)
        TEAM.run(
            pass_over, jobs, mode, blocks, rows, *steps(source), *steps(out), constant(factor).data_ptr(),
            vectors=batch * blocks * rows * 4,
        )  # fmt: skip


def copy_into(source: Tensor, out: Tensor) -> None:
    """Copy rows: small ones by torch, which does it on one thread, with less ado than a kernel."""
    if source.numel() < TORCH_ALONE:
        out[:, :, : source.shape[2]].copy_(source)
    else:
        move(SCALED, source, out, 1.0)


def copied(x: Tensor) -> Tensor:
    """A copy: for what has to outlive the buffer that it is in."""
    result = torch.empty(x.shape)
    copy_into(x, result)
    return result


def blocks_of(channels: int) -> int:
    """Blocks of eight that hold so many channels."""
    return -(-channels // LANES)


def to_rows(x: Tensor) -> Tensor:
    """`[B, C, N]` to rows; channels that there are not are 0."""
    batch, channels, count = x.shape
    rows = torch.empty(batch, blocks_of(channels), count, LANES)
    jobs = batch * rows.shape[1] * -(-count // ROW_CHUNK)
    TEAM.run(
        gather, jobs, channels, rows.shape[1], count, x.data_ptr(), *(4 * step for step in x.stride()),
        rows.data_ptr(),
    )  # fmt: skip
    return rows


def from_rows(x: Tensor, channels: int) -> Tensor:
    """Rows to `[B, C, N]`."""
    batch, blocks, count, _ = x.shape
    result = torch.empty(batch, channels, count)
    if count:
        jobs = batch * blocks * -(-count // ROW_CHUNK)
        TEAM.run(scatter, jobs, channels, blocks, count, *steps(x), result.data_ptr())
    return result


class Workspace(threading.local):
    """Buffers that a thread uses again and again; what is in one lasts until the next `take` of its name."""

    def __init__(self) -> None:
        self.buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A buffer `[*shape]` with anything in it."""
        size = 1
        for length in shape:
            size *= length
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self.buffers[name] = torch.empty(size + size // 8)
        return buffer[:size].view(shape)
