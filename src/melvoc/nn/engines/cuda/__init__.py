"""A GPU engine: Triton kernels, and CUDA graphs for streams. It needs no compiler on the user's machine.

- `kernel`: the kernels. Imported on demand, because it needs Triton.
- `launch`: from tensors to kernels, and to plain torch where they cannot run.
- `engine`: machines that use them.
- `graphs`: the steps of a stream as CUDA graphs.
"""

from __future__ import annotations

from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.graphs import GraphEngine, GraphRecorder
from melvoc.nn.engines.cuda.launch import load_kernels
from melvoc.nn.graph import Engine

__all__ = ["make_cuda_engine"]


def make_cuda_engine(*, graphs: bool = True) -> Engine:
    """The engine for CUDA devices.

    Args:
        graphs: whether a stream of equal small pieces becomes a CUDA graph.
    """
    engine = FusedEngine(load_kernels())
    return GraphEngine(engine, GraphRecorder()) if graphs else engine
