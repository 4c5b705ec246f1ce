"""How a vocoder is loaded: one object for all sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch

from melvoc.errors import OptionError, quoted, reason
from melvoc.progress import Progress, check_progress

FETCHING = ("revision", "cache_dir", "local_files_only", "allow_unverified")
LOADS_OWN = frozenset({"device", "dtype", *FETCHING, "refine", "mmap", "prefix", "progress"})  # of `melvoc.load`


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options that every built-in vocoder takes when it is loaded.

    Attributes:
        device: "auto" (cuda, mps, cpu) or a torch device.
        dtype: the type to compute in. None: the automatic choice, which is float32.
        revision: of the repository, instead of the pinned one.
        cache_dir: root of both caches, instead of the Hub's and melvoc's own.
        local_files_only: never use the network.
        allow_unverified: accept a file that cannot be verified.
        engine: "auto" (the fastest exact one for the device) or "torch" (plain torch).
        memory: "auto", or "low" to keep the weights and what is made from them under 1.3 times their size, but slower.
        seed: of the noise that a vocoder begins with, from 0 up. None: the file's, or 0. One that draws no noise takes
            no seed.
        mmap: whether a file's weights are mapped into memory. False: they are read, and the file may change afterwards.
        progress: called with (stage, done, total) while it is fetched and loaded (`melvoc.progress`).

    Raises:
        OptionError: a device that is not available, or another value that is not allowed.
    """

    device: str | torch.device = "auto"
    dtype: torch.dtype | None = None
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    allow_unverified: bool = False
    engine: Literal["auto", "torch"] = "auto"
    memory: Literal["auto", "low"] = "auto"
    seed: int | None = None
    mmap: bool = True
    progress: Progress | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", pick_device(self.device))
        if self.dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise OptionError(
                f"dtype={self.dtype!r}, but it is a floating-point torch.dtype that networks compute in: float16, "
                "bfloat16, float32 or float64; or None"
            )
        if not isinstance(self.revision, str | None):
            raise OptionError(f"revision={self.revision!r}, but it is text: a branch, a tag or a commit")
        if self.engine not in ("auto", "torch"):
            raise OptionError(f"engine={self.engine!r}, but it is 'auto' or 'torch'")
        for name in ("local_files_only", "allow_unverified", "mmap"):
            check_flag(name, getattr(self, name))
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 2**63):
            raise OptionError(f"seed={self.seed!r}, but it is a whole number from 0 to 2^63 - 1")
        check_progress(self.progress)
        if self.memory not in ("auto", "low"):
            raise OptionError(f"memory={self.memory!r}, but it is 'auto' or 'low'")

    @property
    def place(self) -> torch.device:
        """The device, resolved."""
        return torch.device(self.device)

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], *, fetched: bool) -> Self:
        """From the options that a caller gave.

        Args:
            name: of the vocoder, for the message.
            given: options by name, including `device` and `dtype`.
            fetched: whether the vocoder may have to be downloaded; a local file takes no download options.

        Raises:
            OptionError: an option that the vocoder does not take.
        """
        known = [entry.name for entry in fields(cls) if fetched or entry.name not in FETCHING]
        for key in given:
            if key not in known:
                raise takes_no(name, key, [one for one in known if one != "seed"])  # which not every one takes
        return cls(**given)


def takes_no(name: str, key: str, known: Iterable[str]) -> OptionError:
    """The error for an option that a vocoder does not take; it lists those that are the vocoder's, not `load`'s."""
    listed = ", ".join(one for one in known if one not in LOADS_OWN)
    return OptionError(f"{name} takes no option {key!r}; it takes {listed or 'none'}")


def check_flag(name: str, value: object) -> None:
    """Check that an option that is on or off is a bool: a text would be on whatever it says.

    Raises:
        OptionError: it is not.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name}={quoted(value)}, but it is True or False")


def pick_device(device: str | int | torch.device) -> torch.device:
    """The device, "auto" meaning the best available: cuda, then mps, then the CPU.

    Raises:
        OptionError: a device that torch does not know or does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise OptionError(f"device={quoted(device)} is not available: {_why_not(device, error)}") from error


def _why_not(device: object, error: Exception) -> str:
    """What is wrong with a device, without torch's list of all that it was ever built for."""
    there = ["cpu"] + ["mps"] * torch.backends.mps.is_available()
    there += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    kind = str(device).partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        why = "melvoc runs on 'cpu', 'cuda' and 'mps'"
    elif not any(name.startswith(kind) for name in there):
        why = f"torch finds no {kind.upper()} here"
    else:
        why = reason(error).rstrip(".")
    return f"{why}; use 'auto', or what there is: {', '.join(map(repr, there))}"
