"""Loading vocoders: by path, by repository, by registered name.

`load` tries, in this order: a path (a `Path`, or a string that looks like one), `hf://owner/repo[@revision][/file]`, a
registered name (never shadowed by a folder), and the `owner/name` of a repository that melvoc knows by another name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from melvoc import registry
from melvoc.architecture import Architecture, Pin
from melvoc.errors import MelvocError, OptionError, PluginError, about, kind_of
from melvoc.factory import Factory, call, taken
from melvoc.host import public
from melvoc.options import LoadOptions, check_flag
from melvoc.progress import Progress, check_progress, watched
from melvoc.registry import GRIFFINLIM, OWN, VOCODERS, Claim
from melvoc.storage import container
from melvoc.storage.pair import GRAPHS, SUFFIXES, is_folder, is_published, melvoc_file, packed_file
from melvoc.storage.reading import exists
from melvoc.vocoder import Vocoder


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
    progress: Progress | None = None,
    **options: Any,
) -> Vocoder:
    """Load a vocoder.

    Args:
        name_or_path: a registered name (`list_vocoders`), the path of a melvoc `.safetensors` file or of an ONNX
            file (docs/export.md), `hf://owner/repo[@revision][/file]`, or, with `allow_unverified=True`, the path of a
            published checkpoint with its configuration beside it, or of their folder.
        device: "auto" (cuda, mps, cpu), or a torch device.
        dtype: the type to compute in. None: the automatic choice, which is float32.
        revision: of the repository, instead of the pinned one.
        cache_dir: root of both caches, instead of the Hub's and melvoc's own.
        local_files_only: never use the network.
        allow_unverified: accept a file that cannot be verified. Passed to a plugin's factory only if it names it.
        refine: rounds of refinement of whatever it makes (docs/refinement.md). None: what its file says, else none.
        mmap: whether a file's weights are mapped into memory, where they are on the CPU. False: they are read, and the
            file may change afterwards. Passed to a plugin's factory only if it names it.
        prefix: of a packed vocoder in a local file that holds more: what `melvoc.pack(voc, prefix=...)` was given.
        progress: called with (stage, done, total) while it is fetched and loaded; what it raises cancels
            (docs/applications.md). Passed to a plugin's factory only if it names it.
        **options: passed to the vocoder's factory: `engine` and `memory` for every built-in vocoder, `seed` for
            those that draw noise; also `spec` (a `MelSpec`), `n_iter` and `momentum` for Griffin-Lim, and for an ONNX
            file that does not say what its mel is, `spec`: a `MelSpec`, or the name of a preset.

    Raises:
        UnknownVocoderError: no such name.
        PluginError: a plugin that cannot be imported, breaks the contract, or whose name another one claims too.
        CheckpointError: a damaged file.
        DownloadError: a file that is not available, or not the pinned one.
        OptionError: an option that the vocoder does not take.
    """
    container.check_prefix(prefix)
    check_progress(progress)
    for flag, value in (
        ("local_files_only", local_files_only), ("allow_unverified", allow_unverified), ("mmap", mmap)
    ):  # fmt: skip
        check_flag(flag, value)
    if refine is not None:
        from melvoc.post.refine import refined

        refined((), refine)  # a wrong number is refused before anything is fetched
    given: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    given = {name: value for name, value in given.items() if value} | options
    name = os.fsdecode(name_or_path)
    general: dict[str, Any] = {"device": device, "dtype": dtype, "mmap": mmap}
    if is_path(name_or_path):
        for unneeded in ("cache_dir", "local_files_only"):  # a local file: nothing is fetched or cached
            given.pop(unneeded, None)
        if name.endswith(GRAPHS) and not is_folder(name):
            return _refined(_load_graph(name, device, dtype, given, prefix, progress), refine)
        local = LoadOptions.of(name, general | given, fetched=False)
        with about(name):
            vocoder = watched(progress, "load", 1, lambda _: _load_local(name, local, allow_unverified, prefix))
        return _refined(vocoder, refine)
    claim = None if name.startswith("hf://") else registry.claimed(name)
    if claim and claim.distribution != OWN:
        own: dict[str, Any] = {"allow_unverified": allow_unverified, "prefix": prefix}
        own = {key: value for key, value in own.items() if value} | {"progress": progress}
        return _load_plugin(claim, LoadOptions(**general), given, own, refine)
    if prefix:
        raise _no_prefix(name)
    given |= {"allow_unverified": allow_unverified, "progress": progress}
    if claim:
        return _refined(_load_own(claim.name, general | given), refine)
    from melvoc.storage.hub import load_repository

    return _refined(load_repository(name, LoadOptions.of(name, general | given, fetched=True)), refine)


@public
def download(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_unverified: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetch a published vocoder into the cache, verified and converted, without loading it.

    Args:
        name: a registered name that is downloaded, `hf://owner/repo[@revision][/file]`, or a known repository.
        revision: as in `load`.
        cache_dir: as in `load`.
        local_files_only: as in `load`.
        allow_unverified: as in `load`.
        progress: called with (stage, done, total), for example ("download", 1048576, 54365991); what it raises cancels.

    Returns:
        Its melvoc file, in the cache.

    Raises:
        UnknownVocoderError: no such name.
        OptionError: a vocoder that is not downloaded.
        DownloadError: as `load`.
        CheckpointError: a download that cannot be converted.
    """
    if is_path(name):
        raise OptionError(f"{name} is a file or folder here; melvoc.load takes it as it is")
    check_progress(progress)
    from melvoc.storage.hub import fetch, fetch_repository

    options = LoadOptions(
        device="cpu", revision=revision, cache_dir=cache_dir, local_files_only=local_files_only,
        allow_unverified=allow_unverified, progress=progress,
    )  # fmt: skip
    if name.startswith("hf://"):
        path = fetch_repository(name, options)
    else:
        path = fetch(*_downloaded(registry.claimed(name)), options)
    watched(progress, "check", 1, lambda _: container.read_header(path))
    return path


