"""Functions of vectors that kernels apply, by polynomials."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir

from melvoc.nn.engines.cpu.vector import Vec

ROUNDER = 1.5 * 2.0**23  # adding it leaves a whole number in the low bits
POWER = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(8))  # 2^f for |f| <= 1 / 2, to 5e-9
LN2_HIGH, LN2_LOW = 0.693359375, math.log(2.0) - 0.693359375  # the first has nine bits: its products are exact
EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(8))  # e^f for |f| <= ln 2 / 2, to 5e-9
FURTHEST_ANGLE = 2.0**40  # whose quarter turns a double still counts
LONG_ROUNDER = 1.5 * 2.0**52  # of doubles
HALF_PI, HALF_PI_REST = math.pi / 2, 6.123233995736766e-17
# Of sine and cosine between -pi / 4 and pi / 4, in the square, after what is exact (Cephes, sinf and cosf)
SINE = (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)
COSINE = (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5)
STEEP = 2.0 / math.log(2.0)
# erf(z) = 1 - t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + p z), to 1.5e-7 for z >= 0 (Abramowitz and Stegun 7.1.26)
ERF_P = 0.3275911
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
FURTHEST = 9.0  # where exp(-z^2) is negligible beside 1, but still a normal float


def polynomial(x: Vec, coefficients: Sequence[float]) -> Vec:
    """The sum of `coefficients[k] * x^k`, of two coefficients or more."""
    *rest, total = coefficients
    value = x * total + rest.pop()
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value


def _words(x: Vec) -> ir.VectorType:
    """As many 32-bit words as x has values."""
    return ir.VectorType(ir.IntType(32), x.value.type.count)


def _word(x: Vec, value: int) -> ir.Constant:
    """The same word for each value of x."""
    return ir.Constant(_words(x), [value] * x.value.type.count)


def two_to_the(x: Vec) -> Vec:
    """`2^x` for x between -126 and 127, with a relative error of 6e-8."""
    builder = x.builder
    shifted = x.plus_exactly(ROUNDER)
    rest = x - shifted.plus_exactly(-ROUNDER)
    floats, words = x.value.type, _words(x)
    exponent = builder.shl(builder.bitcast(shifted.value, words), _word(x, 23))
    power = builder.bitcast(polynomial(rest, POWER).value, words)
    return Vec(builder, builder.bitcast(builder.add(power, exponent), floats))


def within(x: Vec, limit: float) -> Vec:
    """The values, those beyond `limit` or below `-limit` as these; NaN stays NaN."""
    builder = x.builder
    for bound, beyond in ((limit, ">"), (-limit, "<")):
        outside = builder.fcmp_ordered(beyond, x.value, x.splat(bound))
        x = Vec(builder, builder.select(outside, x.splat(bound), x.value))
    return x


def exponential(x: Vec) -> Vec:
    """`e^x`, with a relative error of 1e-7, over the whole range: from 0 to infinity; NaN stays NaN."""
    builder, floats, words = x.builder, x.value.type, _words(x)
    x = within(x, 110.0)  # beyond are 0 and infinity
    shifted = (x * math.log2(math.e)).plus_exactly(ROUNDER)
    whole = shifted.plus_exactly(-ROUNDER)
    rest = (x - whole * LN2_HIGH) - whole * LN2_LOW
    power = polynomial(rest, EXPONENTIAL)
    rounder = builder.bitcast(x.splat(ROUNDER), words)
    count = builder.sub(builder.bitcast(shifted.value, words), rounder)
    half = builder.ashr(count, _word(x, 1))
    for part in (half, builder.sub(count, half)):  # 2^count has no float at the ends of the range
        scale = builder.bitcast(builder.shl(builder.add(part, _word(x, 127)), _word(x, 23)), floats)
        power = power * Vec(builder, scale)
    return power


def sine_and_cosine(x: Vec) -> tuple[Vec, Vec]:
    """Both to 1e-7, NaN for infinities and NaN; of angles beyond 2^40, whose neighbours are thousands of turns away,
    those of 2^40."""
    builder, floats, words = x.builder, x.value.type, _words(x)
    doubles, longs = (ir.VectorType(kind, floats.count) for kind in (ir.DoubleType(), ir.IntType(64)))
    wrong = x - x  # 0, or NaN
    wide = Vec(builder, builder.fpext(within(x, FURTHEST_ANGLE).value, doubles))
    shifted = (wide * (2 / math.pi)).plus_exactly(LONG_ROUNDER)
    quarters = shifted.plus_exactly(-LONG_ROUNDER)
    rest = (wide - quarters * HALF_PI) - quarters * HALF_PI_REST
    angle = Vec(builder, builder.fptrunc(rest.value, floats))
    square = angle * angle
    sine = angle + angle * square * polynomial(square, SINE)
    cosine = square * square * polynomial(square, COSINE) + (square * -0.5 + 1.0)
    turn = builder.trunc(builder.bitcast(shifted.value, longs), words)
    odd = builder.trunc(turn, ir.VectorType(ir.IntType(1), floats.count))
    swapped = [builder.select(odd, one.value, other.value) for one, other in ((cosine, sine), (sine, cosine))]
    found = []
    for value, ahead in zip(swapped, (0, 1), strict=True):  # two quarters of a turn on, both are negative
        sign = builder.and_(builder.shl(builder.add(turn, _word(x, ahead)), _word(x, 30)), _word(x, 1 << 31))
        turned = builder.bitcast(builder.xor(builder.bitcast(value, words), sign), floats)
        found.append(Vec(builder, turned) + wrong)
    return found[0], found[1]


def hyperbolic_tangent(x: Vec) -> Vec:
    """`1 - 2 / (1 + e^2x)`, to 1e-7 of the range [-1, 1]; NaN stays NaN."""
    builder, x = x.builder, within(x, 10.0)
    share = builder.fdiv(x.splat(2.0), builder.fadd(two_to_the(x * STEEP).value, x.splat(1.0)))
    return Vec(builder, builder.fsub(x.splat(1.0), share))


def gelu(x: Vec) -> Vec:
    """`x (1 + erf(x / sqrt 2)) / 2`."""
    builder = x.builder
    positive = builder.fcmp_ordered(">", x.value, x.splat(0.0))
    size = Vec(builder, builder.select(positive, x.value, (x * -1.0).value)) * math.sqrt(0.5)
    size = size.at_most(FURTHEST)
    t = Vec(builder, builder.fdiv(x.splat(1.0), (size * ERF_P + 1.0).value))
    tail = polynomial(t, ERF) * t * 0.5 * two_to_the(size * size * -math.log2(math.e))
    below = x * tail
    return Vec(builder, builder.select(positive, (x - below).value, below.value))
