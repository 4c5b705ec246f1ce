"""Spectrogram pictures as PNGs, for a report that needs no plotting library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.metrics.mel_l1 import common_spec
from melvoc.spectrogram.transform import DB_PER_NEPER, MelSpectrogram

RANGE = 80.0  # dB below the reference's loudest point that a picture shows
SWING = 20.0  # dB of a difference's strongest colour
_WIDTH = 640  # pixels at most; longer sounds have several frames per pixel

# Colours at equal distances: of a level, dark to bright, and of a difference, from too little to too much.
LEVELS = (
    (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
    (252, 255, 164),
)  # fmt: skip
DIFFERENCES = ((94, 200, 255), (30, 96, 200), (18, 20, 26), (196, 74, 24), (255, 190, 84))


def decibels(wave: Tensor, sample_rate: int) -> Tensor:
    """The level of each band and frame, in dB: of a sound `[C, N]` the mean of its channels' `[128, T]`."""
    mel = MelSpectrogram(common_spec(sample_rate)).stream(cover=True)
    level = torch.cat([mel.push(wave), mel.flush()], -1).mean(0) * DB_PER_NEPER
    return F.adaptive_avg_pool1d(level, _WIDTH) if level.shape[-1] > _WIDTH else level


def level_picture(level: Tensor, top: float) -> bytes:
    """A PNG of levels in dB `[bands, T]`, low bands at the bottom: from `top - RANGE` to `top`."""
    return png(((level - top) / RANGE + 1).flip(0), LEVELS)


def difference_picture(level: Tensor, reference: Tensor, top: float) -> bytes:
    """A PNG of how far levels in dB are above those of a reference or below; what lies below both ranges is equal."""
    low = top - RANGE
    difference = level.clamp(min=low) - reference.clamp(min=low)
    return png((difference / (2 * SWING) + 0.5).flip(0), DIFFERENCES)


def png(values: Tensor, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """A picture of values.

    Args:
        values: `[height, width]`; 0 is the first colour, 1 the last, and what lies beyond is limited to them.
        colours: at least two, at equal distances.

    Returns:
        A PNG of 256 colours.
    """
    height, width = values.shape
    anchors = torch.tensor(colours, dtype=torch.float32, device="cpu").T[None]
    palette = F.interpolate(anchors, 256, mode="linear", align_corners=True)[0].T.round().to(torch.uint8)
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    rows = F.pad(pixels, (1, 0)).numpy().tobytes()  # each row begins with its filter, 0: none
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits of a palette
    parts = ((b"IHDR", header), (b"PLTE", palette.numpy().tobytes()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
