"""Loads vocoders in a process of its own, since the Hub's client reads HF_ENDPOINT and the like when it is imported.

A line of JSON in, `{"name": ..., **options}`, is one load, or another of CALLS; a line of JSON out says what came of
it, with melvoc's log.
PINS holds the changes to the table of published checkpoints.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import melvoc
from melvoc import registry
from melvoc.storage import inventory


def changed() -> dict[str, object]:
    """The table of pins, with the changes."""
    table = registry.pins()
    for name, row in json.loads(os.environ.get("PINS", "{}")).items():
        record, pin = table[name]
        config = {"config": record.config.from_dict(row["config"])} if "config" in row else {}
        table[name] = record, dataclasses.replace(pin, **{**row, **config})
    return table


def digest(vocoder: melvoc.Vocoder) -> str:
    whole = hashlib.sha256()
    for key, tensor in sorted(vocoder.state_dict().items()):
        whole.update(key.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def digest_of(name: str, **options: Any) -> dict[str, Any]:
    vocoder = melvoc.load(name, device="cpu", **options)
    return {"digest": digest(vocoder), "name": vocoder.name, "provenance": vocoder.provenance}


def fetch(name: str, *, files: list[str], revision: str, cache_dir: str | None = None) -> dict[str, Any]:
    """What another program does that uses the Hub's client: the files lie in the client's own cache."""
    from huggingface_hub import hf_hub_download

    theirs = None if cache_dir is None else Path(cache_dir) / "huggingface"
    return {"files": [hf_hub_download(name, file, revision=revision, cache_dir=theirs) for file in files]}


def cached(name: str, **options: Any) -> dict[str, Any]:
    listed = {known: [str(path) for path in paths] for known, paths in melvoc.cached(**options).items()}
    return {"cached": melvoc.info(name, **options).cached, "all": listed}


def info(name: str, **options: Any) -> dict[str, Any]:
    known = melvoc.info(name, **options)
    return {"name": known.name, "revision": known.revision, "cached": known.cached, "parameters": known.parameters}


def settings(name: str) -> dict[str, Any]:
    """What is left of melvoc's silencing of the Hub's client."""
    from huggingface_hub import utils

    ignored = any("huggingface_hub" in str(entry) for entry in warnings.filters)
    level = logging.getLevelName(logging.getLogger("huggingface_hub").level)
    return {"level": level, "bars": not utils.are_progress_bars_disabled("huggingface_hub"), "ignored": ignored}


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "load": digest_of, "fetch": fetch, "cached": cached, "info": info, "settings": settings,
    "download": lambda name, **options: {"path": str(melvoc.download(name, **options))},
    "prune": lambda name, **options: {
        "freed": {str(path): size for path, size in inventory.prune(**options).items()}
    },
}  # fmt: skip


class StoppedError(Exception):
    """Raised by a progress function."""


class Watching:
    """A progress function that records its calls, and raises in one stage at so much done or in so many calls."""

    def __init__(self, stage: str | None = None, done: int = 0, calls: int = 1) -> None:
        self.stage, self.done, self.calls, self.thread = stage, done, calls, threading.current_thread()
        self.events: list[tuple[str, int, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        assert threading.current_thread() is self.thread
        self.events.append((stage, done, total))
        self.calls -= stage == self.stage and done >= self.done
        if stage == self.stage and self.calls <= 0:
            raise StoppedError(stage)


def answer_to(
    name: str,
    call: str = "load",
    progress: dict[str, Any] | None = None,
    free: int | None = None,
    full: bool = False,
    **options: Any,
) -> dict[str, Any]:
    watching = None if progress is None else Watching(**progress)
    if watching:
        options["progress"] = watching
    patches = ExitStack()
    if free is not None:
        patches.enter_context(mock.patch("shutil.disk_usage", return_value=types.SimpleNamespace(free=free)))
    if full:
        patches.enter_context(mock.patch("safetensors.torch.save_file", no_space))
    try:
        with patches:
            answer = CALLS[call](name, **options)
    except (melvoc.MelvocError, StoppedError) as error:
        answer = {"error": type(error).__name__, "message": str(error), "reason": getattr(error, "reason", None)}
        answer["path"] = getattr(error, "path", None)
    return answer | ({"events": watching.events} if watching else {})


class Kept(logging.Handler):
    """Keeps melvoc's log lines for the next answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("melvoc").addHandler(self)
        logging.getLogger("melvoc").setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    log = Kept()
    torch.set_num_threads(1)
    table = changed()
    registry.pins = lambda: table
    for line in sys.stdin:
        answer = answer_to(**json.loads(line))
        answer["log"], log.lines = log.lines, []
        answer["client"] = str(getattr(sys.modules.get("huggingface_hub"), "__version__", None))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
