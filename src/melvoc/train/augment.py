"""Light augmentation for small datasets, none of which moves a pitch or an onset: gain, polarity and spectral tilt of
what is drawn, and phases of what is judged."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

N_FFT, HOP = 1024, 256  # of the transform in which phases are rotated, as published
_OFFSET, _VARIANCE, _REACH = 2.0, 6.0, 10.0  # delays in samples: of all bins, of single ones; bins that share theirs
_TAPS, _SHAPE = 128, 2.07  # of the low-pass filter over bins: a cutoff of 0.05 with a half width of 0.012, as published
_NEPERS = math.log(10) / 20  # per decibel


def augment(wave: Tensor, generator: torch.Generator, *, gain_db: float, flip_polarity: bool, tilt_db: float) -> Tensor:
    """Change one segment at random; the same generator state gives the same change.

    The tilt is a first-order filter `y[n] = (x[n] + a x[n-1]) / (1 + |a|)`, whose gain differs by up to `tilt_db`
    between 0 Hz and Nyquist, in either direction; with |a| < 1 nothing gets louder, so nothing clips.

    Args:
        wave: `[N]`.
        generator: three numbers are drawn from it, whatever the settings.
        gain_db: maximum attenuation in dB.
        flip_polarity: whether to invert the polarity half of the time.
        tilt_db: maximum tilt in dB.

    Returns:
        `[N]`.
    """
    amount, sign, tilt = torch.rand(3, generator=generator).tolist()
    gain = math.exp(-amount * gain_db * _NEPERS)
    if flip_polarity and sign < 0.5:
        gain = -gain
    slope = math.exp((2 * tilt - 1) * tilt_db * _NEPERS)  # gain at 0 Hz over gain at Nyquist: (1 + a) / (1 - a)
    a = (slope - 1) / (slope + 1)
    if math.isclose(a, 0.0):
        return wave * gain
    before = torch.cat([wave[:1], wave[:-1]])
    return (wave + a * before) * (gain / (1 + abs(a)))


def rotations(share: float, generator: torch.Generator) -> Tensor:
    """Random phases of PhaseAug (Lee et al., ICASSP 2023, arXiv 2211.04610, section 2), for `rotated`.

    Bin k is turned by `2 pi k / n_fft` times a delay of a few samples, one for all bins and a random one that changes
    slowly from bin to bin, so that neighbours, which share a partial, stay together.

    Args:
        share: of the published delays.
        generator: `N_FFT // 2 + 2` numbers are drawn from it.

    Returns:
        `[N_FFT // 2 + 1]`, in radians.
    """
    bins = N_FFT // 2 + 1
    offset = _OFFSET * (2 * torch.rand(1, generator=generator) - 1)
    single = math.sqrt(_VARIANCE) * torch.randn(bins, generator=generator)
    places = torch.arange(_TAPS) - (_TAPS - 1) / 2
    smooth = torch.sinc(places / _REACH) * torch.kaiser_window(_TAPS, periodic=False, beta=_SHAPE)
    extended = F.pad((single + offset)[None, None], (_TAPS // 2 - 1, _TAPS // 2))
    delays = F.conv1d(extended, (smooth / smooth.sum())[None, None])[0, 0]
    return share * delays * torch.arange(bins) * (2 * math.pi / N_FFT)


def rotated(waves: Tensor, phases: Tensor) -> Tensor:
    """Waves with the phases of their spectra turned, frame by frame; differentiable.

    Args:
        waves: `[B, 1, N]`, N above `N_FFT // 2`.
        phases: `[B, N_FFT // 2 + 1]`, in radians, by which each bin lags.

    Returns:
        `[B, 1, N]`.
    """
    window = torch.hann_window(N_FFT, dtype=waves.dtype, device=waves.device)
    spectra = torch.stft(waves[:, 0], N_FFT, HOP, window=window, return_complex=True)
    turned = spectra * torch.polar(torch.ones_like(phases), -phases)[..., None]
    return torch.istft(turned, N_FFT, HOP, window=window, length=waves.shape[-1])[:, None]
