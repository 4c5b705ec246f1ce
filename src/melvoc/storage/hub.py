"""Published weights: downloaded once, verified, and kept as a melvoc file.

The Hub's client does the transfer and keeps its own cache; HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and HF_HUB_OFFLINE are
its business. What comes is verified, converted, and moved into melvoc's cache under a name that has the revision in it.
From then on that file is all that a load needs: no network, no Hub client.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from melvoc.errors import CheckpointError, DownloadError
from melvoc.models import check_options
from melvoc.storage import container as checkpoints
from melvoc.storage.atomic import replacing
from melvoc.storage.cache import cache_folder as cache_folder
from melvoc.storage.container import Checkpoint, is_melvoc_file
from melvoc.storage.conversion import assemble, convert
from melvoc.storage.pins import PUBLISHED, Published
from melvoc.storage.vocoder_file import load_file, revive
from melvoc.vocoder import Vocoder

COMMIT = "[0-9a-f]{40}"
PAIRS = (  # weights (a pattern) and configuration of published generators, in the order they are looked for
    (r"bigvgan_generator\.pt", "config.json"),
    (r"(generator|g_)[^/]*", "config.json"),
    (r"pytorch_model\.bin", "config.yaml"),
)


def load_published(
    name: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_unverified: bool = False,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> Vocoder:
    """A published vocoder by its registered name. See `melvoc.load`.

    Raises:
        DownloadError: a file that cannot be had, cannot be verified, or is another one than was pinned.
    """
    check_options(engine=engine, memory=memory)
    path = fetch(
        PUBLISHED[name], revision=revision, cache_dir=cache_dir, local_files_only=local_files_only,
        allow_unverified=allow_unverified,
    )  # fmt: skip
    return load_file(path, device=device, dtype=dtype, engine=engine, memory=memory)


def fetch(
    row: Published,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_unverified: bool = False,
) -> Path:
    """The melvoc file of a published checkpoint, downloaded and converted if it is not there yet.

    Args:
        row: which.
        revision: another commit than the pinned one.
        cache_dir: root of both caches.
        local_files_only: never touch the network.
        allow_unverified: take a file whose sha256 is not known.

    Raises:
        DownloadError: as `load_published`.
    """
    chosen = revision or row.revision
    pinned = row.sha256 is not None and chosen == row.revision
    if not pinned and not allow_unverified:
        why = (
            "another revision than the pinned one was asked for"
            if row.sha256 and chosen
            else "no sha256 is known for it"
        )
        more = "" if chosen else ", and a full commit as revision=, for none is known either (never main)"
        raise DownloadError(
            f"{row.name} cannot be verified: {why}. If you trust {row.repo}, pass allow_unverified=True{more}"
        )
    if chosen is None or not re.fullmatch(COMMIT, chosen):
        given = "no full revision of it is known" if chosen is None else f"revision={chosen!r}"
        raise DownloadError(
            f"{row.name}: {given}, but a name stands for one commit, and a branch may change; pass revision= with a "
            f"full commit (40 hex digits) of {row.repo}"
        )
    target = (
        cache_folder(cache_dir) / "models" / f"{row.name}-{chosen[:12]}{'' if pinned else '-unverified'}.safetensors"
    )

    def make() -> Checkpoint:
        path = _download(row.repo, row.filename, chosen, cache_dir, local_files_only)
        digest = _sha256(path)
        if pinned and digest != row.sha256:
            _discard(path)
            raise DownloadError(
                f"{row.repo}/{row.filename} at {chosen[:12]} has sha256 {digest}, but {row.sha256} is pinned: the file "
                "was cut, changed or tampered with, and has been removed; try again"
            )
        provenance = {"repository": row.repo, "revision": chosen, "file": row.filename, "sha256": digest}
        provenance["verified"] = "yes" if pinned else "no"
        with _discarding(path):
            return assemble(
                path, kind=row.architecture, config=dict(row.config), spec=row.spec, name=row.name, licence=row.licence,
                provenance=provenance,
            )  # fmt: skip

    return _once(target, make)


def load_repository(
    name: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_unverified: bool = False,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> Vocoder:
    """A vocoder of any repository on the Hub, `hf://owner/repo[@revision]`.

    Its one melvoc file, else a published pair of weights and configuration, which needs allow_unverified=True. Without
    a revision, main is resolved once, and the commit recorded in melvoc's cache.

    Raises:
        DownloadError: no such repository or file, or one that would have to be trusted.
    """
    check_options(engine=engine, memory=memory)
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", name)
    if not match:
        raise DownloadError(f"{name!r} is no repository; write hf://owner/repo or hf://owner/repo@revision")
    repo, wanted = match[1], revision or match[2]
    folder = cache_folder(cache_dir) / "repositories" / repo.replace("/", "--")
    commit, files = _resolve(repo, wanted, folder, local_files_only)
    # What was accepted once without verification is not what a later, stricter call has accepted.
    target = folder / f"{commit}.safetensors"
    if not target.is_file() and allow_unverified:
        target = folder / f"{commit}-unverified.safetensors"

    def make() -> Checkpoint:
        listed = files() if files else []
        return _from_repository(repo, commit, listed, cache_dir, local_files_only, allow_unverified)

    path = _once(target, make)
    return load_file(path, device=device, dtype=dtype, engine=engine, memory=memory)


def _resolve(
    repo: str, wanted: str | None, folder: Path, local_files_only: bool
) -> tuple[str, Callable[[], list[str]] | None]:
    """The commit that a revision stands for, recorded where it was resolved, and a way to list its files."""
    record = folder / f"{re.sub('[^0-9A-Za-z._-]', '_', wanted or 'main')}.commit"
    if wanted and re.fullmatch(COMMIT, wanted):
        commit = wanted
    elif record.is_file():
        commit = record.read_text(encoding="utf-8").strip()
    elif local_files_only:
        raise DownloadError(f"hf://{repo} has not been loaded here before; load it once with local_files_only=False")
    else:
        commit = str(_asked(repo, lambda api: api.model_info(repo, revision=wanted).sha))
        with _cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(record) as part:
                part.write_text(commit, encoding="utf-8")
    if local_files_only:
        return commit, None
    return commit, lambda: _asked(repo, lambda api: list(api.list_repo_files(repo, revision=commit)))


def _from_repository(
    repo: str, commit: str, files: list[str], cache_dir: Any, local_files_only: bool, allow_unverified: bool
) -> Checkpoint:
    """The one melvoc file, else a published pair."""
    if local_files_only:
        raise DownloadError(
            f"hf://{repo}@{commit[:12]} is not in melvoc's cache; load it once with local_files_only=False"
        )
    safe = [file for file in files if file.endswith(".safetensors")]
    if len(safe) > 1:
        raise DownloadError(
            f"hf://{repo} has {len(safe)} safetensors files ({', '.join(safe[:3])}...); melvoc takes one"
        )
    foreign = ""
    if safe:
        path = _download(repo, safe[0], commit, cache_dir, False)
        with _discarding(path):
            if is_melvoc_file(path):
                return _fitting(checkpoints.read(path))
        foreign = f" ({safe[0]} is safetensors, but not melvoc's)"
    for pattern, config in PAIRS:
        weights = sorted(file for file in files if re.fullmatch(pattern, file))
        if not weights or config not in files:
            continue
        if not allow_unverified:
            raise DownloadError(
                f"hf://{repo} has no melvoc file, but {weights[-1]} with {config}, which cannot be verified; if you "
                "trust it, pass allow_unverified=True"
            )
        path = _download(repo, weights[-1], commit, cache_dir, False)
        values = _download(repo, config, commit, cache_dir, False)
        provenance = {"repository": repo, "revision": commit, "file": weights[-1], "verified": "no"}
        with _discarding(path, values):
            return convert(path, config=values, name=repo.split("/")[1], provenance=provenance)
    raise DownloadError(
        f"hf://{repo} has neither a melvoc .safetensors file nor a published BigVGAN, HiFi-GAN or Vocos generator with "
        f"its configuration; it has {', '.join(files[:8]) or 'no files'}{foreign}"
    )


def _once(target: Path, make: Callable[[], Checkpoint]) -> Path:
    """Make a file of the cache if it is not there; one process does, others wait for it."""
    if target.is_file():
        return target
    from filelock import FileLock

    with _cache_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    try:
        if not target.is_file():
            checkpoints.write(make(), target)
    finally:
        lock.release()
    return target


def _download(repo: str, filename: str, revision: str, cache_dir: Any, local_files_only: bool) -> Path:
    """One file through the Hub's client, with its progress bar."""
    hub_cache = None if cache_dir is None else Path(cache_dir) / "huggingface"

    def get() -> str:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(
            repo, filename, revision=revision, cache_dir=hub_cache, local_files_only=local_files_only
        )

    return Path(_translated(f"{repo}/{filename} at {revision[:12]}", get))


