"""Kernels are compiled once per machine, and the log says when."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
