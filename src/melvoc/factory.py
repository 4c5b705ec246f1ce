"""Calling what makes a vocoder, melvoc's own or a plugin's, with the options that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from melvoc.options import takes_no
from melvoc.vocoder import Vocoder

Factory = Callable[..., Vocoder]


def call(
    factory: Factory, name: str, device: str | torch.device, dtype: torch.dtype | None, options: Mapping[str, Any]
) -> Vocoder:
    """Call a factory, after checking its signature.

    Raises:
        OptionError: an option that the factory does not take.
    """
    names, open_ended = taken(factory)
    if names is None:
        return factory(name, device=device, dtype=dtype, **options)
    first, *others = names or [""]  # the first parameter takes the name, whatever it is called
    for key in options:
        if key == first or (key not in others and not open_ended):
            raise takes_no(name, key, others)
    return factory(name, device=device, dtype=dtype, **options)


def taken(factory: Factory) -> tuple[list[str] | None, bool]:
    """The parameters that a factory names (None: unknown), and whether it takes any other option as well."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None, True
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    return (
        [name for name, kind in kinds.items() if kind is not inspect.Parameter.VAR_KEYWORD],
        inspect.Parameter.VAR_KEYWORD in kinds.values(),
    )
