"""Kernels on threads: as many as torch may use, in forked workers, with several callers, on any installation."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from cpu_kernels import Lingering, Meeting, Words, linger, mark, meet, sides
from networks import random_mel, vocoder

import melvoc
from melvoc.nn.engines.cpu.compile import Strided, View, kernel
from melvoc.nn.engines.cpu.threads import SHARED, Team

TESTS = Path(__file__).parent
SOURCE = Path(melvoc.__file__).parent

START = """
import logging, multiprocessing, os, sys, threading
logging.basicConfig(format="%(name)s: %(message)s")
import torch
from networks import random_mel, vocoder

def helpers():
    return [thread for thread in threading.enumerate() if thread.name == "melvoc-cpu"]

def same(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)

voc = vocoder("bigvgan_v2_tiny")
mel = random_mel(voc, 600)  # enough for torch's threads, too
"""


def child(code: str, *, start: str = START, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", start + code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": path} | environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_job_is_done_once(count: int) -> None:
    team, words = Team(), np.zeros(50, np.int64)
    with threads(count):
        for run in range(1, 201):
            team.run(mark, 50, Words(words.ctypes.data), vectors=50 * SHARED)
            assert (words == run).all(), f"after run {run}, jobs {np.flatnonzero(words != run).tolist()}"


def test_a_record_has_the_names_of_its_kernel_in_their_order() -> None:
    class Swapped(NamedTuple):
        patience: int
        expected: int
        place: int

    class Signals(NamedTuple):
        source: View
        out: Strided

    def waiting(counter: int, jobs: int, place: int, expected: int, patience: int) -> None: ...

    def copying(
        counter: int, jobs: int, source: int, source_batch: int, source_block: int, out: int, out_batch: int,
        out_block: int, out_row: int,
    ) -> None: ...  # fmt: skip

    said = re.escape("['counter', 'jobs', 'patience', 'expected', 'place'], but waiting takes ['counter', 'jobs', 'pl")
    with pytest.raises(TypeError, match=said):
        kernel(Swapped)(waiting)
    flat = kernel(Signals)(copying).flat
    assert flat(Signals(View(1, 2, 3), Strided(4, 5, 6, 7))) == (1, 2, 3, 4, 5, 6, 7)


def most_that_meet(team: Team, count: int, jobs: int, vectors: int, expected: int) -> int:
    """In the best of some runs, or the worst if more come than should: a helper may miss the run that wakes it."""
    words, most = np.zeros(1, np.int64), 0
    with threads(count):
        for _ in range(200):
            words[0] = 0
            team.run(meet, jobs, Meeting(words.ctypes.data, expected, 10**6), vectors=vectors)
            most = max(most, int(words[0]))
            if most == expected and expected > 1:
                break
    return most


def test_two_threads_meet_in_the_middle() -> None:
    team, words = Team(), np.zeros(40, np.int64)
    with threads(2):
        for run in range(1000):
            words[:] = 0
            team.run(sides, 40, Words(words.ctypes.data))
            assert set(words) <= {1, 2}
            assert (np.diff(words) >= 0).all(), f"jobs by side: {words.tolist()}"
            if run > 20 and words[-1] == 2:
                break
    assert words[-1] == 2, "no helper ever came"


@pytest.mark.parametrize(
    ("count", "jobs", "vectors", "runs"),
    [(1, 9, 9 * SHARED, 1), (3, 9, 9 * SHARED, 3), (3, 2, 9 * SHARED, 2), (3, 9, 2 * SHARED, 2), (3, 9, SHARED, 1)],
)
def test_how_many_run_a_kernel(count: int, jobs: int, vectors: int, runs: int) -> None:
    assert most_that_meet(Team(), count, jobs, vectors, runs) == runs


def test_a_helper_that_sleeps_is_woken() -> None:
    team = Team()
    for _ in range(3):
        assert most_that_meet(team, 2, 2, 2 * SHARED, 2) == 2
        time.sleep(0.2)  # longer than it watches


def test_a_second_caller_runs_alone() -> None:
    team, words = Team(), np.zeros(3, np.int64)
    with threads(2):
        first = threading.Thread(target=team.run, args=(linger, 2, Lingering(words.ctypes.data, 10**7)))
        first.start()
        while not words[0]:
            time.sleep(0.001)
        team.run(meet, 2, Meeting(words.ctypes.data + 16, 2, 1000))
        first.join(60)
    assert words.tolist() == [1, 1, 1]


def test_helpers_come_and_rest_with_torchs_threads() -> None:
    code = """
