"""The steps of a stream as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from melvoc.nn.graph import Engine, Machine, Node
from melvoc.nn.recording import Recorder, RecordingMachine, Step

LARGEST = 1024  # frames in all rows of a piece; above it, launches are no bottleneck, and a graph keeps all it computes


def record_cuda(step: Step) -> Step:
    """Capture a step without running it; see `Recorder.record`."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # of this device; torch's own may be another's
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class GraphRecorder(Recorder):
    """Records CUDA graphs.

    Args:
        record: makes a step fast; see `record_cuda`.
        devices: device types on which it is used.
    """

    name, runs, repeats = "a CUDA graph", False, 3

    def __init__(self, *, record: Callable[[Step], Step] = record_cuda, devices: tuple[str, ...] = ("cuda",)) -> None:
        self._record, self._devices = record, devices

    def fits(self, x: Tensor) -> bool:
        """Small pieces on such a device."""
        return 0 < x.shape[0] * x.shape[-1] <= LARGEST and x.device.type in self._devices

    def record(self, step: Step) -> Step:
        """See `Recorder.record`."""
        return self._record(step)

    def on(self, x: Tensor) -> AbstractContextManager[Any]:
        """A context in which the device of x is the current one."""
        return torch.cuda.device_of(x)


class GraphEngine(Engine):
    """Opens what another engine opens, as machines that record. Not for parts of a network.

    Args:
        engine: the other engine.
        recorder: records the graphs.
    """

    def __init__(self, engine: Engine, recorder: GraphRecorder) -> None:
        self._engine, self._recorder = engine, recorder

    def open(self, node: Node) -> Machine:
        """A fresh machine for the node."""
        return RecordingMachine(self._engine.open(node), self._recorder)
