"""Names to vocoders: entry points of the group `melvoc.vocoders`, melvoc's own among them, and nothing else.

The table is made of the entry points that are installed; none is imported before its name is asked for. A plugin that
cannot be imported, or whose name is contested, is an error when its name is asked for, and never disturbs the others.
"""

from __future__ import annotations

import difflib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from melvoc.errors import CheckpointError, MelvocError, PluginError, UnknownVocoderError
from melvoc.models import floating, pick_device
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.pins import PUBLISHED
from melvoc.vocoder import Vocoder

GROUP = "melvoc.vocoders"
OWN = "melvoc"
Factory = Callable[..., Vocoder]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one distribution declares under a name."""

    name: str
    value: str
    distribution: str
    version: str
    entry: EntryPoint


@dataclass(frozen=True, kw_only=True)
class VocoderInfo:
    """What is known of a vocoder without loading it.

    Attributes:
        name: as `load` takes it.
        distribution: the package that registers it, with its version; or the file.
        spec: the mel, where it is known without importing a plugin. None: any, or not known.
        architecture: "bigvgan", "hifigan", "vocos", "griffinlim" or None.
        parameters: how many weights, where known.
        bytes: size of the download or the file, where known.
        licence: of the weights.
        origin: where the weights come from.
        revision: of the origin, pinned.
        confidence: how sure the pin is: "sure (two sources)", "sure (one source)", or what is missing.
    """

    name: str
    distribution: str
    spec: MelSpec | None = None
    architecture: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    licence: str | None = None
    origin: str | None = None
    revision: str | None = None
    confidence: str | None = None


def build_table(entries: Iterable[EntryPoint]) -> dict[str, list[Claim]]:
    """Every name with all who claim it, melvoc's own first. Pure: entry points in, table out."""
    table: dict[str, list[Claim]] = {}
    for entry in entries:
        distribution = entry.dist.name if entry.dist else "an unknown distribution"
        version = entry.dist.version if entry.dist else ""
        claim = Claim(name=entry.name, value=entry.value, distribution=distribution, version=version, entry=entry)
        known = table.setdefault(entry.name, [])
        if (claim.distribution, claim.value) not in [(other.distribution, other.value) for other in known]:
            known.append(claim)  # a distribution found twice on the path is one claim
    for claims in table.values():
        claims.sort(key=lambda claim: claim.distribution != OWN)
    return table


def installed() -> dict[str, list[Claim]]:
    """The table of what is installed now."""
    return build_table(entry_points(group=GROUP))


def list_vocoders() -> list[str]:
    """Every registered name, melvoc's own first. Imports no plugin and downloads nothing."""
    table = installed()
    first = {name: place for place, name in enumerate(PUBLISHED)}  # the best ones lead; installers sort by the alphabet
    own = [name for name, claims in table.items() if claims[0].distribution == OWN]
    own.sort(key=lambda name: (first.get(name, len(first)), name))
    return own + sorted(name for name in table if name not in own)


def resolve(name: str, table: Mapping[str, list[Claim]]) -> Claim:
    """The claim that a name stands for.

    Raises:
        UnknownVocoderError: nobody registers it.
        PluginError: two distributions do, and neither is melvoc.
    """
    claims = table.get(name)
    if not claims:
        close = difflib.get_close_matches(name, table, 3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "melvoc.list_vocoders() has the names."
        raise UnknownVocoderError(
            f"no vocoder {name!r} is registered; {hint} A file is given by its path (ending in .safetensors), a "
            "repository as hf://owner/repo"
        )
    if claims[0].distribution != OWN and len(claims) > 1:
        owners = " and ".join(f"{claim.distribution} ({claim.value})" for claim in claims)
        raise PluginError(f"vocoder {name!r} is claimed by {owners}; uninstall one of them")
    if len(claims) > 1:
        others = ", ".join(claim.distribution for claim in claims[1:])
        warnings.warn(
            f"{others} claims the name {name!r}, which is melvoc's own; melvoc's is loaded. Ask its author for another "
            "name",
            stacklevel=3,
        )
    return claims[0]


def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **options: Any,
) -> Vocoder:
    """Load a vocoder.

    Args:
        name_or_path: a registered name (`list_vocoders`), the path of a melvoc `.safetensors` file, or
            `hf://owner/repo[@revision]`.
        device: "auto" (cuda, mps, cpu), or a torch device.
        dtype: what to compute in; None for the automatic choice.
        revision: of the repository, in place of the pinned one.
        cache_dir: root of both caches, in place of the Hub's and melvoc's own.
        local_files_only: never touch the network.
        **options: for the vocoder's factory, the one place where options are open: `spec`, `n_iter` of Griffin-Lim,
            `engine` and `memory` of the neural ones, `allow_unverified`.

    Raises:
        UnknownVocoderError: no such name.
        PluginError: a plugin that cannot be imported, breaks the contract, or shares its name.
        CheckpointError: a damaged file.
        DownloadError: a file that cannot be had, or is not the one that was pinned.
        MelvocError: an option that the vocoder does not take.
    """
    if revision is not None:
        options["revision"] = revision
    if cache_dir is not None:
        options["cache_dir"] = cache_dir
    if local_files_only:
        options["local_files_only"] = True
    if dtype is not None:
        floating(dtype)
    name, place = os.fsdecode(name_or_path), pick_device(device)
    if name.startswith("hf://"):
        from melvoc.storage.hub import load_repository

        return call(load_repository, name, place, dtype, options)
    if _is_path(name_or_path):
        from melvoc.storage.vocoder_file import load_file

        for unneeded in ("cache_dir", "local_files_only"):  # a file is there: nothing is fetched or cached
            options.pop(unneeded, None)
        return call(load_file, name, place, dtype, options)
    claim = resolve(name, installed())
    factory = _factory(claim)
    try:
        vocoder = call(factory, name, place, dtype, options)
    except MelvocError:
        raise
    except Exception as error:
        if claim.distribution == OWN:
            raise
        raise PluginError(
            f"vocoder {name!r}: {claim.value!r} of {claim.distribution} {claim.version} failed "
            f"({type(error).__name__}: {error}); the contract is factory(name, *, device, dtype, **options)"
        ) from error
    return _checked(vocoder, claim)


