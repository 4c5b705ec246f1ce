"""The engine for CPUs.

- `compile`: kernels in machine code; `atomics`, `vector`, `functions`: what they are written in; `threads`: what runs
  them.
- `rows`: how signals lie in `memory`; `snake`, `gemm`, `matrix` (on the unit of `amx`), `transform`, `tiles`, `tanh`,
  `framewise`: the kernels; `conv`: convolutions built from them.
- `plan`: which way to convolve, `tune`: what that costs on a machine.
- `nodes`, `machines`, `branches`, `quiet`, `engine`: the networks' nodes; `weights`: prepared, and how much room they
  take; `tape`: the steps of a stream as one call.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal

from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.graph import Engine

_logger = logging.getLogger(__name__)


def make_cpu_engine(memory: Literal["auto", "low"] = "auto", costs: CostModel | None = None) -> Engine:
    """The fast engine, or the plain one if numba cannot be imported.

    Args:
        memory: "auto", or "low" to hold less than 1.3 times the weights, at a lower speed.
        costs: of this machine, as `tune` measures them; None for typical ones.
    """
    try:
        from melvoc.nn.engines.cpu.engine import CpuEngine
    except Exception as error:  # llvmlite's of a shared library that is missing is an OSError
        if isinstance(error, ImportError) and (error.name or "").startswith("melvoc"):  # ours, or half installed
            raise
        _say_once(f"numba cannot be imported ({error}); synthesis on the CPU uses plain torch, which is slower")
        return Engine()
    return CpuEngine(memory=memory, costs=costs)


@functools.cache
def _say_once(message: str) -> None:
    _logger.warning(message)
