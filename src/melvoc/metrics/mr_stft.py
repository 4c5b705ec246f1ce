"""The multi-resolution STFT distance of Parallel WaveGAN, in training and in evaluation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.metrics import Metric, check_length
from melvoc.nn.powers import powers

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop and window, in samples at any rate
FLOOR = 1e-4  # of magnitudes: -80 dB
QUIET = 0.01  # RMS: -40 dB


def stft_distance(reference: Tensor, sound: Tensor) -> Tensor:
    """Spectral convergence plus log-magnitude L1, mean of three resolutions; differentiable, unchecked.

    What auraloss' `MultiResolutionSTFTLoss` computes, but for one thing: the convergence is relative to the reference,
    or to noise of -40 dB where that is more. Relative to near silence any sound is thousands of times too loud.

    Shape:
        `[B, N]`, N above 1024; the convergence is that of the whole batch.
    """
    total = sound.new_zeros(())
    for n_fft, hop, size in RESOLUTIONS:
        window = torch.hann_window(size, dtype=sound.dtype, device=sound.device)
        theirs, mine = (_powers(x, window, n_fft, hop).clamp(min=FLOOR**2).sqrt() for x in (reference, sound))
        quiet = QUIET * (window.square().sum() * theirs.numel()).sqrt()
        convergence = (theirs - mine).norm() / torch.maximum(theirs.norm(), quiet)
        total = total + convergence + F.l1_loss(mine.log(), theirs.log())
    return total / len(RESOLUTIONS)


def _powers(wave: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Those of `torch.stft` with its defaults: mirrored at both ends, the window in the middle of n_fft."""
    half, left = n_fft // 2, (n_fft - len(window)) // 2
    padded = F.pad(wave[:, None], (half, half), mode="reflect")[:, 0, left:]
    return powers(padded[:, : wave.shape[-1] + 2 * (half - left)], window, n_fft=n_fft, hop_length=hop)


def mr_stft(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """The distance of two sounds, at whatever rate they have.

    Raises:
        MelvocError: no more than 1024 samples.
    """
    check_length(reference, 1025)
    return float(stft_distance(reference[None], sound[None]))


METRIC = Metric(
    name="mr_stft",
    title="multi-resolution STFT distance",
    function=mr_stft,
    better="lower",
    low=0.0,
    high=math.inf,
    source="Yamamoto et al. 2020 (Parallel WaveGAN), as auraloss computes it",
    deaf_to="phase; much of what lies below -80 dB",
)
