"""A configuration's values from JSON: what `TrainConfig.to_dict` wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from melvoc.architecture import NetworkConfig
from melvoc.errors import MelvocError, OptionError, did_you_mean, kind_of, quoted
from melvoc.recipe import LossWeights
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.recipes import trained


def revived(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration class from JSON values.

    Raises:
        OptionError: fields that there are not, all of them named, or what is no configuration.
        SpecError: a bad spec.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"a configuration is a dict of fields, not {kind_of(values)}")
    check_names(kind, values)
    found = dict(values)
    if isinstance(found.get("spec"), Mapping):
        found["spec"] = MelSpec.from_dict(found["spec"])
    if isinstance(found.get("betas"), list):
        found["betas"] = tuple(found["betas"])
    if isinstance(found.get("weights"), Mapping):
        check_names(LossWeights, found["weights"], "weights.")
        found["weights"] = LossWeights(**found["weights"])
    if isinstance(found.get("generator"), Mapping):
        found["generator"] = _generator(found["generator"], found.get("architecture"))
    return found


def check_names(kind: type, values: Mapping[str, Any], prefix: str = "") -> None:
    """Check that every name is a field's.

    Raises:
        OptionError: naming all that are none.
    """
    known = [entry.name for entry in dataclasses.fields(kind)]
    if unknown := [name for name in values if name not in known]:
        listed = ", ".join(quoted(f"{prefix}{name}") for name in unknown)
        hint = did_you_mean(unknown[0], known) or f"they are {', '.join(known)}"
        raise OptionError(f"no such field of the configuration: {listed}; {hint}")


def _generator(values: Mapping[str, Any], architecture: str | None) -> NetworkConfig:
    """A generator's configuration: of the architecture, or of the first one whose own these values are."""
    records = [record for record, _ in trained(architecture)]
    for record in records:
        try:
            found = record.config.from_dict(values)
        except (MelvocError, TypeError):
            continue
        if found.to_dict() == dict(values):
            return found
    return records[0].config.from_dict(values)  # of another version; or it says what is wrong
