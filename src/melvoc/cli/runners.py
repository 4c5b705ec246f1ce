"""Files that are made one after the other, several at a time, or by the workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import torch

from melvoc.cli import described, line_of
from melvoc.cli.folders import Job, Runner
from melvoc.errors import MelvocError, MissingPackageError, clipped, reason
from melvoc.progress import Token, under
from melvoc.storage.atomic import remove_half_written

Work = Callable[[Job], object]  # makes one file, whole or not at all
ENOUGH = 2  # files per thread from which each thread takes its own: fewer, and some would have nothing to do
AHEAD = 64  # files per thread that are handed out before the first of them has to be done
TOGETHER = 8  # files that a worker of a cluster makes before it answers
RETRIES = 3  # of a file whose worker died although nothing else was with it


def attempt(work: Work, job: Job) -> str | None:
    """What went wrong, in one line that names the input."""
    try:
        _make_folder(job.target.parent)
        work(job)
    except Exception as error:
        text, name = described(error), clipped(str(job.source))
        return text if line_of(name) in text else f"{name}: {text}"
    return None


def _make_folder(folder: Path) -> None:
    """Make a folder of what is made.

    Raises:
        MelvocError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MelvocError(
            f"{folder}: this folder cannot be made ({error.strerror}); give another with -o, or remove what is there"
        ) from error


def locally(work: Work, files: int, device: str = "cpu") -> Runner:
    """How this process makes files: several at a time on a CPU where there are enough, else one after the other."""
    threads = torch.get_num_threads()
    if device == "cpu" and threads > 1 and files >= ENOUGH * threads:
        return partial(in_threads, work, threads)
    return partial(one_by_one, work)


def one_by_one(work: Work, jobs: Iterator[Job]) -> Generator[str | None]:
    """On all of torch's threads, one file after the other."""
    for job in jobs:
        yield attempt(work, job)


def in_threads(work: Work, threads: int, jobs: Iterator[Job]) -> Generator[str | None]:
    """As many files at a time as there are threads, each on one: short sounds are too small to be shared by several.

    Results come in the order of the jobs. The number of torch's threads is that of each worker's own; new threads
    begin with the last one that was set, so it is set again at the end.
    """
    token, before = Token(), torch.get_num_threads()

    def run(job: Job) -> str | None:
        with under(token):
            return attempt(work, job)

    waiting: deque[Future[str | None]] = deque()
    with ThreadPoolExecutor(threads, "melvoc-file", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(copy_context().run, run, job))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            token.cancelled = True
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def on_ray(make: Callable[[], Work], address: str, jobs: Iterator[Job]) -> Generator[str | None]:
    """By a pool of actors, one for each processor (or GPU) of a cluster. What failed comes at the end, in order.

    Files travel several at a time. When a worker dies, what it had, and what waited for it, is done again file by
    file, so that one which kills its workers (it may be too long for their memory) takes none with it.

    Args:
        make: gives the work, in each worker; it is pickled.
        address: of the cluster; "" for the one of RAY_ADDRESS, or else this machine.
        jobs: what to do; the workers see the same files under the same names.

    Raises:
        MissingPackageError: ray is not installed.
        MelvocError: there is no cluster at the address.
    """
    files = list(jobs)
    if not files:
        return
    problems = dict.fromkeys(range(len(files)), "its worker died, again and again; is memory short?")
    waiting = set(problems)
    try:
        with _cluster(address) as ray:
            for together, retries in ((TOGETHER, 0), (1, RETRIES)):
                rows = [
                    {"number": n, "source": os.fsencode(files[n].source), "target": os.fsencode(files[n].target)}
                    for n in sorted(waiting)
                ]
                for number, problem in _answers(ray, rows, make, together, retries):
                    waiting.remove(number)
                    problems.pop(number)
                    if problem:
                        problems[number] = problem
                    else:
                        yield None
            for number, problem in sorted(problems.items()):
                name = clipped(str(files[number].source))
                yield problem if line_of(name) in problem else f"{name}: {problem}"
    finally:  # a worker that is killed, as Ray's are at the end, cannot
        remove_half_written(files[number].target for number in waiting)


def _answers(
    ray: Any, rows: list[dict[str, Any]], make: Callable[[], Work], together: int, retries: int
) -> Iterator[tuple[int, str]]:
    """What the workers say of each file, by its number, as they say it: nothing of those whose worker died."""
    if not rows:
        return
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    workers = min(gpus or max(1, int(resources.get("CPU", 1))), len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 has no other way yet to say how often a task is tried again
        answers = ray.data.from_items(rows, override_num_blocks=max(workers, -(-len(rows) // together))).map_batches(
            Worker,
            fn_constructor_args=(make, str(Path.cwd())),
            batch_size=None,
            # what waits for a worker dies with it, which a file that is alone must not see
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1 if retries else None),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=retries,
        )
    for batch in answers.iter_batches(batch_size=None, prefetch_batches=0):
        yield from zip(batch["number"].tolist(), batch["problem"].tolist(), strict=True)


class Worker:
    """What an actor does: the files of a batch, on as many threads as Ray gives it.

    Args:
        make: gives the work, which is made once.
        folder: that names of files are relative to.
    """

    def __init__(self, make: Callable[[], Work], folder: str) -> None:
        os.chdir(folder)
        self._work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What went wrong with each file, "" where nothing did."""
        import numpy

        jobs = [
            Job(Path(os.fsdecode(a)), Path(os.fsdecode(b)))
            for a, b in zip(batch["source"], batch["target"], strict=True)
        ]
        problems = [clipped(attempt(self._work, job) or "") for job in jobs]
        return {"number": batch["number"], "problem": numpy.array(problems, dtype=object)}


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected, with its own displays off: there is one already."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError("--ray needs Ray, which is not installed: pip install 'melvoc[ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        check_reachable(address)
        here = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        try:
            with _silent(), _handler_kept(signal.SIGTERM):
                ray.init(address or None, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise MelvocError(f"--ray {address}: no Ray cluster is found there ({reason(error)})") from error
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = (context.enable_progress_bars, context.max_errored_blocks), logger.level
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    logger.setLevel(logging.CRITICAL)
    try:
        yield ray
    finally:
        context.enable_progress_bars, context.max_errored_blocks = before
        logger.setLevel(level)
        if mine:
            ray.shutdown()


@contextmanager
def _handler_kept(number: signal.Signals) -> Iterator[None]:
    """Leave a signal's handler as it is: Ray sets its own for SIGTERM, which ends the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None:  # else it is not Python's, which cannot set it
            signal.signal(number, handler)


def check_reachable(address: str) -> None:
    """Check that something answers at `host:port`, for which Ray itself would try for minutes.

    Raises:
        MelvocError: nothing does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit() and int(port) < 2**16):
        return  # "auto", "local", or nothing
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise MelvocError(
            f"--ray {address}: nothing answers there ({error.strerror or reason(error)}); start a cluster with `ray "
            "start --head`, or omit the address to use this machine"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray's compiled part says off stderr: all of it while it starts, and later what is no fatal error."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
