"""What an exported file says of itself: text by key, the same in every format (docs/export.md)."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from melvoc.post import PostStep
from melvoc.post.refine import Refine
from melvoc.synthesis import Condition
from melvoc.vocoder import Vocoder


def describe(vocoder: Vocoder, steps: tuple[PostStep, ...]) -> dict[str, str]:
    """The metadata of a vocoder's file.

    Args:
        vocoder: whose it is.
        steps: that follow the network.
    """
    from melvoc import __version__

    fields = vocoder.spec.to_dict()
    said: dict[str, object] = {
        **fields,
        "melvoc.spec": fields,
        "melvoc.name": vocoder.name,
        "melvoc.architecture": getattr(getattr(vocoder, "architecture", None), "name", None),
        "melvoc.version": __version__,
        "melvoc.licence": vocoder.licence,
        "melvoc.provenance": vocoder.provenance,
        "melvoc.sample_rate": vocoder.sample_rate,
        "melvoc.channels": vocoder.channels,
        "melvoc.samples_per_frame": vocoder.samples_per_frame,
        "melvoc.conditions": {name: _bounded(one) for name, one in vocoder.conditions.items()},
        "melvoc.refine": sum(step.rounds for step in steps if isinstance(step, Refine)),
    }
    known = {key: value for key, value in said.items() if value is not None or key in fields}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def _bounded(condition: Condition) -> dict[str, Any]:
    """Its fields; a bound that is infinite is null, which JSON has."""
    values = dataclasses.asdict(condition)
    return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in values.items()}
