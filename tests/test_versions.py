"""The versions that are declared: what they exclude, and what is in use that the oldest torch has not."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from torch_apis import OLDEST, TENSOR, in_use, owned, split

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = {
    requirement.name.replace("_", "-").lower(): requirement.specifier
    for requirement in map(Requirement, PROJECT["dependencies"])
}

# The application that melvoc is made for.
DISTILL = {
    "torch": "2.10", "numpy": "2.4.2", "scipy": "1.17.0", "huggingface-hub": "1.4.1", "soundfile": "0.13.1",
}  # fmt: skip

# Names newer than the oldest torch, and why that does no harm there.
NEWER = {
    "*.index": "of a torch.device, which always had it; tensors have one since",
    **dict.fromkeys(
        ("torch.export", "torch.export.Dim", "torch.export.export", "torch.export.save"),
        "for a .pt2, which is refused where torch has no Dim.DYNAMIC (2.6)",
    ),
}


@pytest.mark.parametrize("name", DISTILL)
def test_no_bound_excludes_the_known_environment(name: str) -> None:
    assert DECLARED[name].contains(DISTILL[name]), f"{name}{DECLARED[name]} excludes {DISTILL[name]}"


def test_the_tested_versions_are_within_the_bounds() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tested = {name.replace("_", "-").lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.M)}
    outside = {name: tested[name] for name, bound in DECLARED.items() if not bound.contains(tested[name])}
    assert not outside


def test_the_oldest_torch_has_every_name_in_use() -> None:
    known = json.loads(OLDEST.read_text(encoding="utf-8"))
    assert DECLARED["torch"].contains(known["torch"])
    assert not DECLARED["torch"].contains("2.3.1"), f"{OLDEST.name} is of a newer torch than the oldest declared"
    then = {place: names.split() for place, names in known["names"].items()}
    now, newer = owned(TENSOR), {}
    for name, file in in_use().items():
        place, own = split(name, then)
        tensors = place != TENSOR or own in now  # an attribute that no tensor has belongs to something else
        if tensors and (place not in then or (own and own not in then[place])):
            newer[name] = file
    assert newer.keys() == NEWER.keys(), (
        f"torch {known['torch']} lacks {newer}: use what it has, or say in NEWER what is done there"
    )
