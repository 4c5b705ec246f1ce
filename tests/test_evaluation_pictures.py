"""Pictures without a plotting library: what is in the PNG is what was meant."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
import torch
from torch import Tensor

from melvoc.evaluation.pictures import (
    DIFFERENCES,
    LEVELS,
    RANGE,
    SWING,
    decibels,
    difference_picture,
    level_picture,
    png,
)


def decoded(picture: bytes) -> Tensor:
    """The `[height, width, 3]` colours of a PNG with a palette, by the format's own description."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(picture):
        length, kind = struct.unpack(">I4s", picture[place : place + 8])
        content = picture[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", picture[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content), kind
        chunks[kind], place = content, place + 12 + length
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (8, 3, [0, 0, 0])
    rows = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).view(height, width + 1)
    assert not rows[:, 0].any(), "no filter"
    palette = torch.frombuffer(bytearray(chunks[b"PLTE"]), dtype=torch.uint8).view(256, 3)
    return palette[rows[:, 1:].long()]


def test_values_become_the_colours_between_the_anchors() -> None:
    picture = decoded(
        png(torch.tensor([[0.0, 0.5, 1.0], [-3.0, 0.25, 7.0]]), ((0, 0, 0), (200, 100, 0), (255, 255, 255)))
    )
    assert picture.shape == (2, 3, 3)
    torch.testing.assert_close(picture[0, 0], torch.tensor([0, 0, 0], dtype=torch.uint8))
    assert (picture[0, 1].int() - torch.tensor([200, 100, 0])).abs().max() <= 1
    assert (picture[1, 1].int() - torch.tensor([100, 50, 0])).abs().max() <= 1
    assert picture[1, [0, 2]].tolist() == picture[0, [0, 2]].tolist(), "beyond the ends is the end"


def test_another_program_reads_it() -> None:
    image = pytest.importorskip("matplotlib.image")
    values = torch.rand(5, 9)
    read = torch.from_numpy(image.imread(io.BytesIO(png(values, LEVELS)), format="png"))[..., :3]
    assert (read * 255 - decoded(png(values, LEVELS))).abs().max() < 1e-3


def test_low_bands_are_at_the_bottom() -> None:
    level = torch.tensor([[0.0], [-RANGE]])
    assert decoded(level_picture(level, top=0.0))[:, 0].tolist() == [list(LEVELS[0]), list(LEVELS[-1])]


def test_a_difference_has_one_colour_for_too_much_and_one_for_too_little() -> None:
    reference = torch.tensor([[0.0, 0.0, 0.0, -150.0]])
    picture = decoded(difference_picture(reference + torch.tensor([[0.0, SWING, -SWING, 60.0]]), reference, top=0.0))
    middle, much, little, below = picture[0].tolist()
    assert (much, little) == (list(DIFFERENCES[-1]), list(DIFFERENCES[0]))
    assert max(abs(a - b) for a, b in zip(middle, DIFFERENCES[2], strict=True)) <= 2
    assert below == middle, "what lies below the range of both is equal"


def test_a_tone_is_in_its_band_and_long_sounds_are_no_wider() -> None:
    time = torch.arange(22050 * 30) / 22050
    level = decibels(torch.sin(2 * torch.pi * 1000 * time)[None], 22050)
    assert level.shape == (128, 640)
    band = int(level.mean(1).argmax())
    from melvoc.metrics.mel_l1 import common_spec

    edges = common_spec(22050).band_edges()
    assert edges[band] <= 1000 <= edges[band + 2]
    assert decibels(torch.zeros(2, 10), 44100).shape[0] == 128, "the shortest sound has a picture"
