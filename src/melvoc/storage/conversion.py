"""Published checkpoints (pickles with weight norm) to melvoc's.

A pickle is only read with torch's `weights_only=True`: it can hold tensors and plain containers, and nothing in it is
executed. What a generator does not need is known by name and dropped; anything else that does not fit is an error.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from melvoc.architecture import Architecture, Layout
from melvoc.errors import (
    CheckpointError,
    MelvocError,
    MissingCheckpointError,
    OptionError,
    SpecError,
    about,
    quoted,
    reason,
    unreadable,
)
from melvoc.registry import all_architectures
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.container import Checkpoint
from melvoc.storage.reading import check_plain, is_file, load_torch, opened, read_text
from melvoc.storage.vocoder_file import empty_network

LARGEST_CONFIG = 1 << 14  # values in a configuration; the published ones have a few dozen


def convert(
    path: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any],
    spec: MelSpec | None = None,
    name: str | None = None,
    licence: str | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Read a published generator.

    Args:
        path: the published weights: a torch file, or safetensors of the same tensors. Weight norm may be torch's old
            or new kind, or already folded.
        config: the configuration published with them (`config.json`, `config.yaml`): its path or content.
        spec: the mel that it was trained on, where the configuration does not say it.
        name: of the vocoder. None: the checkpoint's folder or file.
        licence: of the weights, if known.
        provenance: where they come from.

    Returns:
        Weights folded and checked against the architecture.

    Raises:
        CheckpointError: a file that is damaged, asks to run code, or does not match the configuration.
    """
    source = os.fsdecode(path)
    with about(source):
        values = config if isinstance(config, Mapping) else read_config(config)
        record, layout = recognise(values, source)
        try:
            settings = layout.config(values)
        except OptionError as error:
            raise CheckpointError(f"the configuration of {source} is not {record.title}'s: {error}") from error
        spec = _spec(layout, values, spec, source)
        if not settings.keeps_time(spec):
            raise CheckpointError(
                f"the configuration of {source} upsamples by {settings.hop_length}, but its hop size is "
                f"{spec.hop_length}; it is not the one the model was trained with"
            )
        if settings.n_mels != spec.n_mels:
            raise CheckpointError(
                f"the configuration of {source} has a network for {settings.n_mels} bands and a mel of {spec.n_mels}; "
                "they belong to different models"
            )
        return assemble(
            path,
            record=record,
            config=settings.to_dict(),
            spec=spec,
            name=name or Path(source).resolve().parent.name or Path(source).stem,
            licence=licence,
            provenance=provenance or {"converted from": Path(source).name},
        )


def _spec(layout: Layout, values: Mapping[str, Any], given: MelSpec | None, source: str) -> MelSpec:
    """The mel that the configuration says, or the given one where it says none.

    Raises:
        CheckpointError: neither says one, or they say different ones.
    """
    try:
        said = layout.spec(values)
    except SpecError as error:
        if given is not None:
            return given
        raise CheckpointError(
            f"the configuration of {source} has no mel that melvoc can make: {error} (--spec PRESET or FILE; spec=...)"
        ) from error
    if given is not None and (different := said.diff(given)):
        listed = "; ".join(f"{name}: {one!r}, given {other!r}" for name, (one, other) in different.items())
        raise CheckpointError(
            f"the configuration of {source} says another mel than was given ({listed}); omit the spec"
        )
    return said


def recognise(values: Mapping[str, Any], source: str) -> tuple[Architecture, Layout]:
    """The architecture and layout of a published configuration.

    Raises:
        CheckpointError: not one that melvoc or an installed package knows.
    """
    titles = []
    for record in all_architectures():
        for layout in record.layouts:
            if layout.recognises(values):
                return record, layout
            titles.append(layout.title)
    raise CheckpointError(
        f"the configuration of {source} is none of {', '.join(titles)}; give the configuration that was published with "
        "the model"
    )


