"""The engine that opens the nodes it knows as machines over rows, and leaves the others to plain torch."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.cpu.conv import Convolution
from melvoc.nn.cpu.machines import (
    Coefficients,
    MeanRows,
    ResidualSections,
    Section,
    SnakeMachine,
    UpsamplingMachine,
)
from melvoc.nn.cpu.plan import CostModel
from melvoc.nn.cpu.rows import Workspace, blocks_of, floats, from_rows, to_rows
from melvoc.nn.cpu.tanh import TanhMachine
from melvoc.nn.cpu.tape import TapeRecorder
from melvoc.nn.cpu.weights import Budget
from melvoc.nn.graph import Chain, ChainMachine, Engine, Machine, Map, Mean, Node, Residual
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.recording import RecordingMachine


class CpuEngine(Engine):
    """Opens convolutions, snakes and their residuals and means with kernels of their own. See the package.

    Args:
        memory: "auto", or "low" to prepare large weights anew for each block instead of keeping them.
        costs: of this machine; None for typical ones.
    """

    def __init__(self, *, memory: Literal["auto", "low"] = "auto", costs: CostModel | None = None) -> None:
        self.memory = memory
        self.costs = CostModel() if costs is None else costs
        self.workspace = Workspace()
        self.budget = Budget(memory == "low")
        self.recorder = TapeRecorder(self.workspace, self.budget)
        self._lock = threading.Lock()
        self._layers: weakref.WeakKeyDictionary[nn.Module, Prepared] = weakref.WeakKeyDictionary()

    def open(self, node: Node) -> Machine:
        """A machine over `[B, C, n]`."""
        if isinstance(node, Chain):
            return self._open_chain(node)
        if isinstance(node, Map) and node.function is torch.tanh:
            return TanhMachine()
        native = self._native(node)
        return super().open(node) if native is None else Border(native, node, self)

    def _open_chain(self, chain: Chain) -> Machine:
        """Runs of nodes that the engine knows become one machine each."""
        machines: list[Machine] = []
        nodes: list[Node] = []
        known: list[Machine] = []

        def close() -> None:
            if nodes:
                machine = RecordingMachine(ChainMachine(_sections(known)), self.recorder)
                machines.append(Border(machine, Chain(tuple(nodes)), self))
                nodes.clear()
                known.clear()

        for node in _flat(chain):
            native = self._native(node)
            if native is None:
                close()
                machines.append(self.open(node))
            else:
                nodes.append(node)
                known.append(native)
        close()
        return ChainMachine(machines)

    def _native(self, node: Node) -> Machine | None:
        """A machine over rows, or None."""
        if isinstance(node, Residual):
            inner = self._native(Chain((node.inner,)))
            sections = inner.machines if isinstance(inner, ChainMachine) else []
            same = [section for section in sections if isinstance(section, Section)]
            return ResidualSections(same) if same and len(same) == len(sections) else None
        if isinstance(node, Mean):
            branches = self._natives(node.branches)
            return None if branches is None else MeanRows(branches)
        if isinstance(node, Chain):
            parts = self._natives(_flat(node))
            return None if parts is None else ChainMachine(_sections(parts))
        if isinstance(node, AliasFreeSnake) and _plain(node):
            return SnakeMachine(self._prepared(node, Coefficients))
        if isinstance(node, Conv1d) and node.groups == 1 and _plain(node):
            return Section(self._prepared(node, self._convolution), None, self.workspace)
        if isinstance(node, ConvTranspose1d) and node.groups == 1 and _plain(node):
            return UpsamplingMachine(node, self._prepared(node, self._convolution), self.workspace)
        return None

    def _natives(self, nodes: Iterable[Node]) -> list[Machine] | None:
        """A machine for each, or None if one has none."""
        machines = []
        for node in nodes:
            machine = self._native(node)
            if machine is None:
                return None
            machines.append(machine)
        return machines

    def _convolution(self, layer: Conv1d | ConvTranspose1d) -> Convolution:
        return Convolution(layer, self.costs, self.budget)

    def _prepared(self, layer: Any, prepare: Callable[[Any], Any]) -> Any:
        """What belongs to a layer's present weights, made when it is first opened.

        Changes that torch does not count are not seen: `parameter.data.mul_(2)`, or those of inference tensors.
        """
        with self._lock:
            known = self._layers.get(layer)
            if known is None or known.versions != _versions(_parameters(layer)):
                parameters = [parameter.detach() for parameter in _parameters(layer)]
                known = self._layers[layer] = Prepared(parameters, _versions(parameters), prepare(layer))
            return known.result


@dataclass(frozen=True)
class Prepared:
    """What was made of a layer's weights.

    Attributes:
        parameters: those weights; while they are held here, no others can come to lie at their address.
        versions: address of each, and how often it has been written.
        result: what was made.
    """

    parameters: list[Tensor]
    versions: list[tuple[int, int]]
    result: Any


def _versions(parameters: list[Tensor]) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in parameters]


class Border(Machine):
    """Between `[B, C, n]` and rows. Input that the kernels do not take (another type, autograd) goes to plain torch."""

    def __init__(self, machine: Machine, node: Node, engine: CpuEngine) -> None:
        self.machine, self.node = machine, node
        self.taken, self.channels = _borders(node)
        self.kind: object = None  # of the pieces: batch, channels, type and device

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        kind = (x.shape[0], x.shape[1], x.dtype, x.device)
        if self.kind is None and x.shape[-1]:
            self._begin(x)
            self.kind = kind
        if self.kind is None:
            return x
        if kind != self.kind and x.shape[-1]:
            raise ValueError(f"a piece of (batch, channels, type, device) {kind} in a signal of {self.kind}")
        if isinstance(self.machine, Unbordered):
            return self.machine(x, last)
        with torch.inference_mode():
            rows = to_rows(x) if x.shape[-1] else floats(x.shape[0], blocks_of(self.taken), 0, 8)
            return from_rows(self.machine(rows, last), self.channels)

    def _begin(self, x: Tensor) -> None:
        if x.shape[1] != self.taken:
            raise ValueError(f"the signal has {x.shape[1]} channels, but the layer takes {self.taken}")
        grad = torch.is_grad_enabled() and _needs_grad(x, self.node)
        if x.dtype != torch.float32 or x.device.type != "cpu" or grad:
            self.machine = Unbordered(self.node.open(Engine()), self.channels)

    def fork(self) -> Self:
        """Fork what is inside."""
        twin = copy.copy(self)
        twin.machine = self.machine.fork()
        return twin


class Unbordered(Machine):
    """A plain machine in a border's place."""

    def __init__(self, machine: Machine, channels: int) -> None:
        self.machine, self.channels = machine, channels

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return self.machine(x, last)

    def fork(self) -> Self:
        """Fork what is inside."""
        return type(self)(self.machine.fork(), self.channels)


