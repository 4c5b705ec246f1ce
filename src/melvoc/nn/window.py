"""A sliding window over a signal that comes in pieces: what convolutions, filters and transforms have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.graph import Machine, join

Mode = Literal["zeros", "replicate", "reflect"]


class Window(Machine):
    """A sliding window: the last inputs are kept, and the signal is padded only at its true start and end.

        padded input:  [left | x ........................ | right]
        output j sees        [j * stride, j * stride + span)

    Args:
        valid: maps `[B, C, L]` to the outputs of the `(L - span) // stride + 1` windows that fit.
        span: samples that one output sees.
        stride: samples from one window to the next.
        left: samples of padding before the signal.
        right: samples of padding after it.
        mode: what the padding is, as in `padded`.
    """

    state = ("tail", "seen", "begun")

    def __init__(
        self,
        valid: Callable[[Tensor], Tensor],
        *,
        span: int,
        stride: int = 1,
        left: int,
        right: int,
        mode: Mode = "zeros",
    ) -> None:
        self.valid = valid
        self.span, self.stride, self.left, self.right, self.mode = span, stride, left, right, mode
        self.needed = max(left, right) if mode == "reflect" else 0  # samples that a mirror shows, its edge apart
        edge = {"zeros": 0, "replicate": min(right, 1), "reflect": right + 1 if right else 0}[mode]
        self.kept = edge if span - stride < edge else 0  # samples that only the end's padding shows
        self.tail: Tensor | None = None
        self.seen = 0  # samples of the tail that no window will see again
        self.begun = False  # whether the start has been padded

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = join(self.tail, x)
        if not self.begun and x.shape[-1] <= self.needed and (not last or not x.shape[-1]):
            self.tail = x.clone()  # the caller may write into its own
            return x[..., :0]
        left, right = 0 if self.begun else self.left, self.right if last else 0
        if left or right:
            x = padded(x, left, right, self.mode)
        self.begun = True
        start = self.seen
        count = max(0, (x.shape[-1] - start - self.span) // self.stride + 1)
        done = start + count * self.stride
        self.seen = min(done, self.kept)
        self.tail = x[..., done - self.seen :].clone()  # a view would keep the whole piece alive
        return self.valid(x[..., start:] if start else x) if count else x[..., :0]


def padded(x: Tensor, left: int, right: int, mode: Mode = "zeros") -> Tensor:
    """A signal with samples before and after it.

    Args:
        x: `[B, C, N]`.
        left: samples before it.
        right: samples after it.
        mode: zeros, the edge sample repeated ("replicate"), or the signal mirrored at its edge sample ("reflect"; zeros
            for a signal that is too short).

    Returns:
        `[B, C, left + N + right]`.
    """
    short = mode == "reflect" and x.shape[-1] <= max(left, right)
    return F.pad(x, (left, right), "constant" if mode == "zeros" or short else mode)
