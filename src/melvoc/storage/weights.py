"""The weights in a published checkpoint: found below whatever they were saved in, and folded.

A pickle is only read with torch's `weights_only=True`: it can hold tensors and plain containers, and nothing in it is
executed. The generator is found by the names of its own tensors: they are there below one prefix, whoever has wrapped
them (`{"generator": ...}`, `module.`, `model_g.`, a larger model, all of these at once).
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from melvoc.architecture import Layout
from melvoc.errors import CheckpointError, MelvocError, MissingCheckpointError, kind_of, quoted, reason
from melvoc.storage import foreign
from melvoc.storage.pipes import regular
from melvoc.storage.reading import (
    check_plain,
    exists,
    first_bytes,
    is_safetensors,
    load_torch,
    opened,
)

CONTAINERS_DEEP = 16  # containers inside containers
LONGEST_NAME = 512  # characters of a tensor's name, everything that it stands in included; the published ones have 80
# What is trained or counted beside a generator, in the same module; any other stranger is an error.
_BESIDE = re.compile(
    r"(?i)(mpd|msd|mrd|mbd|cqtd|\w*disc|\w*discriminators?\w*|\w*loss\w*|optim\w*|(global_)?steps?|epoch)$"
)
_MEAN = re.compile(r"(?i)(?<![a-z])(ema|avg|swa)(?![a-z])|averag")  # words for a copy that is a mean over the training


@dataclass(frozen=True)
class Part:
    """A network's tensors in a checkpoint.

    Attributes:
        prefix: what stands before their names there, to its last dot; "" if nothing does.
        tensors: by their names without it, weight norm not yet folded.
        missing: how many of the network's own tensors are not there.
        unknown: how many of these tensors are not the network's.
        others: how many other tensors are in the file.
    """

    prefix: str
    tensors: dict[str, Tensor]
    missing: int
    unknown: int
    others: int


def read_tensors(path: str | os.PathLike[str], *, mapped: bool = True) -> dict[str, Any]:
    """The content of a torch file or of a safetensors file, which may come from a pipe; its name does not matter.

    If mapped, the tensors of safetensors stay on disk and are mapped into memory; those of a torch file never are.

    Raises:
        CheckpointError: no such file, a damaged one, or a pickle that asks for more than tensors.
    """
    source = os.fsdecode(path)
    if not exists(source) or Path(source).is_dir():
        raise MissingCheckpointError(f"{source}: no such file; give the path of the published generator", path=source)
    with regular(source) as file:
        head = first_bytes(file, foreign.HEAD)
        if is_safetensors(head) or source.endswith(".safetensors"):
            return _read_safetensors(file, head, mapped)
        return _read_torch(file, head)


def _read_safetensors(source: str, head: bytes, mapped: bool) -> dict[str, Any]:
    try:
        with opened(source, mapped=mapped) as content:
            return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118 - it is not a mapping
    except CheckpointError as error:
        raise _unlike(str(error), source, head) from error


def _read_torch(source: str, head: bytes) -> dict[str, Any]:
    try:
        content = load_torch(source)
    except MelvocError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f"it wants {found[1]}" if found else reason(error)
        message = (
            f"{source}: this pickle asks for more than tensors, or is damaged ({why}); melvoc reads weights only "
            "and runs no code from a file. Ask its author for safetensors"
        )
        raise CheckpointError(message) if found else _unlike(message, source, head) from error
    except Exception as error:
        message = f"{source}: damaged, or not a torch file ({reason(error)}); download it again"
        raise _unlike(message, source, head) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: holds {kind_of(content)}, but a generator is a dict of tensors")
    return content


def _unlike(message: str, source: str, head: bytes) -> CheckpointError:
    """The error for a file that cannot be read: what it looks like, if that is known, else the message."""
    known = foreign.looks_like(foreign.signs_of_file(source, head))
    return CheckpointError(f"{source}: {known}" if known else message)


def find(content: Mapping[str, Any], names: Collection[str], layout: Layout | None, source: str) -> Part:
    """The tensors of one network in a file's content: those whose prefix has the most of its names below it.

    If several copies are complete, the one that is called a mean over the training counts.

    Args:
        content: of the file, containers in containers.
        names: of the network's tensors.
        layout: by which the file's names become the network's.
        source: the file, for messages.

    Raises:
        CheckpointError: no tensor in it has a name, or it has several copies of the network and none is a mean.
    """
    tensors, known = dict(_tensors(content, source)), frozenset(names)
    prefix, count = _prefix(tensors, known, layout, source)
    part = {path[len(prefix) :]: tensor for path, tensor in tensors.items() if path.startswith(prefix)}
    roots = {name.partition(".")[0] for name in known}
    pattern = layout.not_weights if layout else None
    kept = {
        name: tensor
        for name, tensor in part.items()
        if not (pattern and pattern.search(name))
        and (_canonical(name, layout).partition(".")[0] in roots or not _BESIDE.match(name.partition(".")[0]))
    }
    check_plain(kept, source)
    own = {_canonical(name, layout, weight_norm=False): tensor for name, tensor in kept.items()}
    return Part(
        prefix=prefix,
        tensors=own,
        missing=len(known) - count,
        unknown=sum(_canonical(name, layout) not in known for name in kept),
        others=len(tensors) - len(kept),
    )


def _prefix(tensors: Collection[str], known: Collection[str], layout: Layout | None, source: str) -> tuple[str, int]:
    """The prefix below which most of the names are, and how many.

    Raises:
        CheckpointError: all of them are below several prefixes.
    """
    found: dict[str, set[str]] = {}
    dots = max((name.count(".") for name in known), default=0)
    for path in tensors:
        for prefix, name in _splits(_canonical(path, layout), dots):
            if name in known:
                found.setdefault(prefix, set()).add(name)
    best = max(map(len, found.values()), default=0)
    copies = [prefix for prefix, own in found.items() if len(own) == best] or [""]
    if len(copies) > 1 and len(means := [prefix for prefix in copies if _MEAN.search(prefix)]) == 1:
        copies = means
    if len(copies) > 1 and best == len(known):
        raise CheckpointError(
            f"{source}: holds this network {len(copies)} times ({', '.join(copy[:80] for copy in copies[:4])}); save "
            "the one that is meant in a file of its own"
        )
    return copies[0], best


def paths(content: Mapping[Any, Any], source: str) -> Iterator[tuple[str, Any]]:
    """Everything in containers of containers that is none itself, under its keys joined by dots.

    Raises:
        CheckpointError: keys so long that they are no names.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, Mapping[Any, Any], int]] = [("", content, 0)]
    for prefix, inner, depth in waiting:
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for key, value in inner.items():
            if isinstance(key, str) and len(prefix) + len(key) > LONGEST_NAME:
                raise CheckpointError(
                    f"{source}: {quoted(key)} stands for {len(prefix) + len(key)} characters, but no tensor's name has "
                    f"more than {LONGEST_NAME}; the file is damaged, or no checkpoint"
                )
            if isinstance(value, Mapping) and depth < CONTAINERS_DEEP:
                waiting.append((f"{prefix}{key if isinstance(key, str) else quoted(key)}.", value, depth + 1))
            elif isinstance(key, str):
                yield prefix + key, value


