"""Products of float32 matrices on a processor's matrix unit, Intel's AMX, which multiplies bfloat16 and adds float32.

A float32 has 24 significant bits, three times those of a bfloat16. So it is the sum of three: its high, middle and low
parts. Of the nine products of the parts of two numbers, the three smallest are below 2^-26 of the result; the other six
give a product that errs no more than float32's own (Henry, Tang and Heinecke 2019, arXiv 1904.06376). They take 6 / 16
of the time that float32 takes on the vector unit of the same processor.

A tile is sixteen rows of 64 bytes. Two by two tiles of sums stay in registers; for a chunk of 32 inputs the high,
middle and low tiles of the rows and of the weights are read, two of each beside the other.

    rows       [chunks, 3 parts, rows, 32]                         bfloat16, made anew by `split_rows`
    weights    [panels, taps, chunks, 3 parts, 2, 16, 16, 2]       bfloat16: panels of 32 outputs, pairs of inputs

Subnormal numbers count as 0 there.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import Strided, View, instructions, keep, kernel, target_features
from melvoc.nn.engines.cpu.finish import After, finish, finish_two
from melvoc.nn.engines.cpu.vector import INT, WIDE, at, integer, load, switch
from melvoc.nn.layers import Conv1d, ConvTranspose1d

CHUNK = 32  # inputs that a tile's row has
HIGH = 32  # rows that are summed at a time
PANEL = 32  # outputs that are
SUMS_ROW = 4 * PANEL  # bytes
TILE = 1024
PAIR = 2 * TILE
STEP = 3 * PAIR  # bytes of a panel's weights for a chunk
AHEAD = STEP // 3  # bytes of the next panel that each chunk fetches into the second-level cache
REUSE = 10  # products of a row that are worth splitting it
SOURCE_BYTES = 2**20  # of a core's second-level cache, for the split rows of a product
FEATURES = {"amx-tile", "amx-bf16", "avx512f"}
REQUEST, DATA = 0x1023, 18  # arch_prctl: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
ARCH_PRCTL = 158

# The order in which the parts of rows and weights meet, low before high; a part that stays is not read again.
ORDER = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))


@functools.cache
def available() -> bool:
    """Whether kernels are compiled for a processor with the unit, and the system lets this process use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or not target_features() >= FEATURES:
        return False
    return int(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, DATA)) == 0


