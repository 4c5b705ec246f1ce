"""`melvoc evaluate`: what a person types, what comes out, and what is left after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluations import sound
from networks import VOCODERS

import melvoc
from melvoc.cli import common, main

Say = pytest.CaptureFixture[str]
FEW = ["--metric", "mel_l1", "loudness"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vocoder, as a file."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    melvoc.save(VOCODERS["bigvgan_v2_tiny"], path)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of two sounds."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for seed in (0, 1):
        sound(folder / f"{seed}.wav", seed=seed)
    return folder


def evaluate(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_a_report_of_two_vocoders(tmp_path: Path, sounds: Path, generator: Path, capsys: Say) -> None:
    out = tmp_path / "report"
    vocoders = ["--vocoder", generator, "--vocoder", "griffinlim", "--refine", "0", "1"]
    assert evaluate(sounds, *vocoders, "-o", out, *FEW, "--no-speech") == 0
    said, err = capsys.readouterr()
    stored = json.loads((out / "results.json").read_text())
    assert [(row["vocoder"], row["refine"]) for row in stored["rows"][:4]] == [
        (str(generator), 0), (str(generator), 1), ("griffinlim", 0), ("griffinlim", 1),
    ]  # fmt: skip
    assert said.startswith(stored["headline"])
    assert said.rstrip().endswith(f"{out}/report.html")
    assert err == ""
    assert stored["settings"]["speech"] is False


def test_a_bad_file_among_several_is_a_line_and_exit_code_1(tmp_path: Path, sounds: Path, capsys: Say) -> None:
    (sounds / "bad.wav").write_bytes(b"RIFF")
    assert evaluate(sounds, "--vocoder", "griffinlim", "-o", tmp_path / "r", *FEW) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"melvoc: error: {sounds}/bad.wav: cannot be read as sound")
    assert len(err.splitlines()) == 1
    assert len(json.loads((tmp_path / "r" / "results.json").read_text())["rows"]) == 2


def test_overwriting_has_to_be_asked_for(tmp_path: Path, sounds: Path, capsys: Say) -> None:
    arguments = [sounds, "--vocoder", "griffinlim", "-o", tmp_path / "r", *FEW]
    assert evaluate(*arguments) == 0
    assert evaluate(*arguments) == 2
    assert "has a report already; choose another folder, or --overwrite" in capsys.readouterr().err
    assert evaluate(*arguments, "--overwrite") == 0


MISTAKES: dict[str, tuple[Callable[[Path], list[str | Path]], str]] = {
    "no vocoder": (lambda t: [t / "0.wav"], "required: --vocoder"),
    "unknown vocoder": (lambda t: [t / "0.wav", "--vocoder", "griffin"], "did you mean 'griffinlim'"),
    "unknown metric": (lambda t: [t / "0.wav", "--vocoder", "griffinlim", "--metric", "pesk"], "metrics has 'pesk'"),
    "unknown protocol": (lambda t: [t / "0.wav", "--vocoder", "griffinlim", "--protocol", "x"], "invalid choice: 'x'"),
    "no such file": (lambda t: [t / "none.wav", "--vocoder", "griffinlim"], "none.wav: no such file"),
    "an empty folder": (lambda t: [t / "empty", "--vocoder", "griffinlim"], "has no sound files"),
    "refine": (lambda t: [t / "0.wav", "--vocoder", "griffinlim", "--refine", "-1"], "refine=-1"),
    "a rate": (lambda t: [t / "0.wav", "--vocoder", "griffinlim", "--sample-rate", "0"], "sample_rate=0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(name: str, tmp_path: Path, sounds: Path, capsys: Say) -> None:
    (sounds / "empty").mkdir()
    arguments, words = MISTAKES[name]
    assert evaluate(*arguments(sounds), "-o", tmp_path / "r") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("melvoc: error: ")
    assert len(err.splitlines()) == 1
    assert words in err
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_a_report_of_what_was_done(tmp_path: Path) -> None:
    folder, out, done = tmp_path / "sounds", tmp_path / "report", tmp_path / "done"
    folder.mkdir()
    for seed in range(200):
        sound(folder / f"{seed:03}.wav", seed=seed % 7, seconds=2)
    program = (
        "import sys, melvoc.cli.evaluation as command\n"
        "from contextlib import contextmanager; from pathlib import Path\n"
        "@contextmanager\n"
        "def bars():\n"
        f"    yield lambda stage, done, total: Path({str(done)!r}).touch() if done > 1 else None\n"
        "command.bars = bars\n"
        "from melvoc.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "evaluate", str(folder), "--vocoder", "griffinlim", "-o", str(out), *FEW],
        stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    while process.poll() is None and not done.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    stored = json.loads((out / "results.json").read_text())
    assert 1 <= len(stored["rows"]) < 200
    assert stored["settings"]["complete"] is False
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.csv", "results.json"]


def test_progress_is_shown_on_a_terminal_only(
    tmp_path: Path, sounds: Path, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(common, "BAR_AFTER", 0.0)
    assert evaluate(sounds, "--vocoder", "griffinlim", "-o", tmp_path / "r", *FEW) == 0
    err = capsys.readouterr().err
    assert "evaluate" in err
    assert "2/2" in err
    assert "<" in err, "the time left"
