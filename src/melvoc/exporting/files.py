"""`melvoc.export`: a vocoder as a file for another runtime."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Literal

import torch

from melvoc.errors import MelvocError, OptionError, kind_of, quoted
from melvoc.exporting.models import onnx_model, streaming_model
from melvoc.exporting.programs import write_program
from melvoc.griffinlim import GriffinLim
from melvoc.host import public
from melvoc.onnx.vocoder import OnnxVocoder
from melvoc.options import check_flag
from melvoc.post.refine import refined
from melvoc.storage.atomic import replacing
from melvoc.vocoder import Vocoder

SUFFIXES = (".onnx", ".pt2")
TARGETS = ("onnx", "sherpa")


@public
@torch.no_grad()
def export(
    vocoder: Vocoder,
    path: str | os.PathLike[str],
    *,
    target: Literal["onnx", "sherpa"] = "onnx",
    refine: int | None = None,
    streaming: bool = False,
) -> None:
    """Write a vocoder to a file for another runtime (docs/export.md). It is written completely or not at all.

    Args:
        vocoder: with a network; its weights are written in float32, whatever their type.
        path: ends in .onnx (for ONNX Runtime, its web build among others) or .pt2 (for `torch.export.load`).
        target: "onnx": mel `[batch, n_mels, frames]` in, audio `[batch, channels, samples]` in [-1, 1] out. "sherpa":
            as sherpa-onnx reads it, for one channel and without conditions.
        refine: rounds of refinement that become part of the graph. None: the vocoder's.
        streaming: whether it takes a mel in pieces, with its state as further inputs and outputs; the network alone.

    Raises:
        OptionError: another suffix or target, or a combination that does not exist.
        MissingPackageError: .onnx without the package onnx.
        MelvocError: a vocoder that cannot be exported, and why.

    Example: `melvoc.export(melvoc.load("hifigan_universal_v1"), "voc.onnx")`.
    """
    suffix = Path(os.fsdecode(path)).suffix
    if suffix not in SUFFIXES:
        raise OptionError(f"{os.fsdecode(path)} ends in {suffix or 'nothing'}, but a file is .onnx or .pt2; rename it")
    check_flag("streaming", streaming)
    if target not in TARGETS:
        raise OptionError(f"target={quoted(target)}, but it is one of {', '.join(TARGETS)}")
    if target == "sherpa" and suffix != ".onnx":
        raise OptionError(f"target='sherpa' with {suffix}, but sherpa-onnx reads .onnx; write one")
    if streaming and (target == "sherpa" or suffix != ".onnx"):
        raise OptionError(f"streaming with target={target!r} and {suffix}, but it is for .onnx, target='onnx'; omit it")
    plain = _in_float32(vocoder)
    steps = plain.post if refine is None else refined(plain.post, refine)
    try:
        with replacing(path) as temporary:
            if suffix == ".pt2":
                write_program(plain, steps, temporary)
            elif streaming:
                temporary.write_bytes(streaming_model(plain, steps))
            else:
                temporary.write_bytes(onnx_model(plain, steps, sherpa=target == "sherpa"))
    except OSError as error:
        reason = error.strerror or error
        raise MelvocError(
            f"{os.fsdecode(path)}: cannot be written ({reason}); does the folder exist, with room in it?"
        ) from error


def _in_float32(vocoder: Vocoder) -> Vocoder:
    """The vocoder on the CPU in float32: a copy, unless it is.

    Raises:
        OptionError: it is no vocoder.
        MelvocError: one without a network.
    """
    if not isinstance(vocoder, Vocoder):
        raise OptionError(f"vocoder is {kind_of(vocoder)}, but export takes a melvoc.Vocoder; melvoc.load gives one")
    if isinstance(vocoder, GriffinLim):
        raise MelvocError(
            f"{vocoder.name} cannot be exported: Griffin-Lim has no network, but goes over the whole sound again and "
            "again; export a neural vocoder (melvoc list), and where none fits the mel, train one (melvoc train)"
        )
    if isinstance(vocoder, OnnxVocoder):
        raise MelvocError(
            f"{vocoder.name} is an ONNX file already; copy it, or export the vocoder that it was made from"
        )
    if vocoder.device.type == "cpu" and vocoder.dtype == torch.float32:
        return vocoder
    return copy.deepcopy(vocoder).to("cpu", torch.float32)
