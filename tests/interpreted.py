"""The GPU kernels under Triton's interpreter, which runs them on the CPU with NumPy, for several test modules.

Whether a function is interpreted is decided where it is decorated. So this makes a private copy of the kernel module
with the switch on; the module that the library imports is left alone, and so is the environment.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

import melvoc.nn.engines.cuda.launch as launch
from melvoc.nn.engines.cuda.launch import Kernels

pytest.importorskip("triton", reason="needs Triton, whose interpreter runs the kernels here")

LANES = 256  # a program costs the interpreter the same whatever its size, so that few and large ones are faster


@contextmanager
def interpreting() -> Iterator[None]:
    with mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1"}):
        yield


def interpreted_module() -> ModuleType:
    path = Path(launch.__file__).with_name("kernel.py")
    spec = importlib.util.spec_from_file_location("kernel_interpreted", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with interpreting():
        spec.loader.exec_module(module)
    return module


def interpreted_kernels(lanes: int = LANES) -> Kernels:
    """Kernels that run on CPU tensors; call them inside `interpreting`."""
    return Kernels(interpreted_module(), devices=("cpu",), lanes=lanes)