def _asked(repo: str, question: Callable[[Any], Any]) -> Any:
    """Ask the Hub's API about a repository."""
    from huggingface_hub import HfApi

    return _translated(f"hf://{repo}", lambda: question(HfApi()))


def _translated(what: str, action: Callable[[], Any]) -> Any:
    """The Hub client's errors, which changed their names between versions, as one."""
    try:
        return action()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        kind = type(error).__name__
        if "LocalEntryNotFound" in kind or "Offline" in kind:
            hint = "it is not in the cache, and the network is off or out of reach; load it once online"
        elif "Gated" in kind or "RepositoryNotFound" in kind or "401" in reason or "403" in reason:
            hint = "the repository does not exist or needs a token; check the name, or set HF_TOKEN"
        elif "NotFound" in kind or "404" in reason:
            hint = "there is no such file or revision; check them on the Hub"
        else:
            hint = "check the network, HF_ENDPOINT and the room on the disk, then try again"
        raise DownloadError(f"{what} could not be downloaded: {hint} ({kind}: {reason})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """A cache that cannot be written is an error that says how to have another."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"melvoc's cache {folder} cannot be used ({error}); set MELVOC_CACHE to a folder you may write to"
        ) from error


@contextmanager
def _discarding(*paths: Path) -> Iterator[None]:
    """Downloads that turn out not to be what they should are removed, so that the next load asks for them again."""
    try:
        yield
    except CheckpointError:
        for path in paths:
            _discard(path)
        raise


def _fitting(checkpoint: Checkpoint) -> Checkpoint:
    """The same, after a look at whether its weights fit, for what is kept once is what every later load gets."""
    revive(checkpoint, device="meta", dtype=None, engine="torch", memory="auto")
    return checkpoint


def _discard(path: Path) -> None:
    """Remove a downloaded file, the link and what it points to, so that no later load takes it for good."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
