"""Files and folders on the command line: what is made of what, what is left, and what is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import VOCODERS

import melvoc
from melvoc.cli import main, vocode
from melvoc.cli.folders import output_names
from melvoc.spectrogram.file import read_mel

Say = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small vocoder that streams, as a file."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    melvoc.save(VOCODERS["vocos_tiny"], path)
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str | bytes, seconds: float = 0.1) -> None:
    """A short tone under each name."""
    for number, name in enumerate(map(os.fsdecode, names), start=1):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * torch.sin(torch.arange(round(seconds * 24000)) * 0.01 * number)
        melvoc.audio.write(Path("tone.wav" if not name.endswith(".flac") else "tone.flac"), tone, 24000)
        Path("tone.flac" if name.endswith(".flac") else "tone.wav").rename(name)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())


# Names


NAMES = st.lists(
    st.builds(
        "".join, st.tuples(st.sampled_from(["", "d/", "d/e/"]), st.sampled_from("ab"), st.sampled_from(
            ["", ".wav", ".mp3", ".flac", ".wav.flac", ".mp3.wav", ".flac.flac"]
        ))
    ),
    unique=True, max_size=12,
)  # fmt: skip


@given(names=NAMES, ending=st.sampled_from([".wav", ".flac"]))
def test_no_two_inputs_share_an_output(names: list[str], ending: str) -> None:
    made = output_names(names, ending)
    assert len(made) == len(set(made)) == len(names)
    plain = [str(Path(name).with_suffix(ending)) for name in names]
    for name, short, output in zip(names, plain, made, strict=True):
        assert output in (short, name + ending)
    if len(set(plain)) == len(names):
        assert made == plain, "nothing is named in full without need"


@given(names=NAMES, ending=st.just(".wav"), seed=st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_order(names: list[str], ending: str, seed: object) -> None:
    shuffled = list(names)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    by_name = dict(zip(shuffled, output_names(shuffled, ending), strict=True))
    assert [by_name[name] for name in names] == output_names(names, ending)


# What is made


def test_a_folder_keeps_its_structure(here: Path, generator: str, capsys: Say) -> None:
    put("in/one.wav", "in/sub/two.flac", "in/sub/deeper/three.WAV", "in/sub/.hidden.wav", "in/.trash/four.wav")
    Path("in/cover.jpg").write_bytes(b"x")
    assert main(["vocode", "in", "-o", "new/out", "--vocoder", generator]) == 0
    assert files("new/out") == ["one.wav", "sub/deeper/three.wav", "sub/two.wav"]
    for name in files("new/out"):
        wave, rate = melvoc.audio.read(Path("new/out", name))
        assert (wave.shape, rate) == ((1, 2400), 24000)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "left out in/cover.jpg: not a sound file that is read", "new/out: 3 made",
    ]  # fmt: skip
    assert said.err == ""


def test_a_folder_gives_what_each_file_gives(here: Path, generator: str) -> None:
    put("in/a.wav", "in/b.wav")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator, "--subtype", "PCM_24", "--refine", "1"]) == 0
    for name in "ab":
        one = ["vocode", f"in/{name}.wav", "-o", "one.wav", "--vocoder", generator]
        assert main([*one, "--subtype", "PCM_24", "--refine", "1"]) == 0
        assert Path("one.wav").read_bytes() == Path(f"out/{name}.wav").read_bytes()


def test_one_file_goes_into_a_folder_that_is_there(here: Path, generator: str) -> None:
    put("in/a.wav")
    Path("out").mkdir()
    for _ in range(2):  # the second time it is there already
        assert main(["vocode", "in/a.wav", "-o", "out", "--vocoder", generator]) == 0
        assert main(["mel", "in/a.wav", "-o", "out", "--vocoder", generator, "--format", "npy"]) == 0
    assert files("out") == ["a.npy", "a.wav"]


def test_one_bad_file_is_exit_code_2_whatever_out_is(here: Path, generator: str, capsys: Say) -> None:
    Path("bad.wav").write_bytes(b"no sound")
    Path("out").mkdir()
    for arguments in (["vocode", "--vocoder", generator], ["mel", "--vocoder", generator]):
        assert main([*arguments, "bad.wav", "-o", "out"]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("melvoc: error: bad.wav: ")
        assert (said.err.count("\n"), said.out) == (1, "")
    assert files("out") == []


def test_a_folder_of_sounds_to_mels_and_back(here: Path, generator: str) -> None:
    put("in/a.wav", "in/b/c.wav")
    assert main(["mel", "in", "-o", "mels", "--vocoder", generator]) == 0
    assert files("mels") == ["a.safetensors", "b/c.safetensors"]
    assert read_mel("mels/b/c.safetensors").spec == VOCODERS["vocos_tiny"].spec
    assert main(["vocode", "mels", "-o", "out", "--vocoder", generator, "--format", "flac"]) == 0
    assert files("out") == ["a.flac", "b/c.flac"]
    assert soundfile.info("out/a.flac").frames == 2400
    assert main(["mel", "in", "-o", "arrays", "--format", "npy"]) == 0
    assert np.load("arrays/b/c.npy").shape[:2] == (1, 128)


def test_several_inputs_lie_as_below_the_folder_that_holds_them_all(here: Path) -> None:
    put("x/a.wav", "y/a.wav", "y/z/b.wav", "c.wav")
    for inputs, expected in (
        (["x", "y"], ["x/a.wav", "y/a.wav", "y/z/b.wav"]),
        (["x/a.wav", "y/a.wav"], ["x/a.wav", "y/a.wav"]),
        (["y/a.wav", "y/z"], ["a.wav", "z/b.wav"]),
        (["y", "y/a.wav", "./y/../y/z/b.wav"], ["a.wav", "z/b.wav"]),
        (["c.wav", str(here / "x")], ["c.wav", "x/a.wav"]),
    ):
        out = f"out-{len(inputs)}-{len(str(inputs))}"
        assert main(["vocode", *inputs, "-o", out]) == 0
        assert files(out) == expected


def test_two_of_one_name_are_two_files(here: Path, generator: str) -> None:
    put("in/a.wav", "in/a.flac", "in/b.wav", seconds=0.2)
    melvoc.audio.write("in/a.wav", torch.zeros(480), 24000)
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 0
    assert files("out") == ["a.flac.wav", "a.wav.wav", "b.wav"]
    assert [soundfile.info(f"out/{name}").frames for name in files("out")] == [4800, 480, 4800]


def test_what_is_there_is_skipped_or_made_anew(here: Path, generator: str, capsys: Say) -> None:
    put("in/a.wav", "in/b.wav")
    Path("out").mkdir()
    Path("out/a.wav").write_bytes(b"mine")
    vocode_all = ["vocode", "in", "-o", "out", "--vocoder", generator]
    assert main(vocode_all) == 0
    assert capsys.readouterr().out == "out: 1 made, 1 skipped (already there; --overwrite makes them anew)\n"
    assert Path("out/a.wav").read_bytes() == b"mine"
    assert main([*vocode_all, "--overwrite"]) == 0
    assert capsys.readouterr().out == "out: 2 made\n"
    assert soundfile.info("out/a.wav").frames == 2400


@pytest.mark.parametrize("command", ["vocode", "mel"])
def test_the_vocoder_is_loaded_once(here: Path, generator: str, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    put("in/a.wav", "in/b.wav", "in/c.wav")
    loaded, real = [], vocode.load

    def load(arguments: object, name: str, **options: object) -> object:
        loaded.append(name)
        return real(arguments, name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("melvoc.cli.vocode.load", load)
    monkeypatch.setattr("melvoc.cli.mels.load", load)
    assert main([command, "in", "-o", "out", "--vocoder", generator]) == 0
    assert loaded == [generator]


def test_one_progress_bar_and_only_on_a_terminal(
    here: Path, generator: str, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.wav", "in/b.wav", "in/c.wav", seconds=0.5)
    assert main(["vocode", "in", "-o", "quiet", "--vocoder", generator]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["vocode", "in", "-o", "shown", "--vocoder", generator]) == 0
    shown = [line for line in capsys.readouterr().err.replace("\n", "\r").split("\r") if line.strip()]
    assert shown
    assert all("/3 [" in line for line in shown), "of files, not of seconds"


# What goes wrong


def test_one_line_for_each_that_failed_and_exit_code_1(here: Path, generator: str, capsys: Say) -> None:
    put("in/good.wav", "in/z.wav")
    Path("in/broken.wav").write_bytes(b"RIFF and then nothing of use")
    Path("in/song.m4a").write_bytes(b"x")
    soundfile.write("in/nan.wav", np.full(9000, np.nan, dtype=np.float32), 24000, subtype="FLOAT")
    Path("in/gone.wav").symlink_to("nowhere.wav")
    melvoc.save(VOCODERS["vocos_tiny"], "in/model.safetensors")
    assert main(["vocode", "in", "missing.wav", "-o", "out", "--vocoder", generator]) == 1
    said = capsys.readouterr()
    assert said.out == "out: 2 made, 6 failed\n"
    assert files("out") == ["in/good.wav", "in/z.wav"]
    lines = said.err.splitlines()
    assert [line.split(": ")[2] for line in lines] == [
        "in/gone.wav", "in/song.m4a", "in/broken.wav", "in/model.safetensors", "in/nan.wav", "missing.wav",
    ]  # fmt: skip
    assert all(line.startswith("melvoc: error: ") for line in lines)
    assert "ffmpeg -i song.m4a song.wav" in lines[1]


def test_all_that_failed_is_exit_code_1_too(here: Path, capsys: Say) -> None:
    assert main(["mel", "none.wav", "nor this.wav", "-o", "out"]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 2
    assert said.out == "out: 0 made, 2 failed\n"
    assert main(["vocode", "none.wav", "-o", "out.wav"]) == 2, "one file is as before"


def test_an_error_that_nobody_foresaw_does_not_end_the_others(
    here: Path, generator: str, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.wav", "in/b.wav")
    monkeypatch.setattr("melvoc.cli.vocode.is_mel", lambda path: 1 / 0 if "a.wav" in path else False)
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 1
    assert capsys.readouterr().err == (
        "melvoc: error: in/a.wav: ZeroDivisionError: division by zero (MELVOC_DEBUG=1 shows where)\n"
    )
    assert files("out") == ["b.wav"]
    monkeypatch.setenv("MELVOC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["vocode", "in", "-o", "out", "--vocoder", generator])


def _wrong_spec(generator: str) -> list[str]:
    Path("spec.json").write_text(json.dumps(VOCODERS["bigvgan_v2_tiny"].spec.to_dict()))
    return ["vocode", "in", "-o", "out", "--vocoder", generator, "--spec", "spec.json"]


MISTAKES: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "OUT is a file": (lambda _: ["vocode", "in", "-o", "in/a.wav"], "a file, but several inputs, or a folder, need"),
    "OUT is named as a file": (lambda _: ["mel", "in", "-o", "x.npy"], "x.npy: the name of a file, but several"),
    "OUT is IN": (lambda _: ["mel", "in", "-o", "in/../in"], "IN and OUT are the same folder"),
    "OUT holds the one IN": (lambda _: ["vocode", "in/a.wav", "-o", "in"], "both an input and an output"),
    "an output is an input": (lambda _: ["vocode", "in/a.wav", "in/b.wav", "-o", "in"], "both an input and an output"),
    "nothing to do": (lambda _: ["vocode", "empty", "-o", "out"], "there are no files that can be read (.aif, "),
    "nothing of its kind": (lambda _: ["mel", "text", "-o", "out"], "(text/a.txt: not a sound file that is read)"),
    "standard input": (lambda _: ["vocode", "-", "in", "-o", "out"], "- (standard input) is one of several inputs"),
    "a format of one": (lambda _: ["mel", "in/a.wav", "-o", "a.npy", "--format", "npy"], "OUT's ending says it"),
    "an unknown format": (lambda _: ["mel", "in", "-o", "out", "--format", "wav"], "invalid choice: 'wav'"),
    "no OUT": (lambda _: ["vocode", "in"], "no output is given"),
    "a vocoder": (lambda _: ["vocode", "in", "-o", "out", "--vocoder", "none"], "'none'"),
    "a spec": (lambda _: ["vocode", "in", "-o", "out", "--spec", "none"], "none"),
    "a mel's spec": (lambda _: ["mel", "in", "-o", "out", "--spec", "none"], "none"),
    "a mel's rate": (
        lambda _: ["mel", "in", "-o", "out", "--spec", "vocos_24khz_100band", "--sample-rate", "8000"],
        "this mel is at 24000 Hz",
    ),
    "another vocoder's spec": (_wrong_spec, "--spec is not "),
    "blocks": (lambda _: ["vocode", "in", "-o", "out", "--block-frames", "3"], "griffinlim cannot run in blocks"),
    "rounds": (lambda g: ["vocode", "in", "-o", "out", "--vocoder", g, "--refine", "-1"], "refine=-1"),
    "a subtype": (
        lambda _: ["vocode", "in", "-o", "out", "--format", "flac", "--subtype", "FLOAT"], "FLAC has PCM_16, PCM_24",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_arguments_is_one_line_and_exit_code_2(
    name: str, here: Path, generator: str, capsys: Say
) -> None:
    put("in/a.wav", "in/b.wav")
    Path("empty").mkdir()
    Path("text").mkdir()
    Path("text/a.txt").write_bytes(b"x")
    arguments, words = MISTAKES[name]
    assert main(arguments(generator)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("melvoc: error: ")
    assert err.count("\n") == 1
    assert not Path("out").exists()
    assert files("in") == ["a.wav", "b.wav"]


# Odd places


def test_out_inside_in_is_no_input(here: Path, generator: str, capsys: Say) -> None:
    put("a.wav", "sub/b.wav")
    for _ in range(2):
        assert main(["vocode", ".", "-o", "out", "--vocoder", generator]) == 0
    assert files("out") == ["a.wav", "sub/b.wav"]
    assert "0 made, 2 skipped" in capsys.readouterr().out


def test_in_inside_out(here: Path, generator: str) -> None:
    put("raw/a.wav")
    assert main(["vocode", "raw", "-o", ".", "--vocoder", generator]) == 0
    assert files(".") == ["a.wav", "raw/a.wav"]


def test_links_are_followed_once_and_stay_links(here: Path, generator: str) -> None:
    put("else/deep/b.wav", "in/a.wav")
    Path("in/linked").symlink_to(here / "else")
    Path("in/circle").symlink_to(here / "in")
    Path("in/c.wav").symlink_to(here / "in" / "a.wav")
    Path("way").symlink_to(here / "in")
    assert main(["vocode", "way", "-o", "out", "--vocoder", generator]) == 0
    assert files("out") == ["a.wav", "c.wav", "linked/deep/b.wav"]
    assert Path("in/c.wav").is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8(here: Path, generator: str, capsys: Say) -> None:
    put(b"in/caf\xe9.wav", "in/\u00e9\u4e2d.wav")
    assert main(["mel", "in", "-o", "mels", "--vocoder", generator]) == 0
    assert main(["vocode", "in", "mels", "-o", "out", "--vocoder", generator]) == 0
    for folder in (b"out/in", b"out/mels"):
        assert sorted(map(os.fsencode, Path(os.fsdecode(folder)).iterdir())) == [
            folder + b"/" + name for name in (b"caf\xe9.wav", "\u00e9\u4e2d.wav".encode())
        ]
        assert soundfile.info(folder + b"/caf\xe9.wav").frames == 2400
    Path(os.fsdecode(b"in/caf\xe9.wav")).write_bytes(b"broken")
    assert main(["vocode", "in", "-o", "again", "--vocoder", generator]) == 1
    assert "in/caf\ufffd.wav: cannot be read as sound" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_in_a_folder_is_not_waited_for(here: Path, generator: str, capsys: Say) -> None:
    put("in/a.wav")
    os.mkfifo("in/pipe.wav")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 1
    assert "in/pipe.wav: neither a file nor a folder" in capsys.readouterr().err
    assert files("out") == ["a.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_that_is_named_is_read(here: Path, generator: str) -> None:
    put("a.wav")
    assert main(["mel", "a.wav", "-o", "a.safetensors", "--vocoder", generator]) == 0
    os.mkfifo("pipe")
    feeder = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("a.safetensors").read_bytes()))
    feeder.start()
    assert main(["vocode", "a.wav", "pipe", "-o", "out", "--vocoder", generator]) == 0
    feeder.join()
    assert [soundfile.info(f"out/{name}").frames for name in files("out")] == [2400, 2400]


def test_a_name_that_is_too_long_for_its_output_is_one_that_failed(here: Path, generator: str, capsys: Say) -> None:
    long = "a" * 247  # both are "a.wav.flac" and "a.flac.flac": 256 bytes
    put(f"in/{long}.wav", f"in/{long}.flac", "in/b.wav")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator, "--format", "flac"]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 2
    assert said.out == "out: 1 made, 2 failed\n"


def test_a_name_that_just_fits_is_written(here: Path, generator: str) -> None:
    put(f"in/{'a' * 251}.wav")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 0
    assert files("out") == [f"{'a' * 251}.wav"]


def test_a_folder_in_the_place_of_an_output_is_an_error(here: Path, generator: str, capsys: Say) -> None:
    put("in/a.wav", "in/b.wav", "in/c/d.wav")
    Path("out/a.wav").mkdir(parents=True)
    Path("out/c").write_bytes(b"")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 1
    said = capsys.readouterr()
    assert "out/a.wav: a folder; give the path of a file to write" in said.err
    assert "out/c: this folder cannot be made (File exists); give another with -o, or remove what is there" in said.err
    assert said.out == "out: 1 made, 2 failed\n"


def test_a_file_and_a_folder_of_its_outputs_name_do_not_meet(here: Path, generator: str) -> None:
    put("in/a.flac", "in/a.wav/b.wav")
    assert main(["vocode", "in", "-o", "out", "--vocoder", generator]) == 0
    assert files("out") == ["a.flac.wav", "a.wav/b.wav"]


@pytest.mark.parametrize("command", ["vocode", "mel"])
def test_work_goes_on_where_nobody_reads_what_is_said(here: Path, generator: str, command: str) -> None:
    put("in/a.wav", "in/b.wav")
    Path("in/notes.txt").write_text("left out, which is said first")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "melvoc", command, "in", "-o", "out", "--vocoder", generator],
        stdout=write, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(files("out")) == 2


def test_a_run_that_is_stopped_goes_on_when_repeated(here: Path, generator: str) -> None:
    put(*(f"in/{number}.wav" for number in range(4)), "in/long.wav")
    melvoc.audio.write("in/long.wav", torch.zeros(24000 * 600), 24000)
    command = [sys.executable, "-m", "melvoc", "vocode", "in", "-o", "out", "--vocoder", generator]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(here.glob("out/.long*")):
        time.sleep(0.02)  # until it has begun to write the last one, under another name
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "melvoc: error: interrupted; nothing half-written was left\n")
    assert files("out") == [f"{number}.wav" for number in range(4)]
    melvoc.audio.write("in/long.wav", torch.zeros(2400), 24000)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "out: 1 made, 4 skipped (already there; --overwrite makes them anew)\n"
    assert soundfile.info("out/long.wav").frames == 2400
