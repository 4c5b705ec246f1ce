"""Evaluating vocoders on files: rows, what is missing, what fails, and what is left when it is stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import metric, sound
from networks import VOCODERS
from torch import Tensor

import melvoc
from melvoc.errors import MelvocError, MissingFileError, MissingPackageError, OptionError
from melvoc.evaluation import runner
from melvoc.evaluation.protocols import Pool, Protocol
from melvoc.evaluation.results import Evaluation
from melvoc.metrics import Metric
from melvoc.metrics.mel_l1 import mel_l1

CHEAP = ["mel_l1", "loudness"]
SPEC = melvoc.MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80)
COLUMNS = ["file", "vocoder", "refine", *CHEAP, "speed", "peak_memory_mb", "parameters", "sample_rate"]


def griffinlim(name: str = "gl", spec: melvoc.MelSpec = SPEC) -> melvoc.Vocoder:
    voc = melvoc.load("griffinlim", spec=spec, n_iter=2)
    voc.name = name
    return voc


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with two sounds, one of them deeper, and something else."""
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    sound(folder / "a.wav", seed=0)
    sound(folder / "deep" / "b.flac", seed=1)
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Metric]]:
    """The metrics that there are, for a test to fill."""
    metrics: list[Metric] = []
    monkeypatch.setattr(runner, "all_metrics", lambda: iter(metrics))
    return metrics


def mel_l1_metric() -> Metric:
    return dataclasses.replace(metric("mel_l1"), function=mel_l1)


def evaluate(*args: Any, **options: Any) -> Evaluation:
    return melvoc.evaluate(*args, **{"metrics": CHEAP} | options)


def test_every_vocoder_meets_every_refinement(sounds: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "report", list[tuple[str, int, int]]()
    tiny = VOCODERS["bigvgan_v2_tiny"]
    found = evaluate(sounds, [griffinlim(), tiny], (0, 2), out, progress=lambda *state: said.append(state))
    pairs = [("gl", 0), ("gl", 2), ("bigvgan_v2_tiny", 0), ("bigvgan_v2_tiny", 2)]
    assert [(row["vocoder"], row["refine"]) for row in found.rows] == 2 * pairs
    assert [row["file"] for row in found.rows] == 4 * [f"{sounds}/a.wav"] + 4 * [f"{sounds}/deep/b.flac"]
    counted = [done for stage, done, total in said if (stage, total) == ("evaluate", 8)]
    assert (counted[0], counted[-1]) == (0, 8)
    assert counted == sorted(counted)
    assert {stage for stage, _, _ in said} <= {"load", "evaluate"}
    stored = json.loads((out / "results.json").read_text())
    assert stored["rows"] == found.rows
    assert list(stored["rows"][0])[: len(COLUMNS)] == COLUMNS
    assert (stored["missing"], stored["failed"]) == ([], [])
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.csv", "results.json"]


def test_a_file_that_is_not_there_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"a\.wav") as caught:
        evaluate(tmp_path / "a.wav", griffinlim())
    assert isinstance(caught.value, FileNotFoundError)


def test_names_are_text(sounds: Path) -> None:
    with pytest.raises(OptionError, match="vocoders has 1 for a name, but names are text"):
        evaluate(sounds, {1: griffinlim()})


def test_the_table_of_csv_is_that_of_json(sounds: Path, tmp_path: Path, only: list[Metric]) -> None:
    only += [metric("fine"), metric("visqol", packages=("melvoc-no-such-package",))]
    found = evaluate(sounds, griffinlim(), out=tmp_path / "r", metrics=None)
    with (tmp_path / "r" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in found.rows]
    assert found.rows[0]["visqol"] is None


def test_the_figures_are_those_of_the_sounds(tmp_path: Path) -> None:
    path, voc = sound(tmp_path / "a.wav"), griffinlim()
    row = evaluate(path, voc).rows[0]
    wave, rate = melvoc.audio.read(path)
    again = voc.resynthesize(wave, sample_rate=rate)[:, 0]
    assert row["mel_l1"] == pytest.approx(mel_l1(wave[0], again[0], rate), rel=1e-4)
    assert (row["sample_rate"], row["seconds"], row["channels"], row["parameters"]) == (22050, 0.5, 1, 0)
    assert isinstance(row["speed"], float)
    assert row["speed"] > 0
    if row["peak_memory_mb"] is not None:  # Linux tells
        assert row["peak_memory_mb"] >= 0


