"""Short convolutions as products of transforms.

A tile of `size` inputs gives `outputs = size - taps + 1` outputs of a correlation with `taps` taps. Both transforms
here are linear maps into `products` slots, in which the convolution is one product per slot (a matrix over
the channels), and back:

- `Fourier`: a cyclic convolution by a real DFT of N, whose complex products are each three real ones (Gauss), in
  1.5 N - 1 products; and the values at 0 and at infinity, which extend the tile to N + 2 for two products more.
- `ToomCook`: evaluation at points of the real line and at infinity, for few taps (Winograd 1980, F(4, 3)).

The programs are written with +, - and * only: they run on numbers, on arrays, and, to write a kernel, on `Vec`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bin = tuple[Any, Any]  # real and imaginary part; the latter is None where it is 0


@dataclass(frozen=True)
class Transform(ABC):
    """One way to convolve tiles.

    Attributes:
        taps: of the kernel.
        size: inputs per tile.
    """

    taps: int
    size: int

    @property
    def outputs(self) -> int:
        """Outputs per tile."""
        return self.size - self.taps + 1

    @property
    @abstractmethod
    def products(self) -> int:
        """Slots."""

    @abstractmethod
    def forward(self, tile: list[Any]) -> list[Any]:
        """A tile into the slots."""

    @abstractmethod
    def inverse(self, slots: list[Any]) -> list[Any]:
        """Slots into the outputs."""

    @abstractmethod
    def weights(self) -> NDArray[np.float64]:
        """The matrix that maps the taps to the slots, `[products, taps]`."""


@dataclass(frozen=True)
class Fourier(Transform):
    """By a real DFT of N = size - 2 and two products; N is 2, 4, 8, ... or three times that, and there are three taps
    or more.

    A tile's last two inputs do not fit the ring of N. Its places 0 and 1 belong to inputs 0 and 1, or to N and N + 1.
    Take N and 1: then only two outputs are wrong, the first by its first tap times (input 0 - input N), and the last
    by its last tap times (input N + 1 - input 1). (Transposed, this is the product of polynomials
    modulo `x^N - 1`, and at 0 and infinity: its lowest and its highest coefficient.)
    """

    @property
    def ring(self) -> int:
        """N."""
        return self.size - 2

    @property
    def products(self) -> int:
        return self.ring // 2 * 3 + 1

    def forward(self, tile: list[Any]) -> list[Any]:
        bins = real_dft([tile[self.ring], *tile[1 : self.ring]])
        slots = [tile[0] - tile[-2], tile[-1] - tile[1], bins[0][0], bins[-1][0]]
        for real, imaginary in bins[1:-1]:
            slots += [real + imaginary, real, imaginary]
        return slots

    def inverse(self, slots: list[Any]) -> list[Any]:
        low, high, first, last, *middle = slots
        bins: list[Bin] = [(first, None)]
        for one, two, three in zip(middle[::3], middle[1::3], middle[2::3], strict=True):
            bins.append((one - three, one + two))
        outputs = inverse_real_dft([*bins, (last, None)], self.ring)[: self.outputs]
        return [outputs[0] + low, *outputs[1:-1], outputs[-1] + high]

    def weights(self) -> NDArray[np.float64]:
        angles = 2 * np.pi / self.ring * np.outer(np.arange(self.ring // 2 + 1), np.arange(self.taps))
        real, imaginary = np.cos(angles) / self.ring, np.sin(angles) / self.ring  # conjugated: a correlation
        ends = np.eye(self.taps)
        rows = [ends[0], ends[-1], real[0], real[-1]]
        for c, d in zip(real[1:-1], imaginary[1:-1], strict=True):
            rows += [c, d - c, c + d]
        return np.stack(rows)


@dataclass(frozen=True)
class ToomCook(Transform):
    """By the values at `size - 1` points and at infinity: one product per input.

    Attributes:
        points: all different; small fractions keep the rounding errors small.
    """

    points: tuple[float, ...]

    @property
    def products(self) -> int:
        return self.size

    def forward(self, tile: list[Any]) -> list[Any]:
        return apply(self._inputs(), tile)

    def inverse(self, slots: list[Any]) -> list[Any]:
        powers = np.vander(np.array(self.points), self.outputs, increasing=True).T
        infinity = np.zeros((self.outputs, 1))
        infinity[-1] = 1.0
        return apply(np.hstack([powers, infinity]), slots)

    def weights(self) -> NDArray[np.float64]:
        points = np.array(self.points)
        scale = np.array([np.prod(point - np.delete(points, i)) for i, point in enumerate(points)])
        finite = np.vander(points, self.taps, increasing=True) / scale[:, None]
        return np.vstack([finite, np.eye(self.taps)[-1]])

    def _inputs(self) -> NDArray[np.float64]:
        """Coefficients of the polynomials that vanish at all points but one, and of the one that vanishes at all."""
        points = np.array(self.points)
        rows = [np.append(np.poly(np.delete(points, i))[::-1], 0.0) for i in range(len(points))]
        return np.vstack([*rows, np.poly(points)[::-1]])


def apply(matrix: NDArray[np.float64], values: list[Any]) -> list[Any]:
    """A constant matrix times a vector, without the products by 0 and 1."""
    results = []
    for row in matrix:
        terms = [(factor, value) for factor, value in zip(row.tolist(), values, strict=True) if factor]
        total = terms[0][1] if terms[0][0] == 1.0 else terms[0][1] * terms[0][0]
        for factor, value in terms[1:]:
            if factor in (1.0, -1.0):
                total = total + value if factor == 1.0 else total - value
            else:
                total = total + value * factor
        results.append(total)
    return results


def real_dft(x: list[Any]) -> list[Bin]:
    """Bins 0 to N / 2 of N real values: halves by decimation in time, thirds at the end."""
    size = len(x)
    if size == 2:
        return [(x[0] + x[1], None), (x[0] - x[1], None)]
    if size == 3:
        both = x[1] + x[2]
        return [(x[0] + both, None), (x[0] - both * 0.5, (x[2] - x[1]) * math.sqrt(0.75))]
    even, odd = real_dft(x[::2]), real_dft(x[1::2])
    bins: list[Bin] = [(even[0][0] + odd[0][0], None)] * (size // 2 + 1)
    bins[-1] = (even[0][0] - odd[0][0], None)
    for k in range(1, size // 4 + 1):
        (a, b), (c, d) = even[k], odd[k]
        if b is None:  # a quarter turn
            bins[k] = (a, c * -1.0)
            continue
        cos, sin = math.cos(2 * math.pi * k / size), math.sin(2 * math.pi * k / size)
        bins[k] = (a + c * cos + d * sin, b + d * cos - c * sin)
        bins[size // 2 - k] = (a - c * cos - d * sin, d * cos - c * sin - b)
    return bins


def inverse_real_dft(bins: list[Bin], size: int) -> list[Any]:
    """N times the N real values that bins 0 to N / 2 belong to."""
    if size == 2:
        return [bins[0][0] + bins[1][0], bins[0][0] - bins[1][0]]
    if size == 3:
        (a, _), (b, c) = bins
        rest, turned = a - b, c * math.sqrt(3.0)
        return [a + b * 2.0, rest - turned, rest + turned]
    half = size // 2
    even: list[Bin] = [(bins[0][0] + bins[half][0], None)]
    odd: list[Bin] = [(bins[0][0] - bins[half][0], None)]
    for k in range(1, size // 4 + 1):
        (a, b), (c, d) = bins[k], bins[half - k]
        if k == half - k:  # a quarter turn
            even.append((a * 2.0, None))
            odd.append((b * -2.0, None))
            continue
        cos, sin = math.cos(2 * math.pi * k / size), math.sin(2 * math.pi * k / size)
        even.append((a + c, b - d))
        real, imaginary = a - c, b + d
        odd.append((real * cos - imaginary * sin, imaginary * cos + real * sin))
    result = [None] * size
    result[::2], result[1::2] = inverse_real_dft(even, half), inverse_real_dft(odd, half)
    return result


# For each number of taps, those with fewer products first. More sizes to choose from gain 1.5 % at most (5 % for pieces
# of 16 frames) and cost memory: weights stay prepared for every one that some input length has asked for.
TRANSFORMS: tuple[Transform, ...] = (
    ToomCook(3, 6, (0.0, 1.0, -1.0, 0.5, -2.0)),
    Fourier(7, 34),
    Fourier(11, 26),
    Fourier(11, 50),
    ToomCook(2, 4, (0.0, 1.0, -1.0)),
)
LARGEST = max(transform.size for transform in TRANSFORMS)
