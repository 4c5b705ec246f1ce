"""What leads from a network's last layer to sound, where that is an inverse STFT: polar form, and overlap-add.

The transforms themselves are numpy's or torch's. In torch, what is around them is a dozen passes over memory, which
take longer than the transforms.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from melvoc.nn.engines.cpu.atomics import take_job
from melvoc.nn.engines.cpu.compile import instructions, kernel
from melvoc.nn.engines.cpu.functions import exponential, sine_and_cosine
from melvoc.nn.engines.cpu.memory import POOL, taken
from melvoc.nn.engines.cpu.rows import constant
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.vector import SINGLE, VECTOR, Vec, copy_value, load, store, zero_value
from melvoc.nn.graph import Machine
from melvoc.nn.stft import InverseSTFTMachine, LogPolar

CHUNK = 2048  # values of a polar form, in a job
FRAMES = 16  # of a transposition, in a job
MOST_SAMPLES = 2**18  # in frames that numpy transforms, on this thread; of more, torch's threads save time


def _polar(of_sines: bool, kind: ir.VectorType) -> Any:
    """Instructions: log-magnitudes and phases (or what the phases are sines of) to real and imaginary parts."""

    def emit(builder: ir.IRBuilder, magnitude: ir.Value, phase: ir.Value, largest: ir.Value, *out: ir.Value) -> None:
        size, most = exponential(load(builder, magnitude, kind)), load(builder, largest, kind)
        above = builder.fcmp_ordered(">", size.value, most.value)  # not NaN
        size = Vec(builder, builder.select(above, most.value, size.value))
        angle = load(builder, phase, kind)
        sine, cosine = sine_and_cosine(sine_and_cosine(angle)[0] if of_sines else angle)
        for address, part in zip(out, (cosine, sine), strict=True):
            store(builder, address, size * part)

    return instructions(5, emit)


_of_phases, _of_phase = _polar(False, VECTOR), _polar(False, SINGLE)
_of_sines, _of_sine = _polar(True, VECTOR), _polar(True, SINGLE)


class Polar(NamedTuple):
    """Arguments of `polar`: `half` log-magnitudes and as many phases in each entry, `largest` is the address of a row;
    with `sines` 1, phases are the sines of what is given."""

    half: int
    source: int
    out: int
    largest: int
    sines: int


@kernel(Polar)
def polar(counter: int, jobs: int, half: int, source: int, out: int, largest: int, sines: int) -> None:
    """Real parts and imaginary parts; a job is up to CHUNK of both."""
    chunk_count = (half + CHUNK - 1) // CHUNK
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        start = (job % chunk_count) * CHUNK
        end = min(half, start + CHUNK)
        x = source + job // chunk_count * half * 8
        y = out + job // chunk_count * half * 8
        for i in range(start, end // 8 * 8, 8):  # CHUNK is a multiple
            if sines != 0:
                _of_sines(x + 4 * i, x + 4 * (half + i), largest, y + 4 * i, y + 4 * (half + i))
            else:
                _of_phases(x + 4 * i, x + 4 * (half + i), largest, y + 4 * i, y + 4 * (half + i))
        for i in range(end // 8 * 8, end):  # at the very end
            if sines != 0:
                _of_sine(x + 4 * i, x + 4 * (half + i), largest, y + 4 * i, y + 4 * (half + i))
            else:
                _of_phase(x + 4 * i, x + 4 * (half + i), largest, y + 4 * i, y + 4 * (half + i))


class PolarMachine(Machine):
    """Runs a `Map` of a `LogPolar`. What the kernel does not take (another type, autograd) goes to torch.

    Args:
        function: the polar form.
    """

    def __init__(self, function: LogPolar) -> None:
        self.function = function
        self._largest = constant(math.inf if function.largest is None else function.largest)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        if not x.shape[-1]:
            return x
        if not taken(x):
            return self.function(x)
        x = x.contiguous()
        half = x.shape[1] // 2 * x.shape[2]
        out = POOL.empty(*x.shape)
        arguments = Polar(
            half=half,
            source=x.data_ptr(),
            out=out.data_ptr(),
            largest=self._largest.address,
            sines=int(self.function.sine),
        )
        TEAM.run(polar, x.shape[0] * -(-half // CHUNK), arguments, vectors=x.shape[0] * half * 8)
        return out


class Interleave(NamedTuple):
    """Arguments of `interleave`; steps are in bytes."""

    bins: int
    frames: int
    source: int
    source_batch: int
    source_bin: int
    source_frame: int
    out: int


@kernel(Interleave)
def interleave(
    counter: int,
    jobs: int,
    bins: int,
    frames: int,
    source: int,
    source_batch: int,
    source_bin: int,
    source_frame: int,
    out: int,
) -> None:
    """Complex spectra `[B, T, bins]` of real parts and imaginary parts `[B, 2 * bins, T]`; a job is FRAMES of them."""
    chunk_count = (frames + FRAMES - 1) // FRAMES
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        entry, start = job // chunk_count, (job % chunk_count) * FRAMES
        end = min(frames, start + FRAMES)
        for number in range(bins):
            real = source + entry * source_batch + number * source_bin
            imaginary = real + bins * source_bin
            y = out + (entry * frames * bins + number) * 8
            for frame in range(start, end):
                copy_value(real + frame * source_frame, y + frame * bins * 8)
                copy_value(imaginary + frame * source_frame, y + frame * bins * 8 + 4)


def _add(kind: ir.VectorType) -> Any:
    """Instructions: values of a frame times the window's, and these squared, added to two sums."""

    def emit(builder: ir.IRBuilder, frame: ir.Value, window: ir.Value, total: ir.Value, squares: ir.Value) -> None:
        factor = load(builder, window, kind)
        store(builder, total, load(builder, total, kind) + load(builder, frame, kind) * factor)
        store(builder, squares, load(builder, squares, kind) + factor * factor)

    return instructions(4, emit)


