"""The tanh that a network ends with.

Torch's own uses one of torch's threads for as few as a few thousand samples, and that thread goes on waiting for
milliseconds, on the processor that a helper of the next kernel needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import instructions, keep, kernel
from melvoc.nn.engines.cpu.functions import hyperbolic_tangent
from melvoc.nn.engines.cpu.memory import taken
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import copy_value, load, store
from melvoc.nn.graph import Machine, MapMachine

CHUNK = 2048


def _emit(builder: ir.IRBuilder, source: ir.Value, out: ir.Value) -> None:
    store(builder, out, hyperbolic_tangent(load(builder, source)))


_tanh = instructions(2, _emit)  # eight values: source, target


class Tanh(NamedTuple):
    """Arguments of `tanh`: addresses of floats."""

    size: int
    source: int
    out: int


@kernel(Tanh)
def tanh(counter: int, jobs: int, size: int, source: int, out: int) -> None:
    """The tanh of `size` floats; a job is up to CHUNK."""
    scratch = np.zeros(2 * 8, np.float32)
    spare = scratch.ctypes.data
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        end = min(size, (job + 1) * CHUNK)
        for i in range(job * CHUNK, end // 8 * 8, 8):
            _tanh(source + 4 * i, out + 4 * i)
        if end % 8 != 0:  # at the very end
            start = end // 8 * 8
            for i in range(start, end):
                copy_value(source + 4 * i, spare + 4 * (i - start))
            _tanh(spare, spare + 32)
            for i in range(start, end):
                copy_value(spare + 32 + 4 * (i - start), out + 4 * i)
    keep(scratch)


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
