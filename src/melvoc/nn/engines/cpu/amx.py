"""Products of float32 matrices on a processor's matrix unit, Intel's AMX, which multiplies bfloat16 and adds float32.

A float32 has 24 significant bits, three times those of a bfloat16. So it is the sum of three: its high, middle and low
parts. Of the nine products of the parts of two numbers, the three smallest are below 2^-26 of the result; the other six
give a product that errs no more than float32's own (Henry, Tang and Heinecke 2019, arXiv 1904.06376). They take 6 / 16
of the time that float32 takes on the vector unit of the same processor.

A tile is sixteen rows of 64 bytes. Two by two tiles of sums stay in registers; for a chunk of 32 inputs the high,
middle and low tiles of the rows and of the weights are read, two of each beside the other.

    rows       [chunks, 3 parts, rows, 32]                         bfloat16
    weights    [panels, taps, chunks, 2, 16, 16, 2]                float32: panels of 32 outputs, pairs of inputs
    split      [chunks, 3 parts, 2, 16, 16, 2]                     bfloat16, of one panel, made anew for each product

Weights are more than the caches have room for, and three parts are six bytes. So they are read as float32 and split
for each product anew, in slots, while the unit works on those before; with each slot the one that comes after it is
fetched into the second-level cache.

Subnormal numbers count as 0 there, and what an infinity is multiplied with becomes NaN.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from llvmlite import ir
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.engines.cpu.compile import instructions, target_features
from melvoc.nn.engines.cpu.vector import INT, WIDE, Vec, at, both, integer, load, looped, switch

CHUNK = 32  # inputs that a tile's row has
HIGH = 32  # rows that are summed at a time
PANEL = 32  # outputs that are
SUMS_ROW = 4 * PANEL  # bytes
TILE = 1024
PAIR = 2 * TILE
STEP = 3 * PAIR  # bytes of a panel's weights for a chunk
LINE = 64
PLAIN = 4 * CHUNK * PANEL  # of the same before it is split
FEATURES = {"amx-tile", "amx-bf16", "avx512f"}
REQUEST, DATA = 0x1023, 18  # arch_prctl: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
ARCH_PRCTL = 158

# The order in which the parts of rows and weights meet, low before high; a part that stays is not read again.
ORDER = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))
TURNS = len(ORDER)


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


def _emit_product(builder: ir.IRBuilder, tiles: ir.Value, *arguments: ir.Value) -> None:
    switch(builder, tiles, {count: partial(_product, builder, count, *arguments) for count in (1, 2)})


def _multiply(
    builder: ir.IRBuilder,
    high: int,
    rows: ir.Value,
    part: ir.Value,
    weights: ir.Value,
    meanwhile: Sequence[Sequence[Callable[[], None]]],
    turned: Callable[[int], None],
) -> None:
    """Add the products of a chunk to the sums; and, spread among them, do what can be done meanwhile.

    `turned` is called after each turn with its number, 0 to TURNS - 1.
    """
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
        for work in meanwhile:
            for do in work[turn * len(work) // TURNS : (turn + 1) * len(work) // TURNS]:
                do()
        turned(turn)


def _fetch(builder: ir.IRBuilder, level: int, address: ir.Value, place: int) -> None:
    """A line into the cache of the first or second level."""
    hint = [ir.Constant(ir.IntType(32), number) for number in (0, 4 - level, 1)]  # to read, how near, data
    _do(builder, "prefetch", builder.inttoptr(at(builder, address, 1, place), POINTER), *hint)


def _product(
    builder: ir.IRBuilder,
    high: int,
    rows: ir.Value,
    part: ir.Value,
    offsets: ir.Value,
    chunks: ir.Value,
    weights: ir.Value,
    sums: ir.Value,
    fresh: ir.Value,
    plain: ir.Value,
    ahead: ir.Value,
    target: ir.Value,
    slot: ir.Value,
    slots: ir.Value,
    pace: ir.Value,
) -> None:
    """`high` tiles of rows by two of columns: tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights.

    With each chunk, `pace` slots of the weights that come next are split.
    """
    places = {2 * i + j: at(builder, sums, 1, i * 16 * SUMS_ROW + 64 * j) for i in range(high) for j in range(2)}

    def begin() -> None:
        for number in places:
            _do(builder, "x86.tilezero", _tile(number))

    def go_on() -> None:
        for number, place in places.items():
            _read(builder, number, place, SUMS_ROW)

    switch(builder, fresh, {1: begin, 0: go_on})

    def chunk(number: ir.Value, _: Sequence[Vec]) -> Sequence[Vec]:
        following, panel = builder.add(number, integer(1)), builder.add(weights, builder.mul(number, integer(STEP)))
        more = builder.icmp_signed("<", following, chunks)
        coming = builder.add(
            builder.select(more, rows, at(builder, rows, HIGH, LINE)),
            _entry(builder, offsets, builder.select(more, following, integer(0))),
        )
        next_rows = [at(builder, coming, i, part) for i in range(3)]
        first = builder.add(slot, builder.mul(number, pace))
        meanwhile = [
            [partial(_fetch, builder, 1, address, LINE * line) for address in next_rows for line in range(16 * high)],
            [partial(_fetch, builder, 1, panel, STEP + LINE * line) for line in range(STEP // LINE)],
        ]

        def turned(turn: int) -> None:
            with builder.if_then(builder.icmp_signed("<", integer(turn), pace)):
                _slot(builder, plain, ahead, target, at(builder, first, turn, 1), slots)

        _multiply(builder, high, builder.add(rows, _entry(builder, offsets, number)), part, panel, meanwhile, turned)
        return ()

    looped(builder, chunks, (), chunk)
    for number, place in places.items():
        _do(builder, "x86.tilestored64", _tile(number), builder.inttoptr(place, POINTER), integer(SUMS_ROW))


def _slot(
    builder: ir.IRBuilder, plain: ir.Value, ahead: ir.Value, target: ir.Value, slot: ir.Value, slots: ir.Value
) -> None:
    """Splits a slot of weights, a row of tiles in each of four chunks; what is beyond the last slot is the first.

    The same slot of the weights `ahead` is fetched. Four chunks are four pages of memory, from each of which the
    processor fetches ahead too.
    """
    slot = builder.select(builder.icmp_signed("<", slot, slots), slot, integer(0))
    page, place = builder.lshr(slot, integer(5)), builder.and_(slot, integer(31))
    start = builder.add(builder.mul(page, integer(4 * PLAIN)), builder.shl(place, integer(7)))
    x, later = builder.add(plain, start), builder.add(ahead, start)
    y = builder.add(builder.add(target, builder.mul(page, integer(4 * STEP))), builder.shl(place, integer(6)))
    for chunk in range(4):
        _split_row(builder, at(builder, x, chunk, PLAIN), at(builder, y, chunk, STEP))
        for line in range(2):
            _fetch(builder, 2, at(builder, later, chunk, PLAIN), LINE * line)


def _split_row(builder: ir.IRBuilder, source: ir.Value, out: ir.Value) -> None:
    """A row of a tile, sixteen outputs of two inputs, to its parts."""
    halves = ir.VectorType(ir.IntType(16), 32)
    odd = ir.Constant(ir.VectorType(ir.IntType(32), 32), list(range(1, 64, 2)))
    rest = [load(builder, at(builder, source, i, LINE), WIDE).value for i in range(2)]
    for number in range(3):
        (one, first), (two, second) = (_rounded(builder, half) for half in rest)
        short = builder.shuffle_vector(builder.bitcast(one, halves), builder.bitcast(two, halves), odd)
        builder.store(short, builder.inttoptr(at(builder, out, number, PAIR), halves.as_pointer()), align=4)
        rest = [first, second]


def _rounded(builder: ir.IRBuilder, numbers: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The nearest bfloat16s of sixteen floats (ties go away from zero), in the upper halves of words; and the rest."""
    words = ir.VectorType(ir.IntType(32), 16)
    half, mask = (ir.Constant(words, [value] * 16) for value in (0x8000, 0xFFFF0000))
    bits = builder.add(builder.bitcast(numbers, words), half)
    return bits, builder.fsub(numbers, builder.bitcast(builder.and_(bits, mask), WIDE))


