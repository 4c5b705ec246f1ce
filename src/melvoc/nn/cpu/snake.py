"""The alias-free snake in one pass: up by 2, snake, down by 2, piece by piece in the first-level cache.

`sin(z)^2` has the period pi, so z is reduced to [-pi / 2, pi / 2] by a pi in three parts (exact products for |z| up to
some 50 000), where an odd polynomial of degree 9 errs by less than 4e-7 in the square. Beyond, the reduced argument is
clamped: values stay between 0 and 1.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from melvoc.nn.alias_free import TAPS, UP_REACH, kaiser_sinc, polyphase
from melvoc.nn.cpu.vector import Vec, at, copy_row, instructions, kernel, load, store, take_job

PI_PARTS = (3.140625, 9.67502593994140625e-4, 1.509957990978376432e-7)
ROUNDER = 1.5 * 2.0**23  # adding and taking it away rounds to whole numbers
# sin(r) / r in r^2 for |r| <= pi / 2: the least largest error in sin (1.7e-8), by Lawson's reweighted least squares.
SINE = (1.0, -0.16666657096462448, 0.008333017290578434, -0.00019806615132527154, 2.600054618961435e-06)
CHUNK = 248  # outputs at a time: 25 kB of intermediate values
UNROLLED = 4

DOWN = kaiser_sinc().tolist()
EVEN, ODD = polyphase(kaiser_sinc()).tolist()


def sine_squared(z: Vec) -> Vec:
    """`sin(z)^2`."""
    turns = (z * (1.0 / np.pi)).plus_exactly(ROUNDER).plus_exactly(-ROUNDER)
    for part in PI_PARTS:
        z = z - turns * part
    z = z.clamp(1.6)
    square = z * z
    total = square * SINE[4] + SINE[3]
    for coefficient in (SINE[2], SINE[1], SINE[0]):
        total = total * square + coefficient
    sine = total * z
    return sine * sine


def _filtered(rows: list[Vec], response: list[float]) -> Vec:
    terms = [(row, tap) for row, tap in zip(rows, response, strict=True) if tap]
    total = terms[0][0] * terms[0][1]
    for row, tap in terms[1:]:
        total = total + row * tap
    return total


def _emit_up(builder: ir.IRBuilder, source: ir.Value, frequency: ir.Value, factor: ir.Value, out: ir.Value) -> None:
    a, c = load(builder, frequency), load(builder, factor)
    rows = [load(builder, at(builder, source, i)) for i in range(UNROLLED + 2 * UP_REACH)]
    for pair in range(UNROLLED):
        for side, response in enumerate((EVEN, ODD)):
            value = _filtered(rows[pair : pair + 2 * UP_REACH + 1], response)
            store(builder, at(builder, out, 2 * pair + side), value + c * sine_squared(value * a))


def _emit_down(builder: ir.IRBuilder, source: ir.Value, out: ir.Value) -> None:
    rows = [load(builder, at(builder, source, i)) for i in range(2 * UNROLLED + TAPS - 2)]
    for i in range(UNROLLED):
        store(builder, at(builder, out, i), _filtered(rows[2 * i : 2 * i + TAPS], DOWN))


_up = instructions(4, _emit_up)  # four pairs
_down = instructions(2, _emit_down)  # four outputs


@kernel
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
    frequency: int,
    factor: int,
    out: int,
    out_batch: int,
    out_block: int,
    rows: int,
) -> None:
    """Outputs `first` to `first + rows` of the signal tail + source, counted in its rows.

    Where the signal begins (or ends) there, its edge is repeated; elsewhere six rows on either side of the outputs are
    there. A job is a batch entry, a block of channels and up to CHUNK outputs.
    """
    chunk_count = (rows + 248 - 1) // 248
    total = tail_rows + source_rows
    scratch = np.empty((248 + 24) * 8 * 3 + 16, np.float32)
    window = (scratch.ctypes.data + 63) // 64 * 64
    active = window + (248 + 24) * 32
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = (job // chunk_count) % blocks
        entry = job // chunk_count // blocks
        start = (job % chunk_count) * 248
        count = min(248, rows - start)
        t = tail + entry * tail_batch + block * tail_block
        s = source + entry * source_batch + block * source_block - tail_rows * 32
        low = first + start - 6  # row of the signal that the window begins with
        for i in range(count + 12):
            row = min(max(low + i, 0), total - 1)
            copy_row((t if row < tail_rows else s) + row * 32, window + i * 32)
        for i in range(0, count + 6, 4):
            _up(window + i * 32, frequency + block * 32, factor + block * 32, active + i * 64)
        if begins:
            for pair in range(0, -(low + 3)):
                copy_row(active - (low + 3) * 64, active + pair * 64)
                copy_row(active - (low + 3) * 64, active + pair * 64 + 32)
        if ends:
            for pair in range(max(0, total - (low + 3)), count + 6):
                copy_row(active + (total - (low + 3)) * 64 - 32, active + pair * 64)
                copy_row(active + (total - (low + 3)) * 64 - 32, active + pair * 64 + 32)
        y = out + entry * out_batch + block * out_block + start * 32
        whole = count // 4 * 4
        for i in range(0, whole, 4):
            _down(active + i * 64 + 32, y + i * 32)
        if whole < count:
            _down(active + whole * 64 + 32, window)
            for i in range(count - whole):
                copy_row(window + i * 32, y + (whole + i) * 32)
