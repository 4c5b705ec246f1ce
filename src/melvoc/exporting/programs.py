"""`.pt2` files: the network as a program of torch.export."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melvoc.errors import MelvocError, reason
from melvoc.exporting.context import context_frames
from melvoc.exporting.metadata import describe
from melvoc.post import PostStep
from melvoc.vocoder import Vocoder

LONG = 300  # frames: more than melvoc works on at a time anywhere


class _Program(nn.Module):
    """What is exported: frames in, sound in [-1, 1] out."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, mel: Tensor, *conditions: Tensor) -> Tensor:
        frames = torch.cat([mel, *conditions], dim=1) if conditions else mel
        return self.vocoder.forward(frames).clamp(-1.0, 1.0)


def write_program(vocoder: Vocoder, steps: tuple[PostStep, ...], path: Path) -> None:
    """Write a vocoder's program, with its metadata as extra files.

    Raises:
        MelvocError: the vocoder has steps after its network, or torch.export does not understand the network.
    """
    if steps:
        kinds = ", ".join(step.kind for step in steps)
        raise MelvocError(f".pt2: the network alone becomes a program, not {kinds}; give refine=0, or write .onnx")
    channels = [vocoder.spec.n_mels, *(one.channels for one in vocoder.conditions.values())]
    example, longer = (
        tuple(torch.zeros(batch, count, frames, device="cpu") for count in channels)
        for batch, frames in ((2, 7), (1, LONG))
    )
    dynamic = {0: _any_length(), 2: _any_length()}
    shapes = (dynamic, tuple(dynamic for _ in channels[1:]))[: len(channels)]
    plain = _Program(vocoder)
    with _evaluating(plain):
        plain(*example)  # what is made once and kept is made of numbers now, not of torch.export's stand-ins
        try:
            with _quiet():
                program = torch.export.export(plain, example, dynamic_shapes=shapes, strict=False)
                program.module()(*longer)  # it may hold for some lengths only, and not say so before
        except Exception as error:  # whatever stops it is a property of the network
            raise MelvocError(f"{vocoder.name} cannot become a .pt2: torch.export says: {reason(error)}") from error
    said = describe(vocoder, steps)
    if vocoder.can_stream and (context := context_frames(vocoder)):
        said["melvoc.context_frames"] = json.dumps(context)
    torch.export.save(program, path, extra_files=said)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards in its own again, with all that is in it."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode


def _any_length() -> Any:
    """A dimension without a name: of one with a name, torch.export wants to prove more about strides than it can.

    Raises:
        MelvocError: a torch that has none.
    """
    kind = getattr(torch.export.Dim, "DYNAMIC", None)
    if kind is None:
        raise MelvocError("a .pt2 needs torch 2.6, and this one is older; update torch, or write .onnx")
    return kind


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's log, where a program that fails fills pages: the error says what went wrong."""
    handlers = tuple(logging.getLogger("torch").handlers)
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
