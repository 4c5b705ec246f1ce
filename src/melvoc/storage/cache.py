"""Where melvoc keeps what it can make or download again."""

from __future__ import annotations

import os
from pathlib import Path

from melvoc.errors import MelvocError


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
