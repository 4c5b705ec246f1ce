"""Loading vocoders: by path, by repository, by registered name.

`load` tries, in this order: a path (a `Path`, or a string that looks like one), `hf://owner/repo[@revision][/file]`, a
registered name (never shadowed by a folder), and the `owner/name` of a repository that melvoc knows by another name.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from melvoc import registry
from melvoc.architecture import Architecture, Pin
from melvoc.errors import MelvocError, OptionError, PluginError, UnknownVocoderError, about
from melvoc.host import public
from melvoc.options import LoadOptions, check_flag, takes_no
from melvoc.registry import GRIFFINLIM, OWN, VOCODERS, Claim
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container
from melvoc.storage.pair import SUFFIXES, is_folder, is_published, melvoc_file, packed_file
from melvoc.storage.reading import exists
from melvoc.vocoder import Vocoder

Factory = Callable[..., Vocoder]


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
        origin: where the weights come from.
        revision: the pinned revision of the origin.
        confidence: how sure the pin is: "sure (two or more sources)", "sure (one source)", or what is missing.
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


def list_vocoders() -> list[str]:
    """Every registered name, melvoc's own first. Imports no plugin and downloads nothing."""
    return VOCODERS.names()


@public
@torch.inference_mode(False)  # or the weights would be no parameters: no gradient could go through them
def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_unverified: bool = False,
    refine: int | None = None,
    mmap: bool = True,
    prefix: str = "",
    **options: Any,
) -> Vocoder:
    """Load a vocoder.

    Args:
        name_or_path: a registered name (`list_vocoders`), the path of a melvoc `.safetensors` file,
            `hf://owner/repo[@revision][/file]`, or, with `allow_unverified=True`, the path of a published checkpoint
            with its configuration beside it, or of their folder.
        device: "auto" (cuda, mps, cpu), or a torch device.
        dtype: the type to compute in. None: the automatic choice.
        revision: of the repository, instead of the pinned one.
        cache_dir: root of both caches, instead of the Hub's and melvoc's own.
        local_files_only: never use the network.
        allow_unverified: accept a file that cannot be verified. Passed to a plugin's factory only if it names it.
        refine: rounds of refinement of whatever it makes (docs/refinement.md). None: what its file says, else none.
        mmap: whether a file's weights are mapped into memory, where they are on the CPU. False: they are read, and the
            file may change afterwards. Passed to a plugin's factory only if it names it.
        prefix: of a packed vocoder in a local file that holds more: what `melvoc.pack(voc, prefix=...)` was given.
        **options: passed to the vocoder's factory: `engine` and `memory` for every built-in vocoder; also `spec`,
            `n_iter`, `momentum` and `seed` for Griffin-Lim.

    Raises:
        UnknownVocoderError: no such name.
        PluginError: a plugin that cannot be imported, breaks the contract, or whose name another one claims too.
        CheckpointError: a damaged file.
        DownloadError: a file that is not available, or not the pinned one.
        OptionError: an option that the vocoder does not take.
    """
    container.check_prefix(prefix)
    for flag, value in (
        ("local_files_only", local_files_only), ("allow_unverified", allow_unverified), ("mmap", mmap)
    ):  # fmt: skip
        check_flag(flag, value)
    if refine is not None:
        from melvoc.post.refine import refined

        refined((), refine)  # a wrong number is refused before anything is fetched
    given = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    given = {name: value for name, value in given.items() if value} | options
    name = os.fsdecode(name_or_path)
    general: dict[str, Any] = {"device": device, "dtype": dtype, "mmap": mmap}
    if is_path(name_or_path):
        for unneeded in ("cache_dir", "local_files_only"):  # a local file: nothing is fetched or cached
            given.pop(unneeded, None)
        return _refined(
            _load_local(name, LoadOptions.of(name, general | given, fetched=False), allow_unverified, prefix), refine
        )
    claim = None if name.startswith("hf://") else _claim(name)
    if claim and claim.distribution != OWN:
        own = {"allow_unverified": allow_unverified, "prefix": prefix}
        own = {key: value for key, value in own.items() if value}
        return _load_plugin(claim, LoadOptions(**general), given, own, refine)
    if prefix:
        raise _no_prefix(name)
    if claim:
        return _refined(_load_own(claim.name, general | given, allow_unverified), refine)
    from melvoc.storage.hub import load_repository

    given["allow_unverified"] = allow_unverified
    return _refined(load_repository(name, LoadOptions.of(name, general | given, fetched=True)), refine)


