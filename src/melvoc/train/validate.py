"""How well sounds that were never trained on are reproduced, in the figures of `melvoc evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.metrics.mel_l1 import common_spec, mel_distance
from melvoc.metrics.mr_stft import stft_distance
from melvoc.metrics.multi_scale_mel import multi_scale_mel_distance
from melvoc.progress import Report
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import log_mel
from melvoc.train.sounds import Sound

DECISIVE = "multi_scale_mel"  # the figure by which a checkpoint is the best: the least
MOST_FILES = 16
MOST_SECONDS = 5.0  # of each file, from its start
LEAST_SAMPLES = 2048  # that the figures need


@torch.no_grad()
def validate(
    network: nn.Module,
    sounds: Sequence[Sound],
    spec: MelSpec,
    *,
    segment: int,
    report: Report = lambda done: None,
) -> dict[str, float]:
    """Three distances that need no package, means over the files (16 at most, 5 s of each).

    Args:
        network: the generator.
        sounds: held out.
        spec: of the mels.
        segment: shorter sounds are padded to this length, as in training.
        report: called after each file with how many are done.

    Returns:
        `{"multi_scale_mel": ..., "mel_l1": ..., "mr_stft": ...}`, the metrics of those names; empty if there are no
        sounds.
    """
    device = next(network.parameters()).device
    chosen = sounds[:MOST_FILES]
    totals: dict[str, float] = {}
    for count, sound in enumerate(chosen, start=1):
        real, mel = excerpt(sound, spec, segment=segment, device=device)
        generated = network(mel)[:, 0, : real.shape[-1]].clamp(-1.0, 1.0)
        for name, value in _figures(real[:, : generated.shape[-1]], generated, spec.sample_rate).items():
            totals[name] = totals.get(name, 0.0) + value / len(chosen)
        report(count)
    return totals


def excerpt(sound: Sound, spec: MelSpec, *, segment: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is heard of a sound: `[1, N]` of at most 5 s from its start, N at least the segment, and its mel
    `[1, n_mels, T]`."""
    frames = max(segment, min(len(sound.wave), int(MOST_SECONDS * spec.sample_rate))) // spec.hop_length
    if sound.mel is not None:
        frames = max(1, min(frames, sound.mel.shape[1]))
    samples = frames * spec.hop_length
    real = F.pad(sound.wave, (0, max(0, samples - len(sound.wave))))[None, :samples].to(device)
    return real, log_mel(real, spec) if sound.mel is None else sound.mel[None, :, :frames].to(device)


def _figures(real: Tensor, generated: Tensor, sample_rate: int) -> dict[str, float]:
    real, generated = (F.pad(wave, (0, max(0, LEAST_SAMPLES - wave.shape[-1]))) for wave in (real, generated))
    return {
        DECISIVE: float(multi_scale_mel_distance(real, generated, sample_rate)),
        "mel_l1": float(mel_distance(real, generated, common_spec(sample_rate))),
        "mr_stft": float(stft_distance(real, generated)),
    }
