"""The Hub's client: what melvoc asks it, how long an answer may take, and its errors as one.

The client does the transfer and keeps its own cache; it handles HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT, and is imported only when it is needed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melvoc.errors import DownloadError, DownloadReason, reason
from melvoc.options import LoadOptions


def commit_of(repo: str, revision: str | None) -> str:
    """What the Hub says is the commit of a revision (None: main).

    Raises:
        DownloadError: there is none, or no answer.
    """
    return str(_asked(repo, lambda api, wait: api.model_info(repo, revision=revision, timeout=wait).sha))


def files_of(repo: str, commit: str) -> list[str]:
    """The names of a commit's files, as the Hub says.

    Raises:
        DownloadError: as `commit_of`.
    """

    def names(api: Any, wait: float) -> list[str]:
        return [str(entry.rfilename) for entry in api.model_info(repo, revision=commit, timeout=wait).siblings]

    return list(_asked(repo, names))


def cached(repo: str, revision: str, options: LoadOptions) -> tuple[str, list[str]] | None:
    """What the client's cache has of a commit, or of the commit that a branch was when it was last asked for.

    Returns:
        The commit and the names of its files that are there; None if there is nothing.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(_folder(options)).repos
    except (CacheNotFound, ValueError, OSError):  # ValueError: a file where the folder should be
        return None
    for known in repositories:
        for entry in known.revisions if (known.repo_type, known.repo_id) == ("model", repo) else ():
            if revision == entry.commit_hash or revision in entry.refs:
                names = (file.file_path.relative_to(entry.snapshot_path).as_posix() for file in entry.files)
                return entry.commit_hash, sorted(names)
    return None


def download(repo: str, filename: str, commit: str, options: LoadOptions) -> Path:
    """One file, with the client's progress bar; from its cache if it is there.

    Raises:
        DownloadError: there is no such file, or it cannot be fetched.
    """
    folder = _folder(options)

    def get() -> str:
        from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

        here = isinstance(try_to_load_from_cache(repo, filename, revision=commit, cache_dir=folder), str)
        if not here and not options.local_files_only:
            # Where the network never answers, hf_hub_download itself would ask again and again for six minutes.
            url = hf_hub_url(repo, filename, revision=commit)
            HfApi().get_hf_file_metadata(url=url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        return hf_hub_download(
            repo, filename, revision=commit, cache_dir=folder, local_files_only=options.local_files_only
        )

    return Path(_translated(f"{repo}/{filename} at {commit[:12]}", get))


def _folder(options: LoadOptions) -> Path | None:
    """The client's cache; None: its own choice."""
    return None if options.cache_dir is None else Path(options.cache_dir).expanduser() / "huggingface"


def _asked(repo: str, question: Callable[[Any, float], Any]) -> Any:
    """Ask the Hub's API about a repository; the question gets the API and the seconds to wait for an answer."""

    def ask() -> Any:
        from huggingface_hub import HfApi, constants

        return question(HfApi(), constants.HF_HUB_ETAG_TIMEOUT)

    return _translated(f"hf://{repo}", ask)


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
