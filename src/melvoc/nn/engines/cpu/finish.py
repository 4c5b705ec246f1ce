"""What follows the sums of a product, while they are at hand: bias, what is added, and an activation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from llvmlite import ir

from melvoc.nn.engines.cpu.compile import instructions
from melvoc.nn.engines.cpu.functions import gelu
from melvoc.nn.engines.cpu.rows import GELU, PRELU, constant
from melvoc.nn.engines.cpu.vector import Vec, both, load, store, switch

LEAKY = 0  # beside GELU and PRELU


class After(NamedTuple):
    """An activation.

    Attributes:
        mode: LEAKY, GELU or PRELU.
        slope: address of the slopes below 0 of eight channels.
        slope_block: bytes from block to block; 0 where all have the same.
    """

    mode: int
    slope: int
    slope_block: int


def leaky(slope: float | None) -> After:
    """A leaky ReLU of a slope of at most 1; None for none."""
    return After(LEAKY, constant(1.0 if slope is None else slope).address, 0)


def _choose(builder: ir.IRBuilder, mode: ir.Value, x: Vec, slope: Vec, out: ir.Value, modes: list[int]) -> None:
    made = {LEAKY: lambda: x.leaky(slope), GELU: lambda: gelu(x), PRELU: lambda: x.rectified(slope)}
    switch(builder, mode, {number: partial(_store, builder, out, made[number]) for number in modes})


def _store(builder: ir.IRBuilder, out: ir.Value, make: Callable[[], Vec]) -> None:
    store(builder, out, make())


def _emit_finish(builder: ir.IRBuilder, mode: ir.Value, *addresses: ir.Value) -> None:
    sums, _, bias, extra, _, slope, out = addresses
    total = load(builder, sums) + load(builder, bias) + load(builder, extra)
    _choose(builder, mode, total, load(builder, slope), out, [LEAKY, GELU, PRELU])


def _emit_finish_two(builder: ir.IRBuilder, mode: ir.Value, *addresses: ir.Value) -> None:
    """The same of two rows, side by side."""
    sums, sums_row, bias, extra, extra_row, slope, out = addresses

    def rows(address: ir.Value, step: ir.Value | None = None) -> Vec:
        first = load(builder, address)
        return both(first, first if step is None else load(builder, builder.add(address, step)))

    total = rows(sums, sums_row) + rows(bias) + rows(extra, extra_row)
    _choose(builder, mode, total, rows(slope), out, [LEAKY, GELU, PRELU])


def _emit_activate(builder: ir.IRBuilder, mode: ir.Value, place: ir.Value, slope: ir.Value) -> None:
    _choose(builder, mode, load(builder, place), load(builder, slope), place, [GELU, PRELU])


# mode, sums, bytes to the next row's, bias, what is added, bytes to the next row of it, slope, target
finish, finish_two = instructions(8, _emit_finish), instructions(8, _emit_finish_two)
activate = instructions(3, _emit_activate)  # mode (LEAKY has been applied), where, slope
