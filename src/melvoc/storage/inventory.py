"""What the caches have: melvoc's own and, of what melvoc loads, that of the Hub's client."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from melvoc import registry
from melvoc.architecture import Pin
from melvoc.errors import DownloadError, MelvocError
from melvoc.storage.atomic import half_written
from melvoc.storage.cache import cache_errors, cache_folder, hub_cache
from melvoc.storage.container import is_melvoc_file, read_header

COMMIT = "[0-9a-f]{40}"
_REPOSITORY = re.compile(
    r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[\w.-]+))?(?P<file>(?:/(?!\.\.?(?:/|$))[^/]+)*)"
)
_UNVERIFIED = "-unverified"
_DOWNLOAD = re.compile(r"\w[\w.-]*--\w[\w.-]*@[0-9a-f]{12}")  # a folder of `download_folder`
_LONGEST = 150  # characters of an encoded name, which shares its 255 with a commit and endings
_ABANDONED = 24 * 3600.0  # seconds after which a half-written file has no process that still writes it


# Where things lie


def model_file(name: str, commit: str, cache_dir: str | os.PathLike[str] | None, *, verified: bool) -> Path:
    """The melvoc file of a published checkpoint's commit."""
    ending = "" if verified else _UNVERIFIED
    return cache_folder(cache_dir) / "models" / f"{name}-{commit[:12]}{ending}.safetensors"