def info(name_or_path: str | os.PathLike[str]) -> VocoderInfo:
    """What is known of a vocoder; nothing is downloaded, and no plugin imported.

    Raises:
        UnknownVocoderError: no such name.
        CheckpointError: a damaged file.
    """
    name = os.fspath(name_or_path)
    if _is_path(name_or_path):
        return _info_of_file(name)
    if name.startswith("hf://"):
        raise UnknownVocoderError(
            f"{name} is a repository, of which nothing is known before it is loaded; info takes registered names and "
            "melvoc files, and downloads nothing"
        )
    claim = resolve(name, installed())
    distribution = f"{claim.distribution} {claim.version}".strip()
    if claim.distribution != OWN:
        return VocoderInfo(name=name, distribution=distribution, origin=claim.value)
    row = PUBLISHED.get(name)
    if row is None:
        return VocoderInfo(name=name, distribution=distribution, architecture=name, parameters=0, licence="MIT")
    return VocoderInfo(
        name=name, distribution=distribution, spec=row.spec, architecture=row.architecture, parameters=row.parameters,
        bytes=row.bytes, licence=row.licence, origin=f"https://huggingface.co/{row.repo}", revision=row.revision,
        confidence=row.confidence,
    )  # fmt: skip


def call(
    factory: Factory, name: str, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, Any]
) -> Vocoder:
    """Call a factory, after a look at its signature: an option that it does not take is named.

    Raises:
        MelvocError: such an option.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return factory(name, device=device, dtype=dtype, **options)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    first, *others = parameters or [""]  # the first takes the name, whatever it is called
    offered = [key for key in others if parameters[key].kind is not inspect.Parameter.VAR_KEYWORD]
    for key in options:
        if key == first or (key not in offered and not open_ended):
            listed = ", ".join(other for other in offered if other not in ("device", "dtype"))
            raise MelvocError(f"{name} takes no option {key!r}; it takes {listed or 'none'}")
    return factory(name, device=device, dtype=dtype, **options)


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    name = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or name.endswith(".safetensors"):
        return True
    looks = (
        os.sep in name
        or (os.altsep is not None and os.altsep in name)
        or Path(name).suffix in (".pt", ".pth", ".bin", ".tar")
    )
    if looks and not name.startswith("hf://"):
        raise CheckpointError(
            f"{name}: load reads melvoc's .safetensors files; a published checkpoint becomes one with `melvoc convert`"
        )
    return False


def _info_of_file(path: str) -> VocoderInfo:
    from melvoc.storage.container import read_header

    checkpoint, parameters = read_header(path)
    return VocoderInfo(
        name=checkpoint.name, distribution=path, spec=checkpoint.spec, architecture=checkpoint.architecture,
        parameters=parameters, bytes=Path(path).stat().st_size, licence=checkpoint.licence,
        origin="; ".join(f"{key}: {value}" for key, value in checkpoint.provenance.items()) or None,
    )  # fmt: skip


def _factory(claim: Claim) -> Factory:
    """Import what a claim names.

    Raises:
        PluginError: from whatever went wrong.
    """
    try:
        factory = claim.entry.load()
    except (Exception, SystemExit) as error:  # a plugin that gives up must not end the application
        raise PluginError(
            f"vocoder {claim.name!r} of {claim.distribution} {claim.version} cannot be imported from {claim.value!r} "
            f"({type(error).__name__}: {error}); repair or uninstall {claim.distribution}"
        ) from error
    if not callable(factory):
        raise PluginError(
            f"vocoder {claim.name!r}: {claim.value!r} of {claim.distribution} is a {type(factory).__name__}, but the "
            "contract is factory(name, *, device, dtype, **options)"
        )
    return factory  # type: ignore[no-any-return]


def _checked(vocoder: object, claim: Claim) -> Vocoder:
    if not isinstance(vocoder, Vocoder):
        raise PluginError(
            f"vocoder {claim.name!r}: {claim.value!r} of {claim.distribution} returned a {type(vocoder).__name__}, but "
            "the contract is a melvoc.Vocoder"
        )
    return vocoder