def _sections(machines: list[Machine]) -> list[Machine]:
    """The same, where a snake just before a convolution runs inside its section."""
    joined: list[Machine] = []
    for machine in machines:
        before = joined[-1] if joined else None
        if isinstance(machine, Section) and isinstance(before, SnakeMachine) and machine.convolution.slope is None:
            machine.activation = before
            joined.pop()
        joined.append(machine)
    return joined


def _flat(node: Node) -> list[Node]:
    return [inner for part in node.nodes for inner in _flat(part)] if isinstance(node, Chain) else [node]


def _layers(node: Node) -> list[nn.Module]:
    """The layers of a node in order, the first branch of a mean only."""
    if isinstance(node, Chain):
        return [layer for part in node.nodes for layer in _layers(part)]
    if isinstance(node, Residual):
        return _layers(node.inner)
    if isinstance(node, Mean):
        return _layers(node.branches[0])
    return [node] if isinstance(node, nn.Module) else []


def _borders(node: Node) -> tuple[int, int]:
    """Channels that go in, and that come out."""
    ends = []
    for layer, attribute in zip((_layers(node)[0], _layers(node)[-1]), ("in_channels", "out_channels"), strict=True):
        ends.append(len(layer.act.alpha) if isinstance(layer, AliasFreeSnake) else getattr(layer, attribute))
    return ends[0], ends[1]


def _needs_grad(x: Tensor, node: Node) -> bool:
    return x.requires_grad or any(p.requires_grad for layer in _layers(node) for p in layer.parameters())


def _plain(layer: nn.Module) -> bool:
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in _parameters(layer))


def _parameters(layer: nn.Module) -> list[Tensor]:
    """A layer's own, in no time: `Module.parameters` looks through everything, for each call of a vocoder."""
    if isinstance(layer, Conv1d | ConvTranspose1d):
        return [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return list(layer.parameters())
