"""Machines over rows for branches that are joined, and for the channels that they take and scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor

from melvoc.nn.engines.cpu.conv import Convolution
from melvoc.nn.engines.cpu.machines import Section, joined
from melvoc.nn.engines.cpu.memory import POOL, zeros
from melvoc.nn.engines.cpu.rows import SCALED, SCALED_SUM, blocks_of, copied, move
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.framing import Select
from melvoc.nn.graph import ChainMachine, Machine, add, concatenate, mean


class Factors:
    """A number for each channel, as rows.

    Args:
        values: `[C]`.
    """

    def __init__(self, values: Tensor) -> None:
        self.rows = zeros(blocks_of(len(values)) * LANES)
        self.rows[: len(values)] = values.detach()


class FactorsMachine(Machine):
    """Each channel times its factor, or a leaky ReLU with its slope.

    Args:
        factors: or slopes.
        mode: SCALED or PRELU.
    """

    def __init__(self, factors: Factors, mode: int) -> None:
        self.factors, self.mode = factors, mode

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        out = POOL.empty(*x.shape)
        move(self.mode, x, out, self.factors.rows)
        return out


class SelectRows(Machine):
    """Runs a `Select` of whole blocks of channels: a view.

    Args:
        node: one that `takes` accepts.
    """

    def __init__(self, node: Select) -> None:
        self.blocks = slice(node.start // LANES, blocks_of(node.stop))

    @staticmethod
    def takes(node: Select) -> bool:
        """Whether its channels are whole blocks."""
        return node.start % LANES == 0 and node.stop % LANES == 0

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return x[:, self.blocks]


class BranchRows(Machine):
    """Branches, whose outputs are added, averaged or put below one another; those that are ahead wait.

    Args:
        machines: the branches.
        join: one that `JOINS` has.
    """

    parts = ("machines",)
    state = ("queues",)

    def __init__(self, machines: list[Machine], join: Callable[[Iterable[Tensor]], Tensor]) -> None:
        self.machines, self.join = machines, JOINS[join]
        self.queues: list[Tensor | None] = [None] * len(machines)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        ready = [joined(queue, machine(x, last)) for queue, machine in zip(self.queues, self.machines, strict=True)]
        count = min(part.shape[2] for part in ready)
        self.queues = [copied(part, count) if part.shape[2] > count and not last else None for part in ready]
        return self.join([part[:, :, :count] for part in ready])


class SumRows(Machine):
    """`first(x) + convolution(second(x))`: the convolution, of one tap, adds what comes from the first branch.

    Args:
        first: any branch.
        second: what comes before the convolution in the other one.
        convolution: of one tap.
    """

    parts = ("first", "second", "convolution")
    state = ("addends", "inputs")

    def __init__(self, first: Machine, second: Machine, convolution: Section) -> None:
        self.first, self.second, self.convolution = first, second, convolution
        self.addends: Tensor | None = None
        self.inputs: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        addends, inputs = joined(self.addends, self.first(x, last)), joined(self.inputs, self.second(x, last))
        count = min(addends.shape[2], inputs.shape[2])
        y = self.convolution.convolved(inputs[:, :, :count], last, addends[:, :, :count])
        self.addends = copied(addends, count) if addends.shape[2] > count and not last else None
        self.inputs = copied(inputs, count) if inputs.shape[2] > count and not last else None
        return y


def join_rows(machines: list[Machine], join: Callable[[Iterable[Tensor]], Tensor]) -> Machine | None:
    """A machine for branches; None for a join that is not known."""
    if join not in JOINS:
        return None
    first, second = machines[0], machines[-1]
    chain = second.machines if isinstance(second, ChainMachine) else [second]
    end = chain[-1] if chain else None
    if join is add and len(machines) == 2 and isinstance(end, Section) and _single(end):
        return SumRows(first, ChainMachine(chain[:-1]), end)
    return BranchRows(machines, join)


def _single(section: Section) -> bool:
    """Whether a section is nothing but a convolution of one tap."""
    convolution = section.convolution
    plain = isinstance(convolution, Convolution) and convolution.slope is None and section.activation is None
    return plain and convolution.span == 0


def _summed(parts: list[Tensor], factor: float = 1.0) -> Tensor:
    total = POOL.empty(*parts[0].shape)
    for number, part in enumerate(parts):
        move(SCALED_SUM if number else SCALED, part, total, factor)
    return total


def _averaged(parts: list[Tensor]) -> Tensor:
    return _summed(parts, 1.0 / len(parts))


def _stacked(parts: list[Tensor]) -> Tensor:
    batch, _, rows, _ = parts[0].shape
    blocks = np.cumsum([0, *(part.shape[1] for part in parts)]).tolist()
    total = POOL.empty(batch, blocks[-1], rows, LANES)
    for part, start, stop in zip(parts, blocks[:-1], blocks[1:], strict=True):
        move(SCALED, part, total[:, start:stop])
    return total


JOINS: dict[Callable[[Iterable[Tensor]], Tensor], Callable[[list[Tensor]], Tensor]] = {
    add: _summed,
    mean: _averaged,
    concatenate: _stacked,
}
