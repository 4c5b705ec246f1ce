"""The tanh that a network ends with.

Torch's own uses one of torch's threads for as few as a few thousand samples, and that thread goes on waiting for
milliseconds, on the processor that a helper of the next kernel needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import instructions, kernel
from melvoc.nn.engines.cpu.functions import hyperbolic_tangent
from melvoc.nn.engines.cpu.memory import taken
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import SINGLE, VECTOR, load, store
from melvoc.nn.graph import Machine, MapMachine

CHUNK = 2048


def _tanh(kind: ir.VectorType) -> Any:
    """Instructions: values from source to target."""

    def emit(builder: ir.IRBuilder, source: ir.Value, out: ir.Value) -> None:
        store(builder, out, hyperbolic_tangent(load(builder, source, kind)))

    return instructions(2, emit)


_of_row, _of_value = _tanh(VECTOR), _tanh(SINGLE)


class Tanh(NamedTuple):
    """Arguments of `tanh`: addresses of floats."""

    size: int
    source: int
    out: int


@kernel(Tanh)
def tanh(counter: int, jobs: int, size: int, source: int, out: int) -> None:
    """The tanh of `size` floats; a job is up to CHUNK."""
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        end = min(size, (job + 1) * CHUNK)
        for i in range(job * CHUNK, end // 8 * 8, 8):
            _of_row(source + 4 * i, out + 4 * i)
        for i in range(end // 8 * 8, end):  # at the very end
            _of_value(source + 4 * i, out + 4 * i)


class TanhMachine(Machine):
    """Runs a `Map` of `torch.tanh`. What the kernel does not take (another type, autograd) goes to torch."""

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not taken(x):
            return MapMachine(torch.tanh)(x, last)
        x = x.contiguous()
        out = torch.empty_like(x)
        if x.numel():
            arguments = Tanh(size=x.numel(), source=x.data_ptr(), out=out.data_ptr())
            TEAM.run(tanh, -(-x.numel() // CHUNK), arguments, vectors=2 * x.numel())
        return out
