"""The alias-free snake in one pass: up by 2, snake, down by 2, piece by piece in the first-level cache.

`sin(a x)^2` has period pi in `a x`, so `a x / pi` is reduced to [-1 / 2, 1 / 2] by subtracting the nearest integer,
with `a / pi` in two floats and fused multiply-adds: a product that is never rounded. There a polynomial of degree 9
gives the sine to 1e-7. Where the product is so large (1e7) that nothing is left of its fraction, the clamp keeps the
square between 0 and 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from melvoc.nn.alias_free import TAPS, UP_REACH, kaiser_sinc, polyphase
from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import View, instructions, keep, kernel
from melvoc.nn.engines.cpu.functions import polynomial
from melvoc.nn.engines.cpu.vector import Vec, at, copy_row, load, store

ROUNDER = 1.5 * 2.0**23  # adding and subtracting it rounds to whole numbers
# sin(pi f) / f in f^2 for |f| <= 1 / 2: the minimax error of the sine (1.7e-8), by Lawson's reweighted squares.
SINE = tuple(
    coefficient * np.pi ** (2 * power + 1)
    for power, coefficient in enumerate(
        (1.0, -0.16666657096462448, 0.008333017290578434, -0.00019806615132527154, 2.600054618961435e-06)
    )
)
CHUNK = 120  # outputs at a time, whose intermediate values fit the first-level cache
UNROLLED = 4

DOWN = kaiser_sinc().tolist()
EVEN, ODD = polyphase(kaiser_sinc()).tolist()


def sine_squared(x: Vec, high: Vec, low: Vec, factor: Vec) -> Vec:
    """`factor * sin(pi (high + low) x)^2`."""
    turns = (x * high + ROUNDER).plus_exactly(-ROUNDER)
    rest = (x * high - turns) + x * low
    square = (rest * rest).at_most(0.25)
    total = polynomial(square, SINE)
    return (factor * square) * (total * total)


def _filtered(rows: list[Vec], response: list[float]) -> Vec:
    terms = [(row, tap) for row, tap in zip(rows, response, strict=True) if tap]
    total = terms[0][0] * terms[0][1]
    for row, tap in terms[1:]:
        total = total + row * tap
    return total


def _emit_up(builder: ir.IRBuilder, source: ir.Value, coefficients: ir.Value, out: ir.Value) -> None:
    high, low, factor = (load(builder, at(builder, coefficients, i)) for i in range(3))
    rows = [load(builder, at(builder, source, i)) for i in range(UNROLLED + 2 * UP_REACH)]
    for pair in range(UNROLLED):
        for side, response in enumerate((EVEN, ODD)):
            value = _filtered(rows[pair : pair + 2 * UP_REACH + 1], response)
            store(builder, at(builder, out, 2 * pair + side), value + sine_squared(value, high, low, factor))


def _emit_down(builder: ir.IRBuilder, source: ir.Value, out: ir.Value) -> None:
    rows = [load(builder, at(builder, source, i)) for i in range(2 * UNROLLED + TAPS - 2)]
    for i in range(UNROLLED):
        mirrored = [rows[2 * i + tap] + rows[2 * i + TAPS - 1 - tap] for tap in range(TAPS // 2)]
        store(builder, at(builder, out, i), _filtered(mirrored, DOWN[: TAPS // 2]))


_up = instructions(3, _emit_up)  # four pairs
_down = instructions(2, _emit_down)  # four outputs


class Snake(NamedTuple):
    """Arguments of `snake`; `coefficients` is the address of three rows per block."""

    blocks: int
    tail: View
    tail_rows: int
    source: View
    source_rows: int
    first: int
    begins: int
    ends: int
    coefficients: int
    out: View
    rows: int


@kernel(Snake)
def snake(
    counter: int,
    jobs: int,
    blocks: int,
    tail: int,
    tail_batch: int,
    tail_block: int,
    tail_rows: int,
    source: int,
    source_batch: int,
    source_block: int,
    source_rows: int,
    first: int,
    begins: int,
    ends: int,
    coefficients: int,
    out: int,
    out_batch: int,
    out_block: int,
    rows: int,
) -> None:
    """Outputs `first` to `first + rows` of the signal tail + source, counted in its rows.

    Where the signal begins (or ends) there, its edge is repeated; elsewhere there are six rows on either side of the
    outputs. A job is a batch entry, a block of channels and up to CHUNK outputs.
    """
    chunk_count = (rows + 120 - 1) // 120
    total = tail_rows + source_rows
    scratch = np.empty((120 + 24) * 8 * 3 + 16, np.float32)
    window = (scratch.ctypes.data + 63) // 64 * 64
    active = window + (120 + 24) * 32
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block, chunk = job % blocks, job // blocks
        entry = chunk // chunk_count
        start = (chunk % chunk_count) * 120
        count = min(120, rows - start)
        t = tail + entry * tail_batch + block * tail_block
        s = source + entry * source_batch + block * source_block - tail_rows * 32
        low = first + start - 6  # row of the signal that the window begins with
        if low >= tail_rows and low + count + 20 <= total:
            x = s + low * 32
        else:
            x = window
            for i in range(count + 12):
                row = min(max(low + i, 0), total - 1)
                copy_row((t if row < tail_rows else s) + row * 32, window + i * 32)
        for i in range(0, count + 6, 4):
            _up(x + i * 32, coefficients + block * 96, active + i * 64)
        if begins:
            for pair in range(0, -(low + 3)):
                copy_row(active - (low + 3) * 64, active + pair * 64)
                copy_row(active - (low + 3) * 64, active + pair * 64 + 32)
        if ends:
            for pair in range(max(0, total - (low + 3)), count + 6):
                copy_row(active + (total - (low + 3)) * 64 - 32, active + pair * 64)
                copy_row(active + (total - (low + 3)) * 64 - 32, active + pair * 64 + 32)
        y = out + entry * out_batch + block * out_block + start * 32
        for i in range(0, count, 4):
            _down(active + i * 64 + 32, y + i * 32 if i + 4 <= count else window)
        for i in range(count % 4):
            copy_row(window + i * 32, y + (count // 4 * 4 + i) * 32)
    keep(scratch)
