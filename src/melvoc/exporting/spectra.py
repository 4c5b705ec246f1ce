"""Fourier transforms without complex numbers: products with constant matrices, and overlap-add as shifted sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melvoc.exporting.graph import Builder, Name, Signal, array_of
from melvoc.nn.stft import STFT, InverseSTFT


def lower_stft(builder: Builder, node: STFT, x: Signal) -> Signal:
    """A convolution with the windowed transform, one step per hop."""
    padded = pad_signal(builder, x.name, node.left, node.right, node.mode)
    return Signal(transform(builder, padded, array_of(node.window), node.hop_length), node.n_fft + 2)


def lower_inverse_stft(builder: Builder, node: InverseSTFT, x: Signal) -> Signal:
    """A matrix product per frame, the sums, and the division by those of the squared windows."""
    window, hop = array_of(node.window), node.hop_length
    count = builder.length(x.name)
    sums = overlap_add(builder, inverse_transform(builder, x.name, window, hop), hop, node.n_fft)
    weights = window_sums(builder, count, window, hop)
    samples = builder.node("Mul", count, np.array([hop]))
    stop = builder.node("Add", samples, np.array([node.start - node.trimmed]))
    parts = [builder.slice(one, node.start, stop) for one in (sums, weights)]
    return Signal(normalized(builder, node, *parts), 1)


def normalized(builder: Builder, node: InverseSTFT, sums: Name, weights: Name) -> Name:
    """`InverseSTFT.normalize`."""
    return builder.node("Div", sums, builder.node("Max", weights, node.weakest) if node.weakest else weights)


def transform(builder: Builder, padded: Name, window: NDArray[np.float32], hop: int) -> Name:
    """The spectra of a padded signal's frames: `[B, 1, n]` to `[B, 2 * bins, T]`, real parts first."""
    size = len(window)
    angles = 2 * np.pi / size * (np.outer(np.arange(size // 2 + 1), np.arange(size)) % size)
    basis = np.concatenate([np.cos(angles), -np.sin(angles)]) * window
    return builder.node("Conv", padded, basis[:, None].astype(np.float32), strides=[hop])


def inverse_transform(builder: Builder, spectra: Name, window: NDArray[np.float32], hop: int) -> Name:
    """The windowed frames of spectra `[B, 2 * bins, T]`: `[B, T, m * hop]`, zeros after the first n_fft samples."""
    size = len(window)
    bins = np.arange(size // 2 + 1)
    angles = 2 * np.pi / size * (np.outer(bins, np.arange(size)) % size)
    alone = (bins == 0) | (2 * bins == size)  # 0 Hz, and Nyquist where there is such a bin, have no mirror image
    share = np.where(alone, 1.0, 2.0)[:, None] / size
    sines = np.where(alone, 0.0, 1.0)[:, None] * np.sin(angles)
    basis = np.concatenate([share * np.cos(angles), -share * sines]) * window
    basis = np.pad(basis, ((0, 0), (0, -size % hop)))
    return builder.node("MatMul", builder.transpose(spectra, 0, 2, 1), basis.astype(np.float32))


def overlap_add(builder: Builder, frames: Name, hop: int, size: int) -> Name:
    """Frames `[B, T, m * hop]` added up, hop samples apart: `[B, 1, (T + m - 1) * hop]`."""
    overlaps = -(-size // hop)
    total = None
    for shift in range(overlaps):
        part = builder.slice(frames, shift * hop, (shift + 1) * hop)
        part = builder.node("Pad", part, builder.ints(0, shift, 0, 0, overlaps - 1 - shift, 0))
        total = part if total is None else builder.node("Add", total, part)
    assert total is not None
    return builder.reshape(total, 0, 1, -1)


def window_sums(builder: Builder, count: Name, window: NDArray[np.float32], hop: int) -> Name:
    """The squared windows of `count` frames added up, `[1, 1, (count + m - 1) * hop]`: a product with which frame
    stands over which hop."""
    overlaps = -(-len(window) // hop)
    squares = np.pad(window.astype(np.float64) ** 2, (0, -len(window) % hop)).reshape(overlaps, hop)
    places = builder.node("Squeeze", builder.node("Add", count, np.array([overlaps - 1])), np.array([0]))
    hops = builder.node("Range", 0, places, 1)
    frame = builder.node("Sub", builder.node("Unsqueeze", hops, np.array([1])), np.arange(overlaps)[None])
    there = builder.node(
        "And", builder.node("GreaterOrEqual", frame, np.array([0])), builder.node("Less", frame, count)
    )
    sums = builder.node("MatMul", builder.node("Cast", there, to=1), squares.astype(np.float32))
    return builder.reshape(sums, 1, 1, -1)


def pad_signal(builder: Builder, x: Name, left: int, right: int, mode: str) -> Name:
    """`melvoc.nn.window.padded`; a mirror of a signal that is too short is silent, without a branch in the graph."""
    if mode != "reflect":
        return builder.pad(x, left, right, {"zeros": "constant", "replicate": "edge"}[mode])
    most = max(left, right)
    wide = builder.pad(x, most, most)  # so that what is mirrored is there, whatever the length
    enough = builder.node("Cast", builder.node("Greater", builder.length(x), np.array([most])), to=1)
    before = builder.slice(wide, most + left, most, step=-1)
    after = builder.slice(wide, -most - 2, -most - 2 - right, step=-1)
    ends = [builder.node("Mul", part, enough) for part in (before, after)]
    parts = [ends[0]] * bool(left) + [x] + [ends[1]] * bool(right)
    return builder.concatenate(parts)
