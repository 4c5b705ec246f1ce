"""Machines over rows: what the engine opens for the nodes of a network.

They take and return `[B, blocks, n, 8]` (`rows`), and are otherwise machines as in `melvoc.nn.graph`: tensors that they
keep are replaced, never written.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu.conv import Convolution
from melvoc.nn.engines.cpu.finish import After, leaky
from melvoc.nn.engines.cpu.framewise import Depthwise
from melvoc.nn.engines.cpu.memory import POOL, Buffer, Workspace, zeros
from melvoc.nn.engines.cpu.rows import SCALED, blocks_of, copied, fill_window, move, view
from melvoc.nn.engines.cpu.snake import CHUNK, Snake, snake
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.graph import Machine
from melvoc.nn.layers import ConvTranspose1d

SNAKE_REACH = 6


class Coefficients:
    """A snake's coefficients as the kernel expects them: a block's `a / pi` in two floats, and the factors."""

    def __init__(self, layer: AliasFreeSnake) -> None:
        with torch.inference_mode():
            frequency, factor = copy.deepcopy(layer.act).double().coefficients()
            blocks = blocks_of(len(frequency))
            turns = frequency / math.pi
            rows = zeros(3, blocks * LANES)
            rows[0, : len(turns)] = turns.float()
            rows[1, : len(turns)] = (turns - turns.float().double()).float()
            rows[2, : len(turns)] = factor
            self.rows = rows.view(3, blocks, LANES).transpose(0, 1).contiguous()


def joined(first: Tensor | None, x: Tensor) -> Tensor:
    """One signal after the other, without copying if there is only one."""
    if first is None or first.shape[2] == 0:
        return x
    result = POOL.empty(x.shape[0], x.shape[1], first.shape[2] + x.shape[2], LANES)
    move(SCALED, first, result)
    move(SCALED, x, result, to=first.shape[2])
    return result


class SnakeMachine(Machine):
    """Runs an `AliasFreeSnake`; `write` puts the result where the caller wants it."""

    state = ("tail", "begins", "given")

    def __init__(self, coefficients: Coefficients) -> None:
        self.coefficients = coefficients
        self.tail: Tensor | None = None
        self.begins = True  # the tail begins with the signal
        self.given = 0  # outputs since the tail's beginning

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        out = POOL.empty(x.shape[0], x.shape[1], self.ready(x.shape[2], last), LANES)
        self.write(x, last, out)
        return out

    def ready(self, count: int, last: bool) -> int:
        """How many outputs follow from `count` more inputs."""
        total = (0 if self.tail is None else self.tail.shape[2]) + count
        return max(0, total - (0 if last else SNAKE_REACH) - self.given)

    def write(self, x: Tensor, last: bool, out: Tensor) -> None:
        """Take the inputs and write the outputs that are ready."""
        batch, blocks, rows, _ = out.shape
        tail = x[:, :, :0] if self.tail is None else self.tail
        if rows:
            arguments = Snake(
                blocks=blocks,
                tail=view(tail),
                tail_rows=tail.shape[2],
                source=view(x),
                source_rows=x.shape[2],
                first=self.given,
                begins=int(self.begins),
                ends=int(last),
                coefficients=self.coefficients.rows.data_ptr(),
                out=view(out),
                rows=rows,
            )
            TEAM.run(snake, batch * blocks * -(-rows // CHUNK), arguments, vectors=batch * blocks * rows * 60)
        self.given += rows
        gone = max(0, self.given - SNAKE_REACH)
        self.given -= gone
        self.begins = self.begins and not gone
        if gone >= tail.shape[2]:
            self.tail = copied(x, gone - tail.shape[2])
        else:
            self.tail = copied(joined(tail[:, :, gone:], x))


class Section(Machine):
    """A convolution after an optional snake or leaky ReLU, plus an optional residual."""

    parts = ("activation",)
    state = ("context",)

    def __init__(
        self, convolution: Convolution | Depthwise, activation: SnakeMachine | None, workspace: Workspace
    ) -> None:
        self.convolution, self.activation, self.workspace = convolution, activation, workspace
        self.after: After | None = None  # an activation of the result, by whose addresses it goes:
        self.ending: Machine | None = None  # the machine that it stands for
        self.context: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return self.convolved(self.window(x, last, self.workspace.windows[0]), last)

    def window(self, x: Tensor, last: bool, buffer: Buffer) -> Tensor:
        """What came before, the activated input, and zeros at the ends, in a buffer."""
        if not self.convolution.span and self.activation is None and self.convolution.slope is None:
            return x
        new = x.shape[2] if self.activation is None else self.activation.ready(x.shape[2], last)
        if self.activation is None:
            return self._window(buffer, x.shape[0], new, last, x, self.convolution.slope)
        window = self._window(buffer, x.shape[0], new, last, None, None)
        start = self._before()
        self.activation.write(x, last, window[:, :, start : start + new])
        return window

    def finishes(self) -> bool:
        """Whether its products can end with any activation."""
        return self.after is None and isinstance(self.convolution, Convolution) and not self.convolution.span

    def room(self, buffer: Buffer, batch: int, new: int, last: bool) -> tuple[Tensor, Tensor]:
        """A window in a buffer, and the place in it for `new` activated inputs, which the caller writes."""
        window, start = self._window(buffer, batch, new, last, None, None), self._before()
        return window, window[:, :, start : start + new]

    def ready(self, window: Tensor) -> int:
        """How many outputs follow from a window."""
        return max(0, window.shape[2] - self.convolution.span)

    def convolved(
        self,
        window: Tensor,
        last: bool,
        extra: Tensor | None = None,
        out: Tensor | None = None,
        after: After | None = None,
    ) -> Tensor:
        """The outputs that follow from a window, plus `extra`, through an activation; written to `out` if given."""
        count = self.ready(window)
        if out is None:
            out = POOL.empty(window.shape[0], self.convolution.weights.outputs, count, LANES)
        if count:
            self.convolution.run(window, out, extra, self.workspace, after=self.after if after is None else after)
        if not last and self.convolution.span:
            self.context = copied(window, count)
        return out

    def _before(self) -> int:
        return self.convolution.span // 2 if self.context is None else self.context.shape[2]

    def _window(
        self, buffer: Buffer, batch: int, new: int, last: bool, x: Tensor | None, slope: float | None
    ) -> Tensor:
        """`new` activated inputs between what came before and zeros at the end; without x they are left as they are."""
        start, weights = self._before(), self.convolution.weights
        size = start + new + (self.convolution.span // 2 if last else 0)
        window = buffer.take(batch, weights.inputs, size, LANES)
        fill_window(window, self.context, start, x, new, slope)
        return window


class ResidualSections(Machine):
    """`x + sections(x)`; the skipped signal waits in a queue."""

    parts = ("sections",)
    state = ("queue",)

    def __init__(self, sections: list[Section]) -> None:
        self.sections = sections
        self.queue: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        skipped = joined(self.queue, x)
        here, there = self.sections[0].workspace.windows
        window = self.sections[0].window(x, last, here)
        for section, following in itertools.pairwise(self.sections):
            here, there = there, here  # one is read while the next is written
            if following.activation is None:  # it gets its input activated, where it needs it
                ahead, body = following.room(here, x.shape[0], section.ready(window), last)
                section.convolved(window, last, out=body, after=leaky(following.convolution.slope))
                window = ahead
            else:
                window = following.window(section.convolved(window, last), last, here)
        y = self.sections[-1].convolved(window, last, skipped)
        if not last:
            self.queue = copied(skipped, y.shape[2])
        return y


class UpsamplingMachine(Machine):
    """Runs a `ConvTranspose1d`: drops the first `crop` samples and gives exactly `rate` samples per input in total."""

    state = ("context", "drop", "owed")

    def __init__(self, layer: ConvTranspose1d, convolution: Convolution, workspace: Workspace) -> None:
        self.layer, self.convolution, self.workspace = layer, convolution, workspace
        self.context: Tensor | None = None
        self.drop = layer.crop
        self.owed = 0

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        layer, taps, rate = self.layer, self.layer.taps, self.layer.rate
        batch, blocks, rows, _ = x.shape
        start = taps - 1 if self.context is None else self.context.shape[2]
        window = self.workspace.windows[0].take(batch, blocks, start + rows + (layer.tail if last else 0), LANES)
        fill_window(window, self.context, start, x, rows, layer.slope)
        count = max(0, window.shape[2] - taps + 1)
        out = POOL.empty(batch, self.convolution.weights.outputs, count * rate, LANES)
        if count:
            self.convolution.run(window, out, None, self.workspace)
        if not last:
            self.context = copied(window, count)
        self.owed += rows * rate
        dropped = min(self.drop, out.shape[2])
        self.drop -= dropped
        out = out[:, :, dropped : dropped + self.owed]
        self.owed -= out.shape[2]
        return out
