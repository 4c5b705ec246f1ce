"""Noise as a pure function of place: the same in one piece or many, alone or in a batch, on every engine.

The generator is counter-based (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): Philox 4x32 with
ten rounds makes four 32-bit words of a counter and a key, without a state. The counter is where the number stands

    word 0, 1   the sample's position, its low and its high half
    word 2      the channel divided by four (the remainder selects one of the four words)
    word 3      the row of the batch

and the key is the seed. Box and Muller's transform makes two normal numbers of two words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from melvoc.nn.graph import Engine, Machine

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
STEPS = (0x9E3779B9, 0xBB67AE85)  # added to the key from round to round
ROUNDS = 10
WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Noise:
    """Independent standard normal numbers, as many samples as the input has, whose values do not matter.

    A number depends on the seed, the row, the channel and the position of the sample, and on nothing else. At a faster
    rate, `Chain((Noise(256, seed), ToSamples(256)))` is cheaper than `Chain((Repeat(256), Noise(1, seed)))`: four
    channels cost as much as one.

    Args:
        channels: of the output.
        seed: from 0 to 2^64 - 1.
        by_row: whether each row has its own numbers. False: all have those of row 0, so that what is made of a row does
            not depend on its place in a batch, as `melvoc.testing.check_vocoder` asks of a vocoder.

    Shape:
        `[B, C, N]` to `[B, channels, N]`, of the input's type and device.

    Raises:
        ValueError: a seed outside of that range.

    >>> noise, x = Noise(3, seed=1), torch.zeros(2, 1, 5)
    >>> bool((noise(x)[:, :, :2] == noise(x[..., :2])).all())
    True
    """

    channels: int
    seed: int = 0
    by_row: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed={self.seed}, but a seed is from 0 to 2^64 - 1; take its remainder")

    def __call__(self, x: Tensor) -> Tensor:
        return self.at(x, torch.zeros(1, dtype=torch.int64, device=x.device), None)

    def at(self, x: Tensor, position: Tensor, rows: Tensor | None) -> Tensor:
        """The noise for a piece.

        Args:
            x: the piece `[B, C, n]`.
            position: `[1]`, int64, of its first sample.
            rows: `[B]`, int64, of the batch; None for 0, 1, 2, ...
        """
        place = (position + torch.arange(x.shape[-1], device=x.device))[None, None]
        group = torch.arange(-(-self.channels // 4), device=x.device)[None, :, None]
        row = (torch.arange(x.shape[0], device=x.device) if rows is None else rows.to(x.device))[:, None, None]
        row = row if self.by_row else torch.zeros_like(row)
        words = philox((place & WORD, place >> 32, group, row), (self.seed & WORD, self.seed >> 32))
        exact = torch.float32 if x.device.type == "mps" else torch.float64  # MPS has no other
        numbers = [*_normal(words[0], words[1], exact), *_normal(words[2], words[3], exact)]
        return torch.stack(numbers, dim=2).flatten(1, 2)[:, : self.channels].to(x.dtype)

    def open(self, engine: Engine) -> Machine:
        """A machine that knows its position."""
        return NoiseMachine(self)

    def delay(self, samples: int) -> int:
        """No look-ahead."""
        return samples


class NoiseMachine(Machine):
    """Runs `Noise`. The position is a tensor: a recorded step reads it where it runs."""

    state = ("position",)

    def __init__(self, node: Noise) -> None:
        self.node = node
        self.position: Tensor | None = None
        self.rows: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not x.shape[-1]:
            return x
        if self.position is None:
            self.position = torch.zeros(1, dtype=torch.int64, device=x.device)
        noise = self.node.at(x, self.position, self.rows)
        self.position = self.position + x.shape[-1]
        return noise

    def of_rows(self, rows: Tensor) -> None:
        """See `Machine.of_rows`."""
        self.rows = rows


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox 4x32-10.

    Args:
        counter: four words each, int64 tensors from 0 to 2^32 - 1 that broadcast.
        key: two such words.

    Returns:
        Four words each, int64 tensors of the joint shape.
    """
    a, b, c, d = counter
    for number in range(ROUNDS):
        low, high = ((word + number * step) & WORD for word, step in zip(key, STEPS, strict=True))
        (top, first), (bottom, second) = _product(MULTIPLIERS[0], a), _product(MULTIPLIERS[1], c)
        a, b, c, d = (bottom ^ b ^ low) & WORD, second, (top ^ d ^ high) & WORD, first
    return a, b & WORD, c, d & WORD


def _product(factor: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low word of products, with bits above the low one that a mask has to take away.

    64 signed bits do not hold a product with a factor from 2^31 on. They do with the factor less 2^32: its product has
    the same low word, and the high one lacks the word itself.
    """
    short = words * (factor - (1 << 32))
    return (short >> 32) + words, short


def _normal(first: Tensor, second: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers of two words: 23 bits of the first, never 0, and 24 of the second."""
    uniform = ((first >> 9) * 2 + 1).to(dtype) * 2.0**-24
    angle = (second >> 8).to(dtype) * (math.tau * 2.0**-24)
    radius = uniform.log().mul(-2.0).sqrt()
    return radius * angle.cos(), radius * angle.sin()
