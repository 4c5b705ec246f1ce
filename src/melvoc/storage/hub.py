"""Published weights: downloaded once, verified, and kept as a melvoc file.

The Hub's client (`client`) does the transfer. Downloads are verified, converted and moved into melvoc's cache under a
name that includes the revision. From then on, loading needs only that file: no network, no Hub client.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from melvoc.architecture import Architecture, Pin
from melvoc.errors import CheckpointError, DownloadError, quoted
from melvoc.options import LoadOptions
from melvoc.registry import all_architectures
from melvoc.storage import client, container
from melvoc.storage.atomic import replacing
from melvoc.storage.cache import cache_folder
from melvoc.storage.container import Checkpoint, is_melvoc_file
from melvoc.storage.conversion import assemble, convert
from melvoc.storage.pair import SUFFIXES, choose_config, choose_weights, published_among
from melvoc.storage.vocoder_file import load_file, revive
from melvoc.vocoder import Vocoder

LOG = logging.getLogger(__name__)
COMMIT = "[0-9a-f]{40}"
REPOSITORY = re.compile(
    r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+))?(?P<file>(?:/(?!\.\.?(?:/|$))[^/]+)*)"
)


def load_pinned(record: Architecture, pin: Pin, options: LoadOptions) -> Vocoder:
    """A published vocoder by its registered name. See `melvoc.load`.

    Raises:
        DownloadError: a file that is not available, cannot be verified, or is not the pinned one.
    """
    return load_file(fetch(record, pin, options), options)


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
    target = (
        cache_folder(options.cache_dir)
        / "models"
        / f"{pin.name}-{chosen[:12]}{'' if pinned else '-unverified'}.safetensors"
    )

    def make() -> Checkpoint:
        path = client.download(pin.repo, pin.filename, chosen, options)
        digest = _sha256(path)
        if pinned and digest != pin.sha256:
            _discard(path)
            raise DownloadError(
                f"{pin.repo}/{pin.filename} at {chosen[:12]} has sha256 {digest}, but {pin.sha256} is pinned: the file "
                "was truncated, changed or tampered with, and has been removed; try again",
                reason="hash",
            )
        provenance = {"repository": pin.repo, "revision": chosen, "file": pin.filename, "sha256": digest}
        provenance["verified"] = "yes" if pinned else "no"
        with _discarding(path):
            return assemble(
                path, record=record, config=pin.config.to_dict(), spec=pin.spec, name=pin.name, licence=pin.licence,
                provenance=provenance,
            )  # fmt: skip

    return _once(target, make)


def load_repository(name: str, options: LoadOptions) -> Vocoder:
    """A vocoder from any repository on the Hub, `hf://owner/repo[@revision][/file]`.

    Loads the file, else the repository's one melvoc file, else a published pair of weights and configuration, which
    needs allow_unverified=True. Without a revision, main is resolved once, and the commit is recorded in melvoc's
    cache. What the Hub's client has in its cache needs no network.

    Raises:
        DownloadError: no such repository or file, or one that cannot be verified.
    """
    match = REPOSITORY.fullmatch(name)
    if not match:
        raise DownloadError(
            f"{name!r} is not a repository; write hf://owner/repo, hf://owner/repo@revision or hf://owner/repo/file"
        )
    repo, wanted, file = match["repo"], options.revision or match["revision"], match["file"][1:]
    folder = cache_folder(options.cache_dir) / "repositories" / repo.replace("/", "--")
    commit = _resolve(repo, wanted, folder, options)
    ending = f"-file-{quote(file, safe='')}.safetensors" if file else ".safetensors"
    # A later, stricter call must not use a file that an earlier one accepted without verification.
    target = folder / f"{commit}{ending}"
    if not target.is_file() and options.allow_unverified:
        target = folder / f"{commit}-unverified{ending}"

    path = _once(target, lambda: _from_repository(repo, commit, file, options))
    return load_file(path, options)


def _resolve(repo: str, wanted: str | None, folder: Path, options: LoadOptions) -> str:
    """The commit of a revision, recorded once it is resolved. One that comes from a cache is named in the log."""
    revision = wanted or "main"
    record = folder / f"{re.sub('[^0-9A-Za-z._-]', '_', revision)}.commit"
    if re.fullmatch(COMMIT, revision):
        return revision
    if record.is_file() and re.fullmatch(COMMIT, known := record.read_text(encoding="utf-8", errors="replace").strip()):
        LOG.info("hf://%s: %s is %s, as recorded in %s", repo, revision, known, record)
        return known
    try:
        if options.local_files_only:
            raise _offline(f"hf://{repo} has not been loaded here before")
        commit = client.commit_of(repo, wanted)
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
    with _cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(record) as part:
            part.write_text(commit, encoding="utf-8")
    return commit


def _from_repository(repo: str, commit: str, file: str, options: LoadOptions) -> Checkpoint:
    """The named file, or, without a name, the one melvoc file, else a published pair."""
    files, complete = _files(repo, commit, options)
    if any(".." in name.split("/") or name.startswith("/") for name in files):
        raise DownloadError(f"hf://{repo} names files outside itself; do not use it")
    if file and file not in files:
        if not complete:
            raise _offline(f"hf://{repo}@{commit[:12]}: {quoted(file)} is not in the cache, which has {_listed(files)}")
        raise DownloadError(f"hf://{repo}@{commit[:12]} has no file {quoted(file)}; it has {_listed(files)}")
    safe = [name for name in ([file] if file else files) if name.endswith(".safetensors")]
    if len(safe) > 1:
        raise DownloadError(
            f"hf://{repo} has {len(safe)} safetensors files ({', '.join(safe[:3])}...); name one: hf://{repo}/{safe[0]}"
        )
    foreign = ""
    if safe:
        path = client.download(repo, safe[0], commit, options)
        with _discarding(path):
            if is_melvoc_file(path):
                return _fitting(container.read(path))
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
    path, config = (client.download(repo, name, commit, options) for name in pair)
    provenance = {"repository": repo, "revision": commit, "file": pair[0], "verified": "no"}
    with _discarding(path, config):
        return convert(path, config=config, name=repo.split("/")[1], provenance=provenance)


def _files(repo: str, commit: str, options: LoadOptions) -> tuple[list[str], bool]:
    """The names of a commit's files, and whether these are all; without the network, those in the client's cache."""
    try:
        if options.local_files_only:
            raise _offline(f"hf://{repo}@{commit[:12]} is not in the cache")
        return client.files_of(repo, commit), True
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
    weights = [name for name in top if wanted or name.endswith(SUFFIXES) or name in published]
    if config is None or not weights:
        return None
    others = [name for name in weights if name not in foreign]
    weights = others if published.intersection(others) else weights
    return choose_weights(weights, where), (folder / config).as_posix()


def _listed(files: list[str]) -> str:
    return ", ".join(files[:8]) or "no files"


def _offline(what: str) -> DownloadError:
    return DownloadError(f"{what}; load it once with the network (local_files_only=False)", reason="offline")


def _once(target: Path, make: Callable[[], Checkpoint]) -> Path:
    """Make a cached file if it does not exist; one process makes it while the others wait."""
    if target.is_file():
        return target
    from filelock import FileLock

    with _cache_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    try:
        if not target.is_file():
            container.write(make(), target)
    finally:
        lock.release()
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """Turn errors of an unusable cache into one that says how to choose another."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"melvoc's cache {folder} cannot be used ({error}); set MELVOC_CACHE to a folder you may write to",
            reason="disk",
        ) from error


@contextmanager
def _discarding(*paths: Path) -> Iterator[None]:
    """Remove downloads that turn out to be wrong, so that the next load requests them again."""
    try:
        yield
    except CheckpointError:
        for path in paths:
            _discard(path)
        raise


def _fitting(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint, after checking that its weights fit, because every later load gets what is cached."""
    revive(checkpoint, LoadOptions(device="meta", engine="torch"))
    return checkpoint


def _discard(path: Path) -> None:
    """Remove a downloaded file, both link and target, so that no later load uses it."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
