"""Forked processes, in which the parent's threads are not there."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def after_fork(function: Callable[[], None]) -> None:
    """Run a function in every child that this process forks; without effect where there are no forks (Windows)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def torch_alone_after_fork() -> None:
    """Let torch begin with one thread in every forked child, as its DataLoader does for its workers.

    Torch's own threads (OpenMP's) do not survive a fork: the first parallel operation of a child whose parent had one
    waits for them for ever.
    """
    after_fork(lambda: torch.set_num_threads(1))
