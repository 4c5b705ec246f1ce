"""The engine that opens the nodes it knows as machines over rows, and leaves the others to plain torch."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu.branches import Factors, FactorsMachine, SelectRows, join_rows
from melvoc.nn.engines.cpu.conv import Convolution
from melvoc.nn.engines.cpu.framewise import (
    BiasNormCoefficients,
    BiasNormMachine,
    Depthwise,
    GeluMachine,
    NormCoefficients,
    NormMachine,
)
from melvoc.nn.engines.cpu.machines import (
    Coefficients,
    ResidualSections,
    Section,
    SnakeMachine,
    UpsamplingMachine,
)
from melvoc.nn.engines.cpu.memory import POOL, Workspace, floats, zeros
from melvoc.nn.engines.cpu.nodes import (
    Borders,
    Scaled,
    alike,
    borders,
    fills_blocks,
    flat,
    holders,
    needs_grad,
    parameters,
    plain,
    through,
    weights_of,
)
from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.engines.cpu.quiet import SERIAL, FrameByFrame, Quiet, parts_of
from melvoc.nn.engines.cpu.rows import PRELU, SCALED, blocks_of, from_rows, to_rows
from melvoc.nn.engines.cpu.spectra import MOST_SAMPLES, InverseTransforms, PolarMachine
from melvoc.nn.engines.cpu.tanh import TanhMachine
from melvoc.nn.engines.cpu.tape import TapeRecorder, Whole
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.engines.cpu.weights import Budget
from melvoc.nn.forks import ForkLock
from melvoc.nn.framing import End, EndMachine, Select
from melvoc.nn.graph import (
    Branches,
    Chain,
    ChainMachine,
    Composite,
    Engine,
    Machine,
    Map,
    MapMachine,
    Node,
    Residual,
    add,
    by_kind,
    concatenate,
)
from melvoc.nn.layers import BiasNorm, Conv1d, ConvTranspose1d, FrameLinear, FrameNorm, FrameScale, PReLU
from melvoc.nn.recording import RecordingMachine, Shelf
from melvoc.nn.stft import InverseSTFT, LogPolar


class CpuEngine(Engine):
    """Opens convolutions, snakes and their residuals and means with its own kernels. See the package.

    Args:
        memory: "auto", or "low" to prepare large weights again for each block instead of keeping them.
        costs: of this machine; None for typical ones.
    """

    def __init__(self, *, memory: Literal["auto", "low"] = "auto", costs: CostModel | None = None) -> None:
        self.memory = memory
        self.costs = CostModel() if costs is None else costs
        self.workspace = Workspace()
        self.budget = Budget(memory == "low")
        self.recorder = TapeRecorder(self.workspace, self.budget)
        self._lock = ForkLock(reentrant=True)
        self._layers: weakref.WeakKeyDictionary[Any, Prepared] = weakref.WeakKeyDictionary()
        self._holders: dict[int, list[nn.Module | FrameScale]] = {}
        self._plans: dict[int, Prepared] = {}
        _ENGINES.add(self)
        weakref.finalize(self, _given_back).atexit = False

    def open(self, node: Node) -> Machine:
        """A machine over `[B, C, n]`."""
        if isinstance(node, Chain):
            return self._open_chain(node)
        ends = self._ends(node) if self._native(node) else None  # of the layers that it knows
        return Border(partial(self._opened, node), node, ends) if ends else self._beside(node)

    def finite(self, wave: Tensor) -> bool:
        """Without waking torch's threads."""
        return all(super(CpuEngine, self).finite(part) for part in parts_of(wave))

    def clamp(self, wave: Tensor, out: Tensor) -> None:
        """Without waking torch's threads."""
        for part, target in zip(parts_of(wave), parts_of(out), strict=True):
            super().clamp(part, target)

    def _open_chain(self, chain: Chain) -> Machine:
        """Runs of nodes that the engine knows become one machine each."""
        machines: list[Machine] = []
        for stretch in self._plan(chain):
            run = stretch.run
            if stretch.ends:
                machines.append(Border(partial(self._opened_run, stretch), run, stretch.ends, stretch.whole))
            elif stretch.known:  # of no known number of channels, or not of one
                machines.extend(super(CpuEngine, self).open(node) for node in run.nodes)
            else:
                machines.extend(self._beside(node) for node in run.nodes)
        return ChainMachine(machines)

    def _plan(self, chain: Chain) -> list[Stretch]:
        """The stretches of a chain, found once for its current weights: a vocoder opens its chain for every call."""
        key = id(chain)
        if key not in self._holders:
            self._holders[key] = holders(chain)
            weakref.finalize(chain, _forget, weakref.ref(self), key).atexit = False
        weights = weights_of(self._holders[key])
        plan: list[Stretch] = self._kept(self._plans, key, weights, lambda: self._planned(chain))
        return plan

    def _planned(self, chain: Chain) -> list[Stretch]:
        plan = []
        for known, nodes in itertools.groupby(flat(chain), lambda node: self._native(node) is not None):
            run = Chain(tuple(nodes))
            plan.append(Stretch(run, known, self._ends(run) if known else None, Whole(self.recorder), Shelf()))
        return plan

    @staticmethod
    def _ends(node: Node) -> Borders | None:
        """The channels of a node, if its layers and joined parts agree about them."""
        ends = borders(node)
        return None if ends is None or through(node, ends.taken) is None else ends

    def _opened(self, node: Node) -> Machine:
        """A machine over rows for a node that the engine knows."""
        native = self._native(node)
        assert native is not None
        return native

    def _opened_run(self, stretch: Stretch) -> Machine:
        """The same for consecutive ones, which is recorded."""
        machines = _sections([self._opened(node) for node in stretch.run.nodes])
        return RecordingMachine(ChainMachine(machines), self.recorder, stretch.shelf)

    def _beside(self, node: Node) -> Machine:
        """A machine of torch's that does not wake torch's threads; what is in a composite is opened by the engine."""
        if isinstance(node, Composite):
            return node.open(self)
        if isinstance(node, End):
            return self._open_end(node)
        if isinstance(node, InverseSTFT):
            return Quiet(
                InverseTransforms(node), part=max(1, SERIAL // node.hop_length), short=MOST_SAMPLES // node.n_fft
            )
        if isinstance(node, Map):
            if node.function is torch.tanh:
                return TanhMachine()
            if isinstance(node.function, LogPolar):
                return PolarMachine(node.function)
            return Quiet(MapMachine(FrameByFrame(node.function)))
        return Quiet(node.open(self))

    def _open_end(self, node: End) -> Machine:
        """What it makes belongs to the weights: it is made once, unless a gradient is wanted."""
        made: Tensor = self._prepared(
            node, lambda end: end.made(zeros(1, 1, 0)).detach(), *weights_of(holders(node.node))
        )

        def known(x: Tensor) -> Tensor:
            grad = torch.is_grad_enabled() and needs_grad(x, node.node)
            same = x.dtype == made.dtype and x.device == made.device and not grad
            return made.expand(x.shape[0], -1, -1) if same else node.made(x)

        return Quiet(EndMachine(known))

    def _native(self, node: Node) -> Machine | None:
        """A machine over rows, or None."""
        opener = by_kind(OPENERS, node)
        return opener(self, node) if opener else None

    def _native_residual(self, node: Residual) -> Machine | None:
        inner = self._native(Chain((node.nodes[1],)))
        sections = inner.machines if isinstance(inner, ChainMachine) else []
        same = [section for section in sections if isinstance(section, Section) and section.after is None]
        if same and len(same) == len(sections) and all(isinstance(part.convolution, Convolution) for part in same):
            return ResidualSections(same)
        return None if inner is None else join_rows([ChainMachine([]), inner], add)

    def _native_branches(self, node: Branches) -> Machine | None:
        machines = self._natives(node.nodes)
        if machines is None or (node.join is concatenate and any(not fills_blocks(part) for part in node.nodes)):
            return None
        if node.join is not concatenate and not alike(node.nodes):  # torch adds one channel to each of several
            return None
        return join_rows(machines, node.join)

    def _native_select(self, node: Select) -> Machine | None:
        return SelectRows(node) if SelectRows.takes(node) else None

    def _native_chain(self, node: Chain) -> Machine | None:
        parts = self._natives(flat(node))
        return None if parts is None else ChainMachine(_sections(parts))

    def _native_snake(self, node: AliasFreeSnake) -> Machine | None:
        return SnakeMachine(self._prepared(node, Coefficients)) if plain(node) else None

    def _native_convolution(self, node: Conv1d) -> Machine | None:
        if not plain(node) or _steep(node) or not (node.groups == 1 or Depthwise.takes(node)):
            return None
        prepare = self._convolution if node.groups == 1 else Depthwise
        return Section(self._prepared(node, prepare), None, self.workspace)

    def _native_upsampling(self, node: ConvTranspose1d) -> Machine | None:
        if node.groups != 1 or not plain(node) or _steep(node):
            return None
        return UpsamplingMachine(node, self._prepared(node, self._convolution), self.workspace)

    def _native_map(self, node: Map) -> Machine | None:
        """A machine over rows for a function of single frames, or None."""
        function = node.function
        if function is F.gelu:
            return GeluMachine()
        if isinstance(function, FrameNorm) and len(function.weight) % LANES == 0 and plain(function):
            return NormMachine(self._prepared(function, NormCoefficients))
        if isinstance(function, BiasNorm) and plain(function):
            return BiasNormMachine(self._prepared(function, BiasNormCoefficients))
        if isinstance(function, PReLU) and plain(function):
            return FactorsMachine(self._prepared(function, lambda layer: Factors(layer.weight)), PRELU)
        if isinstance(function, FrameScale) and plain(function):
            return FactorsMachine(self._prepared(function, lambda scale: Factors(scale.factors)), SCALED)
        if isinstance(function, FrameLinear) and plain(function):
            return Section(self._prepared(function, self._linear), None, self.workspace)
        if isinstance(function, Scaled) and plain(function.linear):
            factors = function.scale.factors.detach()
            made = self._prepared(function.linear, lambda linear: self._linear(linear, factors), factors)
            return Section(made, None, self.workspace)
        return None

    def _linear(self, layer: FrameLinear, factors: Tensor | None = None) -> Convolution:
        """As a convolution of one tap, its outputs times factors."""
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        if factors is not None:
            weight, bias = weight * factors[:, None], None if bias is None else bias * factors
        with torch.device("meta"):
            single = Conv1d(layer.in_features, layer.out_features, 1)
        single.weight = nn.Parameter(weight[:, :, None], requires_grad=False)
        single.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        return Convolution(single, self.costs, self.budget)

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

    def _prepared(self, layer: Any, prepare: Callable[[Any], Any], *more: Tensor) -> Any:
        """What belongs to a layer's current weights, and to `more`, made when it is first opened.

        Changes that torch does not count go unnoticed: `parameter.data.mul_(2)`, or those of inference tensors.
        """
        return self._kept(self._layers, layer, [*parameters(layer), *more], lambda: prepare(layer))

    def _kept(
        self, table: MutableMapping[Any, Prepared], key: Any, weights: list[Tensor], make: Callable[[], Any]
    ) -> Any:
        with self._lock:
            known = table.get(key)
            if known is None or known.versions != _versions(weights):
                held = [weight.detach() for weight in weights]
                known = table[key] = Prepared(held, _versions(held), make())
            return known.result


_ENGINES: weakref.WeakSet[CpuEngine] = weakref.WeakSet()


def _given_back() -> None:
    """An engine is gone; with the last one, what large signals lay in is given back to the system."""
    if not _ENGINES:
        POOL.clear()


OPENERS: dict[type, Callable[[CpuEngine, Any], Machine | None]] = {  # of machines over rows
    Chain: CpuEngine._native_chain,
    Residual: CpuEngine._native_residual,
    Branches: CpuEngine._native_branches,
    Select: CpuEngine._native_select,
    Map: CpuEngine._native_map,
    AliasFreeSnake: CpuEngine._native_snake,
    Conv1d: CpuEngine._native_convolution,
    ConvTranspose1d: CpuEngine._native_upsampling,
}


@dataclass(frozen=True)
class Stretch:
    """Consecutive nodes of a chain.

    Attributes:
        run: the nodes.
        known: whether the engine has machines over rows for them.
        ends: their channels, if a layer among them says which.
        whole: recordings of whole signals through them, which belong to their weights.
        shelf: of streams, the same.
    """

    run: Chain
    known: bool
    ends: Borders | None
    whole: Whole
    shelf: Shelf


@dataclass(frozen=True)
class Prepared:
    """What was made of a layer's weights.

    Attributes:
        parameters: those weights; while they are held here, no others can end up at their address.
        versions: address of each, and how often it has been written.
        result: what was made.
    """

    parameters: list[Tensor]
    versions: list[tuple[int, int]]
    result: Any


def _steep(layer: Conv1d | ConvTranspose1d) -> bool:
    """Whether its leaky ReLU is not the larger of x and slope * x, which kernels take for it."""
    return layer.slope is not None and layer.slope > 1


def _forget(engine: weakref.ref[CpuEngine], key: int) -> None:
    """A chain is gone; its engine, which it must not keep alive, may be gone already."""
    if found := engine():
        for table in (found._holders, found._plans):
            table.pop(key, None)


def _versions(parameters: list[Tensor]) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in parameters]


