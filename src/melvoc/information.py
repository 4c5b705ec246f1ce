"""What is known about vocoders before they are loaded: which there are, what they are made for, and what they cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from melvoc import registry
from melvoc.errors import MelvocError, UnknownVocoderError, about
from melvoc.loading import is_path
from melvoc.registry import GRIFFINLIM, OWN, VOCODERS
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.container import Checkpoint, read_header
from melvoc.storage.inventory import is_cached, repository_file
from melvoc.storage.pair import GRAPHS, is_folder, melvoc_file


@dataclass(frozen=True, kw_only=True)
class VocoderInfo:
    """What is known about a vocoder without loading it.

    Attributes:
        name: as `load` takes it.
        distribution: the package that registers it, with its version; or the file.
        spec: its mel, if known without importing a plugin. None: any, or unknown.
        architecture: the architecture's name, "griffinlim" or None.
        parameters: number of weights, if known.
        bytes: size of the download or the file, if known.
        licence: of the weights.
        origin: where the weights come from, in words.
        provenance: the same as names and values, as a loaded vocoder's `provenance`; empty if unknown.
        revision: the pinned revision of the origin.
        confidence: how sure the pin is: "sure (two or more sources)", "sure (one source)", or what is missing.
        speed: on a CPU, "slow", "medium" or "fast" (docs/performance.md has the rule), if known.
        cached: whether it is here already, so that loading it needs no network; None for what is not downloaded.
    """

    name: str
    distribution: str
    spec: MelSpec | None = None
    architecture: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    licence: str | None = None
    origin: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict, hash=False)
    revision: str | None = None
    confidence: str | None = None
    speed: str | None = None
    cached: bool | None = None


def list_vocoders() -> list[str]:
    """Every registered name, melvoc's own first. Imports no plugin and downloads nothing."""
    return VOCODERS.names()


def info(name_or_path: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> VocoderInfo:
    """What is known about a vocoder; nothing is downloaded, and no plugin is imported.

    Args:
        name_or_path: as in `load`; of a repository `hf://...` what the cache has of it.
        cache_dir: as in `load`.

    Raises:
        UnknownVocoderError: no such name, or a repository that is not in the cache.
        CheckpointError: a damaged file.
    """
    name = os.fsdecode(name_or_path)
    if is_path(name_or_path):
        with about(name):
            graph = name.endswith(GRAPHS) and not is_folder(name)
            return _info_of_graph(name) if graph else _info_of_file(melvoc_file(name))
    if name.startswith("hf://"):
        return _info_of_repository(name, cache_dir)
    claim = registry.claimed(name)
    name = claim.name
    if claim.distribution != OWN:
        distribution = f"{claim.distribution} {claim.version}".strip()
        return VocoderInfo(name=name, distribution=distribution, origin=claim.value)
    from melvoc import __version__

    if name == GRIFFINLIM:
        return VocoderInfo(
            name=name, distribution=f"{OWN} {__version__}", architecture=name, parameters=0, licence="MIT",
            speed="fast",
        )  # fmt: skip
    record, pin = registry.pins()[name]
    provenance = {"repository": pin.repo, "revision": pin.revision, "file": pin.filename, "sha256": pin.sha256}
    return VocoderInfo(
        name=name, distribution=f"{OWN} {__version__}", spec=pin.spec, architecture=record.name,
        parameters=pin.parameters, bytes=pin.bytes, licence=pin.licence, origin=f"https://huggingface.co/{pin.repo}",
        provenance={key: value for key, value in provenance.items() if value}, revision=pin.revision,
        confidence=pin.confidence, speed=record.speed(pin.config), cached=is_cached(pin, cache_dir),
    )  # fmt: skip


def _info_of_repository(name: str, cache_dir: str | os.PathLike[str] | None) -> VocoderInfo:
    found = repository_file(name, cache_dir)
    if found is None:
        raise UnknownVocoderError(
            f"{name} is a repository, about which nothing is known until it is in the cache; melvoc.download({name!r}) "
            "gets it, and info downloads nothing"
        )
    path, commit = found
    known = _info_of_file(str(path))
    return replace(known, origin=known.origin or name, revision=commit, cached=True)


def _info_of_file(path: str) -> VocoderInfo:
    with about(path):
        checkpoint, parameters = read_header(path)
    return VocoderInfo(
        name=checkpoint.name, distribution=path, spec=checkpoint.spec, architecture=checkpoint.architecture,
        parameters=parameters, bytes=Path(path).stat().st_size, licence=checkpoint.licence,
        origin=_origin(checkpoint.provenance),
        provenance=dict(checkpoint.provenance), speed=_speed(checkpoint),
    )  # fmt: skip


def _info_of_graph(path: str) -> VocoderInfo:
    from melvoc.onnx.vocoder import read_metadata

    metadata = read_metadata(path)
    texts, provenance = metadata.texts, metadata.provenance
    return VocoderInfo(
        name=metadata.name, distribution=path, spec=metadata.spec,
        architecture=texts.get("melvoc.architecture"), bytes=Path(path).expanduser().stat().st_size,
        licence=texts.get("melvoc.licence"), origin=_origin(provenance), provenance=provenance,
    )  # fmt: skip


def _origin(provenance: Mapping[str, str]) -> str | None:
    return "; ".join(f"{key}: {value}" for key, value in provenance.items()) or None


def _speed(checkpoint: Checkpoint) -> str | None:
    """How fast a file's network is, if melvoc's own code knows its architecture: no plugin is imported for it."""
    if checkpoint.architecture == GRIFFINLIM:
        return "fast"
    own = {record.name: record for record in registry.own_architectures()}
    record = own.get(checkpoint.architecture)
    try:
        return record.speed(record.config.from_dict(checkpoint.config)) if record else None
    except MelvocError:
        return None  # `load` says what is wrong with the configuration
