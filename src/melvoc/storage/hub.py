"""Published weights: downloaded once, verified, and kept as a melvoc file.

The Hub's client (`client`) does the transfer. Downloads are verified, converted and moved into melvoc's cache under a
name that includes the revision; then the download is removed. From then on, loading needs only that file: no network,
no Hub client.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from melvoc.architecture import Architecture, Pin
from melvoc.errors import CheckpointError, DownloadError, MelvocError, OptionError, about, quoted
from melvoc.options import LoadOptions
from melvoc.progress import checkpoint, watched
from melvoc.registry import all_architectures
from melvoc.storage import client, container
from melvoc.storage.atomic import replacing
from melvoc.storage.cache import cache_errors
from melvoc.storage.client import Downloads
from melvoc.storage.container import Checkpoint, is_melvoc_file
from melvoc.storage.conversion import assemble, convert
from melvoc.storage.inventory import (
    COMMIT,
    commit_record,
    model_file,
    parsed,
    recorded_commit,
    repository_files,
    repository_folder,
)
from melvoc.storage.lock import locked
from melvoc.storage.pair import WEIGHTS, choose_config, choose_weights, published_among
from melvoc.storage.vocoder_file import load_file, revive
from melvoc.vocoder import Vocoder

LOG = logging.getLogger(__name__)


def load_pinned(record: Architecture, pin: Pin, options: LoadOptions) -> Vocoder:
    """A published vocoder by its registered name. See `melvoc.load`.

    Raises:
        DownloadError: a file that is not available, cannot be verified, or is not the pinned one.
    """
    return _loaded(fetch(record, pin, options), options)


def fetch(record: Architecture, pin: Pin, options: LoadOptions) -> Path:
    """The melvoc file of a published checkpoint, downloaded and converted if it is not there yet.

    Raises:
        DownloadError: as `load_pinned`.
    """
    chosen = options.revision or pin.revision
    pinned = pin.sha256 is not None and chosen == pin.revision
    if not pinned and not options.allow_unverified:
        why = (
            "a revision other than the pinned one was requested"
            if pin.sha256 and chosen
            else "no sha256 is known for it"
        )
        more = "" if chosen else ", and a full commit as revision=, because none is known either (never main)"
        raise DownloadError(
            f"{pin.name} cannot be verified: {why}. If you trust {pin.repo}, pass allow_unverified=True{more}",
            reason="hash",
        )
    if chosen is None or not re.fullmatch(COMMIT, chosen):
        given = "no full revision is known for it" if chosen is None else f"revision={chosen!r}"
        raise DownloadError(
            f"{pin.name}: {given}, but a name stands for one commit, and a branch may change; pass revision= with a "
            f"full commit (40 hex digits) of {pin.repo}",
            reason="hash",
        )
    target = model_file(pin.name, chosen, options.cache_dir, verified=pinned)

    def make(downloads: Downloads) -> Callable[[], Checkpoint]:
        (path,) = downloads.get(pin.filename)
        return lambda: _pinned_checkpoint(path, record, pin, downloads, pinned=pinned)

    kept = partial(_as_pinned, record=record, pin=pin)
    return _once(target, Downloads(pin.repo, chosen, options), make, options, kept=kept)


def _as_pinned(path: Path, record: Architecture, pin: Pin) -> bool:
    """Whether there is a cached file, and describes its vocoder as its pin does: another version's may not."""
    if not path.is_file():
        return False
    found = container.read_description(path)
    try:  # fields that have come since have their defaults
        right = found.spec == pin.spec and record.config.from_dict(found.config) == pin.config
    except MelvocError:
        right = False
    if not right:
        LOG.info("%s: another version of melvoc has described %s otherwise; it is made anew", path, pin.name)
    return right


def _pinned_checkpoint(path: Path, record: Architecture, pin: Pin, downloads: Downloads, *, pinned: bool) -> Checkpoint:
    """The checkpoint of a downloaded file, verified if its pin has a hash."""
    commit, digest = downloads.commit, _sha256(path)
    checkpoint()
    if pinned and digest != pin.sha256:
        own = path.is_relative_to(downloads.folder)  # and not in the client's cache, which other programs use
        if own:
            path.unlink()
        raise DownloadError(
            f"{pin.repo}/{pin.filename} at {commit[:12]} has sha256 {digest}, but {pin.sha256} is pinned: the file was "
            f"truncated, changed or tampered with; {'it has been removed' if own else f'remove {path}'}, try again",
            reason="hash",
        )
    provenance = {"repository": pin.repo, "revision": commit, "file": pin.filename, "sha256": digest}
    provenance["verified"] = "yes" if pinned else "no"
    with about(path):
        return assemble(
            path, record=record, config=pin.config.to_dict(), spec=pin.spec, name=pin.name, licence=pin.licence,
            provenance=provenance,
        )  # fmt: skip


