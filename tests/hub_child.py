"""Loads vocoders in a process of its own, since the Hub's client reads HF_ENDPOINT and the like when it is imported.

A line of JSON in, `{"name": ..., **options}`, is one load; a line of JSON out says what came of it, with melvoc's log.
PINS holds the changes to the table of published checkpoints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import sys

import torch

import melvoc
from melvoc import registry


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


def load(name: str, **options: object) -> dict[str, object]:
    try:
        vocoder = melvoc.load(name, device="cpu", **options)
    except melvoc.MelvocError as error:
        return {"error": type(error).__name__, "message": str(error), "reason": getattr(error, "reason", None)}
    return {"digest": digest(vocoder), "name": vocoder.name, "provenance": vocoder.provenance}


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
        answer = load(**json.loads(line))
        answer["log"], log.lines = log.lines, []
        answer["client"] = str(getattr(sys.modules.get("huggingface_hub"), "__version__", None))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
