"""The noise of `melvoc.nn.noise` in an ONNX graph: the same numbers of the same seed, in whole-number arithmetic."""

from __future__ import annotations

import math

import numpy as np

from melvoc.exporting.graph import Builder, Name, Signal
from melvoc.nn.noise import MULTIPLIERS, ROUNDS, STEPS, WORD, Noise

FLOAT = 1  # onnx.TensorProto's number


def lower_noise(builder: Builder, node: Noise, x: Signal) -> Signal:
    """`Noise.at` from position 0, for rows 0, 1, 2, ..."""
    groups = -(-node.channels // 4)
    place = builder.reshape(_count(builder, x.name, 2), 1, 1, -1)
    row = builder.reshape(_count(builder, x.name, 0), -1, 1, 1) if node.by_row else builder.constant(_shaped(0))
    group = builder.constant(np.arange(groups)[None, :, None])
    zeros = builder.node("Mul", builder.node("Add", builder.node("Add", place, group), row), _shaped(0))
    counter = (place, _shaped(0), group, row)
    words = _philox(builder, tuple(builder.node("Add", zeros, one) for one in counter), node.seed)
    numbers = [*_normal(builder, words[0], words[1]), *_normal(builder, words[2], words[3])]
    four = builder.concatenate([builder.node("Unsqueeze", one, np.array([2])) for one in numbers], 2)
    noise = builder.slice(builder.reshape(four, 0, 4 * groups, -1), 0, node.channels, axis=1)
    if not node.by_row:  # the same for all rows
        shape = builder.ints(builder.length(x.name, 0), 1, 1)
        noise = builder.node("Expand", noise, shape)
    return Signal(noise, node.channels)


def _shaped(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.full((1, 1, 1), number, np.int64)


def _count(builder: Builder, x: Name, axis: int) -> Name:
    """0, 1, 2, ... as long as an axis."""
    return builder.node("Range", 0, builder.node("Squeeze", builder.length(x, axis), np.array([0])), 1)


def _philox(builder: Builder, counter: tuple[Name, ...], seed: int) -> tuple[Name, ...]:
    a, b, c, d = counter
    for number in range(ROUNDS):
        key = [(word + number * step) & WORD for word, step in zip((seed & WORD, seed >> 32), STEPS, strict=True)]
        (top, first), (bottom, second) = _product(builder, MULTIPLIERS[0], a), _product(builder, MULTIPLIERS[1], c)
        a, b, c, d = _exclusive(builder, bottom, b, key[0]), second, _exclusive(builder, top, d, key[1]), first
    return a, b, c, d


def _exclusive(builder: Builder, word: Name, other: Name, key: int) -> Name:
    return builder.node("BitwiseXor", builder.node("BitwiseXor", word, other), _shaped(key))


def _product(builder: Builder, factor: int, words: Name) -> tuple[Name, Name]:
    """The high and the low word of products; shifts are divisions, which every runtime has for signed numbers."""
    half, mask = _shaped(1 << 16), _shaped(0xFFFF)
    low = builder.node("Mul", builder.node("BitwiseAnd", words, mask), _shaped(factor))
    high = builder.node("Mul", builder.node("Div", words, half), _shaped(factor))
    middle = builder.node("Add", high, builder.node("Div", low, half))
    upper = builder.node("Mul", builder.node("BitwiseAnd", middle, mask), half)
    return builder.node("Div", middle, half), builder.node("Add", upper, builder.node("BitwiseAnd", low, mask))


def _normal(builder: Builder, first: Name, second: Name) -> tuple[Name, Name]:
    """Box and Muller's numbers; in float32, which holds 24 bits: older runtimes have no cosine of doubles."""
    odd = builder.node("Add", builder.node("Mul", builder.node("Div", first, _shaped(1 << 9)), _shaped(2)), _shaped(1))
    uniform = builder.node("Mul", builder.node("Cast", odd, to=FLOAT), 2.0**-24)
    turns = builder.node("Cast", builder.node("Div", second, _shaped(1 << 8)), to=FLOAT)
    angle = builder.node("Mul", turns, math.tau * 2.0**-24)
    radius = builder.node("Sqrt", builder.node("Mul", builder.node("Log", uniform), -2.0))
    cosine, sine = (builder.node("Mul", radius, builder.node(wave, angle)) for wave in ("Cos", "Sin"))
    return cosine, sine