_add_row, _add_value = _add(VECTOR), _add(SINGLE)


class OverlapAdd(NamedTuple):
    """Arguments of `overlap_add`; `size` floats in a frame, `length` in the sums of an entry."""

    frames: int
    size: int
    hop: int
    length: int
    source: int
    window: int
    out: int


@kernel(OverlapAdd)
def overlap_add(
    counter: int, jobs: int, frames: int, size: int, hop: int, length: int, source: int, window: int, out: int
) -> None:
    """The sums of windowed frames and of squared windows, `[B, 2, length]`; a job is a hop of both."""
    hop_count = (length + hop - 1) // hop
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        entry, number = job // hop_count, job % hop_count
        total = out + (entry * 2 * length + number * hop) * 4
        squares = total + length * 4
        here = min(hop, length - number * hop)
        for i in range(here):
            zero_value(total + 4 * i)
            zero_value(squares + 4 * i)
        for back in range(max(0, number - frames + 1), min(number, (size - 1) // hop) + 1):  # hops since a frame began
            x = source + ((entry * frames + number - back) * size + back * hop) * 4
            w = window + back * hop * 4
            count = min(here, size - back * hop)
            for i in range(0, count // 8 * 8, 8):
                _add_row(x + 4 * i, w + 4 * i, total + 4 * i, squares + 4 * i)
            for i in range(count // 8 * 8, count):
                _add_value(x + 4 * i, w + 4 * i, total + 4 * i, squares + 4 * i)


class InverseTransforms(InverseSTFTMachine):
    """Runs an `InverseSTFT`. What the kernels do not take (another type, autograd) goes to torch."""

    def sums(self, spectrum: Tensor) -> Tensor:
        layer = self.layer
        if not taken(spectrum) or layer.window.dtype != torch.float32:
            return super().sums(spectrum)
        frames = _transformed(_complex(spectrum), layer.n_fft)
        batch, count, size = frames.shape
        length = (count - 1) * layer.hop_length + size
        out = POOL.empty(batch, 2, length)
        arguments = OverlapAdd(
            frames=count,
            size=size,
            hop=layer.hop_length,
            length=length,
            source=frames.data_ptr(),
            window=layer.window.data_ptr(),
            out=out.data_ptr(),
        )
        TEAM.run(overlap_add, batch * -(-length // layer.hop_length), arguments, vectors=batch * count * size // 2)
        return out


def _complex(spectrum: Tensor) -> Tensor:
    """`[B, 2 * bins, T]` to `[B, T, bins]`."""
    batch, channels, frames = spectrum.shape
    made = torch.empty(batch, frames, channels // 2, dtype=torch.complex64, device="cpu")
    arguments = Interleave(
        bins=channels // 2,
        frames=frames,
        source=spectrum.data_ptr(),
        source_batch=4 * spectrum.stride(0),
        source_bin=4 * spectrum.stride(1),
        source_frame=4 * spectrum.stride(2),
        out=made.data_ptr(),
    )
    TEAM.run(interleave, batch * -(-frames // FRAMES), arguments, vectors=spectrum.numel())
    return made


def _transformed(spectra: Tensor, n_fft: int) -> Tensor:
    """Inverse transforms, `[B, T, n_fft]`; of a few by numpy, which wakes no other thread."""
    if spectra.shape[0] * spectra.shape[1] * n_fft > MOST_SAMPLES:
        made: Tensor = torch.fft.irfft(spectra, n=n_fft)
        return made
    frames = np.fft.irfft(spectra.numpy(), n=n_fft)
    return torch.from_numpy(frames.astype(np.float32, copy=False))  # numpy 1 gives float64
