"""State is declared: what steps change, found by reflection in every machine of every engine, is what is declared."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from expressions import expression, frozen
from networks import VOCODERS, random_mel
from test_nn_engines_cpu_branches import NODES, signal
from torch import Tensor

import melvoc.nn
from melvoc.audio.resampling import Resampler
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.engines.mps import CutEngine
from melvoc.nn.framing import Pad
from melvoc.nn.graph import Chain, Engine, Machine
from melvoc.nn.recording import RecordingMachine
from melvoc.nn.state import Stateful
from melvoc.onnx.blocks import Blocks
from melvoc.onnx.steps import Steps
from melvoc.synthesis import Run

ENGINES: dict[str, Any] = {
    "torch": Engine,
    "cpu": CpuEngine,
    "cuda": lambda: FusedEngine(Kernels(None)),
    "mps": lambda: CutEngine(frames=7, rows=1),
}
SIZES = (1, 0, 20, 2, 9, 9, 7)  # of the pieces


def items(value: object) -> dict[object, object]:
    """What is in a list or a dict; the value itself of anything else."""
    if isinstance(value, list):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else {None: value}


def stateful(value: object) -> Iterator[Stateful]:
    """Everything stateful that can be reached, by reflection."""
    if isinstance(value, Stateful):
        yield value
        value = vars(value)
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from stateful(item)


def snapshot(root: Stateful) -> dict[tuple[int, str, object], tuple[Stateful, object]]:
    """Every attribute of all that is stateful, the items of lists and dicts one by one."""
    return {
        (id(owner), name, place): (owner, item)
        for owner in stateful(root)
        for name, value in vars(owner).items()
        for place, item in items(value).items()
    }


def changes(root: Stateful, pieces: list[Tensor], step: Any = None) -> set[tuple[type, str]]:
    """What the steps changed: classes, and the names of attributes."""
    found: set[tuple[type, str]] = set()
    for piece in pieces:
        before = snapshot(root)
        known = {owner for owner, _, _ in before}
        (step or root)(piece, False)
        for key, (owner, new) in snapshot(root).items():
            if key not in before:
                same = key[0] not in known
            else:
                old = before[key][1]
                same = old is new if isinstance(old, Tensor | Stateful) or isinstance(new, Tensor) else old == new
            if not same and not isinstance(owner, RecordingMachine):  # which counts equal pieces
                found.add((type(owner), key[1]))
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, set[tuple[type, str]]]:
    """What steps change, by engine: of whole vocoders, and of random expressions."""
    result: dict[str, set[tuple[type, str]]] = {}
    with torch.inference_mode():
        for name, engine in ENGINES.items():
            result[name] = set()
            for voc in VOCODERS.values():
                result[name] |= changes(engine().open(voc.graph()), list(random_mel(voc, 48).split(SIZES, -1)))
            for seed in range(16):
                node, x = frozen(expression(seed, 5)[0]), torch.randn(2, 5, 48)
                result[name] |= changes(engine().open(node), list(x.split(SIZES, -1)))
        for node in NODES.values():
            result["cpu"] |= changes(CpuEngine().open(Chain((node,))), list(signal(48).split(SIZES, -1)))
        mirrored = Pad(3, 2, "reflect")
        result["torch"] |= changes(Engine().open(mirrored), list(torch.randn(1, 2, 48).split(SIZES, -1)))
        blocks = Blocks(lambda x: x.repeat_interleave(2, -1), before=2, after=1, hop=2)
        result["torch"] |= changes(Engine().open(blocks), list(torch.randn(1, 2, 48).split(SIZES, -1)))
        steps = Steps(lambda x, now, last: (x, [now[0] + 1]), lambda rows: [torch.zeros(rows)], hop=1, latency=0)
        result["torch"] |= changes(Engine().open(steps), list(torch.randn(1, 2, 48).split(SIZES, -1)))
        voc = VOCODERS["vocos_tiny"]
        for refine in (0, 2):
            run = Run(voc, steps=voc._steps(refine), sample_rate=48000)
            result["cpu"] |= changes(run._way, list(random_mel(voc, 48).split(SIZES, -1)))
        result["torch"] |= changes(Resampler(44100, 48000), list(torch.randn(1, 1, 4800).split(1000, -1)))
    return result


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_else_changes(engine: str, found: dict[str, set[tuple[type, str]]]) -> None:
    undeclared = {(kind.__name__, name) for kind, name in found[engine] if name not in (*kind.state, *kind.positions)}
    undeclared -= {("CutMachine", "_machines"), ("Border", "machine")}  # opened for the first piece
    assert not undeclared, f"steps change {sorted(undeclared)}, which is not declared"


def test_all_that_is_declared_changes(found: dict[str, set[tuple[type, str]]]) -> None:
    for module in pkgutil.walk_packages(melvoc.nn.__path__, "melvoc.nn."):
        if not module.name.endswith("cuda.kernel"):
            importlib.import_module(module.name)
    changed = {(base, name) for kind, name in set().union(*found.values()) for base in kind.__mro__}
    declared = {(kind, name) for kind in kinds(Stateful) for name in (*kind.state, *kind.positions)}
    never = {(kind.__name__, name) for kind, name in declared - changed}
    assert never <= {("Gathered", "before")}, f"declared, but no step changes {sorted(never)}"


def kinds(base: type) -> Iterator[type]:
    """melvoc's own classes."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("melvoc."):
            yield kind
            yield from kinds(kind)


def test_a_dict_is_no_state() -> None:
    class Counting(Machine):
        state = ("counts",)

        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def __call__(self, x: Tensor, last: bool) -> Tensor:
            return x

    with pytest.raises(TypeError, match=r"Counting\.counts is a dict, which cannot be state; use a list"):
        list(Counting().cells())


def test_cells_are_read_and_replaced_where_they_are() -> None:
    machine = CpuEngine().open(VOCODERS["bigvgan_v2_tiny"].graph())
    with torch.inference_mode():
        machine(random_mel(VOCODERS["bigvgan_v2_tiny"], 40), False)
    twin = machine.fork()
    cells, others = list(machine.cells()), list(twin.cells())
    assert [cell.size() for cell in cells] == [cell.size() for cell in others]
    tensors = [cell for cell in others if isinstance(cell.get(), Tensor)]
    assert len(tensors) > 20
    for cell in tensors:
        cell.put(None)
    assert not any(isinstance(cell.get(), Tensor) for cell in others)
    assert [cell.get() for cell in cells if isinstance(cell.get(), Tensor)]
