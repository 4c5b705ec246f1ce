"""What the figures were measured on, and how much memory a vocoder takes."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from melvoc.vocoder import Vocoder

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): reset the peak resident set size


def environment(device: torch.device, packages: tuple[str, ...]) -> dict[str, str]:
    """The machine and the versions, for the report."""
    from melvoc import __version__

    found = {"melvoc": __version__, "Python": platform.python_version(), "system": platform.platform()}
    found["processor"] = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use"
    if device.type == "cuda":
        found["GPU"] = torch.cuda.get_device_name(device)
    for name in ("torch", "numpy", "scipy", "librosa", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Memory:
    """A vocoder's peak memory: its weights, and how far its device's use rises while it works.

    On a GPU that is what torch has allocated, on a CPU the process's resident memory, which only Linux tells.

    Attributes:
        weights: bytes.
        kept: bytes that the first call left behind (prepared weights, compiled code).
    """

    def __init__(self, vocoder: Vocoder) -> None:
        self._device = vocoder.device
        tensors = [*vocoder.parameters(), *vocoder.buffers()]
        self.weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.kept, self._before = 0, 0

    def start(self) -> None:
        """Before the vocoder works."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _release()
            try:
                _RESET.write_text(_RESET_PEAK)
            except OSError:
                self._before = -1
                return
        self._before = self._used()[0]

    def warmed(self) -> None:
        """After the vocoder's first work since `start`."""
        self.kept = max(0, self._used()[0] - self._before)

    def peak(self) -> int | None:
        """Bytes at most since `start`; None where the system does not tell."""
        if self._before < 0 or not (highest := self._used()[1]):
            return None
        return self.weights + self.kept + max(0, highest - self._before)

    def _used(self) -> tuple[int, int]:
        """Bytes in use now, and at most."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return torch.cuda.memory_allocated(self._device), torch.cuda.max_memory_allocated(self._device)
        try:
            found = dict(re.findall(r"Vm(RSS|HWM):\s+(\d+) kB", _STATUS.read_text()))
        except OSError:
            return 0, 0
        return int(found.get("RSS", 0)) * 1024, int(found.get("HWM", 0)) * 1024


def _release() -> None:
    """Give the system back what C's allocator keeps of freed memory, or the next vocoder would seem to need none."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _processor() -> str:
    try:
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
