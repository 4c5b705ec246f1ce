"""Steps of a stream as one call: the same numbers as the steps themselves, whatever else runs in between."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from cpu_kernels import mark
from networks import randomised
from torch import Tensor

from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.nn.engines.cpu import tape, threads
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cpu.machines import Section
from melvoc.nn.engines.cpu.memory import POOL, Workspace
from melvoc.nn.engines.cpu.tape import MOST_FRAMES, TapeRecorder
from melvoc.nn.engines.cpu.threads import Tasks, Team
from melvoc.nn.graph import Machine, join

SHAPE = {
    "n_mels": 12,
    "upsample_rates": (4, 2),
    "upsample_kernel_sizes": (8, 4),
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": (3, 7),
    "resblock_dilation_sizes": ((1, 3), (1, 3)),
}
NETWORKS = {
    "bigvgan": randomised(BigVGAN(BigVGANConfig(**SHAPE))),
    "hifigan": randomised(HiFiGAN(HiFiGANConfig(**SHAPE))),
}
EXACT = {"atol": 2e-6, "rtol": 1e-5}


def whole(name: str, mel: Tensor) -> Tensor:
    with torch.no_grad():
        return NETWORKS[name](mel)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many kernels Python runs, and how many tapes."""
    counts = {"kernels": 0, "tapes": 0}
    run, run_again = Team.run, Team.run_again

    def once(self: Team, *arguments: object, **named: object) -> None:
        counts["kernels"] += 1
        run(self, *arguments, **named)  # type: ignore[arg-type]

    def again(self: Team, tasks: Tasks) -> None:
        counts["tapes"] += 1
        run_again(self, tasks)

    with monkeypatch.context() as patch:
        patch.setattr(threads.Team, "run", once)
        patch.setattr(threads.Team, "run_again", again)
        yield counts


