"""Pipes in the place of files: FIFOs, standard input and the shell's `<(...)`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import melvoc
from melvoc import MelvocError
from melvoc.audio import read, write
from melvoc.spectrogram.file import read_mel, save_mel
from melvoc.storage.pipes import is_readable, regular

pytestmark = pytest.mark.skipif(os.name != "posix", reason="FIFOs are POSIX's")
SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=256, hop_length=64, n_mels=20)
Feed = Callable[[bytes], Path]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where copies are made; empty at the end of each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir()), "a copy was left behind"


@pytest.fixture
def fifo(tmp_path: Path) -> Feed:
    """A FIFO into which content is written once somebody reads."""

    def feed(content: bytes) -> Path:
        path = tmp_path / "fifo"
        os.mkfifo(path)

        def write() -> None:
            with suppress(BrokenPipeError):
                path.write_bytes(content)

        threading.Thread(target=write, daemon=True).start()
        return path

    return feed


def test_a_file_is_itself_and_nothing_else_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with regular(tmp_path / "a") as path:
        assert path == str(tmp_path / "a")
    assert is_readable(tmp_path / "a")
    assert not is_readable(tmp_path)
    assert not is_readable(tmp_path / "none")
    assert not is_readable("/dev/null")


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_sound_from_a_fifo(ending: str, tmp_path: Path, fifo: Feed) -> None:
    source = tmp_path / f"a.{ending}"
    write(source, torch.rand(2, 100_000) - 0.5, 16000)
    wave, rate = read(fifo(source.read_bytes()))
    assert rate == 16000
    assert torch.equal(wave, read(source)[0])


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_a_mel_from_a_fifo_is_known_by_its_content(ending: str, tmp_path: Path, fifo: Feed) -> None:
    mel, source = torch.randn(1, 20, 50), tmp_path / f"a.{ending}"
    save_mel(source, mel, SPEC, samples=3200)
    saved = read_mel(fifo(source.read_bytes()))
    assert torch.equal(saved.mel, mel)
    assert saved.spec == (SPEC if ending == "safetensors" else None)


def test_an_error_names_the_pipe_and_not_the_copy(tmp_path: Path, fifo: Feed) -> None:
    path = fifo(b"no sound at all" * 100)
    with pytest.raises(MelvocError, match=rf"^{path}: cannot be read as sound"):
        read(path)
    path.unlink()
    path = fifo(b"no mel at all" * 100)
    with pytest.raises(MelvocError, match=rf"^{path}: ") as raised:
        read_mel(path)
    assert "temporary" not in str(raised.value)


def test_no_room_for_the_copy(fifo: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(
        MelvocError, match=r"fifo: a pipe, of which a copy in .*temporary cannot be made \(No space .*set TMP"
    ):
        read(fifo(b"x"))


def test_a_temporary_folder_that_is_not_there(tmp_path: Path, fifo: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    path = fifo(b"x")
    for reads in (read, read_mel):
        with pytest.raises(MelvocError, match=r"fifo: a pipe, .* in .*none cannot be made \(No such .*; set TMPDIR"):
            reads(path)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "melvoc", *arguments]


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_mel_of_standard_input_and_back(source: str, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", torch.rand(1, 20_000) - 0.5, 16000)
    mel, out = tmp_path / "a.safetensors", tmp_path / "out.wav"
    done = subprocess.run(
        command("mel", source, "-o", str(mel)),
        input=(tmp_path / "a.wav").read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = melvoc.MelSpectrogram(read_mel(mel).spec)(read(tmp_path / "a.wav")[0])  # type: ignore[arg-type]
    torch.testing.assert_close(read_mel(mel).mel, expected, atol=1e-4, rtol=0)
    for content in (mel.read_bytes(), (tmp_path / "a.wav").read_bytes()):
        out.unlink(missing_ok=True)
        done = subprocess.run(
            command("vocode", source, "-o", str(out)), input=content, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert read(out)[0].shape == (1, 20_000)


def test_the_shells_process_substitution_and_a_socket(tmp_path: Path) -> None:
    write(tmp_path / "a.flac", torch.rand(1, 20_000) - 0.5, 16000)
    (tmp_path / "spec.json").write_text(json.dumps(melvoc.MelSpec.preset("griffinlim").to_dict()))
    shell = f"{sys.executable} -m melvoc mel <(cat a.flac) -o a.npy --spec <(cat spec.json)"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    ours, theirs = socket.socketpair()  # as Node.js gives its children
    with ours, theirs:
        threading.Thread(
            target=lambda: (ours.sendall((tmp_path / "a.flac").read_bytes()), ours.shutdown(socket.SHUT_WR)),
            daemon=True,
        ).start()
        shell = command("mel", "-", "-o", str(tmp_path / "b.npy"), "--spec", "griffinlim")
        done = subprocess.run(shell, stdin=theirs, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_standard_input_that_is_no_sound_is_one_line(tmp_path: Path) -> None:
    for name, out in (("mel", "o.npy"), ("vocode", "o.wav")):
        done = subprocess.run(
            command(name, "-", "-o", str(tmp_path / out)),
            input=b"no sound at all" * 100, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.decode().count("\n") == 1
        assert "/dev/stdin: cannot be read as sound" in done.stderr.decode()


def test_a_cut_sound_on_standard_input_is_named_as_it_was_given(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", torch.rand(1, 20_000) - 0.5, 16000)
    for name, out in (("mel", "o.npy"), ("vocode", "o.wav")):
        done = subprocess.run(
            command(name, "-", "-o", str(tmp_path / out)),
            input=(tmp_path / "a.wav").read_bytes()[:30_000], capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert "/dev/stdin: cut or damaged" in done.stderr.decode()
        assert "melvoc-" not in done.stderr.decode()


def test_a_spec_on_standard_input(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", torch.rand(1, 20_000) - 0.5, 16000)
    done = subprocess.run(
        command("mel", str(tmp_path / "a.wav"), "-o", str(tmp_path / "a.safetensors"), "--spec", "-"),
        input=json.dumps(SPEC.to_dict()).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert read_mel(tmp_path / "a.safetensors").spec == SPEC
    for name in ("mel", "vocode"):
        done = subprocess.run(command(name, "-", "-o", "a.wav", "--spec", "-"), capture_output=True, check=False)
        assert done.returncode == 2
        assert b"IN and --spec are both standard input, which is read once; give one" in done.stderr
