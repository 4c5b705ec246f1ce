"""`melvoc train`: options reach the configuration, mistakes are one line, Ctrl-C leaves a checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training import GENERATOR, GENERATORS, SPEC, one_thread, write_sounds  # noqa: F401 - one_thread is used by being here

import melvoc
from melvoc import MelSpectrogram, audio
from melvoc.cli import build_parser, main
from melvoc.cli.train import configuration
from melvoc.spectrogram.file import save_mel

TINY = ["--preset", "slim", "--segment", "1024", "--batch-size", "1", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sounds(tmp_path / "sounds", count=4)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    return tmp_path


def command(folder: Path, *more: str) -> list[str]:
    spec = ["--spec", str(folder / "spec.json")]
    return ["train", str(folder / "sounds"), "-o", str(folder / "run"), *spec, *TINY, *more]


def test_it_trains_resumes_and_says_what_it_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio.write(folder / "sounds" / "silent.wav", torch.zeros(9000), 16000)
    assert main(command(folder, "--steps", "2", "--checkpoint-every", "1")) == 0
    shown = capsys.readouterr()
    assert "skipped silent.wav: silence" in shown.out
    assert "training on 3 files" in shown.out
    assert "step 2" in shown.out
    assert shown.err == ""
    assert melvoc.load(folder / "run" / "generator.safetensors", device="cpu").spec == SPEC
    assert [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").open()] == [1, 2]
    assert main(command(folder, "--steps", "3", "--resume")) == 0
    assert "resumed at step 2" in capsys.readouterr().out
    (folder / "run" / "generator.safetensors").unlink()
    assert main(command(folder, "--steps", "3", "--resume")) == 0  # nothing left to do
    assert (folder / "run" / "generator.safetensors").exists()


def test_discriminators_and_their_sizes_are_chosen_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--discriminators", "mpd=0.2, mrd=0.03,cqt=1", "--preset", "mpd=slim,cqt=full", "--segment", "2048"]
    config = configuration(build_parser().parse_args(command(folder, *chosen)))
    assert config.discriminators == {"mpd": 0.2, "mrd": 0.03, "cqt": 1.0}
    assert config.preset == {"mpd": "slim", "cqt": "full"}
    for option, text, message in (
        ("--discriminators", "mpd", "'mpd' in 'mpd' is not NAME=VALUE; write for example mpd=1,cqt=0.5"),
        ("--discriminators", "mpd=1,cqt=x", "'cqt=x' in 'mpd=1,cqt=x' is not NAME=VALUE"),
        ("--discriminators", "cwt=1", "they are a dict of weights for some of mpd, msd, mrd, cqt"),
        ("--preset", "mpd=tiny", "preset={'mpd': 'tiny'}, but it is one of 'full', 'slim'"),
    ):
        assert main(command(folder, option, text)) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_every_option_reaches_the_configuration(folder: Path) -> None:
    given = command(
        folder, "--steps", "7", "--learning-rate", "0.001", "--mel-weight", "10", "--stft-weight", "15",
        "--multi-scale-mel-weight", "3",
        "--segment", "2048",
        "--no-flip-polarity", "--keep-discriminators", "--mels", "m", "--warm-start", "w", "--seed", "3",
        "--mel-only-steps", "2", "--validation-files", "0", "--precision", "float32", "--tilt-db", "0",
    )  # fmt: skip
    config = configuration(build_parser().parse_args(given))
    assert (config.steps, config.learning_rate, config.seed, config.mel_only_steps) == (7, 0.001, 3, 2)
    assert (config.weights.mel, config.weights.stft, config.resolved().weights.feature) == (10, 15, 2.0)
    assert config.weights.multi_scale_mel == 3
    assert (config.flip_polarity, config.keep_discriminators) == (False, True)
    assert (config.mels_dir, config.warm_start, config.validation_files) == ("m", "w", 0)
    assert (config.precision, config.tilt_db, config.segment, config.spec) == ("float32", 0.0, 2048, SPEC)
    default = configuration(build_parser().parse_args(["train", "a", "-o", "b"]))
    assert (default.steps, default.minutes, default.preset, default.spec) == (None, None, None, None)


def test_a_generator_may_be_given(folder: Path) -> None:
    (folder / "g.json").write_text(json.dumps(GENERATOR.to_dict()))
    config = configuration(build_parser().parse_args(command(folder, "--generator", str(folder / "g.json"))))
    assert config.generator == GENERATOR
    published = {"num_mels" if name == "n_mels" else name: value for name, value in GENERATOR.to_dict().items()}
    (folder / "g.json").write_text(json.dumps(published | {"num_workers": 4}))
    assert configuration(build_parser().parse_args(command(folder, "--generator", str(folder / "g.json")))) == config
    for name, generator in GENERATORS.items():
        (folder / "g.json").write_text(json.dumps(generator.to_dict()))
        given = command(folder, "--architecture", name, "--generator", str(folder / "g.json"), "--segment", "2048")
        assert configuration(build_parser().parse_args(given)).generator == generator


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "hifigan"])
def test_every_architecture_is_trained_by_its_name(folder: Path, name: str) -> None:
    assert (
        main(command(folder, "--architecture", name, "--steps", "1", "--segment", "2048", "--validation-files", "0"))
        == 0
    )
    vocoder = melvoc.load(folder / "run" / "generator.safetensors", device="cpu")
    assert (vocoder.architecture.name, vocoder.spec) == (name, SPEC)
    stored = json.loads((folder / "run" / "config.json").read_text())
    assert (stored["architecture"], stored["size"]) == (name, "small")


def fails(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, shown
    return shown


def test_each_mistake_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "run")
    (folder / "empty").mkdir()
    assert "has no .wav" in fails(capsys, ["train", str(folder / "empty"), "-o", run])
    assert "no such folder" in fails(capsys, ["train", str(folder / "nowhere"), "-o", run])
    (folder / "broken").mkdir()
    (folder / "broken" / "a.wav").write_bytes(b"RIFF")
    assert "0 of 1 files can be used" in fails(capsys, ["train", str(folder / "broken"), "-o", run])
    write_sounds(folder / "short", count=3, samples=1600)
    assert "needs at least 0.5 s" in fails(capsys, ["train", str(folder / "short"), "-o", run])
    assert "start without --resume" in fails(capsys, command(folder, "--resume"))
    assert "segment=1000 is not a multiple" in fails(capsys, command(folder, "--segment", "1000"))
    (folder / "spec.json").write_text(json.dumps(SPEC.to_dict() | {"hop_length": 101}))
    assert "not a product of at most 6 upsampling rates" in fails(capsys, command(folder))
    assert "preset='big'" in fails(capsys, command(folder, "--preset", "big"))
    (folder / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    shown = fails(capsys, command(folder, "--architecture", "griffinlim"))
    assert "architecture='griffinlim', but melvoc trains hifigan, bigvgan, glnet, istftnet, vocos, wavenext" in shown
    assert "size='big', but the sizes of Vocos are 'small', 'base'" in fails(
        capsys, command(folder, "--architecture", "vocos", "--size", "big")
    )
    assert "--steps" in fails(capsys, command(folder, "--steps", "many"))
    assert not (folder / "run").exists()


def test_a_run_that_is_there_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, "--steps", "1")) == 0
    capsys.readouterr()
    assert "has a run at step 1 already" in fails(capsys, command(folder, "--steps", "2"))
    assert "seed: the run has 0, now 9" in fails(capsys, command(folder, "--steps", "2", "--resume", "--seed", "9"))


def test_mels_of_another_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mels").mkdir()
    for number in range(4):
        wave, _ = audio.read(folder / "sounds" / f"{number}.wav")
        save_mel(folder / "mels" / f"{number}.safetensors", MelSpectrogram(SPEC)(wave[0]), SPEC)
    assert main(command(folder, "--steps", "1", "--mels", str(folder / "mels"))) == 0
    other = json.dumps(SPEC.to_dict() | {"n_mels": 24})
    (folder / "spec.json").write_text(other)
    argv = command(folder, "--mels", str(folder / "mels"), "-o", str(folder / "other"))
    assert "n_mels: 24, the mel has 20" in fails(capsys, argv)


def test_tensorboard_is_an_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'melvoc[tensorboard]'" in fails(capsys, command(folder, "--tensorboard"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_write_a_checkpoint_that_goes_on(folder: Path, number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "melvoc", *command(folder, "--steps", "100000")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log, deadline = folder / "run" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.2)
    child.send_signal(number)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    assert "continue with --resume" in out
    assert "Traceback" not in err
    steps = [json.loads(line)["step"] for line in log.open()]
    assert (folder / "run" / "checkpoints" / f"step-{steps[-1]:08d}.pt").exists()
    assert main(command(folder, "--steps", str(steps[-1] + 1), "--resume")) == 0


def test_import_of_the_command_line_does_not_import_training() -> None:
    code = "import sys, melvoc.cli as c; c.build_parser(); print('melvoc.train' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
