"""Machines over rows for branches that are joined, and for the channels that they take and scale."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from torch import Tensor

from melvoc.nn.engines.cpu.finish import After
from melvoc.nn.engines.cpu.machines import Section, joined
from melvoc.nn.engines.cpu.memory import POOL, zeros
from melvoc.nn.engines.cpu.rows import PRELU, SCALED, SCALED_SUM, blocks_of, copied, move
from melvoc.nn.engines.cpu.vector import LANES, ROW_BYTES
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

    def after(self) -> After | None:
        """The same, of a product; None for factors."""
        return After(PRELU, self.factors.rows.data_ptr(), ROW_BYTES) if self.mode == PRELU else None

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


class AddedRows(Machine):
    """Branches whose outputs are added, each times a share; those that are ahead wait.

    Args:
        machines: the branches.
        share: 1 for their sum.
    """

    parts = ("machines",)
    state = ("queues",)

    def __init__(self, machines: list[Machine], share: float) -> None:
        self.machines, self.share = machines, share
        self.queues: list[Tensor | None] = [None] * len(machines)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        new = [machine(x, last) for machine in self.machines]
        parts = [
            [part for part in branch if part is not None and part.shape[2]]
            for branch in zip(self.queues, new, strict=True)
        ]
        count = min(sum(part.shape[2] for part in branch) for branch in parts)
        blocks = max((part.shape[1] for branch in parts for part in branch), default=new[0].shape[1])
        total = POOL.empty(x.shape[0], blocks, count, LANES)
        for number, branch in enumerate(parts):
            done, rest = 0, None
            for part in branch:
                used = min(part.shape[2], count - done)
                move(SCALED_SUM if number else SCALED, part, total, self.share, to=done)
                done += used
                if used < part.shape[2]:
                    rest = joined(rest, part[:, :, used:])
            self.queues[number] = None if last or rest is None else copied(rest)
        return total


class StackedRows(Machine):
    """Branches whose channels, whole blocks of them, are put below one another; those that are ahead wait.

    Args:
        machines: the branches.
    """

    parts = ("machines",)
    state = ("queues",)

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.queues: list[Tensor | None] = [None] * len(machines)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        ready = [joined(queue, machine(x, last)) for queue, machine in zip(self.queues, self.machines, strict=True)]
        count = min(part.shape[2] for part in ready)
        self.queues = [_rest(part, count, last) for part in ready]
        places = list(itertools.accumulate((part.shape[1] for part in ready), initial=0))
        total = POOL.empty(x.shape[0], places[-1], count, LANES)
        for part, (start, stop) in zip(ready, itertools.pairwise(places), strict=True):
            move(SCALED, part, total[:, start:stop])
        return total


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
        self.addends, self.inputs = _rest(addends, count, last), _rest(inputs, count, last)
        return y


def join_rows(machines: list[Machine], join: Callable[[Iterable[Tensor]], Tensor]) -> Machine | None:
    """A machine for branches; None for a join that is not known."""
    if join is concatenate:
        return StackedRows(machines)
    if join is mean:
        return AddedRows(machines, 1.0 / len(machines))
    if join is not add:
        return None
    first, second = machines[0], machines[-1]
    chain = second.machines if isinstance(second, ChainMachine) else [second]
    end = chain[-1] if chain else None
    if len(machines) == 2 and isinstance(end, Section) and _single(end):
        return SumRows(first, ChainMachine(chain[:-1]), end)
    return AddedRows(machines, 1.0)


def _single(section: Section) -> bool:
    """Whether a section is nothing but a convolution of one tap."""
    convolution = section.convolution
    return section.finishes() and convolution.slope is None and section.activation is None


def _rest(part: Tensor, count: int, last: bool) -> Tensor | None:
    """What waits of a branch of which `count` rows were used."""
    return copied(part, count) if part.shape[2] > count and not last else None
