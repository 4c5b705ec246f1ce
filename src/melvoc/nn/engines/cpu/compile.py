"""Python to machine code: what numba compiles, when, and where it is kept.

A `routine` is called by other compiled code (or by Python), which gets a copy of it. A `kernel` is run by a team of
threads, which know its address. A `part` is called by kernels by its address: it exists once, so that large code
is not compiled again with each kernel. All are compiled when they are first used, and kept on disk.

Compiled code takes int64s, addresses among them, in an order that nothing else checks. So Python gives a kernel its
arguments as a named record (a NamedTuple, in which a `View` is a signal in memory), whose names are held against the
function's own when the kernel is declared; a part is called by name.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast, get_type_hints

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import codegen, config
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

_logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])
Record = TypeVar("Record", bound=tuple[Any, ...])


class View(NamedTuple):
    """A signal of rows in memory: the address of its first row, and bytes from entry to entry and block to block.

    As the field `x` of a kernel's record it is the arguments `x`, `x_batch`, `x_block`.
    """

    address: int
    batch: int
    block: int


class Strided(NamedTuple):
    """A view whose rows are `row` bytes apart; as the field `x` also the argument `x_row`."""

    address: int
    batch: int
    block: int
    row: int


def target_features() -> set[str]:
    """What the processor that numba compiles for can do, as LLVM calls it.

    That is this processor, unless NUMBA_CPU_NAME, NUMBA_CPU_FEATURES or NUMBA_ENABLE_AVX say otherwise. Instructions
    that it does not have end the process: LLVM cannot select them.
    """
    wanted = config.CPU_FEATURES  # type: ignore[attr-defined]
    listed: str = codegen.get_host_cpu_features() if wanted is None else wanted  # type: ignore[no-untyped-call]
    return {feature[1:] for feature in listed.split(",") if feature.startswith("+")}


def _renew_lock() -> None:
    """In a forked child there is no thread that compiles, whoever did in the parent."""
    if hasattr(global_compiler_lock, "_lock"):
        global_compiler_lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@functools.cache
def _stamp() -> str:
    """A hash of the sources that kernels are made from. Numba itself looks only at the file that a kernel is in."""
    here = Path(__file__).parent
    try:
        sources = [path.read_bytes() for path in [*sorted(here.glob("*.py")), here.parents[1] / "alias_free.py"]]
    except OSError:  # in an archive
        sources = []
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


@functools.cache
def _say_once_that_nothing_is_cached() -> None:
    _logger.warning(
        "numba finds no folder where it may keep compiled kernels: each process compiles them again, for some seconds; "
        "set NUMBA_CACHE_DIR to a writable folder"
    )


@functools.cache
def _say_once_that_kernels_are_compiled() -> None:
    _logger.info("compiling kernels for this processor: some seconds, once; later processes find them on disk")


def _stamped(function: Function) -> Function:
    function.__qualname__ += f"_{_stamp()}"  # part of the cached file's name
    return function


def routine(function: Function) -> Function:
    """A function for compiled code, of int64 arguments. From Python it runs without Python's lock."""
    compiled = njit(nogil=True, error_model="numpy")(_stamped(function))
    try:
        compiled.enable_caching()
    except (RuntimeError, OSError):
        _say_once_that_nothing_is_cached()
    else:
        _forgive(compiled._cache)  # type: ignore[attr-defined]
    return cast(Function, compiled)


