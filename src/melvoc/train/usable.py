"""Whether a sound is fit to train on, and what becomes of it: mono, at the run's rate."""

from __future__ import annotations

import torch
from torch import Tensor

from melvoc.audio.resampling import resample

SILENCE = 1e-3  # -60 dB: a file that never exceeds it is silence
NEAR_FULL_SCALE = 0.98
BEYOND = 1.5  # a float file may overshoot a little; beyond this, it is scaled differently
CLIPPED_SHARE = 0.01  # of all samples, in flat runs of CLIPPED_RUN or more
CLIPPED_RUN = 3


def usable(wave: Tensor, own: int, rate: int, notes: list[str], *, keep_clipped: bool, paired: bool) -> Tensor | str:
    """A sound as it is trained on, or the reason why it cannot be.

    Args:
        wave: `[C, N]`.
        own: its rate in Hz.
        rate: the one that is wanted.
        notes: what is wrong with it although it is used is appended.
        keep_clipped: whether clipping is only noted.
        paired: whether it has a mel of another model's, to whose level it belongs.

    Returns:
        `[N]` float32, the mean of the channels, resampled.
    """
    if not bool(torch.isfinite(wave).all()):
        return "contains NaN or Inf; write it again"
    if not wave.numel():
        return "empty"
    if (peak := _peak(wave)) < SILENCE:
        return f"silence (its peak is {peak:.2g})"
    if (reach := float(wave.abs().max())) > BEYOND:
        return f"reaches {reach:.3g}, but samples are in [-1, 1]; divide it by its peak"
    if (share := max(clipped_share(channel) for channel in wave)) > CLIPPED_SHARE:
        clipping = f"clipped ({100 * share:.1f}% of its samples are at full scale)"
        if not keep_clipped:
            return clipping
        notes.append(f"{clipping}, and kept")
    used = resample(wave.mean(0), own, rate)
    if reach > 1.0 and (most := float(used.abs().max())) > 1.0:  # resampling alone goes beyond by a little
        if paired:
            return f"reaches {reach:.3g}, but samples are in [-1, 1], so make it quieter, and its mel from that"
        notes.append(f"reaches {reach:.3g}, but samples are in [-1, 1]; divided by its peak")
        used = used / most
    used = used.clamp(-1.0, 1.0)
    if (left := _peak(used)) < SILENCE:
        return (
            f"silence once it is mixed to one channel at {rate} Hz (its peak falls from {peak:.2g} to {left:.2g}): its "
            "channels cancel, or all of it is too high"
        )
    return used


def _peak(wave: Tensor) -> float:
    """The largest distance of any channel from its mean."""
    return float((wave - wave.mean(-1, keepdim=True)).abs().max())


def clipped_share(wave: Tensor) -> float:
    """The share of samples in flat tops: three or more in a row exactly at the wave's extreme, if that is near full
    scale. A sine at full scale has next to none.

    Args:
        wave: `[N]`, as stored in its file; resampling rounds off flat tops.
    """
    if len(wave) < CLIPPED_RUN:
        return 0.0
    runs = torch.zeros(len(wave), dtype=torch.bool)
    for extreme in (wave.max(), wave.min()):
        if abs(extreme) >= NEAR_FULL_SCALE:
            inside = (wave == extreme).unfold(0, CLIPPED_RUN, 1).all(-1)
            for shift in range(CLIPPED_RUN):
                runs[shift : shift + len(inside)] |= inside
    return float(runs.float().mean())