def assemble(
    path: str | os.PathLike[str],
    *,
    record: Architecture,
    config: dict[str, Any],
    spec: MelSpec,
    name: str,
    licence: str | None,
    provenance: Mapping[str, str],
) -> Checkpoint:
    """The weights of a published file with an already known configuration, checked against each other.

    Raises:
        CheckpointError: as `convert`.
    """
    source = os.fsdecode(path)
    checkpoint = Checkpoint(
        architecture=record.name,
        config=config,
        spec=spec,
        tensors=fold(_generator(read_tensors(path), record, source), source),
        name=name,
        licence=licence,
        provenance=dict(provenance),
        source=source,
    )
    empty_network(checkpoint, record)
    return checkpoint


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A configuration in JSON or YAML; nothing in it is imported or executed.

    Raises:
        CheckpointError: no such file, or not a JSON or YAML object.
    """
    source = Path(os.fsdecode(path))
    try:
        text = read_text(source)
        values = _yaml(text) if source.suffix in (".yaml", ".yml") else json.loads(text)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingCheckpointError(
            f"{source}: cannot be read ({error.strerror}); give the model's configuration"
        ) from error
    except OSError as error:
        raise unreadable(source, error) from error
    except Exception as error:  # yaml's errors have no base class that can be named without importing it
        raise CheckpointError(
            f"{source}: not valid {source.suffix or 'JSON'} ({error}); is it the model's config?"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{source}: holds a {type(values).__name__}, but a configuration is an object of keys and values"
        )
    return values


def _yaml(text: str) -> Any:
    """The content of a YAML text whose aliases, written out, stay small.

    Raises:
        ValueError: they do not.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:  # in nodes, each counted as often as it is meant
        if id(node) not in sizes:
            if node.tag.endswith(":int") and len(node.value) > 100:  # hexadecimal: Python would not even write it out
                raise ValueError(f"it has a number of {len(node.value)} digits")
            sizes[id(node)] = math.inf  # until it is known: a node inside itself never ends
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(map(size, flat))
        return sizes[id(node)]

    if root is None or size(root) > LARGEST_CONFIG:
        raise ValueError(f"it is empty, or its aliases stand for more than {LARGEST_CONFIG} values")
    return loader.construct_document(root)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a torch file or of a safetensors file.

    Raises:
        CheckpointError: no such file, a damaged one, or a pickle that asks for more than tensors.
    """
    source = os.fsdecode(path)
    if not is_file(source):
        raise MissingCheckpointError(f"{source}: no such file; give the path of the published generator", path=source)
    if source.endswith(".safetensors"):
        with opened(source) as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
    try:
        content = load_torch(source)
    except MelvocError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f"it wants {found[1]}" if found else reason(error)
        raise CheckpointError(
            f"{source}: this pickle asks for more than tensors, or is damaged ({why}); melvoc reads weights only "
            "and runs no code from a file. Ask its author for safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{source}: damaged, or not a torch file ({reason(error)}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: holds a {type(content).__name__}, but a generator is a dict of tensors")
    return content


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
            if tensor.shape != direction.shape[:1] + (1,) * (direction.dim() - 1) or not direction.dim():
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


def _generator(content: Mapping[str, Any], record: Architecture, source: str) -> dict[str, Tensor]:
    """The generator's own tensors from a file's content."""
    inner = content.get("generator", content.get("state_dict", content))
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{source}: its 'generator' is a {type(inner).__name__}, but it is a dict of tensors")
    if all(str(key).startswith("generator.") for key in inner) and inner:
        inner = {str(key).removeprefix("generator."): value for key, value in inner.items()}
    others = [layout.not_weights for layout in record.layouts if layout.not_weights]
    for key, value in inner.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: {quoted(key)} is a {type(value).__name__}, but a generator is a dict of tensors; is this "
                "its discriminator or optimizer?"
            )
    tensors = {key: value for key, value in inner.items() if not any(pattern.search(key) for pattern in others)}
    check_plain(tensors, source)
    return tensors
