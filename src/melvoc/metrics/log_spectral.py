"""The log-spectral distance, in dB."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melvoc.metrics import Metric, check_length
from melvoc.metrics.mel_l1 import common_spec

FLOOR = 1e-5  # of a full-scale sine's magnitude: -100 dB


def log_spectral(reference: Tensor, sound: Tensor, sample_rate: int) -> float:
    """Mean over frames of the root mean square over frequencies of the difference of levels, in dB.

    Frames are the common mel's (Hann windows of about 46 ms, a quarter apart). Levels below -100 dB of a full-scale
    sine count as -100 dB, so that the noise floor of one file does not count against the digital silence of another.

    Raises:
        MelvocError: fewer than `common_spec(sample_rate).n_fft` samples.
    """
    n_fft = common_spec(sample_rate).n_fft
    check_length(reference, n_fft)
    window = torch.hann_window(n_fft)
    spectra = torch.stft(torch.stack([reference, sound]), n_fft, n_fft // 4, window=window, return_complex=True).abs()
    levels = 20 * (spectra / (window.sum() / 2)).clamp(min=FLOOR).log10()
    return float((levels[0] - levels[1]).square().mean(0).sqrt().mean())


METRIC = Metric(
    name="log_spectral",
    title="log-spectral distance (dB)",
    function=log_spectral,
    better="lower",
    low=0.0,
    high=math.inf,
    source="Gray and Markel 1976, the root mean square distance of log spectra",
    deaf_to="phase; counts what is too soft to hear as much as what is loud",
)
