"""What a vocoder promises of the process around it: threads, forks, and what the host has set."""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.testing.case import Case
from melvoc.vocoder import Vocoder

PATIENCE = 60.0  # seconds for a forked child


def settings() -> dict[str, Any]:
    """What the host may have set, by what it is called in a message."""
    import numpy

    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.empty(0).device,
        "torch's number of threads": torch.get_num_threads(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's autocast": torch.is_autocast_enabled("cpu"),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's random numbers": torch.get_rng_state().numpy().tobytes(),
        "Python's random numbers": random.getstate(),
        "NumPy's random numbers": repr(numpy.random.get_state()),
        "NumPy's error handling": numpy.geterr(),
        "the warnings' filters": list(warnings.filters),
        "the log's level": logging.getLogger().level,
        "the environment": dict(os.environ),
        "the working folder": os.getcwd(),  # noqa: PTH109
        "sys.path": list(sys.path),
    }


def weights(vocoder: Vocoder) -> dict[str, Any]:
    """Of each parameter and buffer a sum, and whether it is in training mode."""
    tensors = [*vocoder.named_parameters(), *vocoder.named_buffers()]
    sums = {name: str(tensor.detach().double().sum().item()) for name, tensor in tensors}
    return sums | {"training mode": vocoder.training}


def threads(case: Case) -> None:
    """Several callers at once get what each gets alone."""
    rows = (0, 1, 0, 1)
    together = threading.Barrier(len(rows))

    def call(row: int) -> Tensor:
        together.wait()
        return case.sound(slice(row, row + 1))

    with ThreadPoolExecutor(len(rows)) as pool:
        for row, got in zip(rows, pool.map(call, rows), strict=True):
            expected = case.alone(row)
            case.same(
                got, expected, "a call is another one while another thread calls too; keep nothing of a call in self"
            )


def fork(case: Case) -> None:
    """A forked child gets what the parent gets; only where there are forks, and on a CPU."""
    if not hasattr(os, "fork") or case.vocoder.device.type != "cpu":
        return
    expected, count = case.whole, torch.get_num_threads()

    def child() -> str:
        got = case.sound()
        if torch.get_num_threads() != count:
            return "torch has another number of threads afterwards"
        torch.set_num_threads(1)  # for the comparison: torch's own threads are not there
        apart = float((got - expected).abs().max())
        return "" if apart <= case.tolerance else f"its sound is {apart:.3g} apart from the parent's"

    problem = _in_a_child(child)
    case.require(not problem, f"in a forked child {problem}; make threads and locks when they are first needed there")


def _in_a_child(work: Callable[[], str]) -> str:
    """What a forked child says, or that it hangs or has ended."""
    _let_threads_end()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = work()
        except BaseException as error:
            said = f"it raised {type(error).__name__}: {error}"
        os.write(write, b"done" + said.encode(errors="replace")[:2000])
        os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], PATIENCE)
        said = os.read(read, 4096).decode() if ready else ""
        if not ready:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(read)
        os.waitpid(pid, 0)
    return said.removeprefix("done") if said else "it ended" if ready else f"it hangs (for {PATIENCE:g} s)"


def _let_threads_end() -> None:
    """Wait until threads that were joined are gone, with those that OpenMP had started for them; at most two seconds.

    Python has joined a thread when its last line has run. What frees its memory runs after that, and a fork in that
    moment leaves a child with a lock of MKL's that nobody will open: it waits there for ever.
    """
    tasks = Path("/proc/self/task")
    count, since, end = -1, time.monotonic(), time.monotonic() + 2.0
    while tasks.is_dir() and time.monotonic() < min(since + 0.05, end):
        if (now := len(list(tasks.iterdir()))) != count:
            count, since = now, time.monotonic()
        time.sleep(0.005)
