"""One process at a time: who comes second waits, says so, and can be cancelled."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melvoc.errors import DownloadError
from melvoc.storage.lock import locked


def test_it_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with locked(path):
        assert path.exists()
    assert not path.exists()


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "x.lock", list[int](), list[int]()

    def hold(number: int) -> None:
        with locked(path):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(hold, range(6)))
    assert most == [1] * 6
    assert not path.exists()


def test_who_waits_says_so_and_gets_it(tmp_path: Path) -> None:
    path, told, enough = tmp_path / "x.lock", list[tuple[str, int, int]](), threading.Event()

    def hold() -> None:
        with locked(path):
            ready.set()
            enough.wait(30)

    def progress(*state: object) -> None:
        told.append(state)  # type: ignore[arg-type]
        enough.set()

    ready = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(hold)
        ready.wait(30)
        with locked(path, progress):
            assert other.result(30) is None
    assert (told[0], told[-1]) == (("wait", 0, 1), ("wait", 1, 1))


def test_who_stops_waiting_leaves_the_lock_to_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"

    def progress(*state: object) -> None:
        raise KeyboardInterrupt

    with locked(path):
        with pytest.raises(KeyboardInterrupt), locked(path, progress):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"melvoc's cache .* cannot be used"), locked(tmp_path / "file" / "x.lock"):
        pass
