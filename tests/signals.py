"""Made signals with known answers, for the metrics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 16000


def noise(samples: int = 2 * RATE, *, seed: int = 1, level: float = 0.1) -> Tensor:
    """White noise of this root mean square."""
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def tone(frequency: float, samples: int = 2 * RATE, *, rate: int = RATE, level: float = 0.5) -> Tensor:
    """A sine of this amplitude."""
    return level * torch.sin(2 * math.pi * frequency / rate * torch.arange(samples, dtype=torch.float64)).float()


def bursts(before: float, after: float, *, every: int = RATE // 4, samples: int = 2 * RATE) -> Tensor:
    """Noise that steps from one level to another in the middle of each period, and fades back."""
    place = torch.arange(samples) % every / every
    level = torch.where(place < 0.5, torch.full_like(place, before), after * (before / after) ** (2 * place - 1))
    return level * noise(samples, level=1.0)


def smeared(wave: Tensor, *, n_fft: int = 1024, seed: int = 3) -> Tensor:
    """The same magnitudes with random phases."""
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(wave, n_fft, n_fft // 4, window=window, return_complex=True)
    phases = 2 * math.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(seed))
    turned = torch.polar(spectrum.abs(), phases)
    return torch.istft(turned, n_fft, n_fft // 4, window=window, length=len(wave))
