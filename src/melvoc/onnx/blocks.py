"""A function of whole mels that runs in overlapping blocks, as a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from melvoc.nn.graph import Engine, Machine, join


@dataclass(frozen=True)
class Blocks:
    """A function of whole mels, of which each piece is computed together with the frames that it depends on.

    Args:
        whole: maps `[B, C, T]` to `[B, channels, T * hop]`.
        before: frames before one that its samples depend on.
        after: frames after one that they depend on.
        hop: samples per frame.
    """

    whole: Callable[[Tensor], Tensor]
    before: int
    after: int
    hop: int

    def __call__(self, x: Tensor) -> Tensor:
        """Run on the complete signal."""
        return self.whole(x)

    def open(self, engine: Engine) -> Machine:
        """A machine that keeps the frames that the next piece depends on."""
        return BlocksMachine(self)

    def delay(self, samples: int) -> int:
        """The frames after one."""
        return (samples + self.after) * self.hop


class BlocksMachine(Machine):
    """Runs `Blocks`: the signal's own ends are the function's ends, and no other end comes near what is returned."""

    state = ("kept", "known")

    def __init__(self, node: Blocks) -> None:
        self.node = node
        self.kept: Tensor | None = None
        self.known = 0  # of the kept frames, those whose sound has been returned

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """The sound of the frames that no later one changes."""
        x, node, known = join(self.kept, x), self.node, self.known
        ready = x.shape[-1] if last else x.shape[-1] - node.after
        if ready <= known:
            self.kept = x
            return x[..., :0]
        self.known = min(node.before, ready)
        self.kept = x[..., ready - self.known :].clone()
        return node.whole(x)[..., known * node.hop : ready * node.hop]