def info(name_or_path: str | os.PathLike[str]) -> VocoderInfo:
    """What is known about a vocoder; nothing is downloaded, and no plugin is imported.

    Raises:
        UnknownVocoderError: no such name.
        CheckpointError: a damaged file.
    """
    name = os.fsdecode(name_or_path)
    if is_path(name_or_path):
        return _info_of_file(melvoc_file(name))
    if name.startswith("hf://"):
        raise UnknownVocoderError(
            f"{name} is a repository, about which nothing is known until it is loaded; info takes registered names "
            "and melvoc files, and downloads nothing"
        )
    claim = _claim(name)
    name = claim.name
    if claim.distribution != OWN:
        distribution = f"{claim.distribution} {claim.version}".strip()
        return VocoderInfo(name=name, distribution=distribution, origin=claim.value)
    from melvoc import __version__

    if name == GRIFFINLIM:
        return VocoderInfo(
            name=name, distribution=f"{OWN} {__version__}", architecture=name, parameters=0, licence="MIT"
        )
    record, pin = registry.pins()[name]
    return VocoderInfo(
        name=name, distribution=f"{OWN} {__version__}", spec=pin.spec, architecture=record.name,
        parameters=pin.parameters, bytes=pin.bytes, licence=pin.licence, origin=f"https://huggingface.co/{pin.repo}",
        revision=pin.revision, confidence=pin.confidence,
    )  # fmt: skip


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether `load` takes it as a path: a `Path`, or a string that ends in a checkpoint's suffix, begins with ".",
    "/" or "~", or contains a separator and exists; or the name of a folder here that is no vocoder's."""
    if not isinstance(name_or_path, str):
        return True
    name = name_or_path
    if name.startswith("hf://"):
        return False
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    apart = any(separator in name for separator in separators)
    return (
        name.endswith(SUFFIXES)
        or name.startswith((".", "/", "~"))
        or (apart and exists(name))
        or (is_folder(name) and name not in VOCODERS.table())
    )


def _load_local(path: str, options: LoadOptions, allow_unverified: bool, prefix: str) -> Vocoder:
    """Load a melvoc file, a packed vocoder in another file, or a published checkpoint.

    Raises:
        CheckpointError: no such file, a damaged one, or a published checkpoint without `allow_unverified`.
    """
    from melvoc.storage.vocoder_file import load_file, revive

    if prefix:
        from melvoc.storage.weights import paths, read_tensors

        with about(path):
            file = packed_file(path)
            content = dict(paths(read_tensors(file, mapped=options.mmap), file))
            return revive(container.unpack(content, prefix=prefix, source=file), options)
    if allow_unverified and is_published(path):
        from melvoc.storage.conversion import convert

        provenance = {"converted from": path, "verified": "no"}
        return revive(convert(path, provenance=provenance, mapped=options.mmap), options)
    return load_file(melvoc_file(path), options)


def _claim(name: str) -> Claim:
    """Who declares a registered name, or the repository of a published checkpoint, whose name it then is.

    Raises:
        UnknownVocoderError: nobody.
        PluginError: two packages, and neither is melvoc.
    """
    table = VOCODERS.table()
    if name not in table:
        if not (known := registry.known_pin(name)):
            raise registry.unknown(name, table)
        name = known[1].name
    return VOCODERS.single(name, table[name])


def call(
    factory: Factory, name: str, device: str | torch.device, dtype: torch.dtype | None, options: Mapping[str, Any]
) -> Vocoder:
    """Call a factory, after checking its signature.

    Raises:
        OptionError: an option that the factory does not take.
    """
    names, open_ended = _taken(factory)
    if names is None:
        return factory(name, device=device, dtype=dtype, **options)
    first, *others = names or [""]  # the first parameter takes the name, whatever it is called
    for key in options:
        if key == first or (key not in others and not open_ended):
            raise takes_no(name, key, others)
    return factory(name, device=device, dtype=dtype, **options)