def pays(layer: Conv1d | ConvTranspose1d) -> bool:
    """Whether a layer fills tiles, and takes each of its split rows often enough: once per tap and panel."""
    filled = isinstance(layer, Conv1d) and min(layer.in_channels, layer.out_channels) >= CHUNK
    return filled and layer.kernel_size[0] * -(-layer.out_channels // PANEL) >= REUSE


def _configuration() -> np.ndarray:
    """What `ldtilecfg` reads: eight tiles of sixteen rows of 64 bytes."""
    memory = np.zeros(64, np.uint8)
    memory[0] = 1  # the palette
    memory[16:32].view(np.uint16)[:] = 64
    memory[48:56] = 16
    return memory


_MEMORY = _configuration()
CONFIGURATION = int(_MEMORY.ctypes.data)  # its address
BYTE = ir.IntType(8)
POINTER = BYTE.as_pointer()


def _do(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    """One instruction of the unit, or a prefetch, whose name depends on how LLVM writes a pointer."""
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    overloaded = [POINTER] if name == "prefetch" else []
    builder.call(builder.module.declare_intrinsic(f"llvm.{name}", overloaded, kind), arguments)


def _tile(number: int) -> ir.Constant:
    return ir.Constant(BYTE, number)


def _emit_product(builder: ir.IRBuilder, pairs: ir.Value, *arguments: ir.Value) -> None:
    switch(builder, pairs, {count: functools.partial(_product, builder, count, *arguments) for count in (1, 2)})


def _product(
    builder: ir.IRBuilder,
    high: int,
    rows: ir.Value,
    part: ir.Value,
    offsets: ir.Value,
    chunks: ir.Value,
    weights: ir.Value,
    ahead: ir.Value,
    sums: ir.Value,
) -> None:
    """`high` tiles of rows by two of columns: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights."""

    def pointer(address: ir.Value) -> ir.Value:
        return builder.inttoptr(address, POINTER)

    def read(first: int, address: ir.Value, count: int) -> None:
        for i in range(count):
            _do(builder, "x86.tileloadd64", _tile(first + i), pointer(at(builder, address, i, TILE)), integer(64))

    def fetch(address: ir.Value, place: int, cache: int) -> None:
        hint = [ir.Constant(ir.IntType(32), number) for number in (0, cache, 1)]  # to read, data
        _do(builder, "prefetch", pointer(at(builder, address, place, 1)), *hint)

    for number in range(4):
        _do(builder, "x86.tilezero", _tile(number))
    entry, loop, done = builder.block, builder.append_basic_block("chunks"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    chunk, panel, later = builder.phi(INT), builder.phi(INT), builder.phi(INT)
    for phi, value in ((chunk, integer(0)), (panel, weights), (later, ahead)):
        phi.add_incoming(value, entry)
    offset = builder.load(builder.inttoptr(builder.add(offsets, builder.shl(chunk, integer(3))), INT.as_pointer()))
    source = builder.add(rows, offset)
    last: tuple[int | None, int | None] = (None, None)
    for turn, (ours, theirs) in enumerate(ORDER):
        if ours != last[0]:
            read(4, at(builder, source, ours, part), high)
        if theirs != last[1]:
            read(6, at(builder, panel, theirs, PAIR), 2)
        last = ours, theirs
        for i in range(high):
            for j in range(2):
                _do(builder, "x86.tdpbf16ps", _tile(2 * i + j), _tile(4 + i), _tile(6 + j))
        for line in range(turn * 16, turn * 16 + 16):  # of the next chunk's weights, into the first-level cache
            fetch(panel, STEP + 64 * line, 3)
        for line in range(turn * AHEAD // 64 // 6, (turn + 1) * AHEAD // 64 // 6):
            fetch(later, 64 * line, 2)
    following = builder.add(chunk, integer(1))
    for phi, value in (
        (chunk, following),
        (panel, builder.add(panel, integer(STEP))),
        (later, builder.add(later, integer(AHEAD))),
    ):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, chunks), loop, done)
    builder.position_at_end(done)
    for i in range(high):
        for j in range(2):
            place = at(builder, sums, 1, i * 16 * SUMS_ROW + 64 * j)
            _do(builder, "x86.tilestored64", _tile(2 * i + j), pointer(place), integer(SUMS_ROW))


def _emit_begin(builder: ir.IRBuilder, configuration: ir.Value) -> None:
    _do(builder, "x86.ldtilecfg", builder.inttoptr(configuration, POINTER))


def _emit_end(builder: ir.IRBuilder) -> None:
    _do(builder, "x86.tilerelease")


def _emit_split(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, out: ir.Value, part: ir.Value) -> None:
    """Two rows of eight channels to their parts, each rounded to the nearest; ties go away from zero."""
    words, halves = ir.VectorType(ir.IntType(32), 16), ir.VectorType(ir.IntType(16), 16)

    def constant(value: int) -> ir.Constant:
        return ir.Constant(words, [value] * 16)

    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(16)))
    rest = builder.shuffle_vector(load(builder, first).value, load(builder, second).value, lanes)
    for number in range(3):
        bits = builder.add(builder.bitcast(rest, words), constant(0x8000))
        short = builder.trunc(builder.lshr(bits, constant(16)), halves)
        place = builder.inttoptr(at(builder, out, number, part), halves.as_pointer())
        builder.store(short, place, align=4)
        rest = builder.fsub(rest, builder.bitcast(builder.and_(bits, constant(0xFFFF0000)), WIDE))


_begin, _end = instructions(1, _emit_begin), instructions(0, _emit_end)
_split, _sum = instructions(4, _emit_split), instructions(8, _emit_product)


class SplitRows(NamedTuple):
    """Arguments of `split_rows`; `nothing` is the address of a row of zeros."""

    blocks: int
    rows: int
    source: View
    out: int
    part: int
    nothing: int


@kernel(SplitRows)
def split_rows(
    counter: int,
    jobs: int,
    blocks: int,
    rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    out: int,
    part: int,
    nothing: int,
) -> None:
    """Rows in three parts, those of an entry of the batch below those of the last; a job is a chunk and up to 32 rows.

    A chunk is four blocks; those that it lacks are zeros.
    """
    chunks, row_jobs = (blocks + 3) // 4, (rows + 31) // 32
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        chunk, rest = job % chunks, job // chunks
        entry, first = rest // row_jobs, rest % row_jobs * 32
        y = out + chunk * 3 * part + entry * rows * 64
        for half in range(2):
            block = chunk * 4 + half * 2
            x = source + entry * source_batch + block * source_block
            for i in range(first, min(rows, first + 32)):
                one = x + i * 32 if block < blocks else nothing
                two = x + source_block + i * 32 if block + 1 < blocks else nothing
                _split(one, two, y + i * 64 + half * 32, part)


