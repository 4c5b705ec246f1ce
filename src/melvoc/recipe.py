"""How an architecture is trained, as data in its record; `melvoc.train` does the training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from torch import nn

from melvoc.errors import OptionError
from melvoc.spectrogram.spec import MelSpec

if TYPE_CHECKING:
    from melvoc.architecture import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of each loss; a loss with weight 0 is not computed. None: the architecture's recipe decides.

    Attributes:
        adversarial: GAN loss (least squares), both sides.
        feature: matching of the discriminators' features.
        mel: L1 distance of log-mels.
        stft: multi-resolution STFT distance (`melvoc.metrics.mr_stft`); 15 is usual.
        multi_scale_mel: BigVGAN-v2's multi-scale mel distance (`melvoc.metrics.multi_scale_mel`); 15 there.
        refined: the losses of sound once more, after one round of refinement (`melvoc.post.refine`): a factor of their
            weights, 1 where both count alike.

    Raises:
        OptionError: a weight that is negative, or no number.
    """

    adversarial: float | None = None
    feature: float | None = None
    mel: float | None = None
    stft: float | None = None
    multi_scale_mel: float | None = None
    refined: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not (number and value >= 0):
                raise OptionError(f"weights.{name}={value!r}, but it is a number at least 0")

    @property
    def judges(self) -> bool:
        """Whether any loss asks for discriminators."""
        return bool(self.adversarial or self.feature)

    @property
    def hears(self) -> bool:
        """Whether a loss compares sound itself, without discriminators."""
        return bool(self.mel or self.stft or self.multi_scale_mel)

    def over(self, defaults: LossWeights) -> Self:
        """A copy with unset weights filled in from a recipe's; a loss that the recipe does not have gets 0."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(defaults)
        return type(self)(**{name: theirs[name] or 0.0 if value is None else value for name, value in mine.items()})


def convolutions(network: nn.Module) -> list[nn.Module]:
    """Every convolution of a network."""
    return [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """How an architecture is trained. Its weights are always exported under the network's own names.

    Attributes:
        sizes: the configurations that are trained for a spec, by name; the first is the default. They raise
            `SpecError` where they have none.
        discriminators: which judge, by name (`melvoc.train.discriminators.KINDS`), and their weights in the losses of
            both sides.
        weights: of the losses; one that is not set is not computed.
        segment: samples; the multiple of the hop length that is next to it is used.
        learning_rate: of both optimizers (AdamW).
        betas: of both optimizers.
        lr_decay: factor of the learning rate, applied every `lr_decay_steps`.
        lr_decay_steps: steps between decays. None: one pass over the sounds, but at least 1000.
        continues: whether optimizer states that come with published discriminators are taken up as well.
        profiles: other ways in which the architecture was trained, by the name that `TrainConfig.profile` has for them.
        weight_norm: the layers whose weight is trained as length and direction. None: no layer's.
        autocast: the layers to which bfloat16 autocast does no harm in training. None: none, the generator stays
            float32.
        default: whether this architecture is trained where nothing says which.
        quick: whether it is where nothing says which, and a result within minutes is asked for.
    """

    sizes: Mapping[str, Callable[[MelSpec], NetworkConfig]]
    discriminators: Mapping[str, float]
    weights: LossWeights
    segment: int
    learning_rate: float
    betas: tuple[float, float]
    lr_decay: float = 0.999
    lr_decay_steps: int | None = None
    continues: bool = False
    profiles: Mapping[str, Recipe] = field(default_factory=dict)
    weight_norm: Callable[[nn.Module], Iterable[nn.Module]] | None = None
    autocast: Callable[[nn.Module], Iterable[nn.Module]] | None = None
    default: bool = False
    quick: bool = False
