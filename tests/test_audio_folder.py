"""The files of a folder: tests/test_train_data.py holds what is found, this what else can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from melvoc.audio.folder import Skipped, find_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.wav", "b/c.npy", "b/d.FLAC", "b/.hidden.wav", ".cache/e.wav", "out/a.wav", "notes.txt", "song.m4a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(files: list[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_endings_that_are_asked_for(tree: Path) -> None:
    assert names(find_files(tree, (".npy", ".txt"))[0], tree) == ["b/c.npy", "notes.txt"]
    assert names(find_files(tree)[0], tree) == ["a.wav", "b/d.FLAC", "out/a.wav"]


def test_a_folder_that_is_not_looked_into(tree: Path) -> None:
    for without in (tree / "out", tree / "b" / ".." / "out"):
        assert names(find_files(tree, without=without)[0], tree) == ["a.wav", "b/d.FLAC"]
    (tree / "b" / "link").symlink_to(tree / "out")
    assert names(find_files(tree, without=tree / "out")[0], tree) == ["a.wav", "b/d.FLAC"]
    assert names(find_files(tree, without=tree / "none")[0], tree) == ["a.wav", "b/d.FLAC", "b/link/a.wav"]
    assert find_files(tree, without=tree) == ([], [])


def test_what_nobody_expects_to_be_used_is_told_from_what_they_do(tree: Path) -> None:
    _, skipped = find_files(tree, ignored=(".npy",))
    assert skipped == [
        Skipped(name="notes.txt", reason="not a sound file that is read", of_another_kind=True),
        Skipped(name="song.m4a", reason="not read in this format; convert it: ffmpeg -i song.m4a song.wav"),
    ]
