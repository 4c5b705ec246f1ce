"""Published weights: downloaded once, verified, and kept as a melvoc file.

The Hub's client does the transfer and keeps its own cache; it handles HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and
HF_HUB_OFFLINE. Downloads are verified, converted and moved into melvoc's cache under a name that includes the revision.
From then on, loading needs only that file: no network, no Hub client.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from melvoc.architecture import Architecture, Pin
from melvoc.errors import CheckpointError, DownloadError, DownloadReason, quoted, reason
from melvoc.options import LoadOptions
from melvoc.registry import all_architectures
from melvoc.storage import container
from melvoc.storage.atomic import replacing
from melvoc.storage.cache import cache_folder
from melvoc.storage.container import Checkpoint, is_melvoc_file
from melvoc.storage.conversion import assemble, convert
from melvoc.storage.vocoder_file import load_file, revive
from melvoc.vocoder import Vocoder

COMMIT = "[0-9a-f]{40}"


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
        path = _download(pin.repo, pin.filename, chosen, options)
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
    """A vocoder from any repository on the Hub, `hf://owner/repo[@revision]`.

    Loads its one melvoc file, else a published pair of weights and configuration, which needs allow_unverified=True.
    Without a revision, main is resolved once, and the commit is recorded in melvoc's cache.

    Raises:
        DownloadError: no such repository or file, or one that cannot be verified.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", name)
    if not match:
        raise DownloadError(f"{name!r} is not a repository; write hf://owner/repo or hf://owner/repo@revision")
    repo, wanted = match[1], options.revision or match[2]
    folder = cache_folder(options.cache_dir) / "repositories" / repo.replace("/", "--")
    commit = _resolve(repo, wanted, folder, options)
    # A later, stricter call must not use a file that an earlier one accepted without verification.
    target = folder / f"{commit}.safetensors"
    if not target.is_file() and options.allow_unverified:
        target = folder / f"{commit}-unverified.safetensors"

    path = _once(target, lambda: _from_repository(repo, commit, options))
    return load_file(path, options)


def _resolve(repo: str, wanted: str | None, folder: Path, options: LoadOptions) -> str:
    """The commit of a revision, recorded once it is resolved."""
    record = folder / f"{re.sub('[^0-9A-Za-z._-]', '_', wanted or 'main')}.commit"
    if wanted and re.fullmatch(COMMIT, wanted):
        return wanted
    if record.is_file() and re.fullmatch(COMMIT, known := record.read_text(encoding="utf-8", errors="replace").strip()):
        return known
    if options.local_files_only:
        raise DownloadError(
            f"hf://{repo} has not been loaded here before; load it once with local_files_only=False", reason="offline"
        )
    commit = str(_asked(repo, lambda api: api.model_info(repo, revision=wanted).sha))
    if not re.fullmatch(COMMIT, commit):  # it becomes a part of file names
        raise DownloadError(
            f"hf://{repo}: the server answers {quoted(commit)} as the commit of {wanted or 'main'}, but a commit has "
            "40 hex digits; check HF_ENDPOINT"
        )
    with _cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(record) as part:
            part.write_text(commit, encoding="utf-8")
    return commit


def _from_repository(repo: str, commit: str, options: LoadOptions) -> Checkpoint:
    """The one melvoc file, else a published pair."""
    if options.local_files_only:
        raise DownloadError(
            f"hf://{repo}@{commit[:12]} is not in melvoc's cache; load it once with local_files_only=False",
            reason="offline",
        )
    files = _asked(repo, lambda api: list(map(str, api.list_repo_files(repo, revision=commit))))
    if any(".." in file.split("/") or file.startswith("/") for file in files):
        raise DownloadError(f"hf://{repo} names files outside itself; do not use it")
    safe = [file for file in files if file.endswith(".safetensors")]
    if len(safe) > 1:
        raise DownloadError(
            f"hf://{repo} has {len(safe)} safetensors files ({', '.join(safe[:3])}...); melvoc takes one"
        )
    foreign = ""
    if safe:
        path = _download(repo, safe[0], commit, options)
        with _discarding(path):
            if is_melvoc_file(path):
                return _fitting(container.read(path))
        foreign = f" ({safe[0]} is safetensors, but not melvoc's)"
    records = list(all_architectures())
    for pattern, config in (pair for record in records for layout in record.layouts for pair in layout.files):
        weights = sorted(file for file in files if re.fullmatch(pattern, file))
        if not weights or config not in files:
            continue
        if not options.allow_unverified:
            raise DownloadError(
                f"hf://{repo} has no melvoc file, but {weights[-1]} with {config}, which cannot be verified; if you "
                "trust it, pass allow_unverified=True",
                reason="hash",
            )
        path = _download(repo, weights[-1], commit, options)
        values = _download(repo, config, commit, options)
        provenance = {"repository": repo, "revision": commit, "file": weights[-1], "verified": "no"}
        with _discarding(path, values):
            return convert(path, config=values, name=repo.split("/")[1], provenance=provenance)
    raise DownloadError(
        f"hf://{repo} has neither a melvoc .safetensors file nor a published generator of "
        f"{', '.join(record.title for record in records)} with its configuration; it has "
        f"{', '.join(files[:8]) or 'no files'}{foreign}"
    )


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


def _download(repo: str, filename: str, revision: str, options: LoadOptions) -> Path:
    """One file through the Hub's client, with its progress bar."""
    hub_cache = None if options.cache_dir is None else Path(options.cache_dir).expanduser() / "huggingface"

    def get() -> str:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(
            repo, filename, revision=revision, cache_dir=hub_cache, local_files_only=options.local_files_only
        )

    return Path(_translated(f"{repo}/{filename} at {revision[:12]}", get))


def _asked(repo: str, question: Callable[[Any], Any]) -> Any:
    """Ask the Hub's API about a repository."""
    from huggingface_hub import HfApi

    return _translated(f"hf://{repo}", lambda: question(HfApi()))


def _translated(what: str, action: Callable[[], Any]) -> Any:
    """Run an action, turning the Hub client's errors into one."""
    try:
        return action()
    except Exception as error:
        kind, hint = _understood(error)
        raise DownloadError(
            f"{what} could not be downloaded: {hint} ({type(error).__name__}: {reason(error)})", reason=kind
        ) from error


def _understood(error: Exception) -> tuple[DownloadReason, str]:
    """Why a download failed, and what to do about it."""
    from huggingface_hub import errors as hub

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        return "offline", "it is not in the cache, and the network is off or unreachable; load it once online"
    if isinstance(error, hub.GatedRepoError) or status in (401, 403):
        return "token", "the repository does not exist or needs a token; check the name, or set HF_TOKEN"
    if isinstance(error, hub.RepositoryNotFoundError):
        return "not found", "the repository does not exist or needs a token; check the name, or set HF_TOKEN"
    if isinstance(error, hub.EntryNotFoundError | hub.RevisionNotFoundError) or status == 404:
        return "not found", "there is no such file or revision; check them on the Hub"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
        return "disk", "the cache cannot be written; make room, or set HF_HUB_CACHE to a folder you may write to"
    return "offline", "check the network, HF_ENDPOINT and the free disk space, then try again"


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