def load_repository(name: str, options: LoadOptions) -> Vocoder:
    """A vocoder from any repository on the Hub, `hf://owner/repo[@revision][/file]`.

    Loads the file, else the repository's one melvoc file, else a published pair of weights and configuration, which
    needs allow_unverified=True. Without a revision, main is resolved once, and the commit is recorded in melvoc's
    cache. What the Hub's client has in its cache needs no network.

    Raises:
        DownloadError: no such repository or file, or one that cannot be verified.
    """
    return _loaded(fetch_repository(name, options), options)


def fetch_repository(name: str, options: LoadOptions) -> Path:
    """The melvoc file of a repository's vocoder, downloaded and converted if it is not there yet.

    Raises:
        DownloadError: as `load_repository`.
    """
    repo, revision, file = parsed(name)
    if revision and options.revision not in (None, revision):
        raise OptionError(f"{name} with revision={options.revision!r}, which is another; give one of them")
    folder = repository_folder(repo, options.cache_dir)
    with cache_errors(folder):
        commit = _resolve(repo, options.revision or revision, folder, options)
        target, unverified = repository_files(folder, commit, file)
        # A later, stricter call must not use a file that an earlier one accepted without verification.
        missing = not target.is_file()
        if missing and options.allow_unverified:
            target = unverified
            missing = not target.is_file()
    listing = _files(repo, commit, options) if missing else ([], True)
    if not (file or listing[1]) and (only := _only(listing[0])):  # of all that there are, it may not be the only one
        return fetch_repository(f"hf://{repo}@{commit}/{only}", replace(options, revision=None))
    downloads = Downloads(repo, commit, options)
    return _once(target, downloads, lambda downloads: _from_repository(downloads, file, options, listing), options)


def _only(files: list[str]) -> str:
    """The file that a vocoder would be made of, if these were all files of a repository; "" for none or several."""
    safe = [name for name in files if name.endswith(".safetensors")]
    if not safe and (pair := _pair(files, "", [], "the cache")):
        return pair[0]
    return safe[0] if len(safe) == 1 else ""


def _loaded(path: Path, options: LoadOptions) -> Vocoder:
    return watched(options.progress, "load", 1, lambda _: load_file(path, options))


def _resolve(repo: str, wanted: str | None, folder: Path, options: LoadOptions) -> str:
    """The commit of a revision, recorded once it is resolved. One that comes from a cache is named in the log."""
    revision = wanted or "main"
    record = commit_record(folder, revision)
    if known := recorded_commit(folder, revision):
        if known != revision:
            LOG.info("hf://%s: %s is %s, as recorded in %s", repo, revision, known, record)
        return known
    try:
        if options.local_files_only:
            raise _offline(f"hf://{repo} has not been loaded here before")
        commit = client.commit_of(repo, wanted, options)
    except DownloadError as error:
        kept = client.cached(repo, revision, options) if error.reason == "offline" else None
        if kept is None:
            raise
        LOG.info("hf://%s: without the network; %s is %s in the cache of the Hub's client", repo, revision, kept[0])
        return kept[0]
    if not re.fullmatch(COMMIT, commit):  # it becomes a part of file names
        raise DownloadError(
            f"hf://{repo}: the server answers {quoted(commit)} as the commit of {revision}, but a commit has 40 hex "
            "digits; check HF_ENDPOINT"
        )
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(record) as part:
            part.write_text(commit, encoding="utf-8")
    return commit


