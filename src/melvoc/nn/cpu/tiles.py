"""Tiles of a signal into the slots of a transform, and slots into outputs.

Slots lie as `[products, channels / 8, tiles, 8]`: the transforms write what the products read, and the other way
round. Tile number `(b * dilation + phase) * per_phase + j` begins at row `phase + dilation * outputs * j` of batch
entry b and takes every dilation-th row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from melvoc.nn.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.cpu.vector import add_rows, at, copy_row, instructions, kernel, load, store, take_job, zero_row


def _forward(transform: Transform) -> Any:
    """Instructions: address of the first row, step in bytes, address of the first slot, step."""

    def emit(builder: ir.IRBuilder, source: ir.Value, step: ir.Value, out: ir.Value, out_step: ir.Value) -> None:
        tile = [load(builder, at(builder, source, i, step)) for i in range(transform.size)]
        for slot, vector in enumerate(transform.forward(tile)):
            store(builder, at(builder, out, slot, out_step), vector)

    return instructions(4, emit)


def _inverse(transform: Transform) -> Any:
    """Instructions: first slot, step, first output row, step, bias, first row of what is added, step."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        source, step, out, out_step, bias, extra, extra_step = arguments
        slots = [load(builder, at(builder, source, i, step)) for i in range(transform.products)]
        shift = load(builder, bias)
        for row, vector in enumerate(transform.inverse(slots)):
            total = vector + shift + load(builder, at(builder, extra, row, extra_step))
            store(builder, at(builder, out, row, out_step), total)

    return instructions(7, emit)


_forward_6, _inverse_0 = _forward(TRANSFORMS[0]), _inverse(TRANSFORMS[0])
_forward_16, _inverse_1 = _forward(TRANSFORMS[1]), _inverse(TRANSFORMS[1])
_forward_24, _inverse_2 = _forward(TRANSFORMS[2]), _inverse(TRANSFORMS[2])
_forward_32, _inverse_3 = _forward(TRANSFORMS[3]), _inverse(TRANSFORMS[3])
_inverse_4 = _inverse(TRANSFORMS[4])
_inverse_5 = _inverse(TRANSFORMS[5])
_forward_4, _inverse_6 = _forward(TRANSFORMS[6]), _inverse(TRANSFORMS[6])


@kernel
def tiles_to_slots(
    counter: int,
    jobs: int,
    size: int,
    outputs: int,
    blocks: int,
    batch: int,
    dilation: int,
    per_phase: int,
    tile_chunk: int,
    source: int,
    source_batch: int,
    source_block: int,
    rows: int,
    slots: int,
    slot_step: int,
) -> None:
    """Transform a window of `rows` rows; what a tile needs beyond it is 0.

    A job is a block and up to `tile_chunk` tiles.
    """
    tiles = batch * dilation * per_phase
    chunk_count = (tiles + tile_chunk - 1) // tile_chunk
    scratch = np.empty(32 * 8 + 16, np.float32)
    spare = (scratch.ctypes.data + 63) // 64 * 64
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = job // chunk_count
        first = (job % chunk_count) * tile_chunk
        for tile in range(first, min(tiles, first + tile_chunk)):
            phase = tile // per_phase
            begin = phase % dilation + dilation * outputs * (tile % per_phase)
            x = source + (phase // dilation) * source_batch + block * source_block + begin * 32
            step = dilation * 32
            if begin + dilation * (size - 1) >= rows:
                for i in range(size):
                    if begin + dilation * i < rows:
                        copy_row(x + i * step, spare + i * 32)
                    else:
                        zero_row(spare + i * 32)
                x, step = spare, 32
            y = slots + (block * tiles + tile) * 32
            if size == 32:
                _forward_32(x, step, y, slot_step)
            elif size == 24:
                _forward_24(x, step, y, slot_step)
            elif size == 16:
                _forward_16(x, step, y, slot_step)
            elif size == 6:
                _forward_6(x, step, y, slot_step)
            else:
                _forward_4(x, step, y, slot_step)


@kernel
def slots_to_rows(
    counter: int,
    jobs: int,
    number: int,
    outputs: int,
    blocks: int,
    rate: int,
    batch: int,
    dilation: int,
    per_phase: int,
    tile_chunk: int,
    slots: int,
    slot_step: int,
    out: int,
    out_batch: int,
    out_block: int,
    rows: int,
    bias: int,
    extra: int,
    extra_batch: int,
    extra_block: int,
    extra_row: int,
) -> None:
    """Slots of transform `number` back to `rows` rows, plus bias and `extra` (a residual; steps 0: one row of zeros).

    An upsampling by `rate` has its output phases one after the other among the blocks.
    """
    tiles = batch * dilation * per_phase
    chunk_count = (tiles + tile_chunk - 1) // tile_chunk
    scratch = np.empty(33 * 8 + 16, np.float32)
    spare = (scratch.ctypes.data + 63) // 64 * 64
    nothing = spare + 32 * 32
    zero_row(nothing)
    while True:
        job = take_job(counter)
        if job >= jobs:
            break
        block = job // chunk_count
        offset, column = block // (blocks // rate), block % (blocks // rate)
        first = (job % chunk_count) * tile_chunk
        for tile in range(first, min(tiles, first + tile_chunk)):
            phase = tile // per_phase
            begin = phase % dilation + dilation * outputs * (tile % per_phase)
            if begin >= rows:
                continue
            x = slots + (block * tiles + tile) * 32
            y = out + (phase // dilation) * out_batch + column * out_block + (begin * rate + offset) * 32
            e = extra + (phase // dilation) * extra_batch + column * extra_block + begin * extra_row
            y_step, e_step = dilation * rate * 32, dilation * extra_row
            target, target_step, added, added_step = y, y_step, e, e_step
            partial = begin + dilation * (outputs - 1) >= rows
            if partial:
                target, target_step, added, added_step = spare, 32, nothing, 0
            b = bias + column * 32
            if number == 0:
                _inverse_0(x, slot_step, target, target_step, b, added, added_step)
            elif number == 1:
                _inverse_1(x, slot_step, target, target_step, b, added, added_step)
            elif number == 2:
                _inverse_2(x, slot_step, target, target_step, b, added, added_step)
            elif number == 3:
                _inverse_3(x, slot_step, target, target_step, b, added, added_step)
            elif number == 4:
                _inverse_4(x, slot_step, target, target_step, b, added, added_step)
            elif number == 5:
                _inverse_5(x, slot_step, target, target_step, b, added, added_step)
            else:
                _inverse_6(x, slot_step, target, target_step, b, added, added_step)
            if partial:
                for i in range((rows - begin + dilation - 1) // dilation):
                    add_rows(spare + i * 32, e + i * e_step, y + i * y_step)