def _emit_begin(builder: ir.IRBuilder, configuration: ir.Value) -> None:
    _do(builder, "x86.ldtilecfg", builder.inttoptr(configuration, POINTER))


def _emit_end(builder: ir.IRBuilder) -> None:
    _do(builder, "x86.tilerelease")


def _emit_split(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, out: ir.Value, part: ir.Value) -> None:
    """Two rows of eight channels to their parts."""
    halves = ir.VectorType(ir.IntType(16), 16)
    rest = both(load(builder, first), load(builder, second)).value
    for number in range(3):
        bits, rest = _rounded(builder, rest)
        short = builder.trunc(builder.lshr(bits, ir.Constant(bits.type, [16] * 16)), halves)
        place = builder.inttoptr(at(builder, out, number, part), halves.as_pointer())
        builder.store(short, place, align=4)


begin, end = instructions(1, _emit_begin), instructions(0, _emit_end)  # around products: the address of a configuration
# two rows' addresses, of the parts of the result, bytes from part to part
split_pair = instructions(4, _emit_split)
# addresses of weights, of those to fetch, and of the parts of the first; which slot, of how many
split_slot = instructions(5, _slot)
# tiles of rows (1 or 2); address of rows, bytes from part to part; offsets, chunks; split weights; sums, and whether
# they begin with 0; as `split_slot`, the first slot; slots to split with each chunk, up to TURNS
multiply_chunks = instructions(14, _emit_product)


def packed(weight: Tensor) -> Tensor:
    """A convolution's weights as they are split, in one row.

    Args:
        weight: `[outputs, inputs, taps]`.
    """
    outputs, inputs, taps = weight.shape
    padded = F.pad(weight, (0, 0, 0, -inputs % CHUNK, 0, -outputs % PANEL))
    parts = padded.view(-1, 2, 16, padded.shape[1] // CHUNK, 16, 2, taps).permute(0, 6, 3, 1, 4, 2, 5)
    return F.pad(parts.flatten(), (0, 3 * PLAIN // 4))
