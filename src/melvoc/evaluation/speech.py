"""Whether a sound is speech: a simple test."""

from __future__ import annotations

import torch
from torch import Tensor

from melvoc.audio.resampling import resample

_RATE, _HOP, _FRAME, _FFT = 16000, 160, 640, 2048  # 10 ms steps, 40 ms windows
_MOST = 20 * _RATE  # samples that are looked at
_LAGS = slice(_RATE // 400, _RATE // 70)
_BANDS = ((20, 60), (60, 120), (120, 250), (250, 500), (500, 800))  # bins of 7.8 Hz: 156 Hz to 6.2 kHz
_QUIET = 1e-4  # of the loudest frame's power: -40 dB


def looks_like_speech(wave: Tensor, sample_rate: int) -> bool:
    """Whether a sound `[C, N]` looks like speech. A rough test, of which docs/evaluation.md says how often it errs.

    A sound of at least 1 s does if 40 to 90 % of its loud frames have a pitch from 70 to 400 Hz, at least 45 % of that
    pitch's steps are glides, and at least 30 % of the modulation of its bands is at 2.5 to 8 Hz, the rate of syllables
    (Scheirer and Slaney, ICASSP 1997).
    """
    mono = resample(wave.mean(0)[: _MOST * sample_rate // _RATE], sample_rate, _RATE)
    if len(mono) < _RATE or not bool(mono.any()):
        return False
    frames = mono.unfold(0, _FRAME, _HOP)
    power = torch.fft.rfft(frames * torch.hann_window(_FRAME), _FFT).abs().square()
    pitch, loud = _pitch(frames), power.sum(1) > _QUIET * power.sum(1).max()
    voiced = (pitch > 0) & loud
    share = float(voiced.sum() / loud.sum())
    return 0.4 <= share <= 0.9 and _glides(pitch, voiced) >= 0.45 and _syllables(power) >= 0.3


def _pitch(frames: Tensor) -> Tensor:
    """Pitch of each frame in octaves, by autocorrelation; 0 where there is none."""
    spectrum = torch.fft.rfft(frames - frames.mean(1, keepdim=True), _FFT).abs().square()
    correlation = torch.fft.irfft(spectrum)[:, : _LAGS.stop]
    correlation = correlation / correlation[:, :1].clamp(min=1e-9) / (1 - torch.arange(_LAGS.stop) / _FRAME)
    height, lag = correlation[:, _LAGS].max(1)
    return torch.where(height > 0.6, torch.log2(_RATE / (lag + _LAGS.start)), 0.0)


def _glides(pitch: Tensor, voiced: Tensor) -> float:
    """The share of steps between voiced frames that move the pitch by 5 to 72 cents."""
    steps = (pitch[1:] - pitch[:-1])[voiced[1:] & voiced[:-1]].abs()
    return float(((steps > 0.004) & (steps < 0.06)).float().mean()) if len(steps) else 0.0


def _syllables(power: Tensor) -> float:
    """The share of the bands' modulation from 0.5 to 40 Hz that lies between 2.5 and 8 Hz."""
    bands = torch.stack([power[:, low:high].sum(1).sqrt() for low, high in _BANDS])
    bands = bands / bands.mean(1, keepdim=True).clamp(min=1e-9)
    window = torch.hann_window(bands.shape[1])
    modulation = torch.fft.rfft((bands - bands.mean(1, keepdim=True)) * window).abs().square()
    rate = torch.arange(modulation.shape[1]) * (_RATE / _HOP / bands.shape[1])
    inside = modulation[:, (rate >= 2.5) & (rate <= 8)].sum()
    return float(inside / modulation[:, (rate >= 0.5) & (rate <= 40)].sum().clamp(min=1e-9))