def push(machine: Machine, parts: list[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [machine(part, False).clone() for part in parts]


def finish(machine: Machine, part: Tensor) -> Tensor:
    with torch.inference_mode():
        return machine(part, True)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [1, 5, 24])
@pytest.mark.parametrize("name", NETWORKS)
def test_equal_pieces_run_as_one_call_and_join_to_the_whole(
    name: str, size: int, batch: int, monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    pieces = 80 // size + 12
    mel = torch.randn(batch, 12, size * pieces + 3, generator=rng)
    machine = CpuEngine().open(NETWORKS[name].graph)
    parts = list(mel.split(size, -1))
    given = push(machine, parts[: pieces - 2])
    with counted(monkeypatch) as counts:
        given += push(machine, parts[pieces - 2 : pieces])
    assert counts["tapes"] == 2
    assert counts["kernels"] <= 2 * 3, "more than the borders and the tanh"
    torch.testing.assert_close(join(*given, finish(machine, mel[..., size * pieces :])), whole(name, mel), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_of_other_sizes_in_between(name: str, rng: torch.Generator) -> None:
    sizes = [16] * 9 + [3, 16, 16, 0, 16, 40] + [16] * 6 + [1] * 30 + [16, 16]
    mel = torch.randn(1, 12, sum(sizes), generator=rng)
    machine = CpuEngine().open(NETWORKS[name].graph)
    parts = list(mel.split(sizes, -1))
    given = push(machine, parts[:-1])
    torch.testing.assert_close(join(*given, finish(machine, parts[-1])), whole(name, mel), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_else_the_model_does_in_between_changes_nothing(name: str, rng: torch.Generator) -> None:
    """Other streams, longer ones too, of the same engine; on this thread, another, and the stream on each in turn."""
    engine, graph = CpuEngine(), NETWORKS[name].graph
    mel = torch.randn(1, 12, 16 * 20, generator=rng)
    machine, other, given = engine.open(graph), engine.open(graph), []
    before = torch.get_num_threads()
    try:
        for number, part in enumerate(mel[..., :-16].split(16, -1)):
            torch.set_num_threads(1 + number % 3)
            if number % 2:
                with ThreadPoolExecutor(1) as elsewhere:
                    given += elsewhere.submit(push, machine, [part]).result()
            else:
                given += push(machine, [part])
            push(other, [torch.randn(1, 12, 16)])
            push(engine.open(graph), [torch.randn(2, 12, 90)])
            rubbish = [torch.full((5000,), float("nan")) for _ in range(50)] + [POOL.empty(2**18).fill_(9.0)]
            del rubbish
            gc.collect()
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(join(*given, finish(machine, mel[..., -16:])), whole(name, mel), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_next_stream_goes_on_with_the_recording_of_one_that_has_ended(
    name: str, monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    engine, graph, recorded = CpuEngine(), NETWORKS[name].graph, []
    record = TapeRecorder.record
    monkeypatch.setattr(TapeRecorder, "record", lambda self, step: recorded.append(step) or record(self, step))
    steady = 80 // 16 + 4  # pieces after which the state keeps its sizes
    for number in range(3):
        mel = torch.randn(1, 12, 16 * (steady + 6) + number, generator=rng)
        parts = list(mel.split(16, -1))
        machine, other = engine.open(graph), engine.open(graph)
        push(other, [torch.randn(1, 12, 5)])  # of another size: it leaves the recording where it is
        given = push(machine, parts[:steady])
        with counted(monkeypatch) as counts:
            given += push(machine, parts[steady:-1])
        assert counts["tapes"] == len(parts) - 1 - steady
        torch.testing.assert_close(join(*given, finish(machine, parts[-1])), whole(name, mel), **EXACT)
    assert len(recorded) == 1


def test_streams_at_the_same_time_have_recordings_of_their_own(rng: torch.Generator) -> None:
    engine, graph = CpuEngine(), NETWORKS["hifigan"].graph
    for _ in range(2):
        mels = torch.randn(3, 1, 12, 16 * 14, generator=rng)
        machines, given = [engine.open(graph) for _ in mels], [[] for _ in mels]
        for parts in zip(*(mel.split(16, -1)[:-1] for mel in mels), strict=True):
            for machine, part, own in zip(machines, parts, given, strict=True):
                own += push(machine, [part])
        for machine, mel, own in zip(machines, mels, given, strict=True):
            torch.testing.assert_close(join(*own, finish(machine, mel[..., -16:])), whole("hifigan", mel), **EXACT)


def test_a_fork_of_a_recorded_machine_has_a_state_of_its_own(rng: torch.Generator) -> None:
    mel = torch.randn(1, 12, 16 * 14, generator=rng)
    machine = CpuEngine().open(NETWORKS["bigvgan"].graph)
    parts = list(mel.split(16, -1))
    given = push(machine, parts[:9])
    twin = machine.fork()
    push(machine, [torch.randn(1, 12, 16)])
    rest = push(twin, parts[9:13])
    torch.testing.assert_close(join(*given, *rest, finish(twin, parts[13])), whole("bigvgan", mel), **EXACT)


def test_what_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = NETWORKS["hifigan"].graph
    with counted(monkeypatch) as counts, warnings.catch_warnings():
        warnings.simplefilter("error")
        push(CpuEngine(memory="low").open(graph), [torch.randn(1, 12, 16)] * 9)  # prepares weights in every step
        push(CpuEngine().open(graph), [torch.randn(2, 12, MOST_FRAMES // 2 + 1)] * 6)
        push(CpuEngine().open(graph), [torch.randn(1, 12, size) for size in [16, 17] * 6])
        monkeypatch.setattr(tape, "MOST_WORK", 100)
        push(CpuEngine().open(graph), [torch.randn(1, 12, 16)] * 9)
    assert counts["tapes"] == 0


def at_once(engine: CpuEngine, name: str, mel: Tensor) -> Tensor:
    with torch.inference_mode():
        return engine.open(NETWORKS[name].graph)(mel, True)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_signals_of_one_size_run_as_one_call(
    name: str, batch: int, monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    engine, mels = CpuEngine(), torch.randn(12, batch, 12, 30, generator=rng)
    for number, mel in enumerate(mels):
        with counted(monkeypatch) as counts:
            given = at_once(engine, name, mel)
        assert torch.equal(given, at_once(CpuEngine(), name, mel)), f"signal {number} is not what it is alone"
    assert counts["tapes"] == 1
    assert counts["kernels"] <= 5, "more than the borders, the input and the tanh"


def test_a_whole_signal_that_runs_from_a_recording_opens_no_machine(
    monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    engine, mel = CpuEngine(), torch.randn(1, 12, 30, generator=rng)
    for _ in range(4):
        expected = at_once(engine, "hifigan", mel)
    monkeypatch.setattr(CpuEngine, "_native", lambda self, node: pytest.fail(f"{node} was opened"))
    assert torch.equal(at_once(engine, "hifigan", mel), expected)


def test_whole_signals_of_other_sizes_and_streams_in_between(rng: torch.Generator) -> None:
    engine = CpuEngine()
    stream = engine.open(NETWORKS["hifigan"].graph)
    parts = torch.randn(1, 12, 16 * 20, generator=rng).split(16, -1)
    given = []
    for number, part in enumerate(parts[:-1]):
        given += push(stream, [part])
        for size in (16, 16 if number < 10 else 17, 16, 1 + number):
            mel = torch.randn(1, 12, size, generator=rng)
            torch.testing.assert_close(at_once(engine, "hifigan", mel), whole("hifigan", mel), **EXACT)
    torch.testing.assert_close(join(*given, finish(stream, parts[-1])), whole("hifigan", join(*parts)), **EXACT)


def test_sizes_that_keep_changing_are_seldom_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an evaluation with three numbers of rounds calls: each length three times, and then another."""
    engine, recorded = CpuEngine(), []
    record = TapeRecorder.record
    monkeypatch.setattr(TapeRecorder, "record", lambda self, step: recorded.append(step) or record(self, step))
    for size in range(10, 30):
        for _ in range(3):
            at_once(engine, "hifigan", torch.zeros(1, 12, size))
    assert len(recorded) == 1
    for _ in range(6):
        at_once(engine, "hifigan", torch.zeros(1, 12, 50))
    assert len(recorded) == 2, "a length that does come again"


def test_whole_signals_on_several_threads(rng: torch.Generator) -> None:
    engine, mels = CpuEngine(), torch.randn(40, 1, 12, 30, generator=rng)
    expected = [at_once(CpuEngine(), "hifigan", mel) for mel in mels]
    for _ in range(5):
        at_once(engine, "hifigan", mels[0])
    with ThreadPoolExecutor(4) as threads:
        given = list(threads.map(lambda mel: at_once(engine, "hifigan", mel), mels))
    assert all(torch.equal(one, other) for one, other in zip(given, expected, strict=True))


def test_a_recording_of_whole_signals_ends_with_the_weights_it_was_made_of(
    monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    engine, mel = CpuEngine(), torch.randn(1, 12, 30, generator=rng)
    monkeypatch.setitem(NETWORKS, "mine", randomised(HiFiGAN(HiFiGANConfig(**SHAPE))))
    for _ in range(5):
        at_once(engine, "mine", mel)
    with torch.no_grad():
        next(NETWORKS["mine"].parameters()).mul_(1.5)
    for _ in range(5):
        torch.testing.assert_close(at_once(engine, "mine", mel), whole("mine", mel), **EXACT)
    monkeypatch.undo()
    gc.collect()
    assert not engine._plans


def test_a_whole_signal_that_cannot_be_recorded_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    """Here something runs that is no kernel: the recording does not do it again, and is found out."""
    engine, mel = CpuEngine(), torch.randn(1, 12, 30, generator=rng)
    section = Section.__call__

    def doubled(self: Section, x: Tensor, last: bool) -> Tensor:
        return section(self, x, last).mul_(2)

    monkeypatch.setattr(Section, "__call__", doubled)
    with pytest.warns(RuntimeWarning, match="this vocoder runs without a recording of its kernels"):
        given = [at_once(engine, "hifigan", mel) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given += [at_once(engine, "hifigan", mel) for _ in range(4)]
    assert all(torch.equal(part, given[0]) for part in given)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tasks_in_a_row(count: int) -> None:
    """Each job once, with helpers where there are any, and the counters begin anew."""
    team, tasks, words = Team(), Tasks(6), np.zeros(300, np.int64)
    for number in range(6):
        tasks.set(number, mark, 50, (words.ctypes.data + 8 * 50 * number,), helpers=number % 3)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        for run in range(1, 201):
            team.run_again(tasks)
            assert (words == run).all(), f"after run {run}, jobs {np.flatnonzero(words != run).tolist()}"
    finally:
        torch.set_num_threads(before)


def test_a_recording_has_buffers_of_its_own_and_keeps_the_outgrown_ones() -> None:
    workspace = Workspace()
    own = workspace.weights.take(10).data_ptr()
    with workspace.afresh() as kept:
        first = workspace.weights.take(4).data_ptr()
        second = workspace.weights.take(400).data_ptr()
        assert len({own, first, second}) == 3
    assert [memory.data_ptr() for memory in kept] == [first, second]
    assert workspace.weights.take(10).data_ptr() == own


def test_each_thread_has_buffers_of_its_own() -> None:
    workspace, found = Workspace(), []
    mine = workspace.inputs.take(10)
    thread = threading.Thread(target=lambda: found.append(workspace.inputs.take(10)))
    thread.start()
    thread.join()
    assert found[0].data_ptr() != mine.data_ptr()