class MultiplyTiles(NamedTuple):
    """Arguments of `multiply_tiles`; see there."""

    configuration: int
    source: int
    part: int
    offsets: int
    chunks: int
    weights: int
    panels: int
    total: int
    row_chunk: int
    window: int
    rows: int
    blocks: int
    out: View
    bias: int
    extra: Strided
    after: After


@kernel(MultiplyTiles)
def multiply_tiles(
    counter: int,
    jobs: int,
    configuration: int,
    source: int,
    part: int,
    offsets: int,
    chunks: int,
    weights: int,
    panels: int,
    total: int,
    row_chunk: int,
    window: int,
    rows: int,
    blocks: int,
    out: int,
    out_batch: int,
    out_block: int,
    bias: int,
    extra: int,
    extra_batch: int,
    extra_block: int,
    extra_row: int,
    after: int,
    after_slope: int,
    after_slope_block: int,
) -> None:
    """All products of a layer; a job is one panel and up to `row_chunk` rows of the `total` ones of the batch.

    `offsets` are the distances in bytes from a row to the chunks of its inputs. Of `window` rows of an entry, `rows`
    have an output, to which bias, `extra` and what comes `after` are applied.
    """
    scratch = np.empty(HIGH * PANEL + 16, np.float32)
    sums = (scratch.ctypes.data + 63) // 64 * 64
    _begin(configuration)
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        panel, first = job % panels, job // panels * row_chunk
        last = min(total, first + row_chunk)
        b, s = bias + panel * 4 * 32, after_slope + panel * 4 * after_slope_block
        y, e = out + panel * 4 * out_block, extra + panel * 4 * extra_block
        here = min(4, blocks - panel * 4)
        beyond = weights + (panel + 1 - 2 * (counter & 1)) * chunks * STEP  # those of the next job
        for row in range(first, last, HIGH):
            pairs = 2 if last - row > 16 else 1
            ahead = beyond + min(2, (row - first) // HIGH) * chunks * AHEAD
            _sum(pairs, source + row * 64, part, offsets, chunks, weights + panel * chunks * STEP, ahead, sums)
            end = min(last, row + HIGH)
            i = row
            while i < end:
                entry = i // window
                place = i - entry * window
                if place >= rows:  # the rest of an entry has no outputs
                    i = (entry + 1) * window
                    continue
                count = min(end - i, rows - place)
                for block in range(here):
                    x = sums + (i - row) * SUMS_ROW + block * 32
                    z = e + entry * extra_batch + block * extra_block + place * extra_row
                    o = y + entry * out_batch + block * out_block + place * 32
                    p, c = b + block * 32, s + block * after_slope_block
                    for k in range(0, count - 1, 2):
                        finish_two(after, x + k * SUMS_ROW, SUMS_ROW, p, z + k * extra_row, extra_row, c, o + k * 32)
                    if count & 1:
                        k = count - 1
                        finish(after, x + k * SUMS_ROW, SUMS_ROW, p, z + k * extra_row, extra_row, c, o + k * 32)
                i += count
    _end()
    keep(scratch)


def split(x: Tensor) -> Tensor:
    """The three parts of float32 numbers: `[...]` to `[3, ...]`, bfloat16."""
    parts = []
    for _ in range(3):
        parts.append(x.bfloat16())
        x = x - parts[-1]
    return torch.stack(parts)


def packed(weight: Tensor) -> Tensor:
    """A convolution's weights as `multiply_tiles` reads them.

    Args:
        weight: `[outputs, inputs, taps]`.
    """
    outputs, inputs, taps = weight.shape
    padded = F.pad(weight, (0, 0, 0, -inputs % CHUNK, 0, -outputs % PANEL))
    parts = split(padded).view(3, -1, 2, 16, padded.shape[1] // CHUNK, 16, 2, taps)
    return parts.permute(1, 7, 4, 0, 2, 5, 3, 6).contiguous()
