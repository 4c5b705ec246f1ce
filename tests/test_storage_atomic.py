"""A file is whole or not there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from melvoc.storage.atomic import remove_half_written, replacing


def test_the_file_gets_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".bin"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_error_leaves_what_was_there(error: type[BaseException], before: bytes | None, tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    if before is not None:
        target.write_bytes(before)

    def interrupted() -> None:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == ([] if before is None else [target])
    assert before is None or target.read_bytes() == before


def test_it_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with replacing(tmp_path / "ours") as temporary:
        temporary.write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "a.bin", tmp_path / "link.bin"
    link.symlink_to(target)
    for content in (b"made through the link", b"and once more"):
        with replacing(link) as temporary:
            assert temporary.parent == target.parent
            temporary.write_bytes(content)
        assert link.is_symlink()
        assert target.read_bytes() == content


@pytest.mark.parametrize("name", ["a" * 251 + ".wav", "\u00e9" * 125 + ".flac"])
def test_a_name_may_be_as_long_as_the_system_allows(name: str, tmp_path: Path) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"half")
        remove_half_written([tmp_path / name])
        assert not temporary.exists()
        temporary.write_bytes(b"for the end of the block")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"), replacing(tmp_path / "none" / "a.bin"):
        pass


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with replacing(target) as one, replacing(target) as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert target.read_bytes() == b"one"  # who ends last
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_of_a_target_goes_and_nothing_else(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.b.wav") as mine, replacing(tmp_path / "other.wav") as another:
        for file in (mine, another):
            file.write_bytes(b"half")
        others = [tmp_path / name for name in ("a.b.wav", ".a.b.wav", ".a.b.part.wav.txt", "b.wav")]
        for file in others:
            file.write_bytes(b"whole")
        remove_half_written([tmp_path / "a.b.wav", tmp_path / "nowhere" / "c.wav"])
        assert sorted(tmp_path.iterdir()) == sorted([another, *others])
        mine.write_bytes(b"for the end of the block")
