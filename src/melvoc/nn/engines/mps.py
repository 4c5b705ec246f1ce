"""Plain torch on MPS, in pieces that its operations can take.

There, torch's convolutions refuse an output with any dimension above 65536, with a message about channels
("Output channels > 65536 not supported at the MPS device"). Time is such a dimension, and so are the rows that an
alias-free activation makes of batch and channels. So any input, whether whole mels, long pieces of a stream or many
rows, goes through the network in short blocks and a few rows at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melvoc.nn.alias_free import Snake
from melvoc.nn.graph import Engine, Machine, Node, join

LARGEST = 65536  # the most that MPS takes, in any dimension
SAMPLES = 16384  # of sound per block; the last one also has the look-ahead, and activations double the length


class CutEngine(Engine):
    """Opens a network as a machine that cuts its input. Not for parts of a network.

    Args:
        frames: per block, at most.
        rows: of the batch that run together, at most.
    """

    def __init__(self, *, frames: int, rows: int) -> None:
        self._frames, self._rows = frames, rows
        self._engine = Engine()

    def open(self, node: Node) -> Machine:
        """A fresh machine for the node."""
        return CutMachine(self._engine, node, frames=self._frames, rows=self._rows)


class CutMachine(Machine):
    """Runs a node in blocks of time, each group of rows on its own machine.

    Args:
        engine: opens the machines.
        node: what they run.
        frames: per block, at most.
        rows: per group, at most.
    """

    parts = ("_machines",)

    def __init__(self, engine: Engine, node: Node, *, frames: int, rows: int) -> None:
        self._engine, self._node, self._frames, self._rows = engine, node, frames, rows
        self._machines: list[Machine] = []
        self._ids: Tensor | None = None  # of the batch's rows, if they are not 0, 1, 2, ...

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next samples; see `Machine`."""
        groups = x.split(self._rows)
        if not self._machines:
            self._machines = [self._engine.open(self._node) for _ in groups]
            rows = torch.arange(len(x), device="cpu") if self._ids is None else self._ids
            for machine, part in zip(self._machines, rows.split(self._rows), strict=True):
                machine.of_rows(part)
        parts = [self._run(machine, group, last) for machine, group in zip(self._machines, groups, strict=True)]
        return torch.cat(parts) if parts[0].shape[-1] else x[..., :0]

    def of_rows(self, rows: Tensor) -> None:
        """See `Machine.of_rows`."""
        self._ids = rows

    def _run(self, machine: Machine, x: Tensor, last: bool) -> Tensor:
        blocks = x.split(self._frames, dim=-1)
        return join(*[machine(block, last and number == len(blocks)) for number, block in enumerate(blocks, 1)])


def make_mps_engine(network: nn.Module, hop_length: int) -> Engine:
    """The engine for MPS.

    Args:
        network: its widest activation bounds the rows.
        hop_length: samples per frame.
    """
    widest = max((layer.alpha.numel() for layer in network.modules() if isinstance(layer, Snake)), default=1)
    return CutEngine(frames=max(1, SAMPLES // hop_length), rows=LARGEST // widest)
