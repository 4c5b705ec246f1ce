"""The Hub's client: what melvoc asks it, how long an answer may take, and its errors as one.

The client does the transfer; it handles HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_ETAG_TIMEOUT and
HF_HUB_DOWNLOAD_TIMEOUT, and is imported only when it is needed. What its own cache has is taken from there; what it
downloads for melvoc goes into a folder of melvoc's, and stays no longer than it takes to convert it.
"""

from __future__ import annotations

import errno
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from melvoc.errors import DownloadError, DownloadReason, reason
from melvoc.host import Shared
from melvoc.options import LoadOptions
from melvoc.progress import watched
from melvoc.storage.cache import hub_cache
from melvoc.storage.inventory import download_folder

_DISK = (
    errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.EFBIG, errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip
_COPIES = 2  # of a download that lie on the disk while it is converted


def commit_of(repo: str, revision: str | None, options: LoadOptions) -> str:
    """What the Hub says is the commit of a revision (None: main).

    Raises:
        DownloadError: there is none, or no answer.
    """
    what = f"hf://{repo}" + (f"@{revision}" if revision else "")
    return str(_asked(what, options, lambda api, wait: api.model_info(repo, revision=revision, timeout=wait).sha))


def files_of(repo: str, commit: str, options: LoadOptions) -> list[str]:
    """The names of a commit's files, as the Hub says.

    Raises:
        DownloadError: as `commit_of`.
    """

    def names(api: Any, wait: float) -> list[str]:
        return [str(entry.rfilename) for entry in api.model_info(repo, revision=commit, timeout=wait).siblings]

    return list(_asked(f"hf://{repo}@{commit[:12]}", options, names))


def cached(repo: str, revision: str, options: LoadOptions) -> tuple[str, list[str]] | None:
    """What the client's cache has of a commit, or of the commit that a branch was when it was last asked for.

    Returns:
        The commit and the names of its files that are there; None if there is nothing.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(hub_cache(options.cache_dir)).repos
    except (CacheNotFound, ValueError, OSError):  # ValueError: a file where the folder should be
        return None
    for known in repositories:
        for entry in known.revisions if (known.repo_type, known.repo_id) == ("model", repo) else ():
            if revision == entry.commit_hash or revision in entry.refs:
                names = (file.file_path.relative_to(entry.snapshot_path).as_posix() for file in entry.files)
                return entry.commit_hash, sorted(names)
    return None


class Downloads:
    """Files of one commit, in a folder of melvoc's cache for as long as they are being converted.

    What the client's own cache has is used from there. The folder is removed when the block ends; it stays only where
    something could not be downloaded, so that the next call goes on where this one stopped.

    Args:
        repo: `owner/name`.
        commit: in full.
        options: how to fetch.

    Attributes:
        complete: set by the user when everything is there, and nothing more is worth keeping.
    """

    def __init__(self, repo: str, commit: str, options: LoadOptions) -> None:
        self.repo, self.commit, self._options = repo, commit, options
        self.complete = False
        self.folder = download_folder(repo, commit, options.cache_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.complete or not isinstance(error, DownloadError):
            shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, *names: str) -> list[Path]:
        """The files of these names.

        Raises:
            DownloadError: there is no such file, or it cannot be fetched.
        """
        found = {name: path for name in names if (path := self._kept(name)) is not None}
        wanted = [name for name in names if name not in found]
        if not wanted:
            return list(found.values())
        size = 1
        if not self._options.local_files_only:
            size = max(1, watched(self._options.progress, "find", 1, lambda _: self._sizes(wanted), interrupt=True))
            self._check_room(size)

        def fetched() -> int:
            """Bytes so far."""
            files = (file for file in self.folder.rglob("*") if file.suffix == ".incomplete" or file.name in ends)
            with suppress(OSError):  # a file that is gone since it was listed
                return sum(file.stat().st_size for file in files)
            return 0

        ends = {Path(name).name for name in wanted}
        watched(
            self._options.progress, "download", size, lambda _: found.update(self._fetch(wanted)), measure=fetched,
            interrupt=True,
        )  # fmt: skip
        return [found[name] for name in names]

    def _kept(self, name: str) -> Path | None:
        """The file in the client's own cache."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(
            self.repo, name, revision=self.commit, cache_dir=hub_cache(self._options.cache_dir)
        )
        return Path(path) if isinstance(path, str) else None

    def _sizes(self, names: Sequence[str]) -> int:
        """Bytes of all of them. Where the network never answers, the client's download itself would ask again and again
        for six minutes; this asks once."""

        def size(name: str) -> int:
            from huggingface_hub import HfApi, constants, hf_hub_url

            url = hf_hub_url(self.repo, name, revision=self.commit)
            return HfApi().get_hf_file_metadata(url=url, timeout=constants.HF_HUB_ETAG_TIMEOUT).size or 0

        return sum(_translated(self._what(name), partial(size, name)) for name in names)

    def _check_room(self, size: int) -> None:
        existing = next(folder for folder in self.folder.parents if folder.is_dir())
        free = shutil.disk_usage(existing).free
        if free < _COPIES * size:
            raise DownloadError(
                f"{self.repo}: {free / 1e6:.0f} MB are free at {existing}, but the download and the melvoc file of it "
                f"need {_COPIES * size / 1e6:.0f} MB; make room, or set MELVOC_CACHE to another disk",
                reason="disk",
            )

    def _fetch(self, names: Sequence[str]) -> dict[str, Path]:

        def get(name: str) -> str:
            from huggingface_hub import hf_hub_download

            if self._options.local_files_only:  # not there, as the client's error says
                there = hub_cache(self._options.cache_dir)
                return hf_hub_download(self.repo, name, revision=self.commit, cache_dir=there, local_files_only=True)
            return hf_hub_download(self.repo, name, revision=self.commit, local_dir=self.folder)

        return {name: Path(_translated(self._what(name), partial(get, name))) for name in names}

    def _what(self, name: str) -> str:
        return f"{self.repo}/{name} at {self.commit[:12]}"


