"""Recorded steps: positions go on in them, forks have a state of their own, what was not declared is found out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import VOCODERS, random_mel
from test_nn_state import stateful
from torch import Tensor

from melvoc.audio.resampling import Resampler
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cuda.graphs import GraphRecorder
from melvoc.nn.graph import Chain, ChainMachine, Machine, join
from melvoc.nn.recording import RecordingMachine


def test_forks_share_no_list() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    machine = CpuEngine().open(voc.graph())
    with torch.inference_mode():
        machine(random_mel(voc, 9), False)
        twin = machine.fork()
    lists = [
        [id(value) for inner in stateful(one) for value in vars(inner).values() if isinstance(value, list)]
        for one in (machine, twin)
    ]
    assert lists[0]
    assert not set(lists[0]) & set(lists[1])


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
