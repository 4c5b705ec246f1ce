"""Which architecture is trained, and in which size."""

from __future__ import annotations

from contextlib import suppress

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError
from melvoc.recipe import Recipe
from melvoc.registry import all_architectures
from melvoc.spectrogram.spec import MelSpec


def trained(name: str | None = None) -> list[tuple[Architecture, Recipe]]:
    """The architecture of a name, or every one that melvoc trains, the default first; each with its recipe.

    Raises:
        OptionError: an architecture without a recipe.
    """
    known = [(record, record.recipe) for record in all_architectures() if record.recipe]
    known.sort(key=lambda entry: not entry[1].default)
    chosen = [entry for entry in known if name in (None, entry[0].name)]
    if not chosen:
        names = ", ".join(record.name for record, _ in known)
        raise OptionError(f"architecture={name!r}, but melvoc trains {names}; choose one of them")
    return chosen


def quick_architecture(spec: MelSpec) -> str | None:
    """The name of the architecture that gives a result within minutes; None if it has no generator for the spec."""
    for record, recipe in trained():
        if recipe.quick:
            with suppress(SpecError):
                sized_generator(record, recipe, None, spec)
                return record.name
    return None


def trained_architecture(
    name: str | None, generator: NetworkConfig | None, profile: str | None = None
) -> tuple[Architecture, Recipe]:
    """The record of the architecture to train, with its recipe: by name, by configuration, or the default.

    Args:
        name: of the architecture.
        generator: its configuration.
        profile: of the architecture's recipes, the one of this name.

    Raises:
        OptionError: an architecture without a recipe, without such a profile, or a configuration of a different one.
    """
    known = trained(name)
    if profile is not None:
        known = [(record, recipe.profiles[profile]) for record, recipe in known if profile in recipe.profiles]
        if not known:
            names = [record.name for record, recipe in trained() if profile in recipe.profiles]
            raise OptionError(f"profile={profile!r} is of {' and '.join(names)}, not of {name}; omit the profile")
    fitting = [entry for entry in known if generator is None or type(generator) is entry[0].config]
    if not fitting:
        classes = " or ".join(f"{record.config.__name__}(...)" for record, _ in known)
        raise OptionError(f"generator={generator!r}, but it is a {classes}")
    return fitting[0]


def sized_generator(record: Architecture, recipe: Recipe, size: str | None, spec: MelSpec) -> NetworkConfig:
    """The architecture's configuration of a size for a spec.

    Args:
        record: of the architecture.
        recipe: its recipe.
        size: by name. None: the recipe's first.
        spec: of the mels.

    Raises:
        OptionError: it has no such size.
        SpecError: it has none for this spec.
    """
    chosen = next(iter(recipe.sizes)) if size is None else size
    if chosen not in recipe.sizes:
        raise OptionError(f"size={size!r}, but the sizes of {record.title} are {', '.join(map(repr, recipe.sizes))}")
    return recipe.sizes[chosen](spec)
