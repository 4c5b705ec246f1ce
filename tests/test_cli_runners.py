"""Files one after the other and several at a time: the same files, the same words, and an end when it is asked for."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import melvoc
from melvoc.cli import main
from melvoc.cli.folders import Job
from melvoc.cli.runners import AHEAD, check_reachable, in_threads, locally, one_by_one
from melvoc.progress import checkpoint


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def jobs(folder: Path, count: int) -> list[Job]:
    return [Job(Path(str(number)), folder / str(number)) for number in range(count)]


def test_each_thread_has_a_file_of_its_own_and_torch_one_thread(tmp_path: Path, two_threads: None) -> None:
    together, threads = threading.Barrier(2), set()

    def work(job: Job) -> None:
        together.wait(timeout=60)  # only if two run at once
        threads.add((threading.get_ident(), torch.get_num_threads()))
        if job.source.name == "3":
            raise ValueError("no good")

    results = list(in_threads(work, 2, iter(jobs(tmp_path, 8))))
    assert results == [None] * 3 + ["3: ValueError: no good (MELVOC_DEBUG=1 shows where)"] + [None] * 4
    assert len(threads) == 2
    assert {count for _, count in threads} == {1}
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2], "new threads begin as before"


def test_files_are_handed_out_as_they_are_done(tmp_path: Path, two_threads: None) -> None:
    taken = []

    def endless() -> Iterator[Job]:
        for number in range(10**9):
            taken.append(number)
            yield Job(Path(str(number)), tmp_path / "out")

    results = in_threads(lambda job: None, 2, endless())
    for _ in range(5):
        assert next(results) is None
    results.close()
    assert len(taken) <= 2 * AHEAD + 6


def test_whoever_stops_ends_the_files_that_are_being_made(tmp_path: Path, two_threads: None) -> None:
    begun, ended = threading.Semaphore(0), []

    def work(job: Job) -> None:
        if job.source.name == "0":
            return
        begun.release()
        try:
            while True:
                checkpoint()
                time.sleep(0.01)
        finally:
            ended.append(job.source.name)

    results = in_threads(work, 2, iter(jobs(tmp_path, 50)))
    assert next(results) is None
    for _ in range(2):
        assert begun.acquire(timeout=60)
    results.close()
    assert sorted(ended) == ["1", "2"], "and none of the others began"


def test_few_files_use_all_threads_and_a_gpu_takes_one_after_the_other(two_threads: None) -> None:
    def kind(files: int, device: str = "cpu") -> object:
        return locally(lambda job: None, files, device).func  # type: ignore[attr-defined]

    assert (kind(3), kind(4), kind(4, "cuda")) == (one_by_one, in_threads, one_by_one)
    torch.set_num_threads(1)
    assert kind(100) is one_by_one


# --ray where there is none; tests/test_bulk.py has a cluster


def test_without_ray_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("in").mkdir()
    melvoc.audio.write("in/a.wav", torch.zeros(9000), 16000)
    assert main(["vocode", "in", "-o", "out", "--ray"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "melvoc: error: --ray needs Ray, which is not installed: pip install 'melvoc[ray]'\n")
    assert main(["vocode", "in/a.wav", "-o", "a.wav", "--ray"]) == 2
    assert capsys.readouterr().err == (
        "melvoc: error: --ray is for several inputs, or a folder; one file is made here, without it\n"
    )


def test_where_no_cluster_answers_one_line_says_so() -> None:
    with pytest.raises(melvoc.MelvocError, match=r"--ray 127\.0\.0\.1:1: nothing answers there \(.*refused\); start a"):
        check_reachable("127.0.0.1:1")
    with pytest.raises(melvoc.MelvocError, match="--ray ray://nowhere.invalid:10001: nothing answers there"):
        check_reachable("ray://nowhere.invalid:10001")
    for address in ("", "auto", "local"):
        check_reachable(address)
