"""Tiles of a signal into the slots of a transform, and slots into outputs.

Slots are stored as `[products, channels / 8, tiles, 8]`: the transforms write what the products read, and the other way
round. Tile number `(b * per_phase + j) * dilation + phase` begins at row `phase + dilation * outputs * j` of batch
entry b and takes every dilation-th row: neighbours in number are neighbours in time.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from melvoc.nn.engines.cpu.atomics import calling, take_job
from melvoc.nn.engines.cpu.compile import Strided, View, instructions, keep, kernel, part
from melvoc.nn.engines.cpu.gemm import run_panel
from melvoc.nn.engines.cpu.transform import LARGEST, TRANSFORMS, Transform
from melvoc.nn.engines.cpu.vector import ROW_BYTES, at, copy_row, load, store, switch, zero_row

SPARE = LARGEST * ROW_BYTES  # of rows for a tile that lies partly outside its signal; then one of zeros


def _emit_forward(
    builder: ir.IRBuilder, size: ir.Value, source: ir.Value, step: ir.Value, out: ir.Value, out_step: ir.Value
) -> None:

    def emit(transform: Transform) -> None:
        tile = [load(builder, at(builder, source, i, step)) for i in range(transform.size)]
        for slot, vector in enumerate(transform.forward(tile)):
            store(builder, at(builder, out, slot, out_step), vector)

    switch(builder, size, {transform.size: partial(emit, transform) for transform in TRANSFORMS})


def _emit_inverse(builder: ir.IRBuilder, products: ir.Value, *arguments: ir.Value) -> None:
    source, step, out, out_step, bias, extra, extra_step, slope = arguments

    def emit(transform: Transform) -> None:
        slots = [load(builder, at(builder, source, i, step)) for i in range(transform.products)]
        shift, leak = load(builder, bias), load(builder, slope)
        for row, vector in enumerate(transform.inverse(slots)):
            total = vector + shift + load(builder, at(builder, extra, row, extra_step))
            store(builder, at(builder, out, row, out_step), total.leaky(leak))

    switch(builder, products, {transform.products: partial(emit, transform) for transform in TRANSFORMS})


def _emit_add_leaky(builder: ir.IRBuilder, source: ir.Value, other: ir.Value, out: ir.Value, slope: ir.Value) -> None:
    store(builder, out, (load(builder, source) + load(builder, other)).leaky(load(builder, slope)))


_add_leaky = instructions(4, _emit_add_leaky)  # source, source, target, slope
# The size, first row, step in bytes, first slot, step.
_forward = instructions(5, _emit_forward)
# How many slots, the first, step, first output row, step, bias, first row of what is added, step, leak's slope.
_inverse = instructions(9, _emit_inverse)


@part
def forward_tiles(
    size: int,
    outputs: int,
    dilation: int,
    per_phase: int,
    first: int,
    last: int,
    source: int,
    source_batch: int,
    rows: int,
    slots: int,
    slot_step: int,
    spare: int,
) -> None:
    """Transform tiles `first` to `last` of one block of channels; `slots` is where the first of them goes."""
    for tile in range(first, last):
        group = tile // dilation
        begin = tile % dilation + dilation * outputs * (group % per_phase)
        x = source + (group // per_phase) * source_batch + begin * 32
        step = dilation * 32
        if begin + dilation * (size - 1) >= rows:
            for i in range(size):
                if begin + dilation * i < rows:
                    copy_row(x + i * step, spare + i * 32)
                else:
                    zero_row(spare + i * 32)
            x, step = spare, 32
        y = slots + (tile - first) * 32
        _forward(size, x, step, y, slot_step)


@part
def inverse_tiles(
    products: int,
    outputs: int,
    rate: int,
    dilation: int,
    per_phase: int,
    first: int,
    last: int,
    slots: int,
    slot_step: int,
    out: int,
    out_batch: int,
    rows: int,
    bias: int,
    extra: int,
    extra_batch: int,
    extra_row: int,
    slope: int,
    ones: int,
    spare: int,
) -> None:
    """Slots of tiles `first` to `last` of one block back to rows, plus bias and `extra`, through a leaky ReLU.

    `slope` and `ones` are rows: the ReLU's slope, and 1 for none; `spare` has room for a tile and a row of zeros.
    """
    nothing = spare + SPARE
    for tile in range(first, last):
        group = tile // dilation
        begin = tile % dilation + dilation * outputs * (group % per_phase)
        if begin >= rows:
            continue
        x = slots + (tile - first) * 32
        y = out + (group // per_phase) * out_batch + begin * rate * 32
        e = extra + (group // per_phase) * extra_batch + begin * extra_row
        y_step, e_step = dilation * rate * 32, dilation * extra_row
        target, target_step, added, added_step, leak = y, y_step, e, e_step, slope
        outside = begin + dilation * (outputs - 1) >= rows
        if outside:
            target, target_step, added, added_step, leak = spare, 32, nothing, 0, ones
        _inverse(products, x, slot_step, target, target_step, bias, added, added_step, leak)
        if outside:
            for i in range((rows - begin + dilation - 1) // dilation):
                _add_leaky(spare + i * 32, e + i * e_step, y + i * y_step, slope)


_run_forward = calling(forward_tiles)
_run_inverse = calling(inverse_tiles)


class TilesToSlots(NamedTuple):
    """Arguments of `tiles_to_slots`."""

    size: int
    outputs: int
    blocks: int
    batch: int
    dilation: int
    per_phase: int
    tile_chunk: int
    source: View
    rows: int
    slots: int
    slot_step: int
    forward_code: int


@kernel(TilesToSlots)
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
    forward_code: int,
) -> None:
    """Transform a window of `rows` rows; what a tile needs beyond it is 0.

    A job is a block and up to `tile_chunk` tiles. `forward_code` is the address of `forward_tiles`.
    """
    tiles = batch * dilation * per_phase
    scratch = np.empty((SPARE + 96) // 4, np.float32)
    spare = (scratch.ctypes.data + 63) // 64 * 64
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block = job % blocks
        first = job // blocks * tile_chunk
        _run_forward(
            code=forward_code,
            size=size,
            outputs=outputs,
            dilation=dilation,
            per_phase=per_phase,
            first=first,
            last=min(tiles, first + tile_chunk),
            source=source + block * source_block,
            source_batch=source_batch,
            rows=rows,
            slots=slots + (block * tiles + first) * 32,
            slot_step=slot_step,
            spare=spare,
        )
    keep(scratch)


class SlotsToRows(NamedTuple):
    """Arguments of `slots_to_rows`."""

    products: int
    outputs: int
    blocks: int
    rate: int
    batch: int
    dilation: int
    per_phase: int
    tile_chunk: int
    slots: int
    slot_step: int
    out: View
    rows: int
    bias: int
    extra: Strided
    slope: int
    ones: int
    inverse_code: int


@kernel(SlotsToRows)
def slots_to_rows(
    counter: int,
    jobs: int,
    products: int,
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
    slope: int,
    ones: int,
    inverse_code: int,
) -> None:
    """The slots of the transform with so many products back to `rows` rows, through a leaky ReLU.

    Bias and `extra` are added before it (a residual; with steps of 0 one row of zeros). An upsampling by `rate` has its
    output phases one after the other among the blocks. `inverse_code` is the address of `inverse_tiles`.
    """
    tiles = batch * dilation * per_phase
    scratch = np.empty((SPARE + 96) // 4, np.float32)
    spare = (scratch.ctypes.data + 63) // 64 * 64
    zero_row(spare + SPARE)
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        block = job % blocks
        offset, column = block // (blocks // rate), block % (blocks // rate)
        first = job // blocks * tile_chunk
        _run_inverse(
            code=inverse_code,
            products=products,
            outputs=outputs,
            rate=rate,
            dilation=dilation,
            per_phase=per_phase,
            first=first,
            last=min(tiles, first + tile_chunk),
            slots=slots + (block * tiles + first) * 32,
            slot_step=slot_step,
            out=out + column * out_block + offset * 32,
            out_batch=out_batch,
            rows=rows,
            bias=bias + column * 32,
            extra=extra + column * extra_block,
            extra_batch=extra_batch,
            extra_row=extra_row,
            slope=slope,
            ones=ones,
            spare=spare,
        )
    keep(scratch)


class ConvolveTiles(NamedTuple):
    """Arguments of `convolve_tiles`."""

    size: int
    outputs: int
    products: int
    batch: int
    dilation: int
    per_phase: int
    tile_chunk: int
    source: View
    source_rows: int
    in_blocks: int
    offsets: int
    weights: int
    weights_slot: int
    width: int
    panels: int
    out: View
    rows: int
    bias: int
    extra: Strided
    slope: int
    zeros: int
    ones: int
    forward_code: int
    panel_code: int
    inverse_code: int


@kernel(ConvolveTiles)
def convolve_tiles(
    counter: int,
    jobs: int,
    size: int,
    outputs: int,
    products: int,
    batch: int,
    dilation: int,
    per_phase: int,
    tile_chunk: int,
    source: int,
    source_batch: int,
    source_block: int,
    source_rows: int,
    in_blocks: int,
    offsets: int,
    weights: int,
    weights_slot: int,
    width: int,
    panels: int,
    out: int,
    out_batch: int,
    out_block: int,
    rows: int,
    bias: int,
    extra: int,
    extra_batch: int,
    extra_block: int,
    extra_row: int,
    slope: int,
    zeros: int,
    ones: int,
    forward_code: int,
    panel_code: int,
    inverse_code: int,
) -> None:
    """All three steps for up to `tile_chunk` tiles per job: few enough that their slots stay in a core's cache.

    `offsets` are those of `in_blocks` blocks that are `tile_chunk` rows apart; the `..._code` are the addresses of
    `forward_tiles`, `times_panel` and `inverse_tiles`.
    """
    tiles = batch * dilation * per_phase
    out_blocks = panels * width
    in_step = in_blocks * tile_chunk * 32 + 64  # so that a tile's slots lie in different sets of the cache
    out_step = out_blocks * tile_chunk * 32 + 64
    scratch = np.empty((SPARE + 128 + products * (in_step + out_step)) // 4, np.float32)
    spare = (scratch.ctypes.data + 63) // 64 * 64
    zero_row(spare + SPARE)
    taken = spare + SPARE + 64
    given = taken + products * in_step
    panel_bytes = in_blocks * width * 8 * 32
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        first = job * tile_chunk
        last = min(tiles, first + tile_chunk)
        for block in range(in_blocks):
            _run_forward(
                code=forward_code,
                size=size,
                outputs=outputs,
                dilation=dilation,
                per_phase=per_phase,
                first=first,
                last=last,
                source=source + block * source_block,
                source_batch=source_batch,
                rows=source_rows,
                slots=taken + block * tile_chunk * 32,
                slot_step=in_step,
                spare=spare,
            )
        for slot in range(products):
            for panel in range(panels):
                run_panel(
                    code=panel_code,
                    width=width,
                    rows=last - first,
                    source=taken + slot * in_step,
                    offsets=offsets,
                    chunks=in_blocks,
                    weights=weights + slot * weights_slot + panel * panel_bytes,
                    out=given + slot * out_step + panel * width * tile_chunk * 32,
                    out_row=32,
                    out_block=tile_chunk * 32,
                    bias=zeros,
                    extra=zeros,
                    extra_row=0,
                    extra_block=0,
                    slope=ones,
                )
        for block in range(out_blocks):
            _run_inverse(
                code=inverse_code,
                products=products,
                outputs=outputs,
                rate=1,
                dilation=dilation,
                per_phase=per_phase,
                first=first,
                last=last,
                slots=given + block * tile_chunk * 32,
                slot_step=out_step,
                out=out + block * out_block,
                out_batch=out_batch,
                rows=rows,
                bias=bias + block * 32,
                extra=extra + block * extra_block,
                extra_batch=extra_batch,
                extra_row=extra_row,
                slope=slope,
                ones=ones,
                spare=spare,
            )
    keep(scratch)
