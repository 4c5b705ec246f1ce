"""Weights as the products read them: made from a layer's own on first use, kept or made again for each block.

    direct:       [panels, taps, blocks, 8, width * 8]
    transformed:  [products, panels, blocks, 8, width * 8]

A panel is `width * 8` output channels (of one output phase, where the layer upsamples).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.engines.cpu import amx, gemm, matrix
from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import Strided, kernel
from melvoc.nn.engines.cpu.finish import leaky
from melvoc.nn.engines.cpu.memory import Workspace, floats, settled, zeros
from melvoc.nn.engines.cpu.rows import blocks_of, constant
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.transform import Transform
from melvoc.nn.engines.cpu.vector import LANES, ROW_BYTES, copy_value, zero_value
from melvoc.nn.forks import ForkLock
from melvoc.nn.layers import Conv1d, ConvTranspose1d

GROUP_FLOATS = 2**20  # of intermediate weights, while they are made
KEPT = MADE = 0.1  # of the plain weights, in low memory: what is kept, and what is made at a time


class Pack(NamedTuple):
    """Arguments of `pack`; `source` and `out` are addresses of floats."""

    first: int
    phase_panels: int
    lanes: int
    inputs: int
    outputs: int
    padded_inputs: int
    padded_taps: int
    source: int
    output_step: int
    input_step: int
    tap_start: int
    tap_step: int
    tap_end: int
    out: int
    out_panel: int
    out_tap: int
    out_input: int


@kernel(Pack)
def pack(
    counter: int,
    jobs: int,
    first: int,
    phase_panels: int,
    lanes: int,
    inputs: int,
    outputs: int,
    padded_inputs: int,
    padded_taps: int,
    source: int,
    output_step: int,
    input_step: int,
    tap_start: int,
    tap_step: int,
    tap_end: int,
    out: int,
    out_panel: int,
    out_tap: int,
    out_input: int,
) -> None:
    """Reorder a layer's weights, zeros where there are none; a job is a panel. Steps in floats."""
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        phase, channel = (first + job) // phase_panels, (first + job) % phase_panels * lanes
        for i in range(padded_inputs):
            for tap in range(padded_taps):
                place = tap_start + phase + tap * tap_step
                y = out + 4 * (job * out_panel + tap * out_tap + i * out_input)
                if i < inputs and 0 <= place < tap_end:
                    x = source + 4 * (channel * output_step + i * input_step + place)
                    count = min(lanes, outputs - channel)
                    for lane in range(count):
                        copy_value(x + 4 * lane * output_step, y + 4 * lane)
                    for lane in range(count, lanes):
                        zero_value(y + 4 * lane)
                else:
                    for lane in range(lanes):
                        zero_value(y + 4 * lane)


class Budget:
    """How much of the prepared weights of a model may be kept. Weights that are no longer used do not count."""

    def __init__(self, limited: bool) -> None:
        self.limited = limited
        self._known: weakref.WeakSet[Weights] = weakref.WeakSet()
        self._lock = ForkLock()

    def add(self, weights: Weights) -> None:
        """Count a layer."""
        with self._lock:
            self._known.add(weights)

    def known(self) -> list[Weights]:
        """The weights that are in use."""
        with self._lock:
            return list(self._known)

    @property
    def plain(self) -> int:
        """Floats of the layers themselves."""
        return sum(weights.plain for weights in self.known())

    @property
    def kept(self) -> int:
        """Floats of what is kept of them prepared."""
        return sum(weights.kept for weights in self.known())

    def allows(self, floats: int) -> bool:
        """Whether `floats` more may be kept."""
        return not self.limited or self.kept + floats <= KEPT * self.plain


@dataclass(frozen=True)
class Group:
    """Prepared weights of some panels.

    Attributes:
        first: number of the first panel.
        panels: how many.
        tensor: the weights, `[panels, ...]` or `[products, panels, ...]`.
        slot_step: floats from product to product.
    """

    first: int
    panels: int
    tensor: Tensor
    slot_step: int


