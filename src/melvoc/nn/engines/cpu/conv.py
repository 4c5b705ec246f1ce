"""Convolutions over windows of rows: direct, or by transforms. A transposed one is one to more channels, spread out."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor

from melvoc.nn.engines.cpu import amx, gemm, matrix
from melvoc.nn.engines.cpu.compile import Strided
from melvoc.nn.engines.cpu.finish import LEAKY, After, leaky
from melvoc.nn.engines.cpu.memory import Workspace, zeros
from melvoc.nn.engines.cpu.plan import CostModel, cached_tiles
from melvoc.nn.engines.cpu.rows import constant, view
from melvoc.nn.engines.cpu.threads import SHARED, TEAM
from melvoc.nn.engines.cpu.tiles import (
    ConvolveTiles,
    SlotsToRows,
    TilesToSlots,
    convolve_tiles,
    forward_tiles,
    inverse_tiles,
    slots_to_rows,
    tiles_to_slots,
)
from melvoc.nn.engines.cpu.transform import Transform
from melvoc.nn.engines.cpu.vector import LANES, ROW_BYTES
from melvoc.nn.engines.cpu.weights import Budget, Group, SplitWeights, Weights
from melvoc.nn.layers import Conv1d, ConvTranspose1d

CACHE_BYTES = 192 * 1024  # of a core's second-level cache, for the input of a product
ENOUGH = 24  # rows that are worth the larger weights of the matrix unit, which a product of few rows waits for
FEW = 10 * SHARED  # vector operations of a convolution that is better off in one run than on several threads
ZEROS = zeros(64)


class Convolution:
    """A layer and what is prepared from its weights, shared by all streams of a model.

    Args:
        layer: a `Conv1d` or `ConvTranspose1d`.
        costs: of the machine.
        budget: of the model's prepared weights.
    """

    def __init__(self, layer: Conv1d | ConvTranspose1d, costs: CostModel, budget: Budget) -> None:
        self.costs, self.slope = costs, layer.slope
        self.weights = Weights(layer, budget)
        self.split = SplitWeights.of(layer, budget)
        self.dilation = layer.dilation[0]
        self.span = (self.weights.taps - 1) * self.dilation  # rows that a window has beyond its outputs
        self.bias = zeros(self.weights.outputs * LANES)
        if layer.bias is not None:
            self.bias[: layer.out_channels] = layer.bias.detach()

    def run(
        self, window: Tensor, out: Tensor, extra: Tensor | None, workspace: Workspace, *, after: After | None = None
    ) -> None:
        """Convolve.

        Args:
            window: rows `[B, blocks, N + span, 8]`.
            out: `[B, blocks, N * rate, 8]`, N at least 1; it is written to.
            extra: what is added, at least as many rows; None for nothing.
            workspace: the engine's.
            after: an activation of the result; None for none.
        """
        after = leaky(None) if after is None else after
        weights, rows = self.weights, out.shape[2] // self.weights.rate
        outputs = weights.outputs * weights.rate
        transform = self.costs.choose(
            weights.taps, self.dilation, weights.rate, weights.inputs, outputs, out.shape[0], rows
        )
        if transform is None and self.split is not None and out.shape[0] * rows >= ENOUGH:
            self._split(self.split, window, out, extra, workspace, after)
        elif transform is None:
            self._direct(window, out, extra, workspace, after)
        else:
            assert after.mode == LEAKY
            self._transformed(transform, window, out, extra, workspace, after.slope)

    def _split(
        self,
        split: SplitWeights,
        window: Tensor,
        out: Tensor,
        extra: Tensor | None,
        workspace: Workspace,
        after: After,
    ) -> None:
        """Directly, on the processor's matrix unit."""
        weights, batch, rows, length = self.weights, out.shape[0], out.shape[2], window.shape[2]
        total, chunks = batch * length, -(-weights.inputs * LANES // amx.CHUNK)
        part = ((-(-total // amx.HIGH) * amx.HIGH + self.span) | 1) * 64  # odd, so that parts lie in different sets
        source = workspace.inputs.take(3 * chunks * part // 4 + 16).data_ptr() + 63 & ~63
        splitting = matrix.SplitRows(
            blocks=weights.inputs, rows=length, source=view(window), out=source, part=part, nothing=ZEROS.data_ptr()
        )
        TEAM.run(matrix.split_rows, batch * chunks * -(-length // 32), splitting, vectors=total * weights.inputs * 10)
        offsets = offsets_of(weights.taps, self.dilation * 64, chunks, 3 * part)
        multiplied = total - self.span  # rows that a whole window follows
        cut = matrix.division(multiplied, chunks, offsets.count, split.panels, torch.get_num_threads())
        arguments = matrix.MultiplyTiles(
            configuration=amx.CONFIGURATION,
            source=source,
            part=part,
            offsets=offsets.address,
            chunks=offsets.count,
            weights=split.packed().data_ptr(),
            panels=split.panels,
            panel_chunk=cut.panels,
            total=multiplied,
            row_chunk=cut.rows,
            chunk_block=cut.chunks,
            window=length,
            rows=rows,
            blocks=weights.outputs,
            out=view(out),
            bias=self.bias.data_ptr(),
            extra=addend(extra),
            after=after,
        )
        jobs = -(-split.panels // cut.panels) * -(-multiplied // cut.rows)
        TEAM.run(matrix.multiply_tiles, jobs, arguments, vectors=total * split.panels * chunks * 256, kept=offsets)

    def _direct(self, window: Tensor, out: Tensor, extra: Tensor | None, workspace: Workspace, after: After) -> None:
        weights = self.weights
        source, target, added = view(window), view(out), addend(extra)
        offsets = offsets_of(weights.taps, self.dilation * ROW_BYTES, weights.inputs, source.block)
        batch, rows = out.shape[0], out.shape[2] // weights.rate
        work = batch * rows * weights.panels * weights.width * offsets.count * LANES
        for group in weights.groups(None, workspace):
            row_chunk, panel_chunk, jobs = division(batch, rows, weights.inputs, group.panels)
            arguments = gemm.Multiply(
                slots=batch,
                rows=rows,
                row_chunk=row_chunk,
                rows_first=0,
                panels=group.panels,
                panel_chunk=panel_chunk,
                phase_panels=weights.phase_panels,
                width=weights.width,
                source=source.address,
                source_slot=source.batch,
                offsets=offsets.address,
                chunks=offsets.count,
                weights=group.tensor.data_ptr(),
                weights_slot=0,
                out=Strided(*target, row=weights.rate * ROW_BYTES),
                out_phase=ROW_BYTES,
                first=group.first,
                bias=self.bias.data_ptr(),
                bias_panel=weights.width * ROW_BYTES,
                extra=added,
                after=after,
                ones=constant(1.0).address,
                panel_code=gemm.times_panel.address,
            )
            TEAM.run(gemm.multiply, jobs, arguments, vectors=work, kept=offsets)

    def _transformed(
        self,
        transform: Transform,
        window: Tensor,
        out: Tensor,
        extra: Tensor | None,
        workspace: Workspace,
        leak: int,
    ) -> None:
        weights, products = self.weights, transform.products
        batch, rows = out.shape[0], out.shape[2] // weights.rate
        outputs = weights.outputs * weights.rate
        per_phase = -(-rows // (self.dilation * transform.outputs))
        tiles = batch * self.dilation * per_phase
        work = products * tiles * weights.panels * weights.width * weights.inputs * LANES
        groups = weights.groups(transform, workspace)
        if chunk := self._tiles_in_one_run(transform, tiles, work):
            group = next(groups)
            if group.panels == weights.panels:
                self._cached(transform, group, per_phase, chunk, window, out, extra, leak)
                return
            groups = itertools.chain([group], groups)
        input_step, output_step = slot_step(weights.inputs * tiles), slot_step(outputs * tiles)
        inputs = workspace.inputs.take(products * input_step // 4).data_ptr()
        slots = workspace.outputs.take(products * output_step // 4).data_ptr()
        tile_chunk = max(4, -(-tiles // 4))
        tile_jobs = -(-tiles // tile_chunk)
        tiling = TilesToSlots(
            size=transform.size,
            outputs=transform.outputs,
            blocks=weights.inputs,
            batch=batch,
            dilation=self.dilation,
            per_phase=per_phase,
            tile_chunk=tile_chunk,
            source=view(window),
            rows=window.shape[2],
            slots=inputs,
            slot_step=input_step,
            forward_code=forward_tiles.address,
        )
        moved = tiles * 4 * products
        TEAM.run(tiles_to_slots, weights.inputs * tile_jobs, tiling, vectors=weights.inputs * moved)
        offsets = offsets_of(1, 0, weights.inputs, tiles * ROW_BYTES)
        # Where there are more slots than weights, the weights are what is fetched again.
        rows_first = int(tiles * (weights.inputs + outputs) > 16 * weights.inputs * outputs)
        ones = constant(1.0).address
        for group in groups:
            row_chunk, panel_chunk, jobs = division(products, tiles, weights.inputs, group.panels, rows_first)
            arguments = gemm.Multiply(
                slots=products,
                rows=tiles,
                row_chunk=row_chunk,
                rows_first=rows_first,
                panels=group.panels,
                panel_chunk=panel_chunk,
                phase_panels=weights.panels,
                width=weights.width,
                source=inputs,
                source_slot=input_step,
                offsets=offsets.address,
                chunks=offsets.count,
                weights=group.tensor.data_ptr(),
                weights_slot=4 * group.slot_step,
                out=Strided(slots, output_step, tiles * ROW_BYTES, ROW_BYTES),
                out_phase=0,
                first=group.first,
                bias=ZEROS.data_ptr(),
                bias_panel=0,
                extra=addend(None),
                after=leaky(None),
                ones=ones,
                panel_code=gemm.times_panel.address,
            )
            TEAM.run(gemm.multiply, jobs, arguments, vectors=work, kept=offsets)
        untiling = SlotsToRows(
            products=products,
            outputs=transform.outputs,
            blocks=outputs,
            rate=weights.rate,
            batch=batch,
            dilation=self.dilation,
            per_phase=per_phase,
            tile_chunk=tile_chunk,
            slots=slots,
            slot_step=output_step,
            out=view(out),
            rows=rows,
            bias=self.bias.data_ptr(),
            extra=addend(extra),
            slope=leak,
            ones=ones,
            inverse_code=inverse_tiles.address,
        )
        TEAM.run(slots_to_rows, outputs * tile_jobs, untiling, vectors=outputs * moved)

    def _tiles_in_one_run(self, transform: Transform, tiles: int, work: int) -> int:
        """How many tiles a job takes through all steps; 0 where the steps are better run one after the other."""
        weights, threads = self.weights, torch.get_num_threads()
        most = max(24, tiles // (48 * threads) * 12)  # at least four jobs per thread, so that all end together
        chunk = min(most, cached_tiles(transform, weights.rate, weights.inputs, weights.outputs))
        return chunk if work < FEW or tiles > chunk * (2 * threads - 1) else 0

    def _cached(
        self,
        transform: Transform,
        group: Group,
        per_phase: int,
        chunk: int,
        window: Tensor,
        out: Tensor,
        extra: Tensor | None,
        leak: int,
    ) -> None:
        """By transforms, a few tiles at a time through all steps."""
        weights, products = self.weights, transform.products
        tiles = out.shape[0] * self.dilation * per_phase
        blocks = weights.inputs + weights.outputs
        work = products * tiles * (weights.inputs * weights.outputs * LANES + 4 * blocks)
        offsets = offsets_of(1, 0, weights.inputs, chunk * ROW_BYTES)
        arguments = ConvolveTiles(
            size=transform.size,
            outputs=transform.outputs,
            products=products,
            batch=out.shape[0],
            dilation=self.dilation,
            per_phase=per_phase,
            tile_chunk=chunk,
            source=view(window),
            source_rows=window.shape[2],
            in_blocks=weights.inputs,
            offsets=offsets.address,
            weights=group.tensor.data_ptr(),
            weights_slot=4 * group.slot_step,
            width=weights.width,
            panels=weights.panels,
            out=view(out),
            rows=out.shape[2],
            bias=self.bias.data_ptr(),
            extra=addend(extra),
            slope=leak,
            zeros=ZEROS.data_ptr(),
            ones=constant(1.0).address,
            forward_code=forward_tiles.address,
            panel_code=gemm.times_panel.address,
            inverse_code=inverse_tiles.address,
        )
        TEAM.run(convolve_tiles, -(-tiles // chunk), arguments, vectors=work, kept=offsets)


class Offsets:
    """Distances in bytes from an output's row to the chunks of its inputs, in memory."""

    def __init__(self, taps: int, tap_step: int, blocks: int, block_step: int) -> None:
        self._values = np.add.outer(np.arange(taps, dtype=np.int64) * tap_step, np.arange(blocks) * block_step).ravel()
        self.address, self.count = int(self._values.ctypes.data), len(self._values)


offsets_of = functools.lru_cache(maxsize=4096)(Offsets)


def slot_step(rows: int) -> int:
    """Bytes between slots, such that the slots of one tile lie in different sets of a cache (pages of 4096 bytes)."""
    return -(-rows * ROW_BYTES // 4096) * 4096 + 64


def addend(extra: Tensor | None) -> Strided:
    """What is added to the outputs; for nothing, one row of zeros for all of them."""
    return Strided(ZEROS.data_ptr(), 0, 0, 0) if extra is None else Strided(*view(extra), row=ROW_BYTES)


def division(slots: int, rows: int, inputs: int, panels: int, rows_first: int = 0) -> tuple[int, int, int]:
    """Rows and panels per job, and jobs: rows that fit the cache; fewer panels only where there are too few jobs.

    With `rows_first`, all rows are at least two jobs, because the two ends of a signal belong to two processors.
    """
    row_chunk = max(24, CACHE_BYTES // (inputs * ROW_BYTES) // 12 * 12)
    if rows_first and rows <= 2 * row_chunk:
        row_chunk = max(24, -(-rows // 24) * 12)
    elif rows <= row_chunk * 5 // 4:
        row_chunk = rows
    row_jobs = slots * -(-rows // row_chunk)
    panel_chunk = max(1, min(panels, panels * row_jobs // 24))
    return row_chunk, panel_chunk, row_jobs * -(-panels // panel_chunk)
