"""Kernels on threads: as many as torch may use, in forked workers, with several callers, on any installation."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from networks import random_mel, vocoder

import melvoc
from melvoc.nn.cpu.threads import SHARED, Team

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


def add_up(numbers: list[int], lock: threading.Lock, counter: int, jobs: int, limit: int) -> None:
    """A kernel in Python, whose counter is a list's place."""
    while True:
        with lock:
            job = numbers[0]
            numbers[0] += 1
        if job >= jobs:
            break
        if job == limit:
            raise ArithmeticError(f"job {job} in {threading.current_thread().name}")
        numbers.append(job)


def test_every_job_is_done_once() -> None:
    team, numbers, lock = Team(), [0], threading.Lock()
    team.run(lambda counter, jobs: add_up(numbers, lock, counter, jobs, -1), 50)
    assert sorted(numbers[1:]) == list(range(50))


def only_in(name: str) -> Team:
    """A team in one of whose threads, by name, a kernel fails."""
    team, main = Team(), threading.current_thread().name

    def kernel(counter: int, jobs: int) -> None:
        mine = threading.current_thread().name
        if (mine == main) == (name == "caller"):
            raise ArithmeticError(f"in the {name}")

    count = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(3):  # the team is of use afterwards
            with pytest.raises(ArithmeticError, match=f"in the {name}"):
                team.run(kernel, 8)
    finally:
        torch.set_num_threads(count)
    return team


@pytest.mark.parametrize("name", ["caller", "helper"])
def test_an_error_in_a_kernel_reaches_the_caller(name: str) -> None:
    team = only_in(name)
    done: list[int] = []
    team.run(lambda counter, jobs: done.append(jobs), 1)
    assert done == [1]


@pytest.mark.parametrize(
    ("threads", "jobs", "vectors", "runs"),
    [(1, 9, SHARED, 1), (3, 9, SHARED, 3), (3, 2, SHARED, 2), (3, 9, SHARED - 1, 1)],
)
def test_how_many_run_a_kernel(threads: int, jobs: int, vectors: int, runs: int) -> None:
    team, done, count = Team(), [], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        team.run(lambda counter, jobs: done.append(counter), jobs, vectors=vectors)
    finally:
        torch.set_num_threads(count)
    assert len(done) == runs
    assert len(set(done)) == 1


def test_helpers_come_and_rest_with_torchs_threads() -> None:
    code = """
torch.set_num_threads(1)
serial = voc.mel_to_waveform(mel)
assert not helpers()
torch.set_num_threads(3)
same(voc.mel_to_waveform(mel), serial)
assert len(helpers()) == 2, helpers()

from melvoc.nn.cpu import threads
started = []
put = threads.Task.__init__
threads.Task.__init__ = lambda self, *given: (started.append(1), put(self, *given))[1]
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
    child(code)


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
    assert threads == 1
assert torch.get_num_threads() == 2
same(voc.mel_to_waveform(mel), expected)
"""
    child(code)


@forks
def test_a_forked_child_makes_helpers_of_its_own() -> None:
    code = """
torch.set_num_threads(2)
from melvoc.nn.cpu.threads import TEAM
voc.mel_to_waveform(mel)
assert len(helpers()) == 1
pid = os.fork()
if not pid:
    try:
        assert not helpers()
        done = []
        TEAM.run(lambda counter, jobs: done.append(1), 4)
        assert len(done) == 1  # torch begins with one thread
        torch.set_num_threads(2)
        TEAM.run(lambda counter, jobs: done.append(1), 4)
        assert len(done) == 3 and len(helpers()) == 1
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
from melvoc.nn.cpu import gemm
print(sum(gemm.multiply.stats.cache_hits.values()), sum(gemm.multiply.stats.cache_misses.values()))
"""
    assert child(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() == ["0", "1"]
    names = compiled_files(tmp_path)
    assert any(name.startswith("gemm.multiply_") for name in names)  # with the stamp of the sources
    assert child(code, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() == ["1", "0"]
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
from melvoc.nn.cpu import gemm
wave = voc.mel_to_waveform(mel[..., :20])
assert gemm.multiply.stats.cache_path is None
same(wave, vocoder("bigvgan_v2_tiny", engine="torch").mel_to_waveform(mel[..., :20]))
"""
    said = child(code, start=NOWHERE + START).stderr.strip().splitlines()
    assert len(said) == 1
    assert "melvoc.nn.cpu.vector: numba finds no folder where it may keep compiled kernels" in said[0]
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
import _thread, time
from melvoc.nn.cpu.threads import Team
torch.set_num_threads(2)
left = []

def kernel(counter, jobs):
    if threading.current_thread() is threading.main_thread():
        return
    _thread.interrupt_main()
    time.sleep(0.5)
    left.append(1)

try:
    Team().run(kernel, 2)
    time.sleep(20)
except KeyboardInterrupt:
    assert left
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
