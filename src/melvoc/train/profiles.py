"""What a run takes where nobody says: one table, by device. What is not in it is the architecture's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError
from melvoc.options import pick_device
from melvoc.recipe import LossWeights, Recipe
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.recipes import quick_architecture, trained, trained_architecture

if TYPE_CHECKING:
    from melvoc.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Values for what a `TrainConfig` leaves open, under its names. None: the recipe's.

    Attributes:
        about: what it is for, and what it rests on.
        quick: whether the architecture that is quick (`Recipe.quick`) is trained, where neither a generator nor a warm
            start says which; otherwise the default.
        size: of that architecture, and of another that has one of this name.
        batch_size: segments per step and process.
        segment: samples, for that architecture; the multiple of the hop length that is next to it is used.
        preset: of the discriminators' channels, if any loss asks for them.
        weights: of the losses; one that is not set is not computed.
        minutes: that a run takes, if it has neither minutes nor steps.
        ramp_steps: until a generator from a warm start learns at the full rate.
    """

    about: str
    quick: bool = False
    size: str | None = None
    batch_size: int = 8
    segment: int | None = None
    preset: Literal["full", "slim"] = "full"
    weights: LossWeights | None = None
    minutes: float = 30.0
    ramp_steps: int = 1000


_CPU = Profile(
    about="sounds alone, without discriminators, which cost a CPU most of a step",
    quick=True,
    size="small",
    segment=16384,
    preset="slim",
    weights=LossWeights(multi_scale_mel=15.0, refined=1.0),
    ramp_steps=100,
)
PROFILES: Mapping[str, Profile] = {
    "cpu": _CPU,
    "gpu": replace(_CPU, about="the same in batches of 16; not measured", batch_size=16),
    "published": Profile(about="the architecture's recipe, with batches of 8"),
}


def profile_name(config: TrainConfig) -> str:
    """The name of a configuration's profile: the one that it names, else its device's.

    Who names discriminators asks for training as it was published. A warm start alone does not: where new ones first
    learn alone, a few minutes on a CPU end before the generator has moved.

    Raises:
        OptionError: no such profile.
    """
    if config.profile is not None:
        known = (*PROFILES, *(name for _, recipe in trained() for name in recipe.profiles))
        if config.profile not in known:
            raise OptionError(f"profile={config.profile!r}, but it is one of {', '.join(map(repr, known))}")
        return config.profile
    if any((config.preset, config.discriminators, config.warm_discriminators)):
        return "published"
    kind = pick_device("auto").type if config.device == "auto" else str(config.device).partition(":")[0]
    return "cpu" if kind == "cpu" else "gpu"


def profile_of(config: TrainConfig) -> Profile:
    """A configuration's profile; one that is a recipe of its own leaves everything else as published.

    Raises:
        OptionError: no such profile.
    """
    return PROFILES.get(profile_name(config), PROFILES["published"])


def own_recipe(config: TrainConfig) -> str | None:
    """The profile that is a recipe of an architecture, beside its first one.

    Raises:
        OptionError: no such profile.
    """
    name = profile_name(config)
    return None if name in PROFILES else name


def subject(
    config: TrainConfig, generator: NetworkConfig | None = None, spec: MelSpec | None = None
) -> tuple[Architecture, Recipe]:
    """The record of the architecture to train, with its recipe: named, of a generator, the profile's, or the default,
    also where the profile's has no generator for the mel.

    Args:
        config: of the run.
        generator: of the warm start.
        spec: of the mels. None: the configuration's, or what is trained where it has none.

    Raises:
        OptionError: as `trained_architecture`, or no such profile.
    """
    network, name = config.generator or generator, config.architecture
    if name is None and network is None and config.warm_start is None and profile_of(config).quick:
        name = quick_architecture(spec or config.spec or MelSpec.preset("griffinlim"))
    return trained_architecture(name, network, own_recipe(config))
