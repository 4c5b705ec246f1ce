"""The short-time Fourier transform and its inverse as nodes (Griffin and Lim 1984, eq. 6).

A spectrum is real: `[B, 2 * (n_fft // 2 + 1), T]`, the real parts before the imaginary parts. Windows are periodic Hann
windows as long as n_fft.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from melvoc.nn.graph import Engine, Machine
from melvoc.nn.powers import overlap_add
from melvoc.nn.window import Mode, Window, padded

WEAKEST = 0.25  # the sum of squared windows where frames of four hops end


class STFT(nn.Module):
    """Windowed transforms of overlapping frames.

    Centred, it is `torch.stft` with `center=True`, of N samples `1 + N // hop_length` frames. Else the signal is padded
    by `n_fft - hop_length` samples, half of them on each side (where they are odd, one more at the end), and frame t is
    centred on the middle of its own hop: `N // hop_length` frames.

    Args:
        n_fft: samples per frame, an even number.
        hop_length: samples from one frame to the next.
        center: whether a frame is centred on the first of its samples.
        mode: of the padding; see `melvoc.nn.window.padded`.

    Shape:
        `[B, 1, N]`, N a multiple of hop_length, to `[B, 2 * (n_fft // 2 + 1), T]`.
    """

    def __init__(self, n_fft: int, hop_length: int, *, center: bool = True, mode: Mode = "reflect") -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.mode = n_fft, hop_length, mode
        self.left = n_fft // 2 if center else (n_fft - hop_length) // 2
        self.right = self.left if center else n_fft - hop_length - self.left
        self.register_buffer("window", _hann(n_fft), persistent=False)
        self.window: Tensor

    def valid(self, x: Tensor) -> Tensor:
        """The spectra of the frames that fit: `[B, 1, L]` to `[B, 2 * (n_fft // 2 + 1), (L - n_fft) // hop + 1]`."""
        frames = x[:, 0].unfold(-1, self.n_fft, self.hop_length) * self.window
        parts = torch.view_as_real(torch.fft.rfft(frames))  # [B, T, bins, 2]
        return parts.permute(0, 3, 2, 1).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run on the complete signal `[B, 1, N]`."""
        return self.valid(padded(x, self.left, self.right, self.mode))

    def open(self, engine: Engine) -> Machine:
        """A window of a frame."""
        return Window(
            self.valid, span=self.n_fft, stride=self.hop_length, left=self.left, right=self.right, mode=self.mode
        )

    def delay(self, samples: int) -> int:
        """Every frame that reaches into the padding at the end, or into what is missing."""
        return -(-(samples + self.right) // self.hop_length)


class InverseSTFT(nn.Module):
    """Overlap-add of windowed inverse transforms, divided by the sum of the squared windows.

    Centred, it is like `torch.istft` with `center=True`, but the end is not cut at the middle of the last frame: T
    frames give `T * hop_length` samples. Those beyond are of the last frame alone; where its window falls to nothing
    there, with hops of more than a quarter of n_fft, they are divided by 0.25 at least, and fade out. Else frame t is
    centred on the middle of its own hop, not on its beginning.

    Args:
        n_fft: samples per frame, an even number.
        hop_length: samples from one frame to the next, at most `n_fft // 2`.
        center: whether a frame is centred on the first of its samples.
        trim: whether the end is cut after all, hop_length samples earlier: what `torch.istft` gives, and what undoes a
            centred `STFT`, which has a frame more than there are hops.

    Raises:
        ValueError: one that is not centred is to be trimmed, which has no such frame.

    Shape:
        `[B, 2 * (n_fft // 2 + 1), T]` to `[B, 1, T * hop_length]`, or `[B, 1, (T - 1) * hop_length]` if trimmed.
    """

    def __init__(self, n_fft: int, hop_length: int, *, center: bool = True, trim: bool = False) -> None:
        super().__init__()
        if trim and not center:
            raise ValueError("trim=True with center=False, but only centred frames are one more than hops; omit trim")
        self.n_fft, self.hop_length = n_fft, hop_length
        self.start = n_fft // 2 if center else (n_fft - hop_length) // 2  # samples of the first frame that are dropped
        self.trimmed = hop_length if trim else 0  # samples of the last frame's that are dropped
        self.weakest = WEAKEST if center and not trim and 4 * hop_length > n_fft else 0.0  # that sums are divided by
        self.register_buffer("window", _hann(n_fft), persistent=False)
        self.window: Tensor

    def frames(self, spectrum: Tensor) -> Tensor:
        """Windowed inverse transforms of single frames: `[B, 2 * (n_fft // 2 + 1), T]` to `[B, T, n_fft]`."""
        real, imaginary = spectrum.chunk(2, dim=1)
        frames: Tensor = torch.fft.irfft(torch.complex(real, imaginary).transpose(1, 2), n=self.n_fft)
        return frames * self.window

    def overlap_add(self, frames: Tensor) -> Tensor:
        """The sums of windowed frames and of the squared windows: `[B, 2, (T - 1) * hop_length + n_fft]`."""
        squares = overlap_add(self.window.square().expand(frames.shape[1], -1), self.hop_length)
        sums = frames.new_empty(frames.shape[0], 2, squares.shape[-1])  # no len(): an export's lengths are symbols
        sums[:, 0] = overlap_add(frames, self.hop_length)
        sums[:, 1] = squares
        return sums

    def forward(self, spectrum: Tensor) -> Tensor:
        """Run on all frames `[B, 2 * (n_fft // 2 + 1), T]`."""
        sums = self.overlap_add(self.frames(spectrum))
        samples = spectrum.shape[-1] * self.hop_length - self.trimmed
        return self.normalize(sums[..., self.start : self.start + samples])

    def normalize(self, sums: Tensor) -> Tensor:
        """Signal over window sum: `[B, 2, N]` to `[B, 1, N]`."""
        weights = sums[:, 1:].clamp(min=self.weakest) if self.weakest else sums[:, 1:]
        return sums[:, :1] / weights

    def open(self, engine: Engine) -> Machine:
        """A queue of the sums that later frames still add to."""
        return InverseSTFTMachine(self)

    def delay(self, samples: int) -> int:
        """What is dropped of the first frame, and not of the last."""
        return samples * self.hop_length + self.start - self.trimmed


@dataclass(frozen=True)
class LogPolar:
    """Log-magnitudes and phases to real and imaginary parts: `[B, 2 * (n_fft // 2 + 1), T]`, both.

    Args:
        largest: magnitudes are at most this. None: any.
        sine: whether the phases are the sines of the given values.
    """

    largest: float | None = None
    sine: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        log_magnitude, phase = x.chunk(2, dim=1)
        magnitude = log_magnitude.exp()
        if self.largest is not None:
            magnitude = magnitude.clamp(max=self.largest)
        return polar(magnitude, phase.sin() if self.sine else phase)


def polar(magnitude: Tensor, phase: Tensor) -> Tensor:
    """A spectrum of its magnitudes and phases, both `[B, n_fft // 2 + 1, T]`."""
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def _hann(n_fft: int) -> Tensor:
    """A constant, not a weight: on the CPU even when a model is built on the meta device."""
    return torch.hann_window(n_fft, dtype=torch.float64, device="cpu").float()


class InverseSTFTMachine(Machine):
    """Runs an `InverseSTFT`."""

    state = ("open_sums", "drop", "owed")

    def __init__(self, layer: InverseSTFT) -> None:
        self.layer = layer
        self.open_sums: Tensor | None = None
        self.drop = layer.start
        self.owed = -layer.trimmed

    def sums(self, spectrum: Tensor) -> Tensor:
        """Of a piece's frames and their squared windows, as `InverseSTFT.overlap_add`."""
        return self.layer.overlap_add(self.layer.frames(spectrum))

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        hop = self.layer.hop_length
        self.owed += x.shape[-1] * hop
        final = x.shape[-1] * hop
        sums = self.open_sums
        if x.shape[-1]:
            fresh = self.sums(x)
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
        return self.layer.normalize(done)
