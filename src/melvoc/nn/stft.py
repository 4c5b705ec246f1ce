"""The inverse short-time Fourier transform, whole or frame by frame (Griffin and Lim 1984, eq. 6)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.nn.graph import Engine, Machine


class InverseSTFT(nn.Module):
    """Overlap-add of windowed inverse transforms, divided by the sum of the squared windows.

    Centred, it is like `torch.istft` with `center=True` and a periodic Hann window as long as n_fft, but the end is not
    cut at the middle of the last frame: T frames give `T * hop_length` samples. Else frame t is centred on the middle
    of its own hop, not on its beginning.

    Args:
        n_fft: samples per frame, an even number.
        hop_length: samples from one frame to the next, at most `n_fft // 2`.
        center: whether a frame is centred on the first of its samples.

    Shape:
        `[B, 2 * (n_fft // 2 + 1), T]`, the real parts before the imaginary parts, to `[B, 1, T * hop_length]`.
    """

    def __init__(self, n_fft: int, hop_length: int, *, center: bool = True) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.start = n_fft // 2 if center else (n_fft - hop_length) // 2  # samples of the first frame that are dropped
        window = torch.hann_window(n_fft, dtype=torch.float64, device="cpu").float()
        self.register_buffer("window", window, persistent=False)
        self.window: Tensor

    def frames(self, spectrum: Tensor) -> Tensor:
        """Inverse transforms of single frames, not windowed: `[B, 2 * (n_fft // 2 + 1), T]` to `[B, n_fft, T]`."""
        real, imaginary = spectrum.chunk(2, dim=1)
        frames: Tensor = torch.fft.irfft(torch.complex(real, imaginary), n=self.n_fft, dim=1)
        return frames

    def overlap_add(self, frames: Tensor) -> Tensor:
        """The sums of the windowed frames and of the squared windows: `[B, 2, (T - 1) * hop_length + n_fft]`."""
        weights = self.window[:, None].square().expand(frames.shape)
        parts = torch.stack([frames * self.window[:, None], weights], dim=1).flatten(0, 1)  # [2 B, n_fft, T]
        length = (frames.shape[-1] - 1) * self.hop_length + self.n_fft
        sums = F.fold(parts, (1, length), kernel_size=(1, self.n_fft), stride=(1, self.hop_length))
        return sums.reshape(-1, 2, length)

    def forward(self, spectrum: Tensor) -> Tensor:
        """Run on all frames `[B, 2 * (n_fft // 2 + 1), T]`."""
        sums = self.overlap_add(self.frames(spectrum))
        return normalize(sums[..., self.start : self.start + spectrum.shape[-1] * self.hop_length])

    def open(self, engine: Engine) -> Machine:
        """A queue of the sums that later frames still add to."""
        return InverseSTFTMachine(self)

    def delay(self, samples: int) -> int:
        """What is dropped of the first frame."""
        return samples * self.hop_length + self.start


def normalize(sums: Tensor) -> Tensor:
    """Signal over window sum: `[B, 2, N]` to `[B, 1, N]`."""
    return sums[:, :1] / sums[:, 1:]


class InverseSTFTMachine(Machine):
    """Runs an `InverseSTFT`."""

    state = ("open_sums", "drop", "owed")

    def __init__(self, layer: InverseSTFT) -> None:
        self.layer = layer
        self.frames: Callable[[Tensor], Tensor] = layer.frames
        self.open_sums: Tensor | None = None
        self.drop = layer.start
        self.owed = 0

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        hop = self.layer.hop_length
        self.owed += x.shape[-1] * hop
        final = x.shape[-1] * hop
        sums = self.open_sums
        if x.shape[-1]:
            fresh = self.layer.overlap_add(self.frames(x))
            if sums is not None:
                fresh[..., : sums.shape[-1]] += sums
            sums = fresh
        if sums is None:
            return x
        done = sums if last else sums[..., :final]
        self.open_sums = sums[..., done.shape[-1] :].clone()
        dropped = min(self.drop, done.shape[-1])
        self.drop -= dropped
        done = done[..., dropped : dropped + self.owed]
        self.owed -= done.shape[-1]
        return normalize(done)
