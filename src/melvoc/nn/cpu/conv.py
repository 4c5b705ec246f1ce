"""Convolutions over windows of rows: direct, or by transforms, with weights prepared for either."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.cpu import gemm
from melvoc.nn.cpu.plan import CostModel
from melvoc.nn.cpu.rows import Workspace, blocks_of, steps
from melvoc.nn.cpu.threads import TEAM
from melvoc.nn.cpu.tiles import slots_to_rows, tiles_to_slots
from melvoc.nn.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.cpu.vector import LANES, ROW_BYTES
from melvoc.nn.layers import Conv1d, ConvTranspose1d

CACHE_BYTES = 192 * 1024  # of a core's second-level cache, for the input of a product
ZEROS = torch.zeros(64 * LANES)


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Blocks of eight channels, and how the products cut the outputs into panels."""

    inputs: int
    outputs: int

    @property
    def width(self) -> int:
        """Vectors a panel."""
        return gemm.panel_width(self.outputs)

    @property
    def panels(self) -> int:
        """Panels in all."""
        return self.outputs // self.width


def packed(weight: Tensor, channels: Channels) -> Tensor:
    """`[Co, Ci, taps]` to `[taps, panels, blocks, 8, width * 8]`."""
    weight = F.pad(
        weight, (0, 0, 0, channels.inputs * LANES - weight.shape[1], 0, channels.outputs * LANES - weight.shape[0])
    )
    shape = (channels.panels, channels.width * LANES, channels.inputs, LANES, weight.shape[-1])
    return weight.view(shape).permute(4, 0, 2, 3, 1)


