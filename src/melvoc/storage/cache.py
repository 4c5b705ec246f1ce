"""Where melvoc keeps what it can make or download again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melvoc.errors import DownloadError, MelvocError


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """melvoc's own cache: `cache_dir/melvoc`, else MELVOC_CACHE, else the platform's cache folder.

    Raises:
        MelvocError: none is named, and there is no home folder (a container's user without a passwd entry).
    """
    from platformdirs import user_cache_dir

    try:
        if cache_dir is not None:
            return Path(cache_dir).expanduser() / "melvoc"
        named = os.environ.get("MELVOC_CACHE")
        return Path(named).expanduser() if named else Path(user_cache_dir("melvoc", appauthor=False))
    except (RuntimeError, KeyError, OSError) as error:
        raise MelvocError(f"there is no home folder for melvoc's cache ({error}); name one in MELVOC_CACHE") from error


def hub_cache(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache of the Hub's client: `cache_dir/huggingface`, else its own choice (HF_HUB_CACHE, HF_HOME)."""
    if cache_dir is not None:
        return cache_folder(cache_dir).parent / "huggingface"
    from huggingface_hub import constants  # a few milliseconds; the client itself is not imported

    return Path(constants.HF_HUB_CACHE)


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn errors of an unusable cache into one that says how to choose another."""
    try:
        yield
    except DownloadError:  # an OSError, and said already
        raise
    except OSError as error:
        raise DownloadError(
            f"melvoc's cache {folder} cannot be used ({error}); set MELVOC_CACHE to a folder you may write to",
            reason="disk",
        ) from error
