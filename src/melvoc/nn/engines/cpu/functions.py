"""Functions of vectors that kernels apply, by polynomials."""

from __future__ import annotations

import math

from llvmlite import ir

from melvoc.nn.engines.cpu.vector import Vec

ROUNDER = 1.5 * 2.0**23  # adding it leaves a whole number in the low bits
POWER = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(8))  # 2^f for |f| <= 1 / 2, to 5e-9
STEEP = 2.0 / math.log(2.0)
# erf(z) = 1 - t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + p z), to 1.5e-7 for z >= 0 (Abramowitz and Stegun 7.1.26)
ERF_P = 0.3275911
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
FURTHEST = 9.0  # where exp(-z^2) is negligible beside 1, but still a normal float


def two_to_the(x: Vec) -> Vec:
    """`2^x` for x between -126 and 127, with a relative error of 6e-8."""
    builder = x.builder
    shifted = x.plus_exactly(ROUNDER)
    rest = x - shifted.plus_exactly(-ROUNDER)
    power = rest * POWER[7] + POWER[6]
    for coefficient in POWER[5::-1]:
        power = power * rest + coefficient
    floats = x.value.type
    words = ir.VectorType(ir.IntType(32), floats.count)
    exponent = builder.shl(builder.bitcast(shifted.value, words), ir.Constant(words, [23] * floats.count))
    return Vec(builder, builder.bitcast(builder.add(builder.bitcast(power.value, words), exponent), floats))


def hyperbolic_tangent(x: Vec) -> Vec:
    """`1 - 2 / (1 + e^2x)`, to 1e-7 of the range [-1, 1]; NaN stays NaN."""
    builder = x.builder
    for limit, beyond in ((10.0, ">"), (-10.0, "<")):
        outside = builder.fcmp_ordered(beyond, x.value, x.splat(limit))
        x = Vec(builder, builder.select(outside, x.splat(limit), x.value))
    share = builder.fdiv(x.splat(2.0), builder.fadd(two_to_the(x * STEEP).value, x.splat(1.0)))
    return Vec(builder, builder.fsub(x.splat(1.0), share))


def gelu(x: Vec) -> Vec:
    """`x (1 + erf(x / sqrt 2)) / 2`."""
    builder = x.builder
    positive = builder.fcmp_ordered(">", x.value, x.splat(0.0))
    size = Vec(builder, builder.select(positive, x.value, (x * -1.0).value)) * math.sqrt(0.5)
    size = size.at_most(FURTHEST)
    t = Vec(builder, builder.fdiv(x.splat(1.0), (size * ERF_P + 1.0).value))
    total = t * ERF[4] + ERF[3]
    for coefficient in ERF[2::-1]:
        total = total * t + coefficient
    tail = total * t * 0.5 * two_to_the(size * size * -math.log2(math.e))
    below = x * tail
    return Vec(builder, builder.select(positive, (x - below).value, below.value))