def _from_repository(
    downloads: Downloads, file: str, options: LoadOptions, listing: tuple[list[str], bool]
) -> Callable[[], Checkpoint]:
    """The named file, or, without a name, the one melvoc file, else a published pair: downloaded, to be converted.

    `listing` is what `_files` gives.
    """
    repo, commit, (files, complete) = downloads.repo, downloads.commit, listing
    if any(".." in name.split("/") or name.startswith("/") for name in files):
        raise DownloadError(f"hf://{repo} names files outside itself; do not use it", reason="hash")
    if file and file not in files:
        if not complete:
            raise _offline(f"hf://{repo}@{commit[:12]}: {quoted(file)} is not in the cache, which has {_listed(files)}")
        raise DownloadError(f"hf://{repo}@{commit[:12]} has no file {quoted(file)}; it has {_listed(files)}")
    safe = [name for name in ([file] if file else files) if name.endswith(".safetensors")]
    if len(safe) > 1:
        raise DownloadError(
            f"hf://{repo} has {len(safe)} safetensors files ({_listed(safe)}); name one: hf://{repo}/{safe[0]}"
        )
    foreign = ""
    if safe:
        (path,) = downloads.get(safe[0])
        if is_melvoc_file(path):
            return partial(_fitting, path)
        foreign = f" ({safe[0]} is safetensors, but not melvoc's)"
    pair = _pair(files, file, safe, f"hf://{repo}")
    if pair is None and not complete:
        raise _offline(
            f"hf://{repo}@{commit[:12]}: neither a melvoc file nor a published generator with its configuration is in "
            f"the cache, which has {_listed(files)}{foreign}"
        )
    if pair is None:
        raise DownloadError(
            f"hf://{repo} has neither a melvoc .safetensors file nor a published generator of "
            f"{', '.join(record.title for record in all_architectures())} with its configuration"
            f"{f' beside {file}' if file else ''}; it has {_listed(files)}{foreign}"
        )
    if not options.allow_unverified:
        raise DownloadError(
            f"hf://{repo} has no melvoc file, but {pair[0]} with {pair[1]}, which cannot be verified; if you trust it, "
            "pass allow_unverified=True",
            reason="hash",
        )
    path, config = downloads.get(*pair)
    provenance = {"repository": repo, "revision": commit, "file": pair[0], "verified": "no"}
    return partial(convert, path, config=config, name=repo.split("/")[1], provenance=provenance)


def _files(repo: str, commit: str, options: LoadOptions) -> tuple[list[str], bool]:
    """The names of a commit's files, and whether these are all; without the network, those in the client's cache."""
    try:
        if options.local_files_only:
            raise _offline(f"hf://{repo}@{commit[:12]} is not in the cache")
        return client.files_of(repo, commit, options), True
    except DownloadError as error:
        kept = client.cached(repo, commit, options) if error.reason == "offline" else None
        if kept is None:
            raise
        return kept[1], False


def _pair(files: list[str], wanted: str, foreign: list[str], where: str) -> tuple[str, str] | None:
    """Published weights, or the wanted ones, and the configuration beside them, chosen as in a folder on the disk.

    Safetensors that were seen not to be melvoc's (`foreign`) count where no other file has a published name.

    Raises:
        CheckpointError: there are several.
    """
    folder = PurePosixPath(wanted).parent
    config = choose_config([name.name for name in map(PurePosixPath, files) if name.parent == folder], where)
    top = [wanted] if wanted else [name for name in files if "/" not in name]
    published = set(published_among(top))
    weights = [name for name in top if wanted or name.endswith(WEIGHTS) or name in published]
    if config is None or not weights:
        return None
    others = [name for name in weights if name not in foreign]
    weights = others if published.intersection(others) else weights
    return choose_weights(weights, where), (folder / config).as_posix()


def _listed(files: list[str]) -> str:
    return ", ".join([*files[:8], *(["..."] if len(files) > 8 else [])]) or "no files"


def _offline(what: str) -> DownloadError:
    return DownloadError(f"{what}; load it once with the network (local_files_only=False)", reason="offline")


def _once(
    target: Path,
    downloads: Downloads,
    make: Callable[[Downloads], Callable[[], Checkpoint]],
    options: LoadOptions,
    *,
    kept: Callable[[Path], bool] = Path.is_file,
) -> Path:
    """Make a cached file, unless there is one that is kept; one process makes it while the others wait."""
    with cache_errors(target.parent):
        if kept(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        downloads.folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{downloads.folder}.lock"), options.progress):
        if not kept(target):
            with downloads:
                convert = make(downloads)
                downloads.complete = True
                watched(options.progress, "convert", 1, lambda _: _write(convert, target))
    return target


def _write(convert: Callable[[], Checkpoint], target: Path) -> None:
    """Convert, and write the melvoc file."""
    made = convert()
    checkpoint()
    try:
        container.write(made, target)
    except CheckpointError as error:
        raise DownloadError(str(error), reason="disk") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fitting(path: Path) -> Checkpoint:
    """A melvoc file's checkpoint, after checking that its weights fit: every later load gets what is cached."""
    with about(path):
        read = container.read(path)
        revive(read, LoadOptions(device="meta", engine="torch"))
        return read
