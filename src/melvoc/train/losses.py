"""What the two sides of training minimise: least squares (Mao et al. 2017), features, and distances of sound, which are
those of `melvoc.metrics`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.metrics.mel_l1 import mel_distance
from melvoc.metrics.mr_stft import stft_distance
from melvoc.metrics.multi_scale_mel import multi_scale_mel_distance
from melvoc.recipe import LossWeights
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.discriminators.normed import Judgement


def loss_spec(spec: MelSpec) -> MelSpec:
    """The mel in which the loss is measured: the generator's, with the natural log of magnitudes, up to Nyquist.

    HiFi-GAN's weights were chosen for that, and a loss up to Nyquist sees what a narrower input leaves out.
    """
    values = spec.to_dict() | {"f_max": None, "power": 1.0, "log": "ln", "log_floor": 1e-5, "magnitude_eps": 1e-9}
    return MelSpec.from_dict(values)


def discriminator_loss(judgements: list[Judgement]) -> Tensor:
    """`mean (D(real) - 1)^2 + mean D(generated)^2`, the weighted sum over the discriminators.

    Args:
        judgements: of a batch whose first half is real and second half generated.
    """
    total = torch.zeros((), device=judgements[0].score.device)
    for score, _, weight in judgements:
        real, generated = score.float().chunk(2)
        total = total + weight * (real - 1).square().mean() + weight * generated.square().mean()
    return total


def adversarial_loss(generated: list[Judgement]) -> Tensor:
    """`mean (D(generated) - 1)^2`, the weighted sum over the discriminators."""
    return torch.stack([weight * (score.float() - 1).square().mean() for score, _, weight in generated]).sum()


def feature_loss(generated: list[Judgement], real: list[Judgement]) -> Tensor:
    """The mean absolute difference of each layer's outputs, the sum over layers, and weighted over discriminators."""
    distances = [
        one.weight * F.l1_loss(mine, theirs).float()
        for one, other in zip(generated, real, strict=True)
        for mine, theirs in zip(one.features, other.features, strict=True)
    ]
    return torch.stack(distances).sum()


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss of the generator.

    Attributes:
        name: in reports.
        weight: in the sum.
        loss: of generated and real, both as waves `[B, 1, N]` or both as judgements.
    """

    name: str
    weight: float
    loss: Callable[..., Tensor]


def judged_terms(weights: LossWeights) -> list[Term]:
    """The losses in use that compare judgements."""
    terms = {
        "adversarial": (weights.adversarial, lambda generated, real: adversarial_loss(generated)),
        "feature": (weights.feature, feature_loss),
    }
    return [Term(name=name, weight=weight, loss=loss) for name, (weight, loss) in terms.items() if weight]


def heard_terms(weights: LossWeights, spec: MelSpec) -> list[Term]:
    """The losses in use that compare waves; no gradient flows to the real ones.

    Args:
        weights: of all losses.
        spec: of the generator's mels.
    """
    terms: dict[str, tuple[float | None, Callable[[Tensor, Tensor], Tensor]]] = {
        "mel": (weights.mel, functools.partial(mel_distance, spec=loss_spec(spec))),
        "stft": (weights.stft, stft_distance),
        "multi_scale_mel": (
            weights.multi_scale_mel,
            functools.partial(multi_scale_mel_distance, sample_rate=spec.sample_rate),
        ),
    }
    return [
        Term(name=name, weight=weight, loss=functools.partial(_compared, distance))
        for name, (weight, distance) in terms.items()
        if weight
    ]


def refined_terms(weights: LossWeights, spec: MelSpec) -> list[Term]:
    """The same for waves that have gone through a round of refinement, named `refined_mel` and so on."""
    factor = weights.refined or 0.0
    terms = heard_terms(weights, spec) if factor else []
    return [Term(name=f"refined_{term.name}", weight=factor * term.weight, loss=term.loss) for term in terms]


def _compared(distance: Callable[[Tensor, Tensor], Tensor], generated: Tensor, real: Tensor) -> Tensor:
    return distance(real[:, 0].detach(), generated[:, 0])
