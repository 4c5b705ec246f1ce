"""Resampling by one windowed-sinc polyphase filter, whole or piece by piece.

A Kaiser-windowed sinc with 64 zero crossings per side (Smith, "Digital Audio Resampling", CCRMA), the one that
`torchaudio.functional.resample` computes with "sinc_interp_kaiser" and the constants below: -0.1 dB at 20 kHz from 44.1
to 48 kHz, images below -80 dB. Rates are divided by their greatest common divisor; each output phase has its own
filter, so resampling is one convolution with as many channels as phases.
"""

from __future__ import annotations

import functools
import math
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.arrays import as_tensor, check_layout
from melvoc.errors import SpecError
from melvoc.host import public
from melvoc.nn.graph import Machine
from melvoc.nn.window import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO_CROSSINGS = 64
ROLLOFF = 0.9475937167399596
BETA = 14.769656459379492
_MOST_TAPS = 1 << 27  # of all filters: a gigabyte
_DENSE = 1 << 22  # at most: weights, and values gathered at once
_WINDOWS = 1 << 15  # per convolution; MPS takes no more than 65536


def _width(orig: int, new: int) -> int:
    """Half the length of a filter, in samples at the rate `orig`."""
    return math.ceil(ZERO_CROSSINGS * orig / (min(orig, new) * ROLLOFF))


@functools.lru_cache(maxsize=2)  # rates without a common divisor have as many as 10^8 taps
@torch.inference_mode(False)  # or the first caller's mode would stick to them
def _phases(orig: int, new: int) -> tuple[Tensor, Tensor]:
    """The filters of all phases, for rates without a common divisor.

    Returns:
        The taps `[new, 2 * width + 1]` in float64, and the position of each phase's first tap in a window of
        `2 * width + orig` samples, `[new]`.
    """
    base, width = min(orig, new) * ROLLOFF, _width(orig, new)
    numbers = torch.arange(new, dtype=torch.int64, device="cpu") * orig
    first = numbers // new
    places = torch.arange(-width, width + 1, dtype=torch.float64, device="cpu")
    beta = torch.tensor(BETA, dtype=torch.float64, device="cpu")
    taps = torch.empty(new, len(places), dtype=torch.float64, device="cpu")
    for part, phases in zip(taps.split(1 << 10), (numbers % new).split(1 << 10), strict=True):
        time = (places - (phases.double() / new)[:, None]) / orig
        crossing = (time * base).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        window = torch.i0(beta * (1 - (crossing / ZERO_CROSSINGS) ** 2).sqrt()) / torch.i0(beta)
        part.copy_(torch.sinc(crossing) * window * base / orig)
    return taps, first


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # or the first caller's mode would stick to them
def _dense(orig: int, new: int) -> Tensor:
    """The same filters as the weights of one convolution, `[new, 1, 2 * width + orig]`."""
    taps, first = _phases(orig, new)
    weights = taps.new_zeros(new, 2 * _width(orig, new) + orig)
    return weights.scatter_(1, first[:, None] + torch.arange(taps.shape[1], device="cpu"), taps)[:, None]


@public
def resample(waveform: Tensor | NDArray[Any], orig: int, new: int) -> Tensor:
    """Resample whole signals; differentiable, on any device.

    Args:
        waveform: `[..., N]`, float32 or float64: a tensor or a NumPy array.
        orig: its sample rate, in Hz.
        new: the target rate, in Hz.

    Returns:
        `[..., ceil(N * new / orig)]`.

    Raises:
        SpecError: a rate that is not a whole number of at least 1, or a waveform of integers.
    """
    machine, waveform = Resampler(orig, new), as_tensor(waveform, "the waveform")
    if not waveform.is_floating_point() or not waveform.dim():
        raise SpecError(
            f"the waveform is {list(waveform.shape)} of {waveform.dtype}, but it is [..., N] of float32 or float64 in "
            "[-1, 1]; divide integers by their full scale"
        )
    check_layout(waveform, "[..., N]")
    if machine.orig == machine.new:
        return waveform
    total = resampled_length(waveform.shape[-1], machine.orig, machine.new)
    if not waveform.numel():
        return waveform.new_zeros(*waveform.shape[:-1], total)
    flat = waveform.reshape(-1, 1, waveform.shape[-1])
    padded = F.pad(flat, (machine.width, machine.width + machine.orig))
    return machine.convolve(padded)[..., :total].reshape(*waveform.shape[:-1], total)


