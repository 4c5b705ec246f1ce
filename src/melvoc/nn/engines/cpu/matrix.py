"""The products of a layer on the processor's matrix unit (`amx`), as jobs, and which layers gain by it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from melvoc.nn.engines.cpu import amx
from melvoc.nn.engines.cpu.amx import CHUNK, HIGH, LINE, PANEL, PLAIN, STEP, SUMS_ROW, TURNS
from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import Strided, View, keep, kernel, routine
from melvoc.nn.engines.cpu.finish import After, finish, finish_two
from melvoc.nn.layers import Conv1d, ConvTranspose1d

REUSE = 10  # products of a row that are worth splitting it
SOURCE_BYTES = 2**20  # of a core's second-level cache, for the split rows of a product
BLOCK = 16  # chunks of a stretch, at most
MOST_PANELS = 8  # of a job
SLOTS = 32  # of four chunks of weights


def pays(layer: Conv1d | ConvTranspose1d) -> bool:
    """Whether a layer fills tiles, and takes each of its split rows often enough: once per tap and panel."""
    filled = isinstance(layer, Conv1d) and min(layer.in_channels, layer.out_channels) >= CHUNK
    return filled and layer.kernel_size[0] * -(-layer.out_channels // PANEL) >= REUSE


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

    A chunk is four blocks; those that it lacks are zeros. The jobs of a chunk follow one another, so that a thread
    splits channels that it has made.
    """
    chunks, row_jobs = (blocks + 3) // 4, (rows + 31) // 32
    chunk_jobs = jobs // chunks
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        chunk, rest = job // chunk_jobs, job % chunk_jobs
        entry, first = rest // row_jobs, rest % row_jobs * 32
        y = out + chunk * 3 * part + entry * rows * 64
        for half in range(2):
            block = chunk * 4 + half * 2
            x = source + entry * source_batch + block * source_block
            for i in range(first, min(rows, first + 32)):
                one = x + i * 32 if block < blocks else nothing
                two = x + source_block + i * 32 if block + 1 < blocks else nothing
                amx.split_pair(one, two, y + i * 64 + half * 32, part)


@routine
def _finish_panel(
    sums: int,
    row: int,
    end: int,
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
    slope: int,
    slope_block: int,
) -> None:
    """The outputs that follow from the sums of rows `row` to `end` of a panel, two at a time."""
    while row < end:
        entry = row // window
        place = row - entry * window
        count = min(end - row, rows - place)
        for block in range(blocks if count > 0 else 0):
            x = sums + block * 32
            z = extra + entry * extra_batch + block * extra_block + place * extra_row
            y = out + entry * out_batch + block * out_block + place * 32
            b, s = bias + block * 32, slope + block * slope_block
            for i in range(0, count - 1, 2):
                finish_two(after, x + i * SUMS_ROW, SUMS_ROW, b, z + i * extra_row, extra_row, s, y + i * 32)
            if count & 1:
                i = count - 1
                finish(after, x + i * SUMS_ROW, SUMS_ROW, b, z + i * extra_row, extra_row, s, y + i * 32)
        following = row + count if place + count < rows else (entry + 1) * window  # beyond rows without outputs
        sums += (following - row) * SUMS_ROW
        row = following