torch.set_num_threads(1)
serial = voc.mel_to_waveform(mel)
assert not helpers()
torch.set_num_threads(3)
same(voc.mel_to_waveform(mel), serial)
assert len(helpers()) == 2, helpers()

from melvoc.nn.engines.cpu import threads
started = []
wake = threads.Team._wake
threads.Team._wake = lambda self, count: (started.append(1), wake(self, count))[1]
torch.set_num_threads(1)
same(voc.mel_to_waveform(mel), serial)
assert not started
torch.set_num_threads(2)
same(voc.mel_to_waveform(mel), serial)
assert started
"""
    child(code)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_limits_the_helpers(name: str) -> None:
    code = "voc.mel_to_waveform(mel); assert len(helpers()) == torch.get_num_threads() - 1, helpers()"
    child(code, **{name: "1"})


def test_several_threads_synthesise_at_once_with_one_model() -> None:
    code = """
torch.set_num_threads(2)
mels = [random_mel(voc, 100 + 60 * seed, seed=seed) for seed in range(6)]
fresh = vocoder("bigvgan_v2_tiny")  # nothing is prepared: all threads want the same weights at once
results = [[] for _ in mels]

def work(number):
    for _ in range(4):
        results[number].append(fresh.mel_to_waveform(mels[number]))

workers = [threading.Thread(target=work, args=(number,)) for number in range(len(mels))]
[worker.start() for worker in workers]
[worker.join(120) for worker in workers]
assert not any(worker.is_alive() for worker in workers)
for number, waves in enumerate(results):
    assert len(waves) == 4
    for wave in waves:
        same(wave, voc.mel_to_waveform(mels[number]))
"""
    child(code, MALLOC_ARENA_MAX="1")  # one heap for all threads (glibc): what one frees too early is another's at once


def test_scratch_arrays_are_kept_until_a_kernel_ends() -> None:
    found = 0
    for path in sorted((SOURCE / "nn" / "engines" / "cpu").glob("*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            compiled = isinstance(function, ast.FunctionDef) and any(
                getattr(getattr(name, "func", name), "id", None) in ("kernel", "part", "routine")
                for name in function.decorator_list
            )
            lines = [ast.unparse(line) for line in function.body] if compiled else []
            for made in [line.partition(" = ")[0] for line in lines if " = np." in line]:
                found += 1
                assert lines[-1] == f"keep({made})", f"{path.name}: {function.name} frees {made} before it ends"
    assert found >= 5


@forks
def test_a_forked_worker_synthesises_after_its_parent_has() -> None:
    code = """
torch.set_num_threads(2)
expected = voc.mel_to_waveform(mel)
assert torch.randn(2000, 2000).sin().sum().isfinite()  # torch's own threads are awake, too

def work(pipe):
    wave = voc.mel_to_waveform(mel)
    more = voc.mel_to_waveform(mel[..., :50])
    pipe.send((wave.numpy(), more.numpy(), torch.get_num_threads()))

context = multiprocessing.get_context("fork")
for _ in range(2):
    here, there = context.Pipe()
    worker = context.Process(target=work, args=(there,))
    worker.start()
    assert here.poll(100), "the worker hangs"
    wave, more, threads = here.recv()
    worker.join(20)
    same(torch.from_numpy(wave), expected)
    same(torch.from_numpy(more), voc.mel_to_waveform(mel[..., :50]))
    assert threads == 2, "what the child began with"
assert torch.get_num_threads() == 2
same(voc.mel_to_waveform(mel), expected)
"""
    child(code)


@forks
def test_a_forked_child_makes_helpers_of_its_own() -> None:
    code = """