class Border(Machine):
    """Between `[B, C, n]` and rows. Input that the kernels do not take (another type, autograd) goes to plain torch.

    Args:
        opened: opens a machine over rows; a whole signal that runs from a recording needs none.
        node: what it runs.
        channels: of the node.
        whole: recordings of whole signals.
    """

    parts = ("machine",)
    state = ("kind",)

    def __init__(
        self, opened: Callable[[], Machine], node: Node, channels: Borders, whole: Whole | None = None
    ) -> None:
        self.opened, self.node, self.whole = opened, node, whole
        self.taken, self.channels, self.selects = channels
        self.machine: Machine | None = None
        self.kind: object = None  # of the pieces: batch, channels, type and device

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        kind = (x.shape[0], x.shape[1], x.dtype, x.device)
        whole = self.whole if last and self.kind is None else None
        if self.kind is None and x.shape[-1]:
            self._begin(x)
            self.kind = kind
        if self.kind is None:
            return x
        if kind != self.kind and x.shape[-1]:
            raise ValueError(f"the piece has (batch, channels, type, device) {kind}, but the signal {self.kind}")
        if isinstance(self.machine, Unbordered):
            return self.machine(x, last)
        with torch.inference_mode():
            rows = to_rows(x) if x.shape[-1] else floats(x.shape[0], blocks_of(self.taken), 0, 8)
            if whole:
                return whole(self.opened, rows, lambda result: from_rows(result, self.channels))
            self.machine = self.machine or self.opened()
            return from_rows(self.machine(rows, last), self.channels)

    def _begin(self, x: Tensor) -> None:
        if x.shape[1] < self.taken or (x.shape[1] > self.taken and not self.selects):
            raise ValueError(f"the signal has {x.shape[1]} channels, but the layer takes {self.taken}")
        grad = torch.is_grad_enabled() and needs_grad(x, self.node)
        odd = x.shape[1] != self.taken and through(self.node, x.shape[1]) is None  # more than are selected from
        if x.dtype != torch.float32 or x.device.type != "cpu" or grad or odd:
            self.machine = Unbordered(self.node.open(Engine()), self.channels)


class Unbordered(Machine):
    """A plain machine in place of a border."""

    parts = ("machine",)

    def __init__(self, machine: Machine, channels: int) -> None:
        self.machine, self.channels = machine, channels

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return self.machine(x, last)


def _sections(machines: list[Machine]) -> list[Machine]:
    """The same, but a snake just before a convolution runs inside its section, and so does an activation just after."""
    joined: list[Machine] = []
    for machine in machines:
        before = joined[-1] if joined else None
        if isinstance(machine, Section) and isinstance(before, SnakeMachine) and machine.convolution.slope is None:
            machine.activation = before
            joined.pop()
        after = machine.after() if isinstance(machine, FactorsMachine | GeluMachine) else None
        if after and isinstance(before, Section) and before.finishes():
            before.after, before.ending = after, machine
        else:
            joined.append(machine)
    return joined
