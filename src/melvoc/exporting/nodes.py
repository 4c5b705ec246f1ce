"""What each kind of node becomes in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from melvoc.errors import MelvocError
from melvoc.exporting.functions import lower_function
from melvoc.exporting.graph import Builder, Name, Signal, array_of
from melvoc.exporting.noise import lower_noise
from melvoc.exporting.refinement import lower_rounded
from melvoc.exporting.spectra import lower_inverse_stft, lower_stft, pad_signal
from melvoc.nn.alias_free import DOWN_LEFT, DOWN_RIGHT, UP_REACH, AliasFreeSnake
from melvoc.nn.framing import End, Pad, Repeat, Select, ToFrames, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, by_kind
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.noise import Noise
from melvoc.nn.stft import STFT, InverseSTFT
from melvoc.rounded import Rounded


def lower(builder: Builder, node: Node, x: Signal) -> Signal:
    """Add a node, and all that it is made of.

    Raises:
        MelvocError: a kind of node that has no form in ONNX here.
    """
    found = by_kind(LOWERINGS, node)
    if found is None:
        raise MelvocError(
            f"ONNX: the network has a {type(node).__name__}, for which melvoc has no form in ONNX; make it of melvoc's "
            "own nodes (melvoc.nn), or export a .pt2"
        )
    return found(builder, node, x)


def _chain(builder: Builder, node: Chain, x: Signal) -> Signal:
    for part in node.nodes:
        x = lower(builder, part, x)
    return x


def _branches(builder: Builder, node: Branches, x: Signal) -> Signal:
    return lower_function(builder, node.join, [lower(builder, part, x) for part in node.nodes])


def _map(builder: Builder, node: Map, x: Signal) -> Signal:
    return lower_function(builder, node.function, x)


def _select(builder: Builder, node: Select, x: Signal) -> Signal:
    return Signal(builder.slice(x.name, node.start, node.stop, axis=1), node.stop - node.start)


def _repeat(builder: Builder, node: Repeat, x: Signal) -> Signal:
    single = builder.node("Unsqueeze", x.name, np.array([3]))
    held = builder.node("Expand", single, np.array([1, 1, 1, node.rate]))
    return Signal(builder.reshape(held, 0, x.channels, -1), x.channels)


def _pad(builder: Builder, node: Pad, x: Signal) -> Signal:
    return Signal(pad_signal(builder, x.name, node.left, node.right, node.mode), x.channels)


def _end(builder: Builder, node: End, x: Signal) -> Signal:
    """The further sample is a constant, of the weights alone."""
    with torch.no_grad():
        made = array_of(node.made(torch.zeros(1, 1, 0, device="cpu")))
    channels = made.shape[1]
    every = builder.node("Expand", made, builder.ints(builder.length(x.name, 0), channels, 1))
    return Signal(builder.concatenate([x.name, every]), channels)


def _to_samples(builder: Builder, node: ToSamples, x: Signal) -> Signal:
    return Signal(_laid_out(builder, x.name, x.channels // node.size, node.size), x.channels // node.size)


def _laid_out(builder: Builder, x: Name, channels: int, size: int) -> Name:
    """`[B, channels * size, T]` to `[B, channels, T * size]`."""
    parts = builder.transpose(builder.reshape(x, 0, channels, size, -1), 0, 1, 3, 2)
    return builder.reshape(parts, 0, channels, -1)


def _to_frames(builder: Builder, node: ToFrames, x: Signal) -> Signal:
    size = np.array([node.size])
    whole = builder.node("Mul", builder.node("Div", builder.length(x.name), size), size)
    parts = builder.reshape(builder.slice(x.name, 0, whole), 0, x.channels, -1, node.size)
    frames = builder.reshape(builder.transpose(parts, 0, 1, 3, 2), 0, x.channels * node.size, -1)
    return Signal(frames, x.channels * node.size)


def _conv(builder: Builder, node: Conv1d, x: Signal) -> Signal:
    rectified = rectify(builder, x.name, node.slope)
    return Signal(convolve(builder, node, rectified, [node.reach, node.reach]), node.out_channels)


def convolve(builder: Builder, node: Conv1d, x: Name, pads: list[int]) -> Name:
    """The convolution itself, padded by zeros."""
    more = [] if node.bias is None else [array_of(node.bias)]
    return builder.node(
        "Conv", x, array_of(node.weight), *more,
        dilations=list(node.dilation), group=node.groups, pads=pads,
    )  # fmt: skip


def _conv_transpose(builder: Builder, node: ConvTranspose1d, x: Signal) -> Signal:
    last = node.kernel_size[0] - node.rate - node.crop  # one more than the crop where the difference is odd
    rectified = rectify(builder, x.name, node.slope)
    return Signal(convolve_transposed(builder, node, rectified, [node.crop, last]), node.out_channels)


def convolve_transposed(builder: Builder, node: ConvTranspose1d, x: Name, pads: list[int]) -> Name:
    """The transposed convolution itself, cropped."""
    more = [] if node.bias is None else [array_of(node.bias)]
    return builder.node("ConvTranspose", x, array_of(node.weight), *more, strides=[node.rate], pads=pads)


def rectify(builder: Builder, x: Name, slope: float | None) -> Name:
    """A leaky ReLU, or nothing where the slope is None."""
    return x if slope is None else builder.node("LeakyRelu", x, alpha=float(slope))


def _alias_free(builder: Builder, node: AliasFreeSnake, x: Signal) -> Signal:
    raised = lower_up(builder, node, Signal(builder.pad(x.name, UP_REACH, UP_REACH, "edge"), x.channels))
    return lower_down(builder, node, Signal(builder.pad(raised.name, DOWN_LEFT, DOWN_RIGHT, "edge"), x.channels))


def lower_up(builder: Builder, node: AliasFreeSnake, x: Signal) -> Signal:
    """Up by 2 and snake, without padding: each channel's even and odd samples, in turn."""
    phases = np.tile(array_of(node.up_filter), (x.channels, 1, 1))
    pairs = builder.node("Conv", x.name, phases, group=x.channels)
    return lower_function(builder, node.act, Signal(_laid_out(builder, pairs, x.channels, 2), x.channels))


def lower_down(builder: Builder, node: AliasFreeSnake, x: Signal) -> Signal:
    """Down by 2, without padding."""
    filters = np.tile(array_of(node.down_filter), (x.channels, 1, 1))
    return Signal(builder.node("Conv", x.name, filters, group=x.channels, strides=[2]), x.channels)


LOWERINGS: Mapping[type, Callable[[Builder, Any, Signal], Signal]] = {
    Chain: _chain,
    Branches: _branches,
    Map: _map,
    Select: _select,
    Repeat: _repeat,
    Pad: _pad,
    End: _end,
    ToSamples: _to_samples,
    ToFrames: _to_frames,
    STFT: lower_stft,
    InverseSTFT: lower_inverse_stft,
    Noise: lower_noise,
    Conv1d: _conv,
    ConvTranspose1d: _conv_transpose,
    AliasFreeSnake: _alias_free,
    Rounded: lower_rounded,
}
