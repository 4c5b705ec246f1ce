"""What an exported file says of itself: text by key, the same in every format (docs/export.md)."""

from __future__ import annotations

import dataclasses
import json

from melvoc.vocoder import Vocoder


def describe(vocoder: Vocoder, rounds: int) -> dict[str, str]:
    """The metadata of a vocoder's file.

    Args:
        vocoder: whose it is.
        rounds: of refinement that are part of it.
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
        "melvoc.conditions": {name: dataclasses.asdict(one) for name, one in vocoder.conditions.items()},
        "melvoc.refine": rounds,
    }
    unknown = [key for key, value in said.items() if value is None and key not in fields]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items() if key not in unknown}
