"""Kernels are compiled once per machine, and the log says when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_USE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("numba").setLevel(logging.WARNING)
from melvoc.nn.engines.cpu.tanh import tanh
print("imported")
assert tanh.address
assert tanh.address
"""


def said(cache: Path) -> list[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", FIRST_USE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_first_compilation_of_all_is_one_line_of_the_log(tmp_path: Path) -> None:
    first, line, *more = said(tmp_path)
    assert (first, more) == ("imported", [])
    assert line.startswith("melvoc.nn.engines.cpu.compile INFO compiling kernels for this processor")
    assert said(tmp_path) == ["imported"], "a later process finds them"


@pytest.mark.parametrize("what", ["part", "routine"])
def test_a_disk_that_is_full_only_costs_the_cache(tmp_path: Path, what: str) -> None:
    code = (
        "import errno, os\n"
        "from numba.core import caching\n"
        "def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "caching.IndexDataCacheFile._save_data = full\n"
        "from melvoc.nn.engines.cpu.compile import routine\n"
        "from melvoc.nn.engines.cpu.tanh import tanh\n"
        "@routine\n"
        "def double(x): return 2 * x\n" + {"part": "assert tanh.address\n", "routine": "assert double(4) == 8\n"}[what]
    )
    file = tmp_path / "program.py"
    file.write_text(code)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "numba finds no folder where it may keep compiled kernels" in done.stderr