def test_channels_are_measured_one_by_one(tmp_path: Path) -> None:
    path, voc = sound(tmp_path / "a.wav", channels=2), griffinlim()
    found = evaluate(path, voc, out=tmp_path / "r")
    wave, rate = melvoc.audio.read(path)
    again = voc.resynthesize(wave, sample_rate=rate)[:, 0]
    each = [mel_l1(one, other, rate) for one, other in zip(wave, again, strict=True)]
    assert found.rows[0]["mel_l1"] == pytest.approx(sum(each) / 2, rel=1e-4)
    assert any("stereo" in note for note in found.notes)


def test_all_are_measured_at_a_rate_that_all_reach_and_the_report_says_so(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", rate=44100)
    high = griffinlim("high", melvoc.MelSpec.preset("griffinlim"))
    found = evaluate(path, [griffinlim("low"), high])
    assert {row["sample_rate"] for row in found.rows} == {22050}
    assert "what lies above 11 kHz, in files of up to 44100 Hz, is in no figure" in found.notes[0]
    assert "hard on low" in found.notes[0]
    assert any("different mels to go by (low; high)" in note for note in found.notes)
    whole = evaluate(path, [griffinlim("low"), high], sample_rate=44100)
    assert {row["sample_rate"] for row in whole.rows} == {44100}
    assert "low cannot make all of their treble, which counts against it" in whole.notes[0]
    assert whole.rows[0]["mel_l1"] > found.rows[0]["mel_l1"]  # type: ignore[operator]
    assert evaluate(path, high).rows[0]["sample_rate"] == 44100


def test_griffin_lim_without_a_spec_is_given_the_first_others_mel(tmp_path: Path) -> None:
    path, tiny = sound(tmp_path / "a.wav"), VOCODERS["bigvgan_v2_tiny"]
    found = evaluate(path, ["griffinlim", tiny])
    assert [entry["mel"] for entry in found.vocoders] == 2 * [tiny.spec.to_dict()]
    assert "griffinlim was given the mel of bigvgan_v2_tiny." in found.notes
    alone = evaluate(path, "griffinlim")
    assert (alone.vocoders[0]["mel"]["sample_rate"], alone.vocoders[0]["mel"]["n_mels"]) == (22050, 128)


def test_names_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    melvoc.save(VOCODERS["bigvgan_v2_tiny"], path)
    found = evaluate(sound(tmp_path / "a.wav"), {"mine": path, "yours": griffinlim("mine")})
    assert [entry["name"] for entry in found.vocoders] == ["mine", "yours"]
    found = evaluate(tmp_path / "a.wav", str(path))
    assert found.rows[0]["vocoder"] == str(path)
    assert found.rows[0]["parameters"] == sum(p.numel() for p in VOCODERS["bigvgan_v2_tiny"].parameters())


def test_a_plugins_vocoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="organ", value="test_evaluation_runner:make_organ", group="melvoc.vocoders")
    monkeypatch.setattr("melvoc.registry.entry_points", lambda group: [entry] if group == entry.group else [])
    found = evaluate(sound(tmp_path / "a.wav"), "organ")
    assert (found.rows[0]["vocoder"], found.vocoders[0]["class"]) == ("organ", "GriffinLim")


def make_organ(name: str, *, device: Any, dtype: Any) -> melvoc.Vocoder:
    return griffinlim(name)


class Fragile(melvoc.Vocoder):
    """Fails on loud sounds, as a plugin may."""

    def __init__(self) -> None:
        super().__init__(name="fragile", spec=SPEC)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        if float(mel.max()) > -3:
            raise RuntimeError("too loud")
        return mel.new_zeros(mel.shape[0], 1, mel.shape[-1] * self.samples_per_frame)