def _forgive(cache: Any) -> None:
    """Go on where numba cannot save what it has compiled, on a full disk for example."""
    save = cache.save_overload

    def saved(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError:
            _say_once_that_nothing_is_cached()

    cache.save_overload = saved


class Part:
    """A function of int64 arguments that other compiled code calls by its address (`atomics.calling`)."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = _stamped(function)
        self.names = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.count = len(self.names)
        self.__name__ = function.__name__

    @functools.cached_property
    def compiled(self) -> Any:
        """What numba made of it."""
        signature = types.void(*[types.int64] * self.count)
        with global_compiler_lock:  # numba takes it to compile, but not to load what it has cached
            try:
                return cfunc(signature, cache=True, error_model="numpy")(self.function)
            except (RuntimeError, OSError):
                _say_once_that_nothing_is_cached()
                return cfunc(signature, error_model="numpy")(self.function)

    @functools.cached_property
    def address(self) -> int:
        """Where its machine code is."""
        return int(self.compiled.address)


class Kernel(Part, Generic[Record]):
    """A function that does jobs until none are left, `function(counter_address, jobs, *arguments)`, all int64.

    Several threads may run it at once with the same arguments: each takes the next job's number from the counter.

    Args:
        function: what numba compiles.
        record: the class of its arguments after `jobs`.

    Attributes:
        layout: of the task that a team runs: counter, address, number of arguments, arguments.
        flat: a record as the function's arguments.

    Raises:
        TypeError: the record's names are not the function's.
    """

    def __init__(self, function: Callable[..., None], record: type[Record]) -> None:
        super().__init__(function)
        fields = get_type_hints(record)
        declared = ["counter", "jobs", *(name for field, kind in fields.items() for name in _arguments(field, kind))]
        if declared != list(self.names):
            raise TypeError(f"{record.__name__} has {declared}, but {self.__name__} takes {list(self.names)}")
        self.layout = struct.Struct(f"q120x{2 + self.count}q")  # the counter in cache lines of its own
        parts = (f"{'' if kind is int else '*'}record[{place}]" for place, kind in enumerate(fields.values()))
        self.flat: Callable[[Record], tuple[int, ...]] = eval(f"lambda record: ({', '.join(parts)},)")


def part(function: Callable[..., None]) -> Part:
    """Compile on first use, cached on disk."""
    return Part(function)


def kernel(record: type[Record]) -> Callable[[Callable[..., None]], Kernel[Record]]:
    """Compile on first use, cached on disk; `record` is the class of the arguments after `counter` and `jobs`."""
    return lambda function: Kernel(function, record)


def _arguments(field: str, kind: Any) -> list[str]:
    """The arguments of a record's field: one integer, or an address and steps."""
    if kind is int:
        return [field]
    return [field, *(f"{field}_{step}" for step in kind._fields[1:])]


def instructions(arguments: int | Sequence[str], emit: Callable[..., None]) -> Any:
    """A function of int64 arguments for compiled code, whose LLVM code `emit(builder, *arguments)` writes.

    Args:
        arguments: their number, or their names.
        emit: as above.
    """
    return _intrinsic(arguments, emit, types.void)


def value(argument_count: int, emit: Callable[..., ir.Value]) -> Any:
    """As `instructions`, but `emit` returns an int64."""
    return _intrinsic(argument_count, emit, types.int64)


def _intrinsic(arguments: int | Sequence[str], emit: Callable[..., Any], result: Any) -> Any:
    given = [f"a{i}" for i in range(arguments)] if isinstance(arguments, int) else arguments

    def typer(_context: object, *arguments: object) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, _signature: object, values: Sequence[ir.Value]) -> Any:
            _say_once_that_kernels_are_compiled()  # what is found on disk does not come here
            made = emit(builder, *values)
            return context.get_dummy_value() if result is types.void else made

        return result(*[types.int64] * len(given)), codegen

    names = ", ".join(given)
    scope: dict[str, Any] = {"typer": typer}
    exec(f"def typed(context, {names}): return typer(context, {names})", scope)  # numba needs each argument by name
    return intrinsic(scope["typed"])


def _keep(_context: object, array: Any) -> Any:

    def codegen(context: Any, _builder: object, _signature: object, _values: object) -> Any:
        return context.get_dummy_value()

    return types.void(array), codegen


# `keep(array)` keeps an array alive until there. Numba frees one after its last use by name, whoever has its address.
keep = cast(Callable[[Any], None], intrinsic(_keep))
