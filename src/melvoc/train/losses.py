"""What the two sides of training minimise: least squares (Mao et al. 2017), features, mels, STFT magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import MelvocError
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants, magnitudes, to_log
from melvoc.train.discriminators import Judgement

QUIET = 0.01  # RMS: -40 dB
_RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # n_fft, hop and window, as in Parallel WaveGAN


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
    with torch.autocast(padded.device.type, enabled=False):
        _, filters = constants(spec, padded.device, torch.float32)
        return to_log(magnitudes(padded.float(), spec) @ filters.T, spec).transpose(1, 2)


def log_mel(wave: Tensor, spec: MelSpec) -> Tensor:
    """The mel of whole waves: `[B, 1, N]` to `[B, n_mels, T]`, unchecked."""
    return padded_mel(F.pad(wave, (spec.pad, spec.pad), mode=spec.pad_mode)[:, 0], spec)


def mel_loss(generated: Tensor, real: Tensor, spec: MelSpec) -> Tensor:
    """The L1 distance of log-mels of two waves `[B, 1, N]`; no gradient flows to the real one."""
    with torch.no_grad():
        target = log_mel(real, spec)
    return (log_mel(generated, spec) - target).abs().mean()


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


def make_stft_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """auraloss' `MultiResolutionSTFTLoss` of `(generated, real)`, both `[B, 1, N]`.

    Raises:
        MelvocError: auraloss is not installed.
    """
    try:
        from auraloss.freq import MultiResolutionSTFTLoss
    except ImportError as error:
        raise MelvocError(
            "the STFT loss needs auraloss; pip install 'melvoc[train]', or leave its weight at 0"
        ) from error
    loss: Callable[[Tensor, Tensor], Tensor] = MultiResolutionSTFTLoss()
    return loss


@torch.no_grad()
def stft_distance(generated: Tensor, real: Tensor) -> float:
    """Spectral convergence plus log-magnitude L1, mean of three resolutions (Yamamoto et al. 2020), for validation.

    The convergence is relative to the real sound, or to noise of -40 dB where that is more: relative to near silence
    any sound is thousands of times too loud.

    Args:
        generated: `[B, 1, N]`.
        real: `[B, 1, N]`.
    """
    total = 0.0
    for n_fft, hop, size in _RESOLUTIONS:
        window = torch.hann_window(size, device=real.device)
        mine, theirs = (
            torch.stft(x[:, 0].float(), n_fft, hop, size, window, return_complex=True).abs().clamp(min=1e-4)
            for x in (generated, real)
        )
        quiet = QUIET * (window.square().sum() * theirs.numel()).sqrt()
        convergence = (theirs - mine).norm() / torch.maximum(theirs.norm(), quiet)
        total += float(convergence + (theirs.log() - mine.log()).abs().mean())
    return total / len(_RESOLUTIONS)
