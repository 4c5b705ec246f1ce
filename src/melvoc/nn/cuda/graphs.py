"""The steps of a stream as CUDA graphs.

A small piece keeps a GPU busy for less time than it takes to launch the thousand kernels of a network. A CUDA graph
launches them all at once, but it fixes every shape and address. A stream has such a steady state: once it has begun,
each piece of n samples leaves a state of the same shape. So after a few equal pieces the step is captured, with its
state in buffers that it reads at its beginning and writes at its end. No mel is ever padded to fit: a piece of another
size, or the last one, runs directly, and where the state keeps its shape the graph stays in use after it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from melvoc.nn.graph import Engine, Machine, Node

Step = Callable[[], Tensor]

REPEATS = 3  # equal pieces before a capture: one call after another, not a coincidence
LARGEST = 1024  # frames in all rows of a piece; above, launches are no bottleneck, and a graph keeps all it computes
ATTEMPTS = 2  # captures a stream; one that keeps changing its pieces runs directly


def record_cuda(step: Step) -> Step:
    """Capture a step without running it.

    Args:
        step: launches the same kernels on the same addresses whenever it is called, and has been run before.

    Returns:
        What runs it again and returns its output, in a buffer that the next run overwrites.
    """
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # of this device; torch's own may be another's
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class GraphEngine(Engine):
    """Opens what another engine opens, as machines that capture themselves. Not for parts of a network.

    Args:
        engine: the other engine.
        record: makes a step fast; see `record_cuda`.
        devices: types of device on which it is used.
    """

    def __init__(
        self, engine: Engine, *, record: Callable[[Step], Step] = record_cuda, devices: tuple[str, ...] = ("cuda",)
    ) -> None:
        self._engine, self._record, self._devices = engine, record, devices

    def open(self, node: Node) -> Machine:
        """A fresh machine for the node."""
        return GraphMachine(self._engine.open(node), record=self._record, devices=self._devices)


class GraphMachine(Machine):
    """Runs another machine, and from the fourth equal small piece of a stream on its recording.

    Args:
        machine: the other machine, in its state of before the first piece.
        record: makes a step fast; see `record_cuda`.
        devices: types of device on which it is used.
    """

    def __init__(self, machine: Machine, *, record: Callable[[Step], Step], devices: tuple[str, ...]) -> None:
        self.machine = machine
        self._record, self._devices = record, devices
        self._recording: Recording | None = None
        self._seen: object = None
        self._repeats = 0
        self._attempts = ATTEMPTS

    @torch.inference_mode()
    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """The next samples; see `Machine`."""
        if self._recording and not last and self._recording.fits(x):
            return self._recording(x)
        before = signature(self.machine)
        y = self.machine(x, last)
        steady = not last and signature(self.machine) == before
        if self._recording:
            if steady:
                self._recording.adopt()
            else:
                self._recording, self._repeats = None, 0
        elif self._count(x, steady):
            self._capture(x)
        return y

    def fork(self) -> Self:
        """A copy with a state of its own, and without a recording."""
        twin = copy.copy(self)
        twin.machine = self.machine.fork()
        if self._recording:  # which writes into the state
            attach(twin.machine, [tensor.clone() for tensor in state(twin.machine)])
        twin._recording, twin._attempts = None, 0
        return twin

    def _count(self, x: Tensor, steady: bool) -> bool:
        """Whether this was the last of enough equal pieces."""
        kind = (tuple(x.shape), x.dtype)
        self._repeats = self._repeats + 1 if steady and kind == self._seen else int(steady)
        self._seen = kind
        small = 0 < x.shape[0] * x.shape[-1] <= LARGEST
        return self._repeats >= REPEATS and self._attempts > 0 and small and x.device.type in self._devices

    def _capture(self, x: Tensor) -> None:
        self._attempts -= 1
        try:
            with torch.cuda.device_of(x):
                self._recording = Recording(self.machine, x, self._record)
        except Exception as error:  # what cannot be captured still runs
            self._attempts = 0
            warnings.warn(
                f"this stream runs without a CUDA graph, which failed ({type(error).__name__}: {error}): the same "
                "sound, with a higher latency",
                RuntimeWarning,
                stacklevel=3,
            )


class Recording:
    """A recorded step of a machine in its steady state.

    The recording is rehearsed before it is used: two steps of it must give what two steps of a fork give.

    Args:
        machine: whose state keeps its shape from piece to piece; from now on its state is in buffers.
        x: a piece like those to come.
        record: makes the step fast.

    Raises:
        RuntimeError: the recording differs from the machine.
    """

    def __init__(self, machine: Machine, x: Tensor, record: Callable[[Step], Step]) -> None:
        self._machine = machine
        self._input = x.clone()
        original = state(machine)
        self._buffers = [tensor.clone() for tensor in original]
        try:
            twin = machine.fork()
            direct = [twin(x, False) for _ in range(2)][-1]
            attach(machine, self._buffers)
            self._replay = record(self._step)
            recorded = [self._replay().clone() for _ in range(2)][-1]
            if recorded.shape != direct.shape or not torch.allclose(recorded, direct, rtol=1e-3, atol=1e-3):
                raise RuntimeError("the recorded step does not give what the direct one gives")
        except BaseException:
            attach(machine, original)
            raise
        attach(machine, original)
        self.adopt()

    def fits(self, x: Tensor) -> bool:
        """Whether x is a piece like the recorded one."""
        return x.shape == self._input.shape and x.dtype == self._input.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """The machine's next step."""
        with torch.cuda.device_of(x):
            self._input.copy_(x)
            return self._replay().clone()

    def adopt(self) -> None:
        """Take over the state after a step that the machine made directly."""
        for buffer, tensor in zip(self._buffers, state(self._machine), strict=True):
            if buffer is not tensor:
                buffer.copy_(tensor)
        attach(self._machine, self._buffers)

    def _step(self) -> Tensor:
        y = self._machine(self._input, False)
        self.adopt()
        return y


def state(machine: Machine) -> list[Tensor]:
    """The tensors that a machine and the machines in it keep."""
    return [value for _, _, value in _items(machine) if isinstance(value, Tensor)]


def attach(machine: Machine, tensors: list[Tensor]) -> None:
    """Put other tensors in the places of `state`'s."""
    places = [(holder, key) for holder, key, value in _items(machine) if isinstance(value, Tensor)]
    for (holder, key), tensor in zip(places, tensors, strict=True):
        holder[key] = tensor


def signature(machine: Machine) -> list[object]:
    """All that a step may change, with shapes in the place of tensors: equal before and after it in a steady state."""
    return [_kind(value) for _, _, value in _items(machine)]


def _kind(value: object) -> object:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return value if isinstance(value, int | float | None) else type(value)


def _items(machine: Machine) -> Iterator[tuple[Any, Any, Any]]:
    """Attributes of a machine, of its machines, and the items of its lists."""
    for name, value in list(vars(machine).items()):
        yield from _values(vars(machine), name, value)


def _values(holder: Any, key: Any, value: Any) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(value, Machine):
        yield from _items(value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(value, index, item)
    else:
        yield holder, key, value
