"""Published checkpoints (pickles with weight norm) to melvoc's.

A pickle is only read with torch's `weights_only=True`: it can hold tensors and plain containers, and nothing in it is
executed. What a generator does not need is known by name and dropped; anything else that does not fit is an error.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.architecture import Architecture, Layout
from melvoc.errors import CheckpointError, MissingCheckpointError, OptionError, SpecError, about
from melvoc.registry import all_architectures
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.container import Checkpoint
from melvoc.storage.vocoder_file import empty_network


def convert(
    path: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any],
    name: str | None = None,
    licence: str | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Read a published generator.

    Args:
        path: the published weights: a torch file, or safetensors of the same tensors. Weight norm may be torch's old
            or new kind, or already folded.
        config: the configuration published with them (`config.json`, `config.yaml`): its path or content.
        name: of the vocoder. None: the checkpoint's folder or file.
        licence: of the weights, if known.
        provenance: where they come from.

    Returns:
        Weights folded and checked against the architecture.

    Raises:
        CheckpointError: a file that is damaged, asks to run code, or does not match the configuration.
    """
    source = os.fspath(path)
    with about(source):
        values = config if isinstance(config, Mapping) else read_config(config)
        record, layout = recognise(values, source)
        try:
            settings, spec = layout.config(values), layout.spec(values)
        except SpecError as error:
            raise CheckpointError(f"the configuration of {source} has no mel that melvoc can make: {error}") from error
        except OptionError as error:
            raise CheckpointError(f"the configuration of {source} is not {record.title}'s: {error}") from error
        if settings.hop_length * spec.sample_rate != spec.hop_length * (settings.sample_rate or spec.sample_rate):
            raise CheckpointError(
                f"the configuration of {source} upsamples by {settings.hop_length}, but its hop size is "
                f"{spec.hop_length}; it is not the one the model was trained with"
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
    source = os.fspath(path)
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
    empty_network(checkpoint)
    return checkpoint


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A configuration in JSON or YAML; nothing in it is imported or executed.

    Raises:
        CheckpointError: no such file, or not a JSON or YAML object.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")  # with or without a byte-order mark, any line endings
        if source.suffix in (".yaml", ".yml"):
            import yaml

            values = yaml.safe_load(text)
        else:
            values = json.loads(text)
    except OSError as error:
        kind = MissingCheckpointError if isinstance(error, FileNotFoundError) else CheckpointError
        raise kind(f"{source}: cannot be read ({error.strerror}); give the model's configuration") from error
    except Exception as error:  # yaml's errors have no base class that can be named without importing it
        raise CheckpointError(
            f"{source}: not valid {source.suffix or 'JSON'} ({error}); is it the model's config?"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{source}: holds a {type(values).__name__}, but a configuration is an object of keys and values"
        )
    return values


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a torch file or of a safetensors file.

    Raises:
        CheckpointError: no such file, a damaged one, or a pickle that asks for more than tensors.
    """
    source = os.fspath(path)
    if not Path(source).is_file():
        raise MissingCheckpointError(f"{source}: no such file; give the path of the published generator", path=source)
    try:
        if source.endswith(".safetensors"):
            from safetensors.torch import load_file

            return dict(load_file(source))
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = f"it wants {found[1]}" if found else _first_line(error).partition("Re-running")[0].strip()
        raise CheckpointError(
            f"{source}: this pickle asks for more than tensors, or is damaged ({reason}); melvoc reads weights only "
            "and runs no code from a file. Ask its author for safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{source}: damaged, or not a torch file ({_first_line(error)}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: holds a {type(content).__name__}, but a generator is a dict of tensors")
    return content


def _first_line(error: Exception) -> str:
    """The first line of an error's message, or its type's name if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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
            length = direction.double().flatten(1).norm(dim=1).view(-1, *[1] * (direction.dim() - 1))
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
    tensors = {
        str(key): value for key, value in inner.items() if not any(pattern.search(str(key)) for pattern in others)
    }
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: {key!r} is a {type(value).__name__}, but a generator is a dict of tensors; is this its "
                "discriminator or optimizer?"
            )
    return tensors