torch.set_num_threads(2)
from melvoc.nn.engines.cpu.threads import TEAM
import numpy as np
from cpu_kernels import Meeting, meet
voc.mel_to_waveform(mel)
assert len(helpers()) == 1
pid = os.fork()
if not pid:
    try:
        assert not helpers()
        words = np.zeros(1, np.int64)
        torch.set_num_threads(1)
        TEAM.run(meet, 4, Meeting(words.ctypes.data, 2, 1000))
        assert words[0] == 1
        torch.set_num_threads(2)
        for _ in range(200):
            words[0] = 0
            TEAM.run(meet, 4, Meeting(words.ctypes.data, 2, 10**6))
            if words[0] == 2:
                break
        assert words[0] == 2 and len(helpers()) == 1
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
"""
    child(code)


@pytest.mark.slow
@forks
def test_data_loader_workers_synthesise() -> None:
    code = """
torch.set_num_threads(2)
expected = voc.mel_to_waveform(mel)

class Waves(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return voc.mel_to_waveform(mel)[0]

loader = torch.utils.data.DataLoader(Waves(), num_workers=2, multiprocessing_context="fork", timeout=100)
waves = list(loader)
assert len(waves) == 4
for wave in waves:
    same(wave, expected)
"""
    child(code)


def compiled_files(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in folder.rglob("*.nbi"))


@pytest.mark.slow
def test_kernels_are_cached_where_numba_is_told_and_found_there_again(tmp_path: Path) -> None:
    code = """
wave = voc.mel_to_waveform(mel[..., :20])
from melvoc.nn.engines.cpu import gemm
print(gemm.multiply.compiled.cache_hits, gemm.times_panel.compiled.cache_hits)
"""
    assert child(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() == ["0", "0"]
    names = compiled_files(tmp_path)
    assert any(name.startswith("gemm.multiply_") for name in names)  # with the stamp of the sources
    assert child(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() == ["1", "1"]
    assert compiled_files(tmp_path) == names


NOWHERE = """
import tempfile
def refuse(*args, **kwargs):
    raise PermissionError("read-only file system")
tempfile.TemporaryFile = refuse  # what numba asks a folder with
"""


@pytest.mark.slow
def test_kernels_work_where_nothing_can_be_cached() -> None:
    code = """
wave = voc.mel_to_waveform(mel[..., :20])
same(wave, vocoder("bigvgan_v2_tiny", engine="torch").mel_to_waveform(mel[..., :20]))
"""
    said = child(code, start=NOWHERE + START).stderr.strip().splitlines()
    assert len(said) == 1
    assert "melvoc.nn.engines.cpu.compile: numba finds no folder where it may keep compiled kernels" in said[0]
    assert "NUMBA_CACHE_DIR" in said[0]


@pytest.mark.slow
def test_without_numba_plain_torch_says_so_once() -> None:
    code = """
wave = voc.mel_to_waveform(mel[..., :20])
same(voc.mel_to_waveform(mel[..., :20]), wave)
voc.to(torch.float32)
other = vocoder("vocos_tiny")
other.mel_to_waveform(random_mel(other, 9))
same(wave, vocoder("bigvgan_v2_tiny", engine="torch").mel_to_waveform(mel[..., :20]))
"""
    said = child(code, start="import sys; sys.modules['numba'] = None\n" + START).stderr.strip().splitlines()
    assert len(said) == 1
    assert "numba cannot be imported" in said[0]
    assert "plain torch" in said[0]


def test_an_interrupt_waits_for_the_helpers() -> None:
    """A helper that went on would write into memory that belongs to something else by then."""
    code = """
import _thread, signal
import numpy as np
from cpu_kernels import Lingering, linger
from melvoc.nn.engines.cpu.threads import Team
torch.set_num_threads(2)
team, words = Team(), np.zeros(2, np.int64)
for _ in range(20):  # compiles; the helper is there
    team.run(linger, 2, Lingering(words.ctypes.data, 10**4))
words[:] = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
threading.Timer(0.05, _thread.interrupt_main).start()
try:
    team.run(linger, 2, Lingering(words.ctypes.data, 3 * 10**7))
    threading.Event().wait(20)
except KeyboardInterrupt:
    assert words.tolist() == [1, 1]
else:
    raise AssertionError("no interrupt")
"""
    child(code)


def test_results_do_not_depend_on_the_threads() -> None:
    voc = vocoder("bigvgan_v2_tiny")
    mel, count = random_mel(voc, 60), torch.get_num_threads()
    waves = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        waves.append(voc.mel_to_waveform(mel))
    torch.set_num_threads(count)
    for wave in waves[1:]:
        torch.testing.assert_close(wave, waves[0], atol=0, rtol=0)
