"""A graph that is the step of a stream, as a node: a piece and the states in, sound and the states after it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from melvoc.nn.graph import Engine, Machine

Step = Callable[[Tensor, Sequence[Tensor], bool], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True)
class Steps:
    """The step of a stream.

    Args:
        step: maps frames `[B, C, t]`, the states, and whether these are the last frames, to the sound that is final and
            the states after it.
        at_first: the states for B rows before the first piece.
        hop: samples per frame.
        latency: samples by which the sound lags behind the frames.
    """

    step: Step
    at_first: Callable[[int], list[Tensor]]
    hop: int
    latency: int

    def __call__(self, x: Tensor) -> Tensor:
        """Run on the complete signal: one step."""
        return self.step(x, self.at_first(len(x)), True)[0]

    def open(self, engine: Engine) -> Machine:
        """A machine with the states."""
        return StepsMachine(self)

    def delay(self, samples: int) -> int:
        """The latency."""
        return samples * self.hop + self.latency


class StepsMachine(Machine):
    """Runs `Steps`."""

    state = ("now",)

    def __init__(self, node: Steps) -> None:
        self.node = node
        self.now: list[Tensor] = []

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """The sound that this step makes final."""
        wave, self.now = self.node.step(x, self.now or self.node.at_first(len(x)), last)
        return wave
