"""Products of float32 matrices on a processor's matrix unit, Intel's AMX, which multiplies bfloat16 and adds float32.

A float32 has 24 significant bits, three times those of a bfloat16. So it is the sum of three: its high, middle and low
parts. Of the nine products of the parts of two numbers, the three smallest are below 2^-26 of the result; the other six
give a product that errs no more than float32's own (Henry, Tang and Heinecke 2019, arXiv 1904.06376). They take 6 / 16
of the time that float32 takes on the vector unit of the same processor.

A tile is sixteen rows of 64 bytes. Two by two tiles of sums stay in registers; for a chunk of 32 inputs the high,
middle and low tiles of the rows and of the weights are read, two of each beside the other.

    rows       [chunks, 3 parts, rows, 32]                         bfloat16
    weights    [panels, taps, chunks, 3 parts, 2, 16, 16, 2]       bfloat16: panels of 32 outputs, pairs of inputs

Subnormal numbers count as 0 there.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.engines.cpu.compile import instructions, target_features
from melvoc.nn.engines.cpu.vector import INT, WIDE, at, integer, load, switch

CHUNK = 32  # inputs that a tile's row has
HIGH = 32  # rows that are summed at a time
PANEL = 32  # outputs that are
SUMS_ROW = 4 * PANEL  # bytes
TILE = 1024
PAIR = 2 * TILE
STEP = 3 * PAIR  # bytes of a panel's weights for a chunk
LINE = 64
FIRST, SECOND = 3, 2  # LLVM's numbers of caches
AHEAD = STEP // 3  # bytes of the next panel that a chunk fetches into the second-level cache, at most
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


def _read(builder: ir.IRBuilder, number: int, address: ir.Value, row: int = LINE) -> None:
    """A tile from memory; bytes from row to row."""
    _do(builder, "x86.tileloadd64", _tile(number), builder.inttoptr(address, POINTER), integer(row))


def _entry(builder: ir.IRBuilder, table: ir.Value, number: ir.Value) -> ir.Value:
    """An int64 of a table in memory."""
    return builder.load(builder.inttoptr(builder.add(table, builder.shl(number, integer(3))), INT.as_pointer()))


def _tile(number: int) -> ir.Constant:
    return ir.Constant(BYTE, number)


def _emit_product(builder: ir.IRBuilder, pairs: ir.Value, *arguments: ir.Value) -> None:
    switch(builder, pairs, {count: functools.partial(_product, builder, count, *arguments) for count in (1, 2)})


class Fetched(NamedTuple):
    """Lines of memory to fetch into a cache: addresses, and bytes from there."""

    cache: int
    lines: list[tuple[ir.Value, int]]


def _multiply(
    builder: ir.IRBuilder, high: int, rows: ir.Value, part: ir.Value, weights: ir.Value, fetched: Sequence[Fetched]
) -> None:
    """Add the products of a chunk to the sums; meanwhile, fetch what comes next."""
    last: tuple[int | None, int | None] = (None, None)
    for turn, (ours, theirs) in enumerate(ORDER):
        if ours != last[0]:
            for i in range(high):
                _read(builder, 4 + i, at(builder, at(builder, rows, ours, part), i, TILE))
        if theirs != last[1]:
            for j in range(2):
                _read(builder, 6 + j, at(builder, weights, 1, theirs * PAIR + j * TILE))
        last = ours, theirs
        for i, j in itertools.product(range(high), range(2)):
            _do(builder, "x86.tdpbf16ps", _tile(2 * i + j), _tile(4 + i), _tile(6 + j))
        for cache, lines in fetched:
            count = len(lines)
            for address, place in lines[turn * count // len(ORDER) : (turn + 1) * count // len(ORDER)]:
                hint = [ir.Constant(ir.IntType(32), number) for number in (0, cache, 1)]  # to read, data
                _do(builder, "prefetch", builder.inttoptr(at(builder, address, 1, place), POINTER), *hint)


def _product(
    builder: ir.IRBuilder,
    high: int,
    rows: ir.Value,
    part: ir.Value,
    offsets: ir.Value,
    chunks: ir.Value,
    weights: ir.Value,
    ahead: ir.Value,
    pace: ir.Value,
    sums: ir.Value,
    fresh: ir.Value,
) -> None:
    """`high` tiles of rows by two of columns: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights."""
    places = {2 * i + j: at(builder, sums, 1, i * 16 * SUMS_ROW + 64 * j) for i in range(high) for j in range(2)}

    def begin() -> None:
        for number in places:
            _do(builder, "x86.tilezero", _tile(number))

    def go_on() -> None:
        for number, place in places.items():
            _read(builder, number, place, SUMS_ROW)

    switch(builder, fresh, {1: begin, 0: go_on})
    entry, loop, done = builder.block, builder.append_basic_block("chunks"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    chunk, panel, later = builder.phi(INT), builder.phi(INT), builder.phi(INT)
    for phi, value in ((chunk, integer(0)), (panel, weights), (later, ahead)):
        phi.add_incoming(value, entry)
    following = builder.add(chunk, integer(1))
    more = builder.icmp_signed("<", following, chunks)
    source = builder.add(rows, _entry(builder, offsets, chunk))
    coming = builder.add(
        builder.select(more, rows, at(builder, rows, HIGH, LINE)),
        _entry(builder, offsets, builder.select(more, following, integer(0))),
    )
    next_rows = [at(builder, coming, number, part) for number in range(3)]
    fetched = [
        Fetched(FIRST, [(address, LINE * line) for address in next_rows for line in range(16 * high)]),
        Fetched(FIRST, [(panel, STEP + LINE * line) for line in range(STEP // LINE)]),
        Fetched(SECOND, [(later, LINE * line) for line in range(AHEAD // LINE)]),
    ]
    _multiply(builder, high, source, part, panel, fetched)
    for phi, value in (
        (chunk, following),
        (panel, at(builder, panel, 1, STEP)),
        (later, builder.add(later, pace)),
    ):
        phi.add_incoming(value, loop)
    builder.cbranch(more, loop, done)
    builder.position_at_end(done)
    for number, place in places.items():
        _do(builder, "x86.tilestored64", _tile(number), builder.inttoptr(place, POINTER), integer(SUMS_ROW))


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


begin, end = instructions(1, _emit_begin), instructions(0, _emit_end)  # around products: the address of a configuration
# two rows' addresses, of the parts of the result, bytes from part to part
split_pair = instructions(4, _emit_split)
# tiles of rows (1 or 2); addresses of rows, bytes from part to part; offsets, chunks; weights, what comes after them,
# bytes of that per chunk; sums, and whether they begin with 0
multiply_chunks = instructions(10, _emit_product)


def split(x: Tensor) -> Tensor:
    """The three parts of float32 numbers: `[...]` to `[3, ...]`, bfloat16."""
    parts = []
    for _ in range(3):
        parts.append(x.bfloat16())
        x = x - parts[-1]
    return torch.stack(parts)


def packed(weight: Tensor) -> Tensor:
    """A convolution's weights as `multiply_chunks` reads them.

    Args:
        weight: `[outputs, inputs, taps]`.
    """
    outputs, inputs, taps = weight.shape
    padded = F.pad(weight, (0, 0, 0, -inputs % CHUNK, 0, -outputs % PANEL))
    parts = split(padded).view(3, -1, 2, 16, padded.shape[1] // CHUNK, 16, 2, taps)
    return parts.permute(1, 7, 4, 0, 2, 5, 3, 6).contiguous()
