"""What pruning removes of melvoc's own cache; tests/test_storage_hub.py has what it removes of the Hub's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melvoc.errors import DownloadError
from melvoc.storage import inventory
from melvoc.storage.inventory import commit_record, download_folder, prune, repository_files
from melvoc.storage.lock import locked

COMMIT = "95a9d1dcb12906c03edd938d77b9333d6ded7dfb"


def left(folder: Path, name: str, *, hours: float = 48) -> Path:
    """A file of five bytes that was written some time ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"bytes")
    os.utime(path, (path.stat().st_mtime - 3600 * hours,) * 2)
    return path


def test_what_interrupted_downloads_left_goes(tmp_path: Path) -> None:
    root, folder = tmp_path / "melvoc", download_folder("owner/repo", COMMIT, tmp_path)
    left(folder / "deep", "generator.pt")
    half = left(root / "models", ".vocos_mel_24khz.x_3k9a0z.part.safetensors")
    fresh = left(root / "models", ".vocos_mel_24khz.x_3k9a1z.part.safetensors", hours=1)
    assert prune(cache_dir=tmp_path) == {folder: 5, half: 5}
    assert [path for path in root.rglob("*") if path.is_file()] == [fresh], "somebody may still be writing it"


def test_revisions_and_files_have_records_of_their_own(tmp_path: Path) -> None:
    revisions = ["a/b", "a_b", "a-b", "功能", "修复", "x" * 200, "x" * 201, "功" * 90, "main"]
    records = [commit_record(tmp_path, revision).name for revision in revisions]
    assert len({*records}) == len(records)
    assert records[-1] == "main.commit"
    files = [repository_files(tmp_path, COMMIT, f"功能/{'修' * count}.safetensors")[1].name for count in (3, 60, 61)]
    assert len({*files}) == 3
    assert all(len(name.encode()) < 250 and "/" not in name for name in (*records, *files))


def test_a_running_download_stays(tmp_path: Path) -> None:
    folder = download_folder("owner/repo", COMMIT, tmp_path)
    left(folder, "generator.pt")
    with locked(Path(f"{folder}.lock")):
        assert prune(cache_dir=tmp_path) == {}
    assert prune(cache_dir=tmp_path) == {folder: 5}


def test_a_folder_that_holds_other_things_too_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path))
    monkeypatch.setattr(inventory, "hub_cache", lambda cache_dir: tmp_path / "nowhere")
    theirs = [
        left(tmp_path / "downloads" / "holiday", "photo.jpg"),
        left(tmp_path / "downloads" / "owner--repo", "photo.jpg"),
        left(tmp_path / "models", ".notes.part.txt"),
        left(tmp_path / "models", ".big.part.safetensors"),
        left(tmp_path / "repositories" / "mine", ".git.part.2"),
    ]
    assert prune() == {}
    assert all(path.is_file() for path in theirs)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    half = left(tmp_path / "melvoc" / "models", ".vocos_mel_24khz.x_3k9a0z.part.safetensors")
    half.parent.chmod(0o500)
    try:
        with pytest.raises(DownloadError, match=r"melvoc's cache .* cannot be used .*set MELVOC_CACHE"):
            prune(cache_dir=tmp_path)
    finally:
        half.parent.chmod(0o700)
