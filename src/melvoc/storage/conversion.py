"""Published checkpoints, pickles with weight norm, into melvoc's.

A pickle is only read with torch's `weights_only=True`: it can hold tensors and plain containers, and nothing in it
runs. What a generator does not need is known by name and dropped; anything else that does not fit is an error.
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

from melvoc.errors import CheckpointError, SpecError
from melvoc.models import architecture, empty_network
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.container import Checkpoint

# Not weights: BigVGAN's low-pass filters, Vocos' window, and the mel that Vocos carries with it.
DROPPED = re.compile(r"(\.upsample|\.lowpass)\.filter$|^head\.istft\.window$|^feature_extractor\.")
VOCOS_MEL = {"mel_scale": "htk", "norm": None, "log_floor": 1e-7, "magnitude_eps": 0.0, "center": True}


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
        path: BigVGAN's or HiFi-GAN's generator, or Vocos' model: a torch file, or safetensors of the same tensors.
            Weight norm may be torch's old or new kind, or folded already.
        config: its `config.json` or `config.yaml`, a path or what is in it.
        name: what the vocoder is called; None: the checkpoint's folder or file.
        licence: of the weights, where known.
        provenance: where they come from.

    Returns:
        Weights folded and checked against the architecture.

    Raises:
        CheckpointError: a file that is damaged, asks for code, or does not belong to the configuration.
    """
    source = os.fspath(path)
    values = config if isinstance(config, Mapping) else read_config(config)
    kind = _architecture_of(values, source)
    config_class, _ = architecture(kind, source)
    try:
        settings = config_class.from_published(values)
        spec = _vocos_spec(values) if kind == "vocos" else MelSpec.from_config(values)
    except SpecError as error:
        raise CheckpointError(f"the configuration of {source} has no mel that melvoc can make: {error}") from error
    if settings.hop_length != spec.hop_length:
        raise CheckpointError(
            f"the configuration of {source} upsamples by {settings.hop_length}, but its hop size is {spec.hop_length}; "
            "it is not the one the model was trained with"
        )
    return assemble(
        path,
        kind=kind,
        config=settings.to_dict(),
        spec=spec,
        name=name or Path(source).resolve().parent.name or Path(source).stem,
        licence=licence,
        provenance=provenance or {"converted from": Path(source).name},
    )


def assemble(
    path: str | os.PathLike[str],
    *,
    kind: str,
    config: dict[str, Any],
    spec: MelSpec,
    name: str,
    licence: str | None,
    provenance: Mapping[str, str],
) -> Checkpoint:
    """The weights of a published file with a configuration that is known already, checked against each other.

    Raises:
        CheckpointError: as `convert`.
    """
    source = os.fspath(path)
    checkpoint = Checkpoint(
        architecture=kind,
        config=config,
        spec=spec,
        tensors=fold(_generator(read_tensors(path), source), source),
        name=name,
        licence=licence,
        provenance=dict(provenance),
        source=source,
    )
    empty_network(checkpoint)
    return checkpoint


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A `config.json`, or Vocos' `config.yaml`, of which nothing is imported or run.

    Raises:
        CheckpointError: no such file, or no JSON or YAML object in it.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")  # with a byte-order mark or without, any line ends
        if source.suffix in (".yaml", ".yml"):
            import yaml

            values = yaml.safe_load(text)
        else:
            values = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror}); give the model's config.json") from error
    except Exception as error:  # yaml's errors have no base that could be named without importing it
        raise CheckpointError(
            f"{source}: no valid {source.suffix or 'JSON'} ({error}); is it the model's config?"
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
        raise CheckpointError(f"{source}: no such file; give the path of the published generator")
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
            "and runs nothing that a file brings along. Ask its author for safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{source}: damaged or no torch file ({_first_line(error)}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{source}: holds a {type(content).__name__}, but a generator is a dict of tensors")
    return content


def _first_line(error: Exception) -> str:
    """Of its message, or the name of an error without one."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def fold(tensors: Mapping[str, Tensor], source: str = "this checkpoint") -> dict[str, Tensor]:
    """Weight norm, `w = g v / |v|` with the norm over all but the first dimension, folded in float64 (Salimans and
    Kingma 2016); old and new names, and tensors that have none.

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


def _generator(content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The generator's own tensors out of what a file holds."""
    inner = content.get("generator", content.get("state_dict", content))
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{source}: its 'generator' is a {type(inner).__name__}, but it is a dict of tensors")
    if all(str(key).startswith("generator.") for key in inner) and inner:
        inner = {str(key).removeprefix("generator."): value for key, value in inner.items()}
    tensors = {str(key): value for key, value in inner.items() if not DROPPED.search(str(key))}
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: {key!r} is a {type(value).__name__}, but a generator is a dict of tensors; is this its "
                "discriminator or optimizer?"
            )
    return tensors


def _architecture_of(values: Mapping[str, Any], source: str) -> str:
    if "backbone" in values and "head" in values:
        return "vocos"
    if "activation" in values or "snake_logscale" in values:
        return "bigvgan"
    if "upsample_rates" in values:
        return "hifigan"
    raise CheckpointError(
        f"the configuration of {source} is neither BigVGAN's (activation), HiFi-GAN's (upsample_rates) nor Vocos' "
        "(backbone, head); give the config.json or config.yaml that was published with the model"
    )


def _vocos_spec(values: Mapping[str, Any]) -> MelSpec:
    """Vocos' mel: torchaudio's defaults at the configured size, then a clipped natural log."""
    section = values.get("feature_extractor") or {}
    arguments = section.get("init_args", section)
    if not str(section.get("class_path", "MelSpectrogramFeatures")).endswith("MelSpectrogramFeatures"):
        raise CheckpointError(f"the features are a {section['class_path']}, but melvoc reads Vocos on mels only")
    if arguments.get("padding", "center") != "center":
        raise CheckpointError(f"feature padding={arguments['padding']!r}, but melvoc reads Vocos with 'center' only")
    return MelSpec.from_dict(
        {
            "sample_rate": arguments.get("sample_rate", 24000),
            "n_fft": arguments.get("n_fft", 1024),
            "hop_length": arguments.get("hop_length", 256),
            "n_mels": arguments.get("n_mels", 100),
            **VOCOS_MEL,
        }
    )