def _tensors(content: Mapping[str, Any], source: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors that have names.

    Raises:
        CheckpointError: none has, but something is there.
    """
    empty = True
    for path, value in paths(content, source):
        if isinstance(value, Tensor):
            empty = False
            yield path, value
    if empty and content:
        key, value = next(iter(content.items()))
        known = foreign.looks_like(foreign.signs_of_keys(path for path, _ in paths(content, source)))
        raise CheckpointError(
            f"{source}: {quoted(key)} is {kind_of(value)}, but a generator is a dict of tensors by name"
            + (f"; it looks like {known}" if known else "")
        )


def _splits(path: str, dots: int) -> Iterator[tuple[str, str]]:
    """Every way to read a path as a prefix and a name with at most so many dots."""
    end = len(path)
    for _ in range(dots + 1):
        end = path.rfind(".", 0, end)
        yield path[: end + 1], path[end + 1 :]
        if end < 0:
            break


def _canonical(path: str, layout: Layout | None, *, weight_norm: bool = True) -> str:
    """A path in a file as the network names it; either half of weight norm as the weight that it makes."""
    for pattern, name in layout.renames if layout else ():
        path = re.sub(pattern, name, path)
    if not weight_norm:
        return path
    base, half = _weight_norm_of(path)
    return path if half is None else f"{base}.weight"


def fold(tensors: Mapping[str, Tensor], source: str = "this checkpoint") -> dict[str, Tensor]:
    """Fold weight norm, `w = g v / |v|` with the norm over all but the first dimension, in float64 (Salimans and Kingma
    2016); handles old and new names, and keeps tensors without weight norm.

    Raises:
        CheckpointError: one half of a pair is missing.
    """
    folded: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        base, half = _weight_norm_of(key)
        if half is None:
            folded[key] = tensor.float() if tensor.is_floating_point() else tensor
        elif half == "g":
            direction = next((tensors[other] for other in _directions(base) if other in tensors), None)
            if direction is None:
                raise CheckpointError(f"{source}: {key!r} has no direction beside it; the file is incomplete")
            if tensor.shape != direction.shape[:1] + (1,) * (direction.dim() - 1) or direction.dim() < 2:
                raise CheckpointError(
                    f"{source}: {quoted(key)} has shape {list(tensor.shape)}, but its direction {list(direction.shape)}"
                    ": no halves of one weight norm. The file is damaged"
                )
            length = direction.double().flatten(1).norm(dim=1).view(tensor.shape)
            folded[f"{base}.weight"] = (tensor.double() * direction.double() / length).float()
        elif not any(other in tensors for other in (f"{base}.weight_g", f"{base}.parametrizations.weight.original0")):
            raise CheckpointError(f"{source}: {key!r} has no length beside it; the file is incomplete")
    return folded


def _directions(base: str) -> tuple[str, str]:
    return f"{base}.weight_v", f"{base}.parametrizations.weight.original1"


def _weight_norm_of(key: str) -> tuple[str, str | None]:
    """The layer's name, and which half of weight norm a key is: "g", "v" or None."""
    for suffix, half in (
        (".weight_g", "g"), (".weight_v", "v"),
        (".parametrizations.weight.original0", "g"), (".parametrizations.weight.original1", "v"),
    ):  # fmt: skip
        if key.endswith(suffix):
            return key.removesuffix(suffix), half
    return key, None
