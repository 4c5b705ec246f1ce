"""Machines declare their state: what a step changes, and nothing else, is declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from networks import VOCODERS, random_mel
from torch import Tensor

from melvoc.audio.resampling import Resampler
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.graphs import GraphRecorder
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.engines.mps import CutEngine
from melvoc.nn.graph import Chain, ChainMachine, Engine, Machine, join
from melvoc.nn.recording import RecordingMachine

ENGINES = {
    "torch": Engine,
    "cpu": CpuEngine,
    "cuda": lambda: FusedEngine(Kernels(None)),
    "mps": lambda: CutEngine(frames=7, rows=1),
}


def attributes(machine: Machine, path: str = "") -> Iterator[tuple[str, object]]:
    """Every attribute of a machine and of the machines in it, by reflection."""
    for name, value in vars(machine).items():
        for place, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            where = f"{path}.{name}" + ("" if place is None else f"[{place}]")
            if isinstance(item, Machine):
                if not isinstance(item, RecordingMachine):
                    yield from attributes(item, where)
                else:
                    yield from attributes(item.machine, where + ".machine")
            else:
                yield where, item


def declared(machine: Machine, path: str = "") -> Iterator[str]:
    """The same names as far as the machines declare them."""
    for name in machine.parts:
        value = getattr(machine, name)
        several = isinstance(value, list)
        for place, part in enumerate(value if several else [value]):
            where = f"{path}.{name}" + (f"[{place}]" if several else "")
            if isinstance(part, RecordingMachine):
                yield from declared(part.machine, where + ".machine")
            elif part is not None:
                yield from declared(part, where)
    for name in (*machine.state, *machine.positions):
        value = getattr(machine, name)
        yield from [f"{path}.{name}[{i}]" for i in range(len(value))] if isinstance(value, list) else [f"{path}.{name}"]


def changed(before: dict[str, object], after: dict[str, object]) -> set[str]:
    def differs(old: object, new: object) -> bool:
        return old is not new if isinstance(old, Tensor) or isinstance(new, Tensor) else old != new

    return {name for name in after if name not in before or differs(before[name], after[name])}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", VOCODERS)
def test_the_declared_state_is_what_steps_change(name: str, engine: str) -> None:
    voc = VOCODERS[name]
    machine, mel = ENGINES[engine]().open(voc.graph()), random_mel(voc, 80)  # type: ignore[operator]
    found: set[str] = set()
    with torch.inference_mode():
        for piece in mel.split([1, 0, 30, 2, 40, 7], dim=-1):
            before = dict(attributes(machine))
            machine(piece, False)
            if before.keys() == dict(attributes(machine)).keys():  # else machines were made for the first piece
                found |= changed(before, dict(attributes(machine)))
    undeclared = found - set(declared(machine))
    assert found
    assert not undeclared, f"steps change {sorted(undeclared)[:4]}, which is not declared"


def test_forks_share_no_list() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    machine = CpuEngine().open(voc.graph())
    with torch.inference_mode():
        machine(random_mel(voc, 9), False)
        twin = machine.fork()
    lists = [
        [id(value) for inner in walk(one) for value in vars(inner).values() if isinstance(value, list)]
        for one in (machine, twin)
    ]
    assert lists[0]
    assert not set(lists[0]) & set(lists[1])


def walk(machine: Machine) -> Iterator[Machine]:
    yield machine
    for inner in [machine.machine] if isinstance(machine, RecordingMachine) else machine.machines_inside():
        yield from walk(inner)


class Eager(GraphRecorder):
    """Records nothing: a step that runs again is the recording, with the counts of a machine left as they are."""

    def __init__(self, counting: Machine | None = None) -> None:
        names = () if counting is None else counting.positions

        def record(step: Any) -> Any:
            step()

            def replay() -> Tensor:
                counts = {name: getattr(counting, name) for name in names}
                output: Tensor = step()
                vars(counting).update(counts) if counts else None
                return output

            return replay

        super().__init__(record=record, devices=("cpu",))


def test_a_position_does_not_forbid_a_recording_and_goes_on_in_it() -> None:
    wave = torch.randn(1, 1, 44100, generator=torch.Generator().manual_seed(0))
    plain = Resampler(44100, 48000)
    resampler = Resampler(44100, 48000)
    machine = RecordingMachine(ChainMachine([resampler]), Eager(resampler))
    blocks = wave.split(147 * 3, dim=-1)
    expected = [plain(block, number == len(blocks)) for number, block in enumerate(blocks, 1)]
    got = [machine(block, number == len(blocks)).clone() for number, block in enumerate(blocks, 1)]
    assert machine._recording is not None, "nothing was recorded"
    assert (resampler.taken, resampler.given) == (plain.taken, plain.given)
    torch.testing.assert_close(join(*got), join(*expected), atol=1e-6, rtol=0)


def test_an_undeclared_state_is_found_by_the_rehearsal() -> None:
    class Counting(Machine):
        def __init__(self) -> None:
            self.count = 0

        def __call__(self, x: Tensor, last: bool) -> Tensor:
            self.count += 1
            return x + self.count

    machine = RecordingMachine(ChainMachine([Counting()]), Eager())
    with pytest.warns(RuntimeWarning, match="does not give what the direct one gives"):
        parts = [machine(torch.zeros(1, 1, 8), False) for _ in range(6)]
    assert [float(part[0, 0, 0]) for part in parts][:3] == [1.0, 2.0, 3.0]
    assert Chain(()).delay(3) == 3