class Resampler(Machine):
    """The same for a signal in pieces `[B, C, n]`; the joined outputs equal those of `resample`.

    Args:
        orig: sample rate of the pieces, in Hz.
        new: the target rate, in Hz.

    Raises:
        SpecError: a rate that is not a whole number of at least 1, or two whose filters would not fit into memory.
    """

    parts = ("window",)
    positions = ("taken", "given")

    def __init__(self, orig: int, new: int) -> None:
        for name, rate in (("orig", orig), ("new", new)):
            if not isinstance(rate, Integral) or isinstance(rate, bool) or rate < 1:
                raise SpecError(f"{name}={rate!r}, but a sample rate is a whole number of Hz, at least 1")
        divisor = math.gcd(int(orig), int(new))
        self.orig, self.new = int(orig) // divisor, int(new) // divisor
        self.width = _width(self.orig, self.new)
        if (taps := self.new * (2 * self.width + 1)) > _MOST_TAPS:
            raise SpecError(
                f"from {orig} Hz to {new} Hz takes filters of {taps} taps, but at most {_MOST_TAPS} are made; check "
                "the rates, or resample in two steps"
            )
        span = 2 * self.width + self.orig
        self.window: Machine = Window(
            self._channels, span=span, stride=self.orig, left=self.width, right=self.width + self.orig
        )
        self.taken = self.given = 0

    def convolve(self, padded: Tensor) -> Tensor:
        """`[B, 1, L]` to the outputs of the windows that fit, phases interleaved: `[B, 1, n * new]`."""
        if self.new * (2 * self.width + self.orig) > _DENSE:
            return self._gathered(padded[:, 0])[:, None]
        weights, span = _dense(self.orig, self.new).to(padded), 2 * self.width + self.orig
        starts = range(0, max(1, (padded.shape[-1] - span) // self.orig + 1), _WINDOWS)
        parts = [
            F.conv1d(padded[..., i * self.orig :][..., : (_WINDOWS - 1) * self.orig + span], weights, stride=self.orig)
            for i in starts
        ]
        phases = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return phases.transpose(1, 2).flatten(1)[:, None]

    def _gathered(self, padded: Tensor) -> Tensor:
        """The same from `[B, L]`, phase by phase, for rates with so many phases that most weights would be 0."""
        taps, first = _phases(self.orig, self.new)
        windows = padded.unfold(-1, 2 * self.width + self.orig, self.orig)
        size = max(1, _DENSE // (taps.shape[1] * max(1, windows.shape[0] * windows.shape[1])))
        places = torch.arange(taps.shape[1], device=padded.device)
        outputs = [
            (windows[..., start.to(padded.device)[:, None] + places] * part.to(padded)).sum(-1)
            for start, part in zip(first.split(size), taps.split(size), strict=True)
        ]
        return torch.cat(outputs, -1).flatten(1)

    def _channels(self, padded: Tensor) -> Tensor:
        batch, channels, length = padded.shape
        return self.convolve(padded.reshape(batch * channels, 1, length)).reshape(batch, channels, -1)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if self.orig == self.new:
            return x
        self.taken += x.shape[-1]
        y = self.window(x, last)
        if last:
            y = y[..., : resampled_length(self.taken, self.orig, self.new) - self.given]
        self.given += y.shape[-1]
        return y

    def delay(self, samples: int) -> int:
        """At most how many outputs are missing when `samples` inputs are: half the filter, and a block of phases."""
        if self.orig == self.new:
            return samples
        return resampled_length(samples + self.width + self.orig - 1, self.orig, self.new)


def whole_rate(sample_rate: int) -> int:
    """A sample rate, validated.

    Raises:
        SpecError: not a whole number of Hz, or less than 1.
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, Integral) or not 1 <= sample_rate < 2**31:
        raise SpecError(f"sample_rate={sample_rate!r}, but it is a whole number of Hz from 1 to {2**31 - 1}")
    return int(sample_rate)


def resampled_length(samples: int, old: int, new: int) -> int:
    """The length of a resampled signal, `ceil(samples * new / old)`."""
    return -(-samples * new // old)
