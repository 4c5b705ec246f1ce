"""onnxruntime's sessions: made when they are needed, on as many threads as torch has, and in forked children too."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.errors import (
    CheckpointError,
    MelvocError,
    MissingCheckpointError,
    MissingPackageError,
    OptionError,
    reason,
)
from melvoc.storage.reading import exists, first_bytes

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SILENT = 4  # onnxruntime's log: what is wrong is in its errors


MOST = 2  # sessions of a process, for devices and numbers of threads: each has all the weights


class Session:
    """A graph, run by onnxruntime.

    Inside is one session of onnxruntime's for each device, number of threads and process. Copies, pickles and forked
    children read the file again.

    Args:
        path: of the file.

    Attributes:
        path: the same, absolute.

    Raises:
        MissingPackageError: without onnxruntime.
    """

    def __init__(self, path: str) -> None:
        onnxruntime()
        self.path = str(Path(path).expanduser().absolute())
        self._made: dict[tuple[int, str, int], Any] = {}

    def on(self, device: torch.device) -> Any:
        """onnxruntime's session for a device.

        Raises:
            OptionError: onnxruntime cannot use the device.
            CheckpointError: no such file, or one that onnxruntime cannot read.
        """
        key = (os.getpid(), str(device), torch.get_num_threads())
        if (made := self._made.get(key)) is None:
            made = self._open(device)
            mine = [(one, session) for one, session in self._made.items() if one[0] == key[0]]
            self._made = dict(mine[1 - MOST :]) | {key: made}
        return made

    def run(self, inputs: Mapping[str, Tensor], device: torch.device) -> list[Tensor]:
        """All outputs, on the CPU.

        Raises:
            MelvocError: the graph does not run on these inputs.
        """
        session = self.on(device)
        try:
            found = session.run(None, {name: value.detach().cpu().numpy() for name, value in inputs.items()})
        except Exception as error:
            given = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise MelvocError(
                f"{self.path}: its graph does not run on {given} ({_why(error)}); give a longer mel, or export it again"
            ) from error
        return [torch.from_numpy(array) for array in found]

    def _open(self, device: torch.device) -> Any:
        runtime, provider = onnxruntime(), provider_of(device)
        if not exists(self.path):
            raise MissingCheckpointError(f"{self.path}: no such file; check the path", path=self.path)
        first_bytes(self.path, 1)  # the system's own reason, where it does not open
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), _SILENT
        try:
            session = runtime.InferenceSession(self.path, options, providers=[provider])
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: damaged, or no ONNX model that onnxruntime {runtime.__version__} can run "
                f"({_why(error)}); export or download it again",
                path=self.path,
            ) from error
        if session.get_providers()[0] != provider[0]:
            raise OptionError(
                f"device={str(device)!r}: onnxruntime does not start {provider[0]}, and would use the CPU; install the "
                "CUDA that it was built for, or pass device='cpu'"
            )
        _SESSIONS.add(session)
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_made": {}}


def _why(error: Exception) -> str:
    """onnxruntime's reason, without its code and the path."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?", "", reason(error)).rstrip(".")


_SESSIONS: weakref.WeakSet[Any] = weakref.WeakSet()


def _keep_inherited() -> None:
    """The end of a session waits for its threads, which a forked child does not have: there, the parent's never end."""
    for session in _SESSIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _SESSIONS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)


def onnxruntime() -> Any:
    """The package.

    Raises:
        MissingPackageError: it is not there.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingPackageError(f"ONNX files need onnxruntime ({error}); pip install 'melvoc[onnx]'") from error


def provider_of(device: torch.device) -> tuple[str, dict[str, int]]:
    """What onnxruntime calls a device, and its options for it.

    Raises:
        OptionError: it cannot use the device.
    """
    name, there = _PROVIDERS.get(device.type), onnxruntime().get_available_providers()
    if name is None or name not in there:
        raise OptionError(
            f"device={str(device)!r}, but this onnxruntime has {', '.join(there)}; pass device='cpu', or, for CUDA, "
            "install onnxruntime-gpu instead of onnxruntime"
        )
    return name, {"device_id": device.index or 0} if device.type == "cuda" else {}


def best_device() -> str:
    """What "auto" means: cuda, where torch and onnxruntime have it, else the CPU."""
    both = torch.cuda.is_available() and _PROVIDERS["cuda"] in onnxruntime().get_available_providers()
    return "cuda" if both else "cpu"
