"""Vectors of eight floats in numba kernels: LLVM instructions, written out by small Python programs.

Numba turns loops into vector code only where it recognises them. The kernels here do not rely on that: a `Vec` is a
value of LLVM's type `<8 x float>` with Python's operators, a program over such values is unrolled when a
kernel is compiled, and LLVM maps the result to the machine at hand (one AVX register, two of NEON).

Kernels take addresses as integers. Signals inside the engine are `[B, ceil(C / 8), N, 8]`: eight channels side by
side, so that time, dilation and tiles need neither shuffles nor unaligned remainders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from llvmlite import ir

from melvoc.nn.engines.cpu.compile import instructions

LANES = 8
ROW_BYTES = 4 * LANES  # one sample of eight channels

INT = ir.IntType(64)
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
SINGLE = ir.VectorType(FLOAT, 1)
WIDE = ir.VectorType(FLOAT, 2 * LANES)


class Vec:
    """Eight floats, or sixteen, while a kernel is compiled. Products that are added become fused multiply-adds."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _other(self, other: Self | float) -> ir.Value:
        return other.value if isinstance(other, Vec) else self.splat(other)

    def splat(self, value: float) -> ir.Constant:
        """The same constant in each lane, as many as there are."""
        return ir.Constant(self.value.type, [float(value)] * self.value.type.count)

    def __add__(self, other: Self | float) -> Vec:
        return Vec(self.builder, self.builder.fadd(self.value, self._other(other), flags=("contract",)))

    def __sub__(self, other: Self | float) -> Vec:
        return Vec(self.builder, self.builder.fsub(self.value, self._other(other), flags=("contract",)))

    def __mul__(self, other: Self | float) -> Vec:
        return Vec(self.builder, self.builder.fmul(self.value, self._other(other), flags=("contract",)))

    def plus_exactly(self, other: float) -> Vec:
        """Add, never fused with what comes before or after."""
        return Vec(self.builder, self.builder.fadd(self.value, self.splat(other)))

    def at_most(self, limit: float) -> Vec:
        """The smaller of each value and the limit; the limit for NaN."""
        smaller = self.builder.fcmp_ordered("<", self.value, self.splat(limit))
        return Vec(self.builder, self.builder.select(smaller, self.value, self.splat(limit)))

    def leaky(self, slope: Vec) -> Vec:
        """`max(x, slope x)`, a leaky ReLU for slopes of at most 1."""
        scaled = (self * slope).value
        return Vec(
            self.builder, self.builder.select(self.builder.fcmp_ordered(">", self.value, scaled), self.value, scaled)
        )

    def rectified(self, slope: Vec) -> Vec:
        """`x` above 0 and `slope x` below, whatever the slope."""
        positive = self.builder.fcmp_ordered(">", self.value, self.splat(0.0))
        return Vec(self.builder, self.builder.select(positive, self.value, (self * slope).value))


def integer(value: int) -> ir.Constant:
    """An int64."""
    return ir.Constant(INT, value)


def at(builder: ir.IRBuilder, address: ir.Value, index: int, step: ir.Value | int = ROW_BYTES) -> ir.Value:
    """The address of a row: `address + index * step`, the step in bytes."""
    if index == 0:
        return address
    offset = integer(index * step) if isinstance(step, int) else builder.mul(step, integer(index))
    return builder.add(address, offset)


def switch(builder: ir.IRBuilder, value: ir.Value, cases: Mapping[int, Callable[[], None]]) -> None:
    """The instructions of the case that matches a value."""
    done = builder.append_basic_block("done")
    choice = builder.switch(value, done)
    for number, emit in cases.items():
        case = builder.append_basic_block(f"case_{number}")
        choice.add_case(integer(number), case)
        builder.position_at_end(case)
        emit()
        builder.branch(done)
    builder.position_at_end(done)


def looped(
    builder: ir.IRBuilder,
    count: ir.Value,
    first: Sequence[Vec],
    turn: Callable[[ir.Value, Sequence[Vec]], Sequence[Vec]],
) -> list[Vec]:
    """Vectors that stay in registers while a loop changes them.

    Args:
        builder: writes it.
        count: turns, at least one.
        first: what they are before it.
        turn: writes a turn, given its number and the vectors, and returns what becomes of these.
    """
    entry, body, done = builder.block, builder.append_basic_block("turn"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    number, kept = builder.phi(INT), [builder.phi(vector.value.type) for vector in first]
    changed = list(turn(number, [Vec(builder, phi) for phi in kept]))
    following = builder.add(number, integer(1))
    for phi, before, after in zip(
        [number, *kept],
        [integer(0), *(vector.value for vector in first)],
        [following, *(vector.value for vector in changed)],
        strict=True,
    ):
        phi.add_incoming(before, entry)
        phi.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), body, done)
    builder.position_at_end(done)
    return changed


def load(builder: ir.IRBuilder, address: ir.Value, kind: ir.VectorType = VECTOR) -> Vec:
    """Eight floats from an address, or as many as the type has."""
    return Vec(builder, builder.load(builder.inttoptr(address, kind.as_pointer()), align=4))


def store(builder: ir.IRBuilder, address: ir.Value, vector: Vec) -> None:
    """Eight floats to an address, or as many as there are."""
    builder.store(vector.value, builder.inttoptr(address, vector.value.type.as_pointer()), align=4)


def both(first: Vec, second: Vec) -> Vec:
    """Sixteen floats: eight, and eight more."""
    return Vec(first.builder, first.builder.shuffle_vector(first.value, second.value, _lanes(range(2 * LANES))))


def spread(builder: ir.IRBuilder, address: ir.Value, kind: ir.VectorType = VECTOR) -> Vec:
    """One float from an address, in each lane."""
    return everywhere(builder, builder.load(builder.inttoptr(address, FLOAT.as_pointer()), align=4), kind)


def everywhere(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType = VECTOR) -> Vec:
    """One float in each lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return Vec(builder, builder.shuffle_vector(single, undefined, _lanes([0] * kind.count)))


def eights(vector: Vec) -> list[Vec]:
    """A vector's floats, in vectors of eight."""
    builder, value = vector.builder, vector.value
    starts = range(0, value.type.count, LANES)
    picked = [builder.shuffle_vector(value, value, _lanes(range(start, start + LANES))) for start in starts]
    return [Vec(builder, part) for part in picked]


def _lanes(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))


def _emit_copy(builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
    store(builder, target, load(builder, source))


def _emit_zero(builder: ir.IRBuilder, target: ir.Value) -> None:
    store(builder, target, Vec(builder, ir.Constant(VECTOR, [0.0] * LANES)))


def _emit_copy_value(builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
    value = builder.load(builder.inttoptr(source, FLOAT.as_pointer()), align=4)
    builder.store(value, builder.inttoptr(target, FLOAT.as_pointer()), align=4)


def _emit_zero_value(builder: ir.IRBuilder, target: ir.Value) -> None:
    builder.store(ir.Constant(FLOAT, 0.0), builder.inttoptr(target, FLOAT.as_pointer()), align=4)


copy_value = instructions(2, _emit_copy_value)  # one float: source, target
zero_value = instructions(1, _emit_zero_value)  # target
copy_row = instructions(2, _emit_copy)  # source, target
zero_row = instructions(1, _emit_zero)  # target
