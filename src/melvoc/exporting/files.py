"""`melvoc.export`: a vocoder as a file for another runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from torch import nn

from melvoc.errors import MelvocError, OptionError, quoted
from melvoc.exporting.graph import Builder, Signal
from melvoc.exporting.metadata import describe
from melvoc.exporting.nodes import lower
from melvoc.host import public
from melvoc.post.refine import Refine, refined
from melvoc.storage.atomic import replacing
from melvoc.vocoder import Vocoder


def onnx_model(vocoder: Vocoder) -> bytes:
    """The ONNX model of a vocoder."""
    builder = Builder()
    spec = vocoder.spec
    inputs = {"mel": spec.n_mels} | {name: one.channels for name, one in vocoder.conditions.items()}
    frames = Signal(builder.concatenate(list(inputs), 1), sum(inputs.values()))
    wave = lower(builder, vocoder.graph(), frames)
    audio = builder.node("Clip", wave.name, -1.0, 1.0)
    return builder.finish(
        {name: ("float32", ["batch", channels, "frames"]) for name, channels in inputs.items()},
        {"audio": (audio, "float32", ["batch", vocoder.channels, "samples"])},
        describe(vocoder, 0),
        "melvoc",
    )
