"""A step of a stream as an ONNX graph: a piece of the mel and the state in, the sound that is final and the state out.

It does what the machines of `melvoc.nn` do (`Window`, `TransposeMachine`, `BranchesMachine`, `InverseSTFTMachine`), and
has their state, as tensors: the last inputs of a window, the queues of branches, the open sums of an inverse STFT. What
is None in a machine at first is a tensor without samples, and a flag or a count is a whole number. Pieces may have any
length: how many outputs a step gives follows from the lengths of its states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melvoc.errors import MelvocError
from melvoc.exporting.functions import lower_function
from melvoc.exporting.graph import LAST, Builder, Name, Signal, array_of
from melvoc.exporting.nodes import convolve, convolve_transposed, lower, lower_down, lower_up, rectify
from melvoc.exporting.spectra import inverse_transform, normalized, overlap_add, window_sums
from melvoc.nn.alias_free import DOWN_LEFT, DOWN_RIGHT, TAPS, UP_REACH, AliasFreeSnake
from melvoc.nn.framing import Repeat, Select, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, by_kind
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.stft import InverseSTFT

ENDS = "last"  # the input that is 1 with the last piece, else 0: int64 [1]


@dataclass(frozen=True)
class State:
    """A tensor that a step takes and gives.

    Attributes:
        shape: at first; "batch" is the mel's.
        kind: "float32" or "int64".
        value: of all its elements at first.
    """

    shape: tuple[str | int, ...]
    kind: str = "float32"
    value: int = 0


@dataclass(frozen=True)
class Stream:
    """A step that is being written.

    Attributes:
        builder: of its graph.
        states: by their names, the inputs'.
        after: by the same names, the values after the step.
    """

    builder: Builder
    states: dict[Name, State] = field(default_factory=dict)
    after: dict[Name, Name] = field(default_factory=dict)

    def state(self, state: State) -> Name:
        """A new one."""
        name = f"state_{len(self.states)}"
        self.states[name] = state
        return name

    def lower(self, node: Node, x: Signal) -> Signal:
        """Add a node's step, and those of all that it is made of.

        Raises:
            MelvocError: a kind of node that has no form as a step here.
        """
        found = by_kind(STEPS, node)
        if found is None:
            raise MelvocError(
                f"ONNX: the network has a {type(node).__name__}, for which melvoc has no streaming form in ONNX; "
                "export it whole (streaming=False), or stream it with melvoc"
            )
        return found(self, node, x)

    def window(
        self, x: Signal, valid: Callable[[Name, int], Name], *, span: int, left: int, right: int, stride: int = 1,
        rate: int = 1, edge: bool = False,
    ) -> Name:  # fmt: skip
        """A `Window`.

        Args:
            x: the piece.
            valid: maps a value, and a number of zeros to append to it, to the outputs of the windows that fit. With
                them there is always a window: ONNX Runtime's convolutions refuse to give none.
            span: as in `Window`.
            left: as in `Window`.
            right: as in `Window`.
            stride: as in `Window`.
            rate: outputs per window.
            edge: whether the padding repeats the edge sample, not zeros.
        """
        node, builder = self.builder.node, self.builder
        tail = self.state(State(("batch", x.channels, 0 if edge else left)))
        joined = builder.concatenate([tail, x.name])
        after = node("Mul", ENDS, np.array([right]))
        if edge:
            begun = self.state(State((1,), "int64"))
            some = node("Cast", node("Greater", builder.length(joined), np.array([0])), to=7)
            before = node("Mul", node("Max", node("Sub", some, begun), np.array([0])), np.array([left]))
            self.after[begun] = node("Max", begun, some)
            joined = builder.pad(joined, before, after, "edge")
        else:
            joined = builder.pad(joined, 0, after)
        room = node("Sub", builder.length(joined), np.array([span - stride]))
        count = node("Div", node("Max", room, np.array([0])), np.array([stride]))
        done = node("Mul", count, np.array([stride]))
        self.after[tail] = builder.slice(joined, done, LAST)
        return builder.slice(valid(joined, span), 0, node("Mul", count, np.array([rate])))

    def cut(self, x: Name, first: int, surplus: int) -> Name:
        """The stream without its first samples, and without so many at its end."""
        node, builder = self.builder.node, self.builder
        skip = self.state(State((1,), "int64", first))
        length = builder.length(x)
        dropped = node("Min", skip, length)
        self.after[skip] = node("Sub", skip, dropped)
        return builder.slice(x, dropped, node("Sub", length, node("Mul", ENDS, np.array([surplus]))))


def _chain(stream: Stream, node: Chain, x: Signal) -> Signal:
    for part in node.nodes:
        x = stream.lower(part, x)
    return x


def _branches(stream: Stream, node: Branches, x: Signal) -> Signal:
    builder, ready = stream.builder, []
    for part in node.nodes:
        fresh = stream.lower(part, x)
        queue = stream.state(State(("batch", fresh.channels, 0)))
        ready.append((queue, builder.concatenate([queue, fresh.name]), fresh.channels))
    count = builder.node("Min", *(builder.length(one) for _, one, _ in ready))
    for queue, one, _ in ready:
        stream.after[queue] = builder.slice(one, count, LAST)
    parts = [Signal(builder.slice(one, 0, count), channels) for _, one, channels in ready]
    return lower_function(builder, node.join, parts)


def _stateless(stream: Stream, node: Node, x: Signal) -> Signal:
    return lower(stream.builder, node, x)


def _conv(stream: Stream, node: Conv1d, x: Signal) -> Signal:
    x = Signal(rectify(stream.builder, x.name, node.slope), x.channels)
    reach = node.reach

    def valid(joined: Name, more: int) -> Name:
        if reach:  # then something is left of the last piece
            return convolve(stream.builder, node, joined, [0, more])
        return convolve(stream.builder, node, stream.builder.pad(joined, 0, more), [0, 0])

    return Signal(stream.window(x, valid, span=2 * reach + 1, left=reach, right=reach), node.out_channels)


def _conv_transpose(stream: Stream, node: ConvTranspose1d, x: Signal) -> Signal:
    builder, open_taps = stream.builder, node.taps - 1
    x = Signal(rectify(builder, x.name, node.slope), x.channels)

    def valid(joined: Name, more: int) -> Name:
        wide = builder.pad(joined, 0, more)
        return builder.slice(convolve_transposed(builder, node, wide, [0, 0]), open_taps * node.rate, LAST)

    y = stream.window(x, valid, span=node.taps, left=open_taps, right=node.tail, rate=node.rate)
    return Signal(stream.cut(y, node.crop, node.tail * node.rate - node.crop), node.out_channels)


def _alias_free(stream: Stream, node: AliasFreeSnake, x: Signal) -> Signal:
    builder, channels = stream.builder, x.channels

    def up(joined: Name, more: int) -> Name:
        return lower_up(builder, node, Signal(builder.pad(joined, 0, more), channels)).name

    def down(joined: Name, more: int) -> Name:
        return lower_down(builder, node, Signal(builder.pad(joined, 0, more), channels)).name

    raised = stream.window(x, up, span=2 * UP_REACH + 1, left=UP_REACH, right=UP_REACH, rate=2, edge=True)
    y = stream.window(Signal(raised, channels), down, span=TAPS, stride=2, left=DOWN_LEFT, right=DOWN_RIGHT, edge=True)
    return Signal(y, channels)


def _inverse_stft(stream: Stream, node: InverseSTFT, x: Signal) -> Signal:
    builder, window, hop = stream.builder, array_of(node.window), node.hop_length
    open_samples, count = (-(-node.n_fft // hop) - 1) * hop, builder.length(x.name)
    fresh = overlap_add(builder, inverse_transform(builder, x.name, window, hop), hop, node.n_fft)
    weights = window_sums(builder, count, window, hop)
    samples = builder.node("Mul", count, np.array([hop]))
    final = builder.node("Add", samples, builder.node("Mul", ENDS, np.array([open_samples])))
    done = []
    for sums, batch in ((fresh, "batch"), (weights, 1)):
        earlier = stream.state(State((batch, 1, open_samples)))
        total = builder.node("Add", sums, builder.pad(earlier, 0, samples))
        stream.after[earlier] = builder.slice(total, samples, LAST)
        done.append(stream.cut(builder.slice(total, 0, final), node.start, open_samples - node.start + node.trimmed))
    return Signal(normalized(builder, node, *done), 1)


STEPS: Mapping[type, Callable[[Stream, Any, Signal], Signal]] = {
    Chain: _chain,
    Branches: _branches,
    **dict.fromkeys((Map, Select, Repeat, ToSamples), _stateless),
    Conv1d: _conv,
    ConvTranspose1d: _conv_transpose,
    AliasFreeSnake: _alias_free,
    InverseSTFT: _inverse_stft,
}