def _asked(what: str, options: LoadOptions, question: Callable[[Any, float], Any]) -> Any:
    """Ask the Hub's API about `what`, a repository; the question gets the API and the seconds to wait for an answer."""

    def ask() -> Any:
        from huggingface_hub import HfApi, constants

        return question(HfApi(), constants.HF_HUB_ETAG_TIMEOUT)

    return watched(options.progress, "find", 1, lambda _: _translated(what, ask), interrupt=True)


def _translated(what: str, action: Callable[[], Any]) -> Any:
    """Run an action of the Hub's client without its chatter, turning its errors into one."""
    try:
        with _QUIET:
            return action()
    except Exception as error:
        kind, hint = _understood(error)
        raise DownloadError(
            f"{what} could not be downloaded: {hint} ({type(error).__name__}: {reason(error)})", reason=kind
        ) from error


class _Quiet(Shared):
    """Keeps the client's log, warnings and bars off the application's stderr: melvoc's error says it all.

    A level that the application (or HF_HUB_VERBOSITY) has set is left alone.
    """

    def change(self) -> tuple[int | None, bool, Any]:
        """Set it; returns what is to be undone."""
        from huggingface_hub import constants, utils

        log, group = logging.getLogger("huggingface_hub"), "huggingface_hub"
        level = log.level if log.level in (logging.NOTSET, logging.WARNING) else None
        if level is not None:
            log.setLevel(logging.CRITICAL)
        free = constants.HF_HUB_DISABLE_PROGRESS_BARS is None
        bars = free and not utils.are_progress_bars_disabled(group)  # type: ignore[attr-defined]
        if bars:
            utils.disable_progress_bars(group)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", module=r"huggingface_hub\b")
        return level, bars, warnings.filters[0]

    def put_back(self, before: tuple[int | None, bool, Any]) -> None:
        """Undo it."""
        from huggingface_hub import utils

        level, bars, ignored = before
        if level is not None:
            logging.getLogger("huggingface_hub").setLevel(level)
        if bars:
            utils.enable_progress_bars("huggingface_hub")  # type: ignore[attr-defined]
        with suppress(ValueError):  # another part of the program has put its own filters back
            warnings.filters.remove(ignored)  # type: ignore[attr-defined]


_QUIET = _Quiet()


def _understood(error: Exception) -> tuple[DownloadReason, str]:
    """Why a download failed, and what to do about it."""
    from huggingface_hub import errors as hub

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        return "offline", "it is not in the cache, and the network is off or unreachable; load it once online"
    if isinstance(error, hub.HFValidationError):
        return "not found", "no repository on the Hub can have this name, which is owner/name; correct it"
    if isinstance(error, hub.GatedRepoError) or status in (401, 403):
        return "token", "the repository does not exist or needs a token; check the name, or set HF_TOKEN"
    if isinstance(error, hub.RepositoryNotFoundError):
        return "not found", "the repository does not exist or needs a token; check the name, or set HF_TOKEN"
    if isinstance(error, hub.EntryNotFoundError | hub.RevisionNotFoundError) or status == 404:
        return "not found", "there is no such file or revision; check them on the Hub"
    if isinstance(error, OSError) and error.errno in _DISK:
        return "disk", "the cache cannot be written; make room, or set MELVOC_CACHE to a folder you may write to"
    return "offline", "check the network, HF_ENDPOINT and the free disk space, then try again"