def _downloaded(claim: Claim) -> tuple[Architecture, Pin]:
    """The record and the pin behind a name.

    Raises:
        OptionError: it is not downloaded, or not by melvoc.
    """
    if claim.distribution == OWN and claim.name != GRIFFINLIM:
        return registry.pins()[claim.name]
    record = VOCODERS.load(claim) if claim.distribution != OWN else None
    if isinstance(record, Architecture):
        return record, _pin_of(record, claim)
    raise OptionError(f"{claim.name} is not downloaded by melvoc; melvoc.load({claim.name!r}) gives it")


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


def _load_graph(
    path: str,
    device: str | torch.device,
    dtype: torch.dtype | None,
    given: dict[str, Any],
    prefix: str,
    progress: Progress | None,
) -> Vocoder:
    """Load an ONNX file."""
    from melvoc.onnx.vocoder import load_onnx

    if prefix:
        raise _no_prefix(path)
    with about(path):
        return watched(progress, "load", 1, lambda _: call(load_onnx, path, device, dtype, given))


def _load_own(name: str, given: dict[str, Any]) -> Vocoder:
    if name == GRIFFINLIM:
        from melvoc.griffinlim import load_griffinlim

        device, dtype, _, _, progress = map(given.pop, ("device", "dtype", "mmap", "allow_unverified", "progress"))
        return watched(progress, "load", 1, lambda _: call(load_griffinlim, name, device, dtype, given))
    from melvoc.storage.hub import load_pinned

    record, pin = registry.pins()[name]
    return load_pinned(record, pin, LoadOptions.of(name, given, fetched=True))


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
        raise VOCODERS.wrong(claim, f"is {kind_of(factory)}")
    named, progress = taken(factory)[0] or [], own["progress"]
    if "prefix" in own and "prefix" not in named:
        raise _no_prefix(name)
    given = given | {key: value for key, value in own.items() if key in named and value is not None}
    if refine is not None and "refine" in named:
        given, refine = given | {"refine": refine}, None
    if not general.mmap and "mmap" in named:
        given = given | {"mmap": False}
    if "progress" in named:  # it reports for itself
        vocoder = _made(factory, claim, general, given)
    else:
        vocoder = watched(progress, "load", 1, lambda _: _made(factory, claim, general, given))
    return _refined(vocoder, refine)


class _Passed:
    """A progress function on its way to a plugin's factory, which remembers what the function raised."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.raised: BaseException | None = None

    def __call__(self, stage: str, done: int, total: int) -> object:
        try:
            return self._progress(stage, done, total)
        except BaseException as error:
            self.raised = error
            raise


def _made(factory: Factory, claim: Claim, general: LoadOptions, given: dict[str, Any]) -> Vocoder:
    """What a plugin's factory makes.

    Raises:
        PluginError: the factory fails or breaks the contract.
    """
    passed = _Passed(given["progress"]) if "progress" in given else None
    given = given | ({"progress": passed} if passed else {})
    try:
        vocoder = call(factory, claim.name, general.place, general.dtype, given)
    except MelvocError:
        raise
    except (Exception, SystemExit) as error:  # a plugin that exits must not end the application
        if passed and error is passed.raised:
            raise
        raise PluginError(
            f"vocoder {claim.name!r}: {claim.value!r} of {claim.distribution} {claim.version} failed "
            f"({type(error).__name__}: {error}); the contract is {VOCODERS.contract}"
        ) from error
    if not isinstance(vocoder, Vocoder):
        raise VOCODERS.wrong(claim, f"returned {kind_of(vocoder)}", "a melvoc.Vocoder")
    return vocoder


def _no_prefix(name: str) -> OptionError:
    return OptionError(f"{name} takes no option 'prefix', which is for a local file that holds more than a vocoder")


def _load_plugins_pin(record: Architecture, claim: Claim, general: LoadOptions, given: dict[str, Any]) -> Vocoder:
    from melvoc.storage.hub import load_pinned

    own = {"device": general.device, "dtype": general.dtype, "mmap": general.mmap}
    options = LoadOptions.of(claim.name, own | given, fetched=True)
    return load_pinned(record, _pin_of(record, claim), options)


def _pin_of(record: Architecture, claim: Claim) -> Pin:
    found: dict[str, Pin] = {pin.name: pin for pin in record.pins}
    if claim.name not in found:
        raise VOCODERS.wrong(claim, f"is an architecture with pins for {', '.join(found) or 'nothing'}")
    return found[claim.name]