class Weights:
    """A layer's weights, in groups of panels.

    Args:
        layer: the layer. A transposed convolution is a convolution to `rate` times the channels.
        budget: the model's.
    """

    def __init__(self, layer: Conv1d | ConvTranspose1d, budget: Budget) -> None:
        self.budget = budget
        upsampling = isinstance(layer, ConvTranspose1d)
        self.rate = layer.rate if isinstance(layer, ConvTranspose1d) else 1
        self.taps = layer.taps if isinstance(layer, ConvTranspose1d) else layer.kernel_size[0]
        self.inputs, self.outputs = blocks_of(layer.in_channels), blocks_of(layer.out_channels)
        self.width = gemm.panel_width(self.outputs)
        self.phase_panels = self.outputs // self.width
        self.panels = self.rate * self.phase_panels
        self._weight = weight = layer.weight.detach().contiguous()  # not the layer, so that it can be freed
        self._channels = (layer.in_channels, layer.out_channels)
        self._steps = (weight.stride(1), weight.stride(0)) if upsampling else (weight.stride(0), weight.stride(1))
        self._places = ((self.taps - 1) * self.rate, -self.rate) if upsampling else (0, 1)
        self._lock = ForkLock()
        self._kept: dict[Transform | None, Group | None] = {}
        self.plain, self.kept = weight.numel(), 0  # floats
        budget.add(self)

    def groups(self, transform: Transform | None, workspace: Workspace) -> Iterator[Group]:
        """All panels, in one group if they are kept; else each group is valid until the next."""
        count = self.panels * self._panel(transform)
        with self._lock:
            if transform not in self._kept:
                allowed = self.budget.allows(count)
                self._kept[transform] = self._make(transform, 0, self.panels, floats(count)) if allowed else None
                self.kept += count if allowed else 0
            group = self._kept[transform]
        if group is not None:
            yield group
            return
        size = max(1, int(MADE * self.budget.plain) // self._panel(transform))
        for first in range(0, self.panels, size):
            panels = min(size, self.panels - first)
            yield self._make(transform, first, panels, workspace.weights.take(panels * self._panel(transform)))

    def _panel(self, transform: Transform | None) -> int:
        """Floats of one panel in all slots."""
        return (self.taps if transform is None else transform.products) * self._rows * self.width * LANES

    @property
    def _rows(self) -> int:
        return self.inputs * LANES

    def _make(self, transform: Transform | None, first: int, panels: int, out: Tensor) -> Group:
        TEAM.spoil()  # it would be made again in each run of a tape
        lanes = self.width * LANES
        if transform is None:
            self._pack(first, panels, self.taps, out, tap=self._rows * lanes, row=lanes)
            return Group(first, panels, out, 0)
        padded = -(-self.taps // LANES) * LANES
        matrix = torch.from_numpy(transform.weights().astype(np.float32))
        matrix = F.pad(matrix, (0, padded - self.taps)).unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()
        offsets = np.arange(padded // LANES, dtype=np.int64) * (transform.products * ROW_BYTES)
        group = max(1, GROUP_FLOATS // (self._rows * padded * lanes))
        taps = floats(min(group, panels) * self._rows * padded * lanes)
        nothing = zeros(lanes)
        step = panels * self._rows * lanes
        for done in range(0, panels, group):
            count = min(group, panels - done)
            self._pack(first + done, count, padded, taps, tap=lanes, row=padded * lanes)
            columns = count * self._rows  # each a product of its own: slots from taps
            chunk = -(-columns // 16)
            arguments = gemm.Multiply(
                slots=1,
                rows=transform.products,
                row_chunk=transform.products,
                rows_first=0,
                panels=columns,
                panel_chunk=chunk,
                phase_panels=columns,
                width=self.width,
                source=matrix.data_ptr(),
                source_slot=0,
                offsets=int(offsets.ctypes.data),
                chunks=len(offsets),
                weights=taps.data_ptr(),
                weights_slot=0,
                out=Strided(out.data_ptr() + 4 * done * self._rows * lanes, 0, ROW_BYTES, 4 * step),
                out_phase=0,
                first=0,
                bias=nothing.data_ptr(),
                bias_panel=0,
                extra=Strided(nothing.data_ptr(), 0, 0, 0),
                after=leaky(None),
                ones=constant(1.0).address,
                panel_code=gemm.times_panel.address,
            )
            work = transform.products * columns * self.width * padded
            TEAM.run(gemm.multiply, -(-columns // chunk), arguments, vectors=work)
        return Group(first, panels, out, step)

    def _pack(self, first: int, panels: int, taps: int, out: Tensor, *, tap: int, row: int) -> None:
        start, step = self._places
        lanes = self.width * LANES
        arguments = Pack(
            first=first,
            phase_panels=self.phase_panels,
            lanes=lanes,
            inputs=self._channels[0],
            outputs=self._channels[1],
            padded_inputs=self._rows,
            padded_taps=taps,
            source=self._weight.data_ptr(),
            output_step=self._steps[0],
            input_step=self._steps[1],
            tap_start=start,
            tap_step=step,
            tap_end=self._weight.shape[2],
            out=out.data_ptr(),
            out_panel=taps * self._rows * lanes,
            out_tap=tap,
            out_input=row,
        )
        TEAM.run(pack, panels, arguments, vectors=panels * taps * self._rows * lanes)


class SplitWeights:
    """The weights of a direct convolution as the processor's matrix unit takes them (`amx`), made on first use.

    Args:
        layer: whose weights they are.
    """

    def __init__(self, layer: Conv1d | ConvTranspose1d) -> None:
        self._weight = layer.weight.detach()
        self._packed: Tensor | None = None
        self._lock = ForkLock()
        self.panels = -(-layer.out_channels // amx.PANEL)

    @classmethod
    def of(cls, layer: Conv1d | ConvTranspose1d, budget: Budget) -> SplitWeights | None:
        """None where there is no such unit, no memory for it, or where the layer has too little use for it."""
        return cls(layer) if matrix.pays(layer) and not budget.limited and amx.available() else None

    def packed(self) -> Tensor:
        """As `amx.packed` gives them."""
        with self._lock:
            if self._packed is None:
                TEAM.spoil()  # as in `Weights`
                self._packed = settled(amx.packed(self._weight))
            return self._packed
