"""Frames of a signal: the powers in their spectra, with a gradient that costs one inverse transform, and their sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Frames that overlap. Of more, torch's `fold` adds many at once; for fewer it takes more time and memory.
MANY = 2**12


def powers(padded: Tensor, window: Tensor, *, n_fft: int, hop_length: int) -> Tensor:
    """Squared magnitudes of the spectra of windowed frames, for losses: differentiable, but only once.

    Autograd would take a complex transform of the whole spectrum where a real one does.

    Args:
        padded: `[B, N]`, N at least as long as the window.
        window: `[size]`, at most n_fft; frames are filled up with zeros at the end, which no magnitude shows.
        n_fft: of the transform, even.
        hop_length: from frame to frame.

    Returns:
        `[B, 1 + (N - size) // hop_length, n_fft // 2 + 1]`.
    """
    return _Powers.apply(padded, window, n_fft, hop_length)  # type: ignore[no-untyped-call, no-any-return]


class _Powers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, window: Tensor, n_fft: int, hop_length: int) -> Tensor:
        spectra = torch.fft.rfft(padded.unfold(-1, len(window), hop_length) * window, n_fft)
        ctx.save_for_backward(spectra, window)
        ctx.samples, ctx.n_fft, ctx.hop_length = padded.shape[-1], n_fft, hop_length
        parts = torch.view_as_real(spectra).square()
        return torch.add(parts[..., 0], parts[..., 1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """`2 Re sum_k g_k S_k exp(-2 pi i k n / n_fft)` for each frame: an inverse transform, which counts the bins
        between the first and the last twice."""
        spectra, window = ctx.saved_tensors
        scaled = gradient * ctx.n_fft
        scaled[..., (0, -1)] *= 2.0
        turned = torch.view_as_complex(torch.view_as_real(spectra) * scaled[..., None])
        frames = torch.fft.irfft(turned, ctx.n_fft)[..., : len(window)] * window
        wave = overlap_add(frames, ctx.hop_length)
        return F.pad(wave, (0, ctx.samples - wave.shape[-1])), None, None, None


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Frames added up, hop_length apart: `[..., t, size]` to `[..., (t - 1) * hop_length + size]`."""
    count, size = frames.shape[-2:]
    overlaps = -(-size // hop_length)
    if overlaps > MANY:
        columns = frames.reshape(-1, count, size).transpose(1, 2)
        length = (count - 1) * hop_length + size
        folded = F.fold(columns, (1, length), kernel_size=(1, size), stride=(1, hop_length))
        return folded.reshape(*frames.shape[:-2], length)
    if size % hop_length:
        frames = F.pad(frames, (0, -size % hop_length))
    parts = frames.unflatten(-1, (overlaps, hop_length))
    total = frames.new_zeros(*frames.shape[:-2], count + overlaps - 1, hop_length)
    for shift in range(overlaps):
        total[..., shift : shift + count, :] += parts[..., shift, :]
    return total.flatten(-2)[..., : (count - 1) * hop_length + size]
