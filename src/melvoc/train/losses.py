"""What the two sides of training minimise: least squares (Mao et al. 2017), features, mels, STFT magnitudes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.metrics.mel_l1 import mel_distance
from melvoc.metrics.mr_stft import stft_distance
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import frames_to_mel
from melvoc.train.discriminators import Judgement


def loss_spec(spec: MelSpec) -> MelSpec:
    """The mel in which the loss is measured: the generator's, with the natural log of magnitudes, up to Nyquist.

    HiFi-GAN's weights were chosen for that, and a loss up to Nyquist sees what a narrower input leaves out.
    """
    values = spec.to_dict() | {"f_max": None, "power": 1.0, "log": "ln", "log_floor": 1e-5, "magnitude_eps": 1e-9}
    return MelSpec.from_dict(values)


def padded_mel(padded: Tensor, spec: MelSpec) -> Tensor:
    """The mel of waves that are padded already; nothing is checked, so that nothing waits for a GPU.

    Shape:
        `[B, (T - 1) * hop_length + n_fft]` to `[B, n_mels, T]`.
    """
    return frames_to_mel(padded.float(), spec)


def mel_loss(generated: Tensor, real: Tensor, spec: MelSpec) -> Tensor:
    """The L1 distance of log-mels of two waves `[B, 1, N]`; no gradient flows to the real one."""
    return mel_distance(real[:, 0].detach().float(), generated[:, 0].float(), spec)


def discriminator_loss(judgements: list[Judgement]) -> Tensor:
    """`mean (D(real) - 1)^2 + mean D(generated)^2`, summed over the discriminators.

    Args:
        judgements: of a batch whose first half is real and second half generated.
    """
    total = torch.zeros((), device=judgements[0][0].device)
    for score, _ in judgements:
        real, generated = score.float().chunk(2)
        total = total + (real - 1).square().mean() + generated.square().mean()
    return total


def adversarial_loss(generated: list[Judgement]) -> Tensor:
    """`mean (D(generated) - 1)^2`, summed over the discriminators."""
    return torch.stack([(score.float() - 1).square().mean() for score, _ in generated]).sum()


def feature_loss(generated: list[Judgement], real: list[Judgement]) -> Tensor:
    """The mean absolute difference of each layer's outputs, summed over layers and discriminators."""
    distances = [
        F.l1_loss(mine, theirs)
        for (_, features), (_, targets) in zip(generated, real, strict=True)
        for mine, theirs in zip(features, targets, strict=True)
    ]
    return torch.stack([distance.float() for distance in distances]).sum()


def stft_loss(generated: Tensor, real: Tensor) -> Tensor:
    """The multi-resolution STFT distance of two waves `[B, 1, N]`; no gradient flows to the real one."""
    return stft_distance(real[:, 0].detach().float(), generated[:, 0].float())
