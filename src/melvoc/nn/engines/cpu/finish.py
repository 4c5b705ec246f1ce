"""What follows the sums of a product, while they are at hand: bias, what is added, and an activation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from llvmlite import ir

from melvoc.nn.engines.cpu.compile import instructions
from melvoc.nn.engines.cpu.functions import gelu
from melvoc.nn.engines.cpu.rows import GELU, PRELU, constant
from melvoc.nn.engines.cpu.vector import Vec, load, store, switch

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


def _choose(builder: ir.IRBuilder, mode: ir.Value, x: Vec, slope: ir.Value, out: ir.Value, modes: list[int]) -> None:
    made = {
        LEAKY: lambda: x.leaky(load(builder, slope)),
        GELU: lambda: gelu(x),
        PRELU: lambda: x.rectified(load(builder, slope)),
    }
    switch(builder, mode, {number: partial(_store, builder, out, made[number]) for number in modes})


def _store(builder: ir.IRBuilder, out: ir.Value, make: Callable[[], Vec]) -> None:
    store(builder, out, make())


def _emit_finish(builder: ir.IRBuilder, mode: ir.Value, *addresses: ir.Value) -> None:
    sums, bias, extra, slope, out = addresses
    total = load(builder, sums) + load(builder, bias) + load(builder, extra)
    _choose(builder, mode, total, slope, out, [LEAKY, GELU, PRELU])


def _emit_activate(builder: ir.IRBuilder, mode: ir.Value, place: ir.Value, slope: ir.Value) -> None:
    _choose(builder, mode, load(builder, place), slope, place, [GELU, PRELU])


finish = instructions(6, _emit_finish)  # mode, sums, bias, what is added, slope, target
activate = instructions(3, _emit_activate)  # mode (LEAKY has been applied), where, slope
