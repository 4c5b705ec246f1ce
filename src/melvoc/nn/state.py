"""The state of what works in pieces: declared, so that it can be copied, recorded and moved without knowing its owner.

    parts       what has a state of its own                             copied with it
    state       read and replaced by every step                         cells
    positions   advanced by every step, by as much for equal pieces     cells that count

A step may change nothing else. In a steady state, where pieces are equal, the cells keep their sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from melvoc.errors import kind_of


class Stateful:
    """Something with a declared state.

    Attributes:
        parts: names of the attributes that are stateful themselves, or lists of such, or None.
        state: names of the attributes that a step reads and replaces: tensors, constants that are compared (numbers,
            None, tuples of them), or lists of these. A tensor is replaced, never written into.
        positions: names of the attributes that only count, by as many in each equal piece: whole numbers.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    state: ClassVar[tuple[str, ...]] = ()
    positions: ClassVar[tuple[str, ...]] = ()

    def inside(self) -> Iterator[Stateful]:
        """The parts, one after the other."""
        for name in self.parts:
            value = getattr(self, name)
            yield from value if isinstance(value, list) else () if value is None else (value,)

    def cells(self) -> Iterator[Cell]:
        """Where the state of this and of all parts is kept, in a fixed order.

        Raises:
            TypeError: something that cannot be state was declared as such.
        """
        for part in self.inside():
            yield from part.cells()
        for name in (*self.state, *self.positions):
            value, counts = getattr(self, name), name in self.positions
            if isinstance(value, dict | set):
                raise TypeError(f"{type(self).__name__}.{name} is {kind_of(value)}, which cannot be state; use a list")
            if isinstance(value, list):
                yield from (Cell(self, name, place, counts) for place in range(len(value)))
            else:
                yield Cell(self, name, None, counts)

    def fork(self) -> Self:
        """A copy with a state of its own; cheap, because tensors are replaced and never written into."""
        twin = copy.copy(self)
        for name in self.parts:
            value = getattr(self, name)
            several = isinstance(value, list)
            setattr(twin, name, [part.fork() for part in value] if several else value and value.fork())
        for name in self.state:
            if isinstance(value := getattr(self, name), list):
                setattr(twin, name, list(value))
        return twin


class Cell(NamedTuple):
    """A place that holds one piece of state.

    Attributes:
        owner: whose state it is.
        name: of the owner's attribute.
        place: in that attribute, if it is a list.
        counts: whether it is a position.
    """

    owner: Stateful
    name: str
    place: int | None
    counts: bool

    def get(self) -> Any:
        """What it holds."""
        value = getattr(self.owner, self.name)
        return value if self.place is None else value[self.place]

    def put(self, value: object) -> None:
        """Replace what it holds."""
        if self.place is None:
            setattr(self.owner, self.name, value)
        else:
            getattr(self.owner, self.name)[self.place] = value

    def size(self) -> object:
        """What is equal before and after a step in the steady state: shape and type of a tensor, else the constant."""
        value = self.get()
        return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value
