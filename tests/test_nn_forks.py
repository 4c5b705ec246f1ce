"""Locks in processes that fork."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

import melvoc
from melvoc.nn.forks import ForkLock

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")


@forks
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_lock_that_another_thread_holds_is_open_in_a_forked_child(reentrant: bool) -> None:
    lock, taken, done = ForkLock(reentrant=reentrant), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    pid = os.fork()
    if not pid:
        os._exit(0 if lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not lock.acquire(blocking=False)
    done.set()
    holder.join()
    assert lock.acquire(blocking=False)
    lock.release()


def test_every_lock_of_melvocs_is_open_in_a_forked_child() -> None:
    """`threading`'s own are not; these files open theirs themselves."""
    source = Path(melvoc.__file__).parent
    found = {path.name for path in source.rglob("*.py") if re.search(r"threading\.R?Lock\b", path.read_text())}
    assert found == {"forks.py", "host.py", "threads.py", "compile.py"}  # the last is numba's
