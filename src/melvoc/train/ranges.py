"""Checks of single values: what was given, and the rule."""

from __future__ import annotations

import math
from typing import Any

from melvoc.errors import OptionError


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that a value is one of a few words.

    Raises:
        OptionError: it is not.
    """
    if value not in choices:
        raise OptionError(f"{name}={value!r}, but it is one of {', '.join(map(repr, choices))}")


def check_whole(name: str, value: object, *, least: int) -> None:
    """Check that a value is a whole number.

    Raises:
        OptionError: it is not, or it is too small.
    """
    if type(value) is not int or value < least:
        raise OptionError(f"{name}={value!r}, but it is a whole number of at least {least}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Check that a value is a finite number within bounds.

    Raises:
        OptionError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and (
        (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
        and (most is None or value <= most)
    ):
        return
    bounds = {"at least": least, "above": above, "below": below, "at most": most}
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    raise OptionError(f"{name}={value!r}, but it is a number {said}")
