"""Words of memory that several threads read and write, as instructions for compiled code; and calls by address."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir

from melvoc.nn.engines.cpu.compile import Part, instructions, value

WORD = ir.IntType(64)
BYTES = ir.IntType(8).as_pointer()  # numba's functions without a result return an empty one
MOST_ARGUMENTS = 40  # of what is called by address


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, WORD.as_pointer())


def _emit_load(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.load_atomic(_pointer(builder, address), "seq_cst", 8)


def _emit_store(builder: ir.IRBuilder, address: ir.Value, new: ir.Value) -> None:
    builder.store_atomic(new, _pointer(builder, address), "seq_cst", 8)


def _emit_add(builder: ir.IRBuilder, address: ir.Value, more: ir.Value) -> ir.Value:
    return builder.atomic_rmw("add", _pointer(builder, address), more, "seq_cst")


def _emit_mask(builder: ir.IRBuilder, address: ir.Value, mask: ir.Value) -> ir.Value:
    return builder.atomic_rmw("and", _pointer(builder, address), mask, "seq_cst")


def _emit_exchange(builder: ir.IRBuilder, address: ir.Value, old: ir.Value, new: ir.Value) -> ir.Value:
    result = builder.cmpxchg(_pointer(builder, address), old, new, "seq_cst", "seq_cst")
    return builder.zext(builder.extract_value(result, 1), WORD)


def _emit_job(builder: ir.IRBuilder, counter: ir.Value, jobs: ir.Value) -> ir.Value:
    """The word holds how many jobs were taken from the front and, from bit 32 on, how many from the back."""
    one, above = ir.Constant(WORD, 1), ir.Constant(WORD, 32)
    back = builder.trunc(counter, ir.IntType(1))
    word = _pointer(builder, builder.and_(counter, ir.Constant(WORD, ~1)))
    taken = builder.atomic_rmw("add", word, builder.select(back, builder.shl(one, above), one), "monotonic")
    first, last = builder.and_(taken, ir.Constant(WORD, 0xFFFFFFFF)), builder.lshr(taken, above)
    job = builder.select(back, builder.sub(builder.sub(jobs, one), last), first)
    return builder.select(builder.icmp_signed("<", builder.add(first, last), jobs), job, jobs)


def _emit_breath(builder: ir.IRBuilder) -> None:
    """What a loop that waits for another thread should do each time, according to the processor's maker."""
    machine = platform.machine().lower()
    number = ir.IntType(32)
    if machine in ("x86_64", "amd64"):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
    elif machine in ("aarch64", "arm64"):
        kind = ir.FunctionType(ir.VoidType(), [number])
        builder.call(builder.module.declare_intrinsic("llvm.aarch64.isb", (), kind), [ir.Constant(number, 15)])


def _emit_call(builder: ir.IRBuilder, function: ir.Value, arguments: ir.Value, count: ir.Value, more: ir.Value) -> None:
    done = builder.append_basic_block("done")
    switch = builder.switch(count, done)
    for number in range(MOST_ARGUMENTS + 1):
        block = builder.append_basic_block(f"arguments_{number}")
        switch.add_case(ir.Constant(WORD, number), block)
        builder.position_at_end(block)
        places = [builder.add(arguments, ir.Constant(WORD, 8 * place)) for place in range(number)]
        values = [builder.load(_pointer(builder, place), align=8) for place in places]
        values[:1] = [builder.add(value, more) for value in values[:1]]  # if there is one
        kind = ir.FunctionType(BYTES, [WORD] * number)
        builder.call(builder.inttoptr(function, kind.as_pointer()), values)
        builder.branch(done)
    builder.position_at_end(done)


def calling(called: Part) -> Any:
    """A function for compiled code that calls a part, by name: its address as `code`, and its own arguments."""

    def emit(builder: ir.IRBuilder, address: ir.Value, *arguments: ir.Value) -> None:
        kind = ir.FunctionType(BYTES, [WORD] * called.count)
        builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)

    return instructions(("code", *called.names), emit)


load_word = cast(Callable[[int], int], value(1, _emit_load))  # address
store_word = cast(Callable[[int, int], None], instructions(2, _emit_store))  # address, new value
add_word = cast(Callable[[int, int], int], value(2, _emit_add))  # address, what to add; returns the old value
mask_word = cast(Callable[[int, int], int], value(2, _emit_mask))  # address, bits to keep; returns the old value
exchange_word = cast(Callable[[int, int, int], int], value(3, _emit_exchange))  # address, old, new; 1 if it was old
take_job = cast(Callable[[int, int], int], value(2, _emit_job))  # counter, jobs; the next one, or `jobs` if none left
breathe = cast(Callable[[], None], instructions(0, _emit_breath))
# function, arguments, how many, what is added to the first
call = cast(Callable[[int, int, int, int], None], instructions(4, _emit_call))