def parsed(name: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of `hf://owner/repo[@revision][/file]`; the file may be empty.

    Raises:
        DownloadError: it is not of that form.
    """
    match = _REPOSITORY.fullmatch(name)
    if not match:
        raise DownloadError(
            f"{name!r} is not a repository; write hf://owner/repo, hf://owner/repo@revision or hf://owner/repo/file"
        )
    return match["repo"], match["revision"], match["file"][1:]


def repository_folder(repo: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    """What melvoc's cache has of a repository."""
    return cache_folder(cache_dir) / "repositories" / repo.replace("/", "--")


def repository_files(folder: Path, commit: str, file: str) -> tuple[Path, Path]:
    """The melvoc file of a repository's commit, and that of a load that accepted it without verification."""
    ending = f"-file-{_encoded(file)}.safetensors" if file else ".safetensors"
    return folder / f"{commit}{ending}", folder / f"{commit}{_UNVERIFIED}{ending}"


def download_folder(repo: str, commit: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Where a commit's files lie until they are converted."""
    return cache_folder(cache_dir) / "downloads" / f"{repo.replace('/', '--')}@{commit[:12]}"


def commit_record(folder: Path, revision: str) -> Path:
    """Where the commit of a revision is recorded."""
    return folder / f"{_encoded(revision)}.commit"


def _encoded(name: str) -> str:
    """A name as one part of a path, another one for each; of a long one, its beginning and its hash."""
    encoded = quote(name, safe="")
    if len(encoded) <= _LONGEST:
        return encoded
    return f"{encoded[:_LONGEST].rpartition('%')[0] or encoded[:_LONGEST]}~{sha256(name.encode()).hexdigest()[:16]}"


def recorded_commit(folder: Path, revision: str) -> str | None:
    """The commit of a revision, if it is one itself or was resolved before."""
    if re.fullmatch(COMMIT, revision):
        return revision
    record = commit_record(folder, revision)
    known = record.read_text(encoding="utf-8", errors="replace").strip() if record.is_file() else ""
    return known if re.fullmatch(COMMIT, known) else None


# What is there


def cached(*, cache_dir: str | os.PathLike[str] | None = None) -> dict[str, tuple[Path, ...]]:
    """The files that loading needs no network for, by name.

    Args:
        cache_dir: as in `load`.

    Returns:
        `{name: files}`: the names that `load` takes (`hf://owner/repo@commit` for repositories), each with its melvoc
        files and those that the cache of the Hub's client has. What other programs keep there is not listed.

    Example:
        >>> import melvoc, tempfile
        >>> melvoc.cached(cache_dir=tempfile.mkdtemp())
        {}
    """
    found: dict[str, tuple[Path, ...]] = {}
    with cache_errors(cache_folder(cache_dir)):
        for name, path in [*_own_files(cache_dir), *((name, path) for name, path, _ in _hub_files(cache_dir))]:
            found[name] = (*found.get(name, ()), path)
    return found


def is_cached(pin: Pin, cache_dir: str | os.PathLike[str] | None) -> bool:
    """Whether loading a published checkpoint needs no network (where it has no hash, once it is allowed)."""
    commit = pin.revision or "*"  # where none is pinned, any will do
    theirs = hub_cache(cache_dir) / f"models--{pin.repo.replace('/', '--')}" / "snapshots"
    if any(theirs.glob(f"{commit}/{pin.filename}")):
        return True
    with suppress(MelvocError):  # no home folder, no cache
        return any((cache_folder(cache_dir) / "models").glob(f"{pin.name}-{commit[:12].rstrip('*')}*.safetensors"))
    return False


def repository_file(name: str, cache_dir: str | os.PathLike[str] | None) -> tuple[Path, str] | None:
    """The melvoc file that the cache has of `hf://owner/repo[@revision][/file]`, and its commit; None: none.

    Raises:
        DownloadError: as `parsed`.
    """
    repo, revision, file = parsed(name)
    folder = repository_folder(repo, cache_dir)
    with cache_errors(folder):
        commit = recorded_commit(folder, revision or "main")
        files = repository_files(folder, commit, file) if commit else ()
        return next(((path, commit) for path in files if commit and path.is_file()), None)


def _own_files(cache_dir: str | os.PathLike[str] | None) -> Iterator[tuple[str, Path]]:
    """Names and files of melvoc's own cache."""
    root = cache_folder(cache_dir)
    for path in sorted((root / "models").glob("[!.]*.safetensors")):
        yield re.sub(rf"-[0-9a-f]{{12}}({_UNVERIFIED})?$", "", path.stem), path
    for path in sorted((root / "repositories").glob("*/[!.]*.safetensors")):
        commit, _, rest = path.stem.removesuffix(_UNVERIFIED).partition("-")
        file = "/" + unquote(rest.partition("file-")[2]) if "file-" in rest else ""
        yield f"hf://{path.parent.name.replace('--', '/', 1)}@{commit}{file}", path


def _hub_files(cache_dir: str | os.PathLike[str] | None) -> Iterator[tuple[str, Path, Any]]:
    """Names, files and revisions of the Hub's client, of those repositories that melvoc loads."""
    folder = hub_cache(cache_dir)
    if not folder.is_dir():
        return
    from huggingface_hub import scan_cache_dir

    known = {pin.repo: pin for _, pin in registry.pins().values()}
    own = cache_folder(cache_dir) / "repositories"
    for repository in sorted(scan_cache_dir(folder).repos, key=lambda one: str(one.repo_id)):
        repo, pin = str(repository.repo_id), known.get(repository.repo_id)
        if repository.repo_type != "model" or not (pin or (own / repo.replace("/", "--")).is_dir()):
            continue
        for revision in repository.revisions:
            for file in revision.files:
                inside = file.file_path.relative_to(revision.snapshot_path).as_posix()
                if pin and inside == pin.filename and pin.revision in (None, revision.commit_hash):
                    yield pin.name, file.file_path, revision
                elif not pin:
                    yield f"hf://{repo}@{revision.commit_hash}", file.file_path, revision


# What may go


def prune(*, cache_dir: str | os.PathLike[str] | None = None) -> dict[Path, int]:
    """Remove what no load needs, and say how many bytes each entry freed.

    That is the Hub's download of a vocoder whose melvoc file is there, unless other files of the same snapshot show
    that another program uses it, and what interrupted downloads have left. Nothing else goes, even if MELVOC_CACHE is a
    folder that holds other things too.

    Raises:
        DownloadError: something in melvoc's cache cannot be removed.
    """
    root = cache_folder(cache_dir)
    freed = _prune_hub(cache_dir)
    with cache_errors(root):
        return freed | _prune_own(root)


def _prune_hub(cache_dir: str | os.PathLike[str] | None) -> dict[Path, int]:
    converted = set(_sources(cache_dir))
    freed: dict[Path, int] = {}
    for _, path, revision in list(_hub_files(cache_dir)):
        repo = path.relative_to(hub_cache(cache_dir)).parts[0].removeprefix("models--").replace("--", "/", 1)
        inside = path.relative_to(revision.snapshot_path).as_posix()
        made = (repo, revision.commit_hash, inside) in converted or (
            (repo, revision.commit_hash, "") in converted and _is_melvocs(path)
        )
        if len(revision.files) == 1 and made:
            with suppress(PermissionError):  # a cache that others keep for this user
                freed[path] = _remove(path, revision.snapshot_path)
    return freed


def _is_melvocs(path: Path) -> bool:
    try:
        return path.suffix == ".safetensors" and is_melvoc_file(path)
    except MelvocError:
        return False


def _remove(path: Path, snapshot: Path) -> int:
    """Remove a snapshot's only file, and its content unless another snapshot of the repository has it; says the bytes.

    The client's own `delete_revisions` goes by the commit alone, which copies of a repository share.
    """
    blob, size = path.resolve(), path.stat().st_size
    path.unlink()
    for folder in (*path.parents[: len(path.relative_to(snapshot).parts)], snapshot.parent):
        with suppress(OSError):  # not empty
            folder.rmdir()
    if any(other.resolve() == blob for other in snapshot.parent.rglob("*")):
        return 0
    blob.unlink(missing_ok=True)
    return size


def _sources(cache_dir: str | os.PathLike[str] | None) -> Iterator[tuple[str | None, str | None, str]]:
    """The repositories, commits and files that the melvoc files of the cache were made from, no file for a repository's
    only melvoc file; of repositories only those files that every load takes."""
    for name, path in _own_files(cache_dir):
        if name.startswith("hf://") and _UNVERIFIED in path.name:
            continue
        with suppress(ValueError, OSError):  # a damaged file is no reason to remove what it was made of
            origin = read_header(path)[0].provenance
            if name.startswith("hf://"):
                yield parsed(name)
            else:
                yield origin.get("repository"), origin.get("revision"), origin.get("file", "")


def _prune_own(root: Path) -> dict[Path, int]:
    """What interrupted downloads have left: none that a running one uses."""
    from filelock import FileLock, Timeout

    freed: dict[Path, int] = {}
    folders = [path for path in (root / "downloads").glob("*") if _DOWNLOAD.fullmatch(path.name) and path.is_dir()]
    for folder in folders:
        with suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
            freed[folder] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            shutil.rmtree(folder)
            with suppress(PermissionError):  # Windows, where it goes with its lock
                Path(f"{folder}.lock").unlink()
    for path, name in chain.from_iterable(map(half_written, [root / "models", *root.glob("repositories/*")])):
        with suppress(FileNotFoundError):  # finished meanwhile
            status = path.stat()
            if name.endswith((".safetensors", ".commit")) and time.time() - status.st_mtime > _ABANDONED:
                path.unlink()
                freed[path] = status.st_size
    return freed