def _taken(factory: Factory) -> tuple[list[str] | None, bool]:
    """The parameters that a factory names (None: unknown), and whether it takes any other option as well."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None, True
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    return (
        [name for name, kind in kinds.items() if kind is not inspect.Parameter.VAR_KEYWORD],
        inspect.Parameter.VAR_KEYWORD in kinds.values(),
    )


def _load_own(name: str, given: dict[str, Any], allow_unverified: bool) -> Vocoder:
    if name == GRIFFINLIM:
        from melvoc.griffinlim import load_griffinlim

        given.pop("mmap")  # it has no file
        return call(load_griffinlim, name, given.pop("device"), given.pop("dtype"), given)
    from melvoc.storage.hub import load_pinned

    record, pin = registry.pins()[name]
    options = LoadOptions.of(name, given | {"allow_unverified": allow_unverified}, fetched=True)
    return load_pinned(record, pin, options)


def _refined(vocoder: Vocoder, refine: int | None) -> Vocoder:
    """The vocoder with so many rounds of refinement as its default; None leaves it as it is."""
    if refine is not None:
        from melvoc.post.refine import refined

        vocoder.post = refined(vocoder.post, refine)
    return vocoder


def _load_plugin(
    claim: Claim, general: LoadOptions, given: dict[str, Any], own: dict[str, Any], refine: int | None
) -> Vocoder:
    """Load by another package's factory, or by the pins of its architecture's record.

    Args:
        claim: of the name.
        general: device and dtype.
        given: what the caller set.
        own: what the caller set of `load`'s own options, which reach only a factory that names them.
        refine: rounds of refinement, which reach such a factory too, and are the vocoder's default otherwise.

    Raises:
        PluginError: the factory fails or breaks the contract.
        OptionError: a prefix for a factory that does not name it.
    """
    factory, name = VOCODERS.load(claim), claim.name
    if isinstance(factory, Architecture):
        return _refined(_load_plugins_pin(factory, claim, general, given | own), refine)
    if not callable(factory):
        raise VOCODERS.wrong(claim, f"is a {type(factory).__name__}")
    named = _taken(factory)[0] or []
    if "prefix" in own and "prefix" not in named:
        raise _no_prefix(name)
    given = given | {key: value for key, value in own.items() if key in named}
    if refine is not None and "refine" in named:
        given, refine = given | {"refine": refine}, None
    if not general.mmap and "mmap" in named:
        given = given | {"mmap": False}
    try:
        vocoder = call(factory, name, general.place, general.dtype, given)
    except MelvocError:
        raise
    except Exception as error:
        raise PluginError(
            f"vocoder {name!r}: {claim.value!r} of {claim.distribution} {claim.version} failed "
            f"({type(error).__name__}: {error}); the contract is {VOCODERS.contract}"
        ) from error
    if not isinstance(vocoder, Vocoder):
        raise VOCODERS.wrong(claim, f"returned a {type(vocoder).__name__}", "a melvoc.Vocoder")
    return _refined(vocoder, refine)


def _no_prefix(name: str) -> OptionError:
    return OptionError(f"{name} takes no option 'prefix', which is for a local file that holds more than a vocoder")


def _load_plugins_pin(record: Architecture, claim: Claim, general: LoadOptions, given: dict[str, Any]) -> Vocoder:
    from melvoc.storage.hub import load_pinned

    found: dict[str, Pin] = {pin.name: pin for pin in record.pins}
    if claim.name not in found:
        raise VOCODERS.wrong(claim, f"is an architecture with pins for {', '.join(found) or 'nothing'}")
    own = {"device": general.device, "dtype": general.dtype, "mmap": general.mmap}
    options = LoadOptions.of(claim.name, own | given, fetched=True)
    return load_pinned(record, found[claim.name], options)


def _info_of_file(path: str) -> VocoderInfo:
    from melvoc.storage.container import read_header

    checkpoint, parameters = read_header(path)
    return VocoderInfo(
        name=checkpoint.name, distribution=path, spec=checkpoint.spec, architecture=checkpoint.architecture,
        parameters=parameters, bytes=Path(path).stat().st_size, licence=checkpoint.licence,
        origin="; ".join(f"{key}: {value}" for key, value in checkpoint.provenance.items()) or None,
    )  # fmt: skip
