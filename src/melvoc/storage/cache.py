"""Where melvoc keeps what it can recreate or download again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """melvoc's own cache: `cache_dir/melvoc`, else MELVOC_CACHE, else the platform's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir) / "melvoc"
    if named := os.environ.get("MELVOC_CACHE"):
        return Path(named)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("melvoc", appauthor=False))