def test_what_fails_is_listed_and_does_not_end_it(sounds: Path, tmp_path: Path) -> None:
    (sounds / "bad.wav").write_bytes(b"RIFF and then nothing of use")
    melvoc.audio.write(sounds / "nan.wav", torch.tensor([0.1]), 22050, "FLOAT")
    (sounds / "nan.wav").write_bytes((sounds / "nan.wav").read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    found = evaluate(sounds, [Fragile(), griffinlim()], out=tmp_path / "r")
    failed = {(Path(entry["file"]).name, entry["vocoder"]): entry["error"] for entry in found.failed}
    assert failed["a.wav", "fragile"] == "RuntimeError: too loud"
    assert "cannot be read as sound" in failed["bad.wav", None]
    assert "contains NaN or Inf" in failed["nan.wav", None]
    assert {row["vocoder"] for row in found.rows} == {"gl"}
    assert len(found.rows) == 2
    assert json.loads((tmp_path / "r" / "results.json").read_text())["failed"] == found.failed


def test_a_single_bad_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(MelvocError, match=r"bad.wav: cannot be read as sound"):
        evaluate(tmp_path / "bad.wav", griffinlim(), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(MelvocError, match=r"bad.wav: cannot be read as sound"):
        evaluate(tmp_path / "bad.wav", griffinlim(), out=tmp_path / "mine")
    assert (tmp_path / "mine").is_dir(), "a folder that was there stays"


def test_a_report_of_failures_only(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    found = evaluate(tmp_path, griffinlim(), out=tmp_path / "r")
    assert (found.rows, len(found.failed)) == ([], 2)
    assert found.headline == "No figure could be computed, so there is nothing to choose by."
    assert (tmp_path / "r" / "results.csv").read_text().strip() == "file,vocoder,refine"


def test_a_figure_that_could_not_be_computed_is_none_with_its_reason(tmp_path: Path, only: list[Metric]) -> None:
    def refuse(*signals: object) -> float:
        raise MelvocError("the sound is silent")

    only += [
        Metric(**{**vars(metric("picky")), "function": refuse}),
        Metric(**{**vars(metric("broken")), "function": lambda *signals: 1 / 0}),
        Metric(**{**vars(metric("endless")), "function": lambda *signals: float("nan")}),
        metric("spoken", speech=True),
        metric("fine"),
    ]
    found = evaluate(sound(tmp_path / "a.wav"), griffinlim(), metrics=None, out=tmp_path / "r")
    row = found.rows[0]
    assert [row[name] for name in ("picky", "broken", "endless", "spoken", "fine")] == [None] * 4 + [0.0]
    reasons = "picky: the sound is silent; broken: ZeroDivisionError: division by zero; endless: came out as nan"
    assert row["undefined"] == f"{reasons}; spoken: for speech only"
    assert evaluate(tmp_path / "a.wav", griffinlim(), metrics=None, speech=True).rows[0]["spoken"] == 0.0


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path, only: list[Metric]) -> None:
    calls = []

    def unimportable(*signals: object) -> float:
        calls.append(1)
        raise MissingPackageError("torchaudio cannot be imported (libc10_cuda.so); pip install distillmos")

    only += [
        metric("visqol", "higher", packages=("melvoc-no-such-package",)),
        Metric(**{**vars(metric("distillmos", "higher")), "function": unimportable}),
        metric("fine"),
    ]
    found = evaluate(sound(tmp_path / "a.wav"), [griffinlim("a"), griffinlim("b")], metrics=None, speech=True)
    assert found.missing == [
        {"name": "visqol", "title": "the visqol", "how": "pip install melvoc-no-such-package"},
        {
            "name": "distillmos",
            "title": "the distillmos",
            "how": "torchaudio cannot be imported (libc10_cuda.so); pip install distillmos",
        },
    ]
    assert (calls, found.rows[1]["visqol"], found.rows[1]["distillmos"]) == ([1], None, None), "asked once"
    assert any(note.startswith("The figure that leads for speech") for note in found.notes)


def test_a_protocol_prepares_listens_and_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Protocol(
        name="half",
        prepare=lambda wave, rate: (0.5 * wave, rate),
        listen=lambda reference, other, rate: (reference, reference),
        metrics=("mel_l1", "loudness"),
        pool={
            "loudness": Pool(
                parts=lambda reference, other, rate: (float(reference.abs().max()), 1.0),
                figure=lambda parts: sum(part[0] for part in parts) / sum(part[1] for part in parts) ** 2,
            )
        },
    )
    monkeypatch.setattr(runner, "PROTOCOLS", {"half": protocol})
    paths = [sound(tmp_path / f"{seed}.wav", seed=seed) for seed in (0, 1)]
    peaks = [0.5 * float(melvoc.audio.read(path)[0].abs().max()) for path in paths]
    found = melvoc.evaluate(paths, griffinlim(), protocol="half")
    assert [row["mel_l1"] for row in found.rows] == [0.0, 0.0]
    assert [row["loudness"] for row in found.rows] == pytest.approx(peaks)
    assert found.means()["gl", 0]["loudness"] == pytest.approx(sum(peaks) / 4), "not the mean of the files' figures"
    assert all(row["speech"] for row in found.rows), "papers' protocols are for speech"


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    before = torch.random.get_rng_state()
    first, second, third = (evaluate(path, "griffinlim", seed=seed).rows[0]["mel_l1"] for seed in (1, 1, 2))
    assert first == second != third
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random numbers go on"


def test_the_repr_is_one_line(sounds: Path) -> None:
    found = evaluate(sounds, {"a": griffinlim(), "b": griffinlim()}, (0, 1))
    assert repr(found) == f"<Evaluation: 8 rows (files: 2, vocoders: 2), 0 failed; {found.headline}>"


def test_ctrl_c_leaves_a_report_of_what_was_done(sounds: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("evaluate", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(sounds, [griffinlim("a"), griffinlim("b")], out=tmp_path / "r", progress=stop)
    stored = json.loads((tmp_path / "r" / "results.json").read_text())
    assert len(stored["rows"]) == 3
    assert stored["settings"]["complete"] is False
    assert "The evaluation was stopped before its end" in (tmp_path / "r" / "report.html").read_text()


class Stopped(Fragile):
    """Ctrl-C arrives while its second file is on its way."""

    calls = 0

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 2:  # the first is for warmth
            raise KeyboardInterrupt
        return mel.new_zeros(mel.shape[0], 1, mel.shape[-1] * self.samples_per_frame)


def test_ctrl_c_before_the_first_copy_of_a_file(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(sounds, Stopped(), out=tmp_path / "r")
    stored = json.loads((tmp_path / "r" / "results.json").read_text())
    assert [row["file"] for row in stored["rows"]] == [f"{sounds}/a.wav"]
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("<audio") == 2, "the file that was done, and not the other"


def test_a_report_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    path, out = sound(tmp_path / "a.wav"), tmp_path / "deep" / "report"
    evaluate(path, griffinlim("a"), out=out)
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(MelvocError, match=r"has a report already; choose another folder, or --overwrite"):
        evaluate(path, griffinlim("b"), out=out)
    evaluate(path, griffinlim("b"), out=out, overwrite=True)
    assert json.loads((out / "results.json").read_text())["rows"][0]["vocoder"] == "b"
    assert (out / "mine.txt").read_text() == "keep me"
    with pytest.raises(MelvocError, match=r"no folder for a report can be made there \(a file\)"):
        evaluate(path, griffinlim(), out=path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocoders": []}, "no vocoder is given"),
        ({"vocoders": ["griffinlim", "griffinlim"]}, "two vocoders have the name 'griffinlim'"),
        ({"refine": ()}, "refine is empty"),
        ({"refine": (-1,)}, "refine=-1"),
        ({"protocol": "bigvsan"}, "the protocols are default, bigvgan, vocos"),
        ({"metrics": ["pesk"]}, "metrics has 'pesk', but the metrics are"),
        ({"audio": []}, "no audio is given"),
        ({"audio": torch.zeros(9)}, "audio is a Tensor, but it is one of these or a list of them: str, PathLike"),
        ({"audio": [3]}, "audio holds what is no path; melvoc.audio.write makes a file"),
        ({"vocoders": 3}, "vocoders is an int, but it is one of these or a list of them: str, PathLike, Vocoder"),
        ({"vocoders": {"a": 3}}, "vocoders holds an int, but each is a Vocoder or what melvoc.load takes"),
        ({"refine": None}, "refine is a NoneType, but it is one of these or a list of them: int"),
        ({"metrics": 3}, "metrics is an int"),
        ({"progress": 3}, "progress=3, but it is a function"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"seed": "x"}, "seed='x', but it is a whole number"),
        ({"seed": True}, "seed=True, but it is a whole number"),
        ({"speech": "no"}, "speech='no', but it is True or False"),
        ({"vocoders": {"g\udcff": "griffinlim"}}, "which no report can hold; give a shorter, plain one"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    given = {"audio": str(sound(tmp_path / "a.wav")), "vocoders": "griffinlim", "metrics": CHEAP} | options
    with pytest.raises((OptionError, melvoc.SpecError), match=words):
        melvoc.evaluate(out=tmp_path / "r", **given)
    assert not (tmp_path / "r").exists()


def test_a_folder_without_sounds(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"has no sound files \(a.m4a: not read in this format"):
        evaluate(tmp_path, "griffinlim")


def test_a_file_that_is_named_twice_is_measured_once(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner.find_audio([sounds, sounds / "a.wav"]) == [f"{sounds}/a.wav", f"{sounds}/deep/b.flac"]
    monkeypatch.chdir(sounds)
    Path("link.wav").symlink_to("a.wav")
    assert runner.find_audio(["a.wav", "./a.wav", f"{sounds}//a.wav", "deep/../a.wav", "link.wav"]) == ["a.wav"]


def test_numbers_of_numpys_are_numbers(sounds: Path, tmp_path: Path) -> None:
    found = evaluate(sounds, griffinlim(), np.arange(2), out=tmp_path / "r", seed=np.int64(3))
    stored = json.loads((tmp_path / "r" / "results.json").read_text())
    assert [row["refine"] for row in stored["rows"]] == [row["refine"] for row in found.rows] == [0, 1, 0, 1]
    assert stored["settings"]["seed"] == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_read_once_and_named(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    for content in (path.read_bytes(), b"no sound"):
        pipe = tmp_path / f"pipe{len(content)}"
        os.mkfifo(pipe)
        feeder = threading.Thread(target=pipe.write_bytes, args=(content,))
        feeder.start()
        if content == b"no sound":
            with pytest.raises(MelvocError, match=f"{pipe}: cannot be read as sound"):
                evaluate(pipe, griffinlim())
        else:
            assert evaluate(pipe, "griffinlim").rows[0]["file"] == str(pipe), "its rate is looked at first"
        feeder.join()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_can_be_told_apart_and_written(tmp_path: Path) -> None:
    for seed, name in enumerate((b"\xfe.wav", b"\xff.wav")):
        sound(tmp_path / "a.wav", seed=seed).rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    found = evaluate(tmp_path, griffinlim(), out=tmp_path / "r")
    names = [str(row["file"]) for row in found.rows]
    assert names == [f"{tmp_path}/\ufffd.wav", f"{tmp_path}/\ufffd.wav (1)"]
    assert [row["file"] for row in json.loads((tmp_path / "r" / "results.json").read_text())["rows"]] == names


class Failing(melvoc.Vocoder):
    """Griffin-Lim that makes NaN, or raises, once its calls are used up."""

    def __init__(self, name: str, calls: int, error: str | None = None) -> None:
        super().__init__(name=name, spec=SPEC)
        self.inner, self.calls, self.error = griffinlim(), calls, error

    def forward(self, mel: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls >= 0:
            return self.inner(mel)
        if self.error:
            raise ValueError(self.error)
        return torch.full((mel.shape[0], 1, mel.shape[-1] * SPEC.hop_length), math.nan)


def test_a_sound_with_nan_is_a_failure_and_no_row(sounds: Path) -> None:
    found = evaluate(sounds, [Failing("bad", 0), griffinlim()])
    assert [row["vocoder"] for row in found.rows] == ["gl", "gl"]
    assert [(entry["vocoder"], entry["refine"]) for entry in found.failed] == [("bad", 0)] * 2
    for entry in found.failed:
        assert "NaN" in entry["error"]


def test_an_error_of_others_can_be_written(sounds: Path, tmp_path: Path) -> None:
    found = evaluate(sounds, [Failing("bad", 0, "no such \udcff"), griffinlim()], out=tmp_path / "r")
    assert [entry["error"] for entry in found.failed] == ["ValueError: no such \ufffd"] * 2
    assert (tmp_path / "r" / "report.html").is_file()


def test_nobody_gains_by_a_file_that_failed_in_a_figure_over_a_set(sounds: Path) -> None:
    """Its warming up and its first file succeed: both are compared on that one."""
    pytest.importorskip("librosa")
    found = melvoc.evaluate(sounds, [Failing("some", 2, "out of memory"), griffinlim()], protocol="bigvgan")
    assert len(found.failed) == 1
    average = found.means()
    assert average["some", 0]["mcd"] == pytest.approx(average["gl", 0]["mcd"], rel=1e-6)


def test_a_metric_may_write_into_what_it_is_given(tmp_path: Path, only: list[Metric]) -> None:
    def destructive(reference: Tensor, other: Tensor, rate: int) -> float:
        reference.mul_(2), other.mul_(0.5)
        return 0.0

    path = sound(tmp_path / "a.wav")
    only[:] = [dataclasses.replace(metric("rude"), function=destructive), mel_l1_metric()]
    found = melvoc.evaluate(path, {"a": griffinlim(), "b": griffinlim()})
    only[:] = [mel_l1_metric()]
    alone = melvoc.evaluate(path, griffinlim())
    assert [row["mel_l1"] for row in found.rows] == [alone.rows[0]["mel_l1"]] * 2