class Convolution:
    """A `Conv1d` and what is prepared from its weights, shared by all streams of a model."""

    def __init__(self, layer: Conv1d, costs: CostModel) -> None:
        self.layer, self.costs = layer, costs
        self.channels = Channels(inputs=blocks_of(layer.in_channels), outputs=blocks_of(layer.out_channels))
        self.taps, self.dilation, self.reach = layer.kernel_size[0], layer.dilation[0], layer.reach
        self.bias = padded_bias(layer.bias, self.channels.outputs)
        self._lock = threading.Lock()
        self._prepared: dict[Transform | None, Tensor] = {}

    def weights(self, transform: Transform | None) -> Tensor:
        """Prepared on first use."""
        with self._lock, torch.inference_mode():
            if transform not in self._prepared:
                self._prepared[transform] = self._prepare(transform)
            return self._prepared[transform]

    def _prepare(self, transform: Transform | None) -> Tensor:
        base = packed(self.layer.weight.detach(), self.channels)
        if transform is None:
            return base.transpose(0, 1).contiguous()
        matrix = torch.from_numpy(transform.weights()).float()
        return matrix @ base.reshape(self.taps, -1)

    def run(self, window: Tensor, out: Tensor, extra: Tensor | None, workspace: Workspace) -> None:
        """Convolve.

        Args:
            window: rows `[B, blocks, N + 2 * reach, 8]`.
            out: `[B, blocks, N, 8]`, N at least 1; it is written.
            extra: what is added, at least N rows; None for nothing.
            workspace: of the calling thread.
        """
        transform = self.costs.choose(self.taps, self.dilation, self.channels.inputs, self.channels.outputs, out.shape)
        if transform is None:
            self._direct(window, out, extra)
        else:
            self._transformed(transform, window, out, extra, workspace)

    def _direct(self, window: Tensor, out: Tensor, extra: Tensor | None) -> None:
        weights, channels = self.weights(None), self.channels
        source, source_batch, source_block = steps(window)
        target, out_batch, out_block = steps(out)
        added, extra_batch, extra_block, extra_row = extra_steps(extra)
        offsets = np.add.outer(
            np.arange(self.taps) * self.dilation * ROW_BYTES, np.arange(channels.inputs) * source_block
        ).ravel()
        batch, rows = out.shape[0], out.shape[2]
        row_chunk, panel_chunk, jobs = division(batch, rows, channels)
        TEAM.run(
            gemm.multiply, jobs, batch, rows, row_chunk, channels.panels, panel_chunk, channels.width,
            source, source_batch, offsets.ctypes.data, len(offsets), weights.data_ptr(), 0,
            target, out_batch, ROW_BYTES, out_block,
            self.bias.data_ptr(), channels.width * ROW_BYTES, added, extra_batch, extra_row, extra_block,
        )  # fmt: skip

    def _transformed(
        self, transform: Transform, window: Tensor, out: Tensor, extra: Tensor | None, workspace: Workspace
    ) -> None:
        weights, channels = self.weights(transform), self.channels
        batch, rows = out.shape[0], out.shape[2]
        per_phase = -(--(-rows // self.dilation) // transform.outputs)
        tiles = batch * self.dilation * per_phase
        products = transform.products
        input_step, output_step = slot_step(channels.inputs * tiles), slot_step(channels.outputs * tiles)
        inputs = workspace.take("input slots", products * input_step // 4).data_ptr()
        outputs = workspace.take("output slots", products * output_step // 4).data_ptr()
        tile_chunk = max(4, -(-tiles // 4))
        TEAM.run(
            tiles_to_slots, channels.inputs * -(-tiles // tile_chunk), transform.size, transform.outputs,
            channels.inputs, batch, self.dilation, per_phase, tile_chunk, *steps(window), window.shape[2],
            inputs, input_step,
        )  # fmt: skip
        offsets = np.arange(channels.inputs) * tiles * ROW_BYTES
        row_chunk, panel_chunk, jobs = division(products, tiles, channels)
        nothing = ZEROS.data_ptr()
        TEAM.run(
            gemm.multiply, jobs, products, tiles, row_chunk, channels.panels, panel_chunk, channels.width,
            inputs, input_step, offsets.ctypes.data, len(offsets),
            weights.data_ptr(), 4 * weights.stride(0),
            outputs, output_step, ROW_BYTES, tiles * ROW_BYTES,
            nothing, 0, nothing, 0, 0, 0,
        )  # fmt: skip
        added, extra_batch, extra_block, extra_row = extra_steps(extra)
        TEAM.run(
            slots_to_rows, channels.outputs * -(-tiles // tile_chunk), TRANSFORMS.index(transform), transform.outputs,
            channels.outputs, batch, self.dilation, per_phase, tile_chunk, outputs, output_step, *steps(out), rows,
            self.bias.data_ptr(), added, extra_batch, extra_block, extra_row,
        )  # fmt: skip


class Upsampling:
    """A `ConvTranspose1d` as one product an output phase, with its prepared weights."""

    def __init__(self, layer: ConvTranspose1d) -> None:
        self.layer = layer
        self.channels = Channels(inputs=blocks_of(layer.in_channels), outputs=blocks_of(layer.out_channels))
        self.rate, self.taps = layer.rate, layer.taps
        self.bias = padded_bias(layer.bias, self.channels.outputs)
        self._lock = threading.Lock()
        self._prepared: Tensor | None = None

    def weights(self) -> Tensor:
        """`[rate, panels, taps, blocks, 8, width * 8]`, the taps in the order of the inputs; prepared on first use."""
        with self._lock, torch.inference_mode():
            if self._prepared is None:
                weight = self.layer.weight.detach().transpose(0, 1)
                weight = F.pad(weight, (0, self.taps * self.rate - weight.shape[-1]))
                base = packed(weight, self.channels).unflatten(0, (self.taps, self.rate)).flip(0)
                self._prepared = base.permute(1, 2, 0, 3, 4, 5).contiguous()
            return self._prepared

    def run(self, window: Tensor, out: Tensor) -> None:
        """Window `[B, blocks, N + taps - 1, 8]` to out `[B, blocks, N * rate, 8]`."""
        weights, channels = self.weights(), self.channels
        rows = out.shape[2] // self.rate
        row_chunk, panel_chunk, jobs = division(self.rate, rows, channels)
        nothing = ZEROS.data_ptr()
        for entry, result in zip(window, out, strict=True):
            block = 4 * entry.stride(0)
            offsets = np.add.outer(np.arange(self.taps) * ROW_BYTES, np.arange(channels.inputs) * block).ravel()
            TEAM.run(
                gemm.multiply, jobs, self.rate, rows, row_chunk, channels.panels, panel_chunk, channels.width,
                entry.data_ptr(), 0, offsets.ctypes.data, len(offsets), weights.data_ptr(), 4 * weights.stride(0),
                result.data_ptr(), ROW_BYTES, self.rate * ROW_BYTES, 4 * result.stride(0),
                self.bias.data_ptr(), channels.width * ROW_BYTES, nothing, 0, 0, 0,
            )  # fmt: skip


def slot_step(rows: int) -> int:
    """Bytes from slot to slot: so that the slots of one tile lie in different sets of a cache (pages of 4096 bytes)."""
    return -(-rows * ROW_BYTES // 4096) * 4096 + 64


def padded_bias(bias: nn.Parameter | Tensor | None, blocks: int) -> Tensor:
    """A bias for whole blocks."""
    result = torch.zeros(blocks * LANES)
    if bias is not None:
        result[: len(bias)] = bias.detach()
    return result


def extra_steps(extra: Tensor | None) -> tuple[int, int, int, int]:
    """Address, and bytes to the next batch entry, block and row; all steps 0 for nothing."""
    if extra is None:
        return ZEROS.data_ptr(), 0, 0, 0
    return *steps(extra), ROW_BYTES


def division(slots: int, rows: int, channels: Channels) -> tuple[int, int, int]:
    """Rows and panels a job, and jobs: rows that fit the cache; fewer panels only where there are too few jobs."""
    row_chunk = max(24, CACHE_BYTES // (channels.inputs * LANES * 4) // 12 * 12)
    if rows <= row_chunk * 5 // 4:
        row_chunk = rows
    row_jobs = slots * -(-rows // row_chunk)
    panel_chunk = max(1, min(channels.panels, channels.panels * row_jobs // 24))
    return row_chunk, panel_chunk, row_jobs * -(-channels.panels // panel_chunk)