@routine
def _stretch_weights(
    weights: int,
    job: int,
    following: int,
    jobs: int,
    stretch: int,
    chunks: int,
    chunk_block: int,
    panels: int,
    panel_chunk: int,
) -> int:
    """The address of the weights of a job's stretch; beyond its last one, of the first of the job that follows.

    Beyond that, or where none follows, 0.
    """
    panel_jobs, blocks = (panels + panel_chunk - 1) // panel_chunk, (chunks + chunk_block - 1) // chunk_block
    panel = job % panel_jobs * panel_chunk
    width = min(panel_chunk, panels - panel)
    if stretch >= blocks * width:
        stretch -= blocks * width
        panel = following % panel_jobs * panel_chunk
        width = min(panel_chunk, panels - panel)
        if following >= jobs or stretch >= blocks * width:
            return 0
    return weights + ((panel + stretch % width) * chunks + stretch // width * chunk_block) * PLAIN


class MultiplyTiles(NamedTuple):
    """Arguments of `multiply_tiles`; see there."""

    configuration: int
    source: int
    part: int
    offsets: int
    chunks: int
    weights: int
    panels: int
    panel_chunk: int
    total: int
    row_chunk: int
    chunk_block: int
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
    panel_chunk: int,
    total: int,
    row_chunk: int,
    chunk_block: int,
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
    """All products of a layer; a job is `panel_chunk` panels and up to `row_chunk` rows of the batch's `total`.

    Its stretches are `chunk_block` chunks of a panel; while the rows meet one, the weights of the next are split, and
    those after it fetched, evenly over the time: memory is slower than the unit. A job is taken while the last one is
    done, so that its first weights are ready. Where a panel has several stretches, sums wait for the next, and
    `row_chunk` is a multiple of `HIGH`.
    `offsets` are the distances in bytes from a row to the chunks of its inputs. Of `window` rows of an entry, `rows`
    have an output, to which bias, `extra` and what comes `after` are applied.
    """
    height = row_chunk if chunk_block < chunks else 0  # of sums that wait for the next chunks
    scratch = np.empty(((panel_chunk * height + HIGH) * SUMS_ROW + 2 * (chunk_block + 3) * STEP) // 4 + 16, np.float32)
    here = (scratch.ctypes.data + LINE - 1) // LINE * LINE  # split weights, and those that come next
    there = here + (chunk_block + 3) * STEP
    sums = there + (chunk_block + 3) * STEP
    panel_jobs, per_panel = (panels + panel_chunk - 1) // panel_chunk, (chunks + chunk_block - 1) // chunk_block
    job = take_job(counter, jobs)
    if job < jobs:
        plain = _stretch_weights(weights, job, jobs, jobs, 0, chunks, chunk_block, panels, panel_chunk)
        ahead = _stretch_weights(weights, job, jobs, jobs, 1, chunks, chunk_block, panels, panel_chunk) or plain
        slots = (chunk_block + 3) // 4 * SLOTS
        for slot in range(slots):
            amx.split_slot(plain, ahead, here, slot, slots)
    amx.begin(configuration)
    while job < jobs:
        following = take_job(counter, jobs)
        panel, first = job % panel_jobs * panel_chunk, job // panel_jobs * row_chunk
        width, last = min(panel_chunk, panels - panel), min(total, first + row_chunk)
        for stretch in range(per_panel * width):
            number, chunk = panel + stretch % width, stretch // width * chunk_block
            count = min(chunk_block, chunks - chunk)
            plain = _stretch_weights(
                weights, job, following, jobs, stretch + 1, chunks, chunk_block, panels, panel_chunk
            )
            ahead = (
                _stretch_weights(weights, job, following, jobs, stretch + 2, chunks, chunk_block, panels, panel_chunk)
                or plain
            )
            next_count = min(chunk_block, chunks - (plain - weights) // PLAIN % chunks)
            slots = (next_count + 3) // 4 * SLOTS if plain else 0
            turns = (last - first + HIGH - 1) // HIGH * count
            done, pace = 0, min(TURNS, (slots + turns - 1) // turns)
            for row in range(first, last, HIGH):
                x = sums + ((number - panel) * height + row - first) * SUMS_ROW if height else sums
                amx.multiply_chunks(
                    2 if last - row > 16 else 1,
                    source + row * 64,
                    part,
                    offsets + chunk * 8,
                    count,
                    here,
                    x,
                    1 if chunk == 0 else 0,
                    plain,
                    ahead,
                    there,
                    done,
                    slots,
                    pace if done < slots else 0,
                )
                done += count * pace
                if chunk + count == chunks:
                    _finish_panel(
                        x,
                        row,
                        min(last, row + HIGH),
                        window,
                        rows,
                        min(4, blocks - number * 4),
                        out + number * 4 * out_block,
                        out_batch,
                        out_block,
                        bias + number * 4 * 32,
                        extra + number * 4 * extra_block,
                        extra_batch,
                        extra_block,
                        extra_row,
                        after,
                        after_slope + number * 4 * after_slope_block,
                        after_slope_block,
                    )
            for slot in range(done, slots):
                amx.split_slot(plain, ahead, there, slot, slots)
            here, there = there, here
        job = following
    amx.end()
    keep(scratch)


class Division(NamedTuple):
    """How a layer becomes jobs.

    Attributes:
        rows: of a job, a multiple of `HIGH`.
        chunks: of a stretch.
        panels: of a job.
    """

    rows: int
    chunks: int
    panels: int


def division(total: int, inputs: int, chunks: int, panels: int, threads: int) -> Division:
    """Jobs whose split rows fit the cache.

    Args:
        total: rows.
        inputs: chunks of a row.
        chunks: the same of all taps.
        panels: of the layer.
        threads: that do the jobs.
    """
    block = -(-chunks // -(-chunks // BLOCK))
    whole = _rows(inputs if inputs <= BLOCK * 3 // 2 else BLOCK)
    row_jobs = 1 if total <= _rows(inputs) * 5 // 4 else -(-total // whole)
    rows = -(-total // (row_jobs * HIGH)) * HIGH
    here = max(1, min(MOST_PANELS, panels * row_jobs // (4 * threads)))  # four jobs for each thread, at least
    return Division(rows, block, here)


def _rows(chunks: int) -> int:
    """Rows of which the cache has room for as many chunks."""
    return max(HIGH, SOURCE_BYTES // (6 * CHUNK * chunks) // HIGH * HIGH)
