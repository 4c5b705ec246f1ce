"""How well sounds that were never trained on are reproduced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from melvoc.spectrogram.spec import MelSpec
from melvoc.train.losses import log_mel, loss_spec, stft_distance
from melvoc.train.sounds import Sound

MOST_FILES = 16
MOST_SECONDS = 5.0  # of each file, from its start


@torch.no_grad()
def validate(network: nn.Module, sounds: Sequence[Sound], spec: MelSpec, *, segment: int) -> dict[str, float]:
    """Log-mel L1 and multi-resolution STFT distance, means over the files (16 at most, 5 s of each).

    Args:
        network: the generator.
        sounds: held out.
        spec: of the mels.
        segment: shorter sounds are padded to this length, as in training.

    Returns:
        `{"mel": ..., "stft": ...}`; empty if there are no sounds.
    """
    device = next(network.parameters()).device
    totals = {"mel": 0.0, "stft": 0.0}
    chosen = sounds[:MOST_FILES]
    for sound in chosen:
        frames = max(segment, min(len(sound.wave), int(MOST_SECONDS * spec.sample_rate))) // spec.hop_length
        if sound.mel is not None:
            frames = max(1, min(frames, sound.mel.shape[1]))
        samples = frames * spec.hop_length
        real = F.pad(sound.wave, (0, max(0, samples - len(sound.wave))))[None, None, :samples].to(device)
        mel = log_mel(real, spec) if sound.mel is None else sound.mel[None, :, :frames].to(device)
        generated = network(mel)[..., :samples].clamp(-1.0, 1.0)
        real = real[..., : generated.shape[-1]]
        measure = loss_spec(spec)
        totals["mel"] += float((log_mel(generated, measure) - log_mel(real, measure)).abs().mean())
        totals["stft"] += stft_distance(generated, real)
    return {name: total / len(chosen) for name, total in totals.items()} if chosen else {}
