"""Torch's own operations beside the engine's kernels, on short pieces, without waking torch's threads.

For 2048 values of an exponential, for two Fourier transforms, or for 32,000 values that are copied, torch wakes its
threads, which then wait for more for milliseconds, on the processors that the kernels want next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melvoc.nn.graph import Machine, join
from melvoc.nn.stft import InverseSTFT, InverseSTFTMachine, LogPolar

SERIAL = 32_000  # values that torch copies or sums without waking its threads
FEW_FRAMES = 64
MORE_FRAMES = 200  # about two seconds; of more, torch's threads save numpy's time


def parts_of(wave: Tensor) -> Sequence[Tensor]:
    """A wave `[B, C, n]` in parts that torch works on without its threads."""
    return (wave,) if wave.numel() <= SERIAL else wave.split(max(1, SERIAL // (wave.shape[0] * wave.shape[1])), dim=-1)


def short(x: Tensor, most: int = FEW_FRAMES) -> bool:
    """Whether x is a piece that must not wake torch's threads."""
    return x.device.type == "cpu" and 0 < x.shape[-1] <= most and not torch.is_grad_enabled()


def by_numpy(x: Tensor) -> bool:
    """Whether x is a piece for numpy, which works on the calling thread alone."""
    return short(x, MORE_FRAMES) and x.dtype == torch.float32


@dataclass(frozen=True)
class FrameByFrame:
    """A function `[B, C, T]` to `[B, C', T]` of single frames, of a short piece one frame after the other."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 1 or not short(x):
            return self.function(x)
        return torch.cat([self.function(frame) for frame in x.split(1, dim=-1)], dim=-1)


@dataclass(frozen=True)
class QuietLogPolar:
    """A `LogPolar`, of a short piece by numpy."""

    function: LogPolar

    def __call__(self, x: Tensor) -> Tensor:
        if not by_numpy(x):
            return self.function(x)
        magnitude, phase = np.split(x.numpy(), 2, axis=1)
        spectrum = np.empty(x.shape, np.float32)
        real, imaginary = np.split(spectrum, 2, axis=1)
        with np.errstate(all="ignore"):  # as torch: what becomes of Inf and NaN is seen in the sound
            magnitude = np.exp(magnitude)
            if self.function.largest is not None:
                np.minimum(magnitude, np.float32(self.function.largest), out=magnitude)
            if self.function.sine:
                phase = np.sin(phase)
            np.multiply(np.cos(phase, out=real), magnitude, out=real)
            np.multiply(np.sin(phase, out=imaginary), magnitude, out=imaginary)
        return torch.from_numpy(spectrum)


class QuietInverseSTFT(InverseSTFTMachine):
    """Runs an `InverseSTFT`, the transforms of a short piece by numpy."""

    def __init__(self, layer: InverseSTFT) -> None:
        super().__init__(layer)
        self.frames = self._frames

    def _frames(self, spectrum: Tensor) -> Tensor:
        if not by_numpy(spectrum):
            return self.layer.frames(spectrum)
        real, imaginary = np.split(spectrum.numpy().transpose(0, 2, 1), 2, axis=2)
        values = np.empty(real.shape, np.complex64)
        values.real, values.imag = real, imaginary
        frames = np.fft.irfft(values, n=self.layer.n_fft).astype(np.float32, copy=False)  # numpy 1 gives float64
        frames *= self.layer.window.numpy()
        return torch.from_numpy(frames)


class Quiet(Machine):
    """Runs a machine of torch's, a short piece in parts so small that torch does not wake its threads for it.

    Args:
        machine: the machine.
        part: samples of a part, at the rate of a mel, as after Vocos' backbone.
        short: samples of a short piece.
    """

    parts = ("machine",)

    def __init__(self, machine: Machine, *, part: int = 16, short: int = FEW_FRAMES) -> None:
        self.machine, self.part, self.short = machine, part, short

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not self.part < x.shape[-1] <= self.short:
            return self.machine(x, last)
        parts = x.split(self.part, dim=-1)
        return join(*[self.machine(part, last and number == len(parts)) for number, part in enumerate(parts, 1)])
