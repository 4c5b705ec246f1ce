"""Matrix products: `rows x channels`, with channels in blocks of eight, as signals are laid out in memory.

One kernel serves all convolutions. An output row is a sum over chunks of eight input values, each chunk at a fixed
distance from the row (`offsets`): a tap of a convolution at another row, eight more channels in another block. So a
direct convolution needs no copy of its input, a transformed one is one product per slot, and a transposed one
is one product per output phase.

The tile of outputs that stays in registers is `height` rows by `width` vectors: 6 x 2 or 4 x 3 fill AVX2's sixteen.
With AVX-512, two vectors are one of thirty-two registers, and 12 x 4 fill them.
Long sums are summed in parts: one running sum of n products errs by about sqrt(n / 2) roundings, parts of m by
sqrt(m / 2 + n / 2m).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from melvoc.nn.engines.cpu.atomics import calling, take_job
from melvoc.nn.engines.cpu.compile import Strided, instructions, kernel, part, target_features
from melvoc.nn.engines.cpu.finish import After, activate
from melvoc.nn.engines.cpu.vector import (
    INT,
    LANES,
    ROW_BYTES,
    VECTOR,
    WIDE,
    Vec,
    at,
    eights,
    integer,
    load,
    spread,
    store,
    switch,
)

FAR_WIDER = "avx512f" in target_features()
PART = 32  # chunks, of eight products each


def block(height: int, width: int) -> Callable[..., None]:
    """What emits the product of `height` rows with `width` vectors of output channels.

    Arguments, addresses and steps in bytes: the first input row, the offsets of the chunks and their number, the
    weights `[chunks, 8, width, 8]`, the output and its steps from row to row and from vector to vector, the bias
    `[width, 8]`, what is added (a residual) with its steps, and the slope of a leaky ReLU of the result (1: none).
    """
    kind = WIDE if FAR_WIDER and width % 2 == 0 else VECTOR
    vectors = width * LANES // kind.count
    zero = ir.Constant(kind, [0.0] * kind.count)

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        rows, offsets, chunks, weights, out, out_row, out_block, bias, extra, extra_row, extra_block, slope = arguments
        entry = builder.block
        stretch, loop = builder.append_basic_block("stretch"), builder.append_basic_block("chunks")
        after, done = builder.append_basic_block("after"), builder.append_basic_block("done")
        builder.branch(stretch)
        builder.position_at_end(stretch)
        first, start = builder.phi(INT), builder.phi(INT)
        first.add_incoming(integer(0), entry)
        start.add_incoming(weights, entry)
        running = [[builder.phi(kind) for _ in range(vectors)] for _ in range(height)]
        limit = builder.add(first, integer(PART))
        limit = builder.select(builder.icmp_signed("<", limit, chunks), limit, chunks)
        builder.branch(loop)
        builder.position_at_end(loop)
        chunk, panel = builder.phi(INT), builder.phi(INT)
        chunk.add_incoming(first, stretch)
        panel.add_incoming(start, stretch)
        sums = [[builder.phi(kind) for _ in range(vectors)] for _ in range(height)]
        offset = builder.load(builder.inttoptr(builder.add(offsets, builder.shl(chunk, integer(3))), INT.as_pointer()))
        source = builder.add(rows, offset)
        totals = [[Vec(builder, phi) for phi in line] for line in sums]
        for lane in range(LANES):
            factors = [
                load(builder, at(builder, panel, lane * vectors + v, 4 * kind.count), kind) for v in range(vectors)
            ]
            for i in range(height):
                value = spread(builder, at(builder, source, 1, i * ROW_BYTES + 4 * lane), kind)
                totals[i] = [total + value * factor for total, factor in zip(totals[i], factors, strict=True)]
        following, next_panel = builder.add(chunk, integer(1)), builder.add(panel, integer(LANES * width * ROW_BYTES))
        chunk.add_incoming(following, loop)
        panel.add_incoming(next_panel, loop)
        for line, made in zip(sums, totals, strict=True):
            for phi, vector in zip(line, made, strict=True):
                phi.add_incoming(zero, stretch)
                phi.add_incoming(vector.value, loop)
        builder.cbranch(builder.icmp_signed("<", following, limit), loop, after)
        builder.position_at_end(after)
        first.add_incoming(limit, after)
        start.add_incoming(next_panel, after)
        for i, carried in enumerate(running):
            for v, phi in enumerate(carried):
                totals[i][v] = Vec(builder, phi) + totals[i][v]
                phi.add_incoming(zero, entry)
                phi.add_incoming(totals[i][v].value, after)
        builder.cbranch(builder.icmp_signed("<", limit, chunks), stretch, done)
        builder.position_at_end(done)
        shifts, leak = [load(builder, at(builder, bias, v)) for v in range(width)], load(builder, slope)
        for i in range(height):
            eight = [vector for wide in totals[i] for vector in eights(wide)]
            for v, (total, shift) in enumerate(zip(eight, shifts, strict=True)):
                there = at(builder, at(builder, extra, i, extra_row), v, extra_block)
                here = at(builder, at(builder, out, i, out_row), v, out_block)
                store(builder, here, (total + shift + load(builder, there)).leaky(leak))

    return emit


HIGH = (12, 8, 4, 2, 1)
# The heights of tiles, by their width.
TILES = {1: (8, 4, 1), 2: HIGH if FAR_WIDER else (6, 4, 2, 1), 3: (4, 2, 1)} | ({4: HIGH} if FAR_WIDER else {})
TALLEST = max(HIGH)


def _height(width: int, rows: int) -> int:
    """The height of the next tile, if `rows` rows are left."""
    highest = max((height for height in TILES.get(width, ()) if height <= rows), default=0)
    return 4 if (rows, highest) == (8, 6) else highest  # twice four, not six and two


HEIGHTS = np.array([[_height(width, rows) for rows in range(TALLEST + 1)] for width in range(max(TILES) + 1)], np.int64)


def _emit_tile(builder: ir.IRBuilder, width: ir.Value, height: ir.Value, *arguments: ir.Value) -> None:
    kinds = [(wide, high) for wide, heights in TILES.items() for high in heights]
    number = builder.add(builder.mul(width, integer(TALLEST + 1)), height)
    switch(builder, number, {w * (TALLEST + 1) + h: partial(block(h, w), builder, *arguments) for w, h in kinds})


_tile = instructions(14, _emit_tile)  # width, height, then those of a block


@part
def times_panel(
    width: int,
    rows: int,
    source: int,
    offsets: int,
    chunks: int,
    weights: int,
    out: int,
    out_row: int,
    out_block: int,
    bias: int,
    extra: int,
    extra_row: int,
    extra_block: int,
    slope: int,
) -> None:
    """The product of some rows with one panel of weights, in tiles that fit the registers."""
    row = 0
    while row < rows:
        height = HEIGHTS[width, min(rows - row, TALLEST)]
        _tile(
            width, height, source + row * 32, offsets, chunks, weights, out + row * out_row, out_row, out_block, bias,
            extra + row * extra_row, extra_row, extra_block, slope,
        )  # fmt: skip
        row += height


run_panel = calling(times_panel)


class Multiply(NamedTuple):
    """Arguments of `multiply`."""

    slots: int
    rows: int
    row_chunk: int
    rows_first: int
    panels: int
    panel_chunk: int
    phase_panels: int
    width: int
    source: int
    source_slot: int
    offsets: int
    chunks: int
    weights: int
    weights_slot: int
    out: Strided
    out_phase: int
    first: int
    bias: int
    bias_panel: int
    extra: Strided
    after: After
    ones: int
    panel_code: int


@kernel(Multiply)
def multiply(
    counter: int,
    jobs: int,
    slots: int,
    rows: int,
    row_chunk: int,
    rows_first: int,
    panels: int,
    panel_chunk: int,
    phase_panels: int,
    width: int,
    source: int,
    source_slot: int,
    offsets: int,
    chunks: int,
    weights: int,
    weights_slot: int,
    out: int,
    out_batch: int,
    out_block: int,
    out_row: int,
    out_phase: int,
    first: int,
    bias: int,
    bias_panel: int,
    extra: int,
    extra_batch: int,
    extra_block: int,
    extra_row: int,
    after: int,
    after_slope: int,
    after_slope_block: int,
    ones: int,
    panel_code: int,
) -> None:
    """All products of a layer: `slots` of them, each `rows` by `panels * width * 8` output channels.

    A slot is a batch entry, or a product of a transform. A job is one slot, up to `row_chunk` rows and up to
    `panel_chunk` panels; neighbours have the same slot, or, with `rows_first`, the same rows of all slots. Steps are
    named after what they step over, all in bytes. The weights begin with panel number `first`; a phase has
    `phase_panels` of them, and outputs, residual and bias of its own. `ones` is a row, and `panel_code` the address of
    `times_panel`.
    """
    row_jobs = (rows + row_chunk - 1) // row_chunk
    panel_jobs = (panels + panel_chunk - 1) // panel_chunk
    weights_panel = chunks * width * 8 * 32
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        rest = job // panel_jobs
        slot, first_row = rest // row_jobs, rest % row_jobs * row_chunk
        if rows_first != 0:
            slot, first_row = rest % slots, rest // slots * row_chunk
        last_row = min(rows, first_row + row_chunk)
        first_panel = (job % panel_jobs) * panel_chunk
        for panel in range(first_panel, min(panels, first_panel + panel_chunk)):
            w = weights + slot * weights_slot + panel * weights_panel
            phase = (first + panel) // phase_panels
            column = (first + panel) - phase * phase_panels
            y = out + slot * out_batch + phase * out_phase + column * width * out_block
            b = bias + column * bias_panel
            e = extra + slot * extra_batch + column * width * extra_block
            x = source + slot * source_slot
            run_panel(
                code=panel_code,
                width=width,
                rows=last_row - first_row,
                source=x + first_row * 32,
                offsets=offsets,
                chunks=chunks,
                weights=w,
                out=y + first_row * out_row,
                out_row=out_row,
                out_block=out_block,
                bias=b,
                extra=e + first_row * extra_row,
                extra_row=extra_row,
                extra_block=extra_block,
                slope=after_slope if after == 0 else ones,
            )
            if after != 0:
                for vector in range(width):
                    s = after_slope + (column * width + vector) * after_slope_block
                    for row in range(first_row, last_row):
                        activate(after, y + vector * out_block + row * out_row, s)


def panel_width(blocks: int) -> int:
    """Vectors of output channels that a product makes at a time, for `blocks` blocks of eight channels."""
    if 4 in TILES and blocks % 4 == 0:
        return 4
    return 2 if blocks % 2 == 0 else 3 if blocks % 3 == 0 else 1
