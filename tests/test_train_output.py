"""What a run leaves: a result that says where it comes from, samples, and a comparison in words."""

from __future__ import annotations

import json
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from training import SPEC, noise, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

import melvoc
from melvoc import CheckpointError, OptionError, audio
from melvoc.neural import NeuralVocoder
from melvoc.train import LossWeights, Trainer
from melvoc.train import pace as pace_module
from melvoc.train import trainer as trainer_module
from melvoc.train.state import Stepper

HEARD = LossWeights(adversarial=0, feature=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sounds(tmp_path / "sounds", count=5)
    return tmp_path


class Ticking:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    for module in (pace_module, trainer_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


TEN = {"minutes": 10, "steps": None, "checkpoint_every": None, "weights": HEARD, "keep_checkpoints": 20}


def test_the_result_says_where_it_comes_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(folder, steps=2, name="bells", licence="CC0-1.0", weights=HEARD, validation_files=2)
    trainer = Trainer(config)
    last = list(trainer)[-1]
    for file in ("generator.safetensors", "best.safetensors"):
        known = melvoc.info(folder / "run" / file)
        assert (known.name, known.licence) == ("bells", "CC0-1.0")
        said = known.provenance
        assert (said["melvoc"], said["steps"]) == (melvoc.__version__, "2")
        assert said["sounds"].startswith("5 files, ")
        assert len(said["fingerprint"]) == 16
        assert last.validation is not None
        assert said["held out, multi_scale_mel"] == f"{last.validation['multi_scale_mel']:.4f}"
    assert trainer.comparison is not None
    words = trainer.comparison.words
    assert words.startswith("on 2 held-out files: multi-scale mel ")
    assert "train longer (--resume --steps 8)" in words
    assert melvoc.info(folder / "run" / "generator.safetensors").provenance["compared"] == words
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["comparison"] == json.loads(json.dumps(trainer.comparison.to_dict()))
    assert (results["name"], results["steps"], results["best_by"]) == ("bells", 2, "multi_scale_mel")
    assert results["held_out"] == list(trainer.held_out)
    from melvoc.cli import main

    assert main(["info", str(folder / "run" / "generator.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "licence: CC0-1.0" in shown
    assert "held out, multi_scale_mel: " in shown


def test_a_run_with_patience_ends_early_and_gives_the_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([3.0, 1.0, 2.0, 1.5, 9.0, 9.0])
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(figures)})
    config = tiny_config(folder, steps=50, checkpoint_every=1, patience=2, weights=HEARD, keep_checkpoints=1)
    trainer = Trainer(config)
    assert [report.step for report in trainer] == [1, 2, 3, 4]
    assert trainer.finished
    assert trainer.comparison is not None
    assert trainer.comparison.longer == "--resume --steps 16 --patience 8", "with its old patience it would end at once"
    run = folder / "run"
    assert melvoc.info(run / "generator.safetensors").provenance["steps"] == "2"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000002.pt", "step-00000004.pt"]
    assert list(Trainer.resume(run)) == [], "it has lost its patience"
    assert [report.step for report in Trainer.resume(run, patience=3)] == [5]


@pytest.mark.parametrize(("figures", "advised"), [([9, 1, 2, 3], "--resume --steps 16"), ([1, 2, 3, 2], "")])
def test_who_has_stopped_getting_better_is_not_told_to_train_longer(
    folder: Path, figures: list[float], advised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(figures)
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(told)})
    trainer = Trainer(tiny_config(folder, steps=4, checkpoint_every=1, weights=HEARD))
    list(trainer)
    assert trainer.comparison is not None
    assert trainer.comparison.longer == advised


@pytest.mark.parametrize(("minutes", "best"), [(60.0, "2"), (None, "4")])
def test_a_run_with_minutes_gives_the_best_and_one_of_steps_alone_the_last(
    folder: Path, minutes: float | None, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([3.0, 1.0, 2.0, 2.0])
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(figures)})
    list(Trainer(tiny_config(folder, steps=4, minutes=minutes, checkpoint_every=1, weights=HEARD)))
    assert melvoc.info(folder / "run" / "generator.safetensors").provenance["steps"] == best
    assert json.loads((folder / "run" / "results.json").read_text())["best"]["step"] == 2


def test_a_run_that_had_minutes_gives_the_best_also_where_it_is_told_to_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--resume --steps 0` ends a run that was stopped; what it had learnt by heart meanwhile is not its result."""
    figures = iter([3.0, 1.0, 2.0, 2.0])
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(figures)})
    trainer = Trainer(tiny_config(folder, minutes=60.0, checkpoint_every=1, weights=HEARD))
    for report in trainer:
        if report.step == 4:
            break
    for _ in range(2):  # and again
        ended = Trainer.resume(folder / "run", steps=0)
        assert list(ended) == []
        assert ended.exported == 2
        assert melvoc.info(folder / "run" / "generator.safetensors").provenance["steps"] == "2"


def test_each_checkpoint_has_sounds_and_pictures_and_goes_with_them(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    config = tiny_config(
        folder, steps=2, checkpoint_every=1, keep_checkpoints=1, samples=2, validation_files=3, weights=HEARD
    )
    trainer = Trainer(config)
    list(trainer)
    samples, checkpoints = folder / "run" / "samples", folder / "run" / "checkpoints"
    assert {path.name for path in samples.iterdir()} == {path.stem for path in checkpoints.iterdir()}
    stems = [f"{number}-{Path(name).stem}" for number, name in enumerate(trainer.held_out[:2], start=1)]
    endings = (".recording.wav", ".wav", ".refine4.wav", ".png")
    found = {path.name for path in (samples / "step-00000002").iterdir()}
    assert found == {f"{stem}{ending}" for stem in stems for ending in endings}
    recording, rate = audio.read(samples / "step-00000002" / f"{stems[0]}.recording.wav")
    original, _ = audio.read(folder / "sounds" / trainer.held_out[0])
    assert rate == SPEC.sample_rate
    torch.testing.assert_close(recording, original[:, : recording.shape[-1]], atol=1e-4, rtol=0)
    voc = melvoc.load(folder / "run" / "generator.safetensors", device="cpu", engine="torch")
    made, _ = audio.read(samples / "step-00000002" / f"{stems[0]}.wav")
    expected = voc.mel_to_waveform(voc.mel(original[:, : recording.shape[-1]], sample_rate=rate))[0]
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_without_matplotlib_there_is_sound_alone_and_it_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trainer = Trainer(tiny_config(folder, steps=2, checkpoint_every=1, samples=1, weights=HEARD))
    assert trainer.notes == ("matplotlib is missing, so RUN/samples has sound alone; pip install 'melvoc[plot]'",)
    list(trainer)
    assert {path.suffix for path in (folder / "run" / "samples" / "step-00000002").iterdir()} == {".wav"}


def test_reports_say_how_far_the_run_is(folder: Path) -> None:
    reports = list(Trainer(tiny_config(folder, steps=4, mel_only_steps=1, discriminator_warmup=1)))
    assert [report.stage for report in reports] == ["heard", "warm-up", "judged", "judged"]
    assert {report.steps for report in reports} == {4}
    assert reports[-1].eta == 0.0
    assert all(report.eta > 0 and report.sound_per_second > 0 for report in reports[:-1])
    assert [report.spent for report in reports] == sorted(report.spent for report in reports)
    mels = [reports[step].losses["mel"] for step in (0, 2, 3)]
    assert reports[-1].smoothed["mel"] == pytest.approx(sum(mels) / 3)
    assert set(reports[1].smoothed) == set(reports[1].losses)


def test_a_stopped_trainer_goes_on(folder: Path) -> None:
    whole = [report.losses for report in Trainer(tiny_config(folder, run_dir=folder / "whole", weights=HEARD))]
    trainer, losses = Trainer(tiny_config(folder, weights=HEARD)), []
    trainer.stop()
    assert list(trainer) == [], "also where it has not begun"
    for report in trainer:
        losses.append(report.losses)
        trainer.stop()
    assert (trainer.stopped, trainer.finished, len(losses)) == (True, False, 1)
    losses += [report.losses for report in trainer]
    assert (trainer.stopped, trainer.finished) == (False, True)
    assert losses == whole


def test_one_that_was_stopped_and_left_goes_on_too(folder: Path) -> None:
    trainer = Trainer(tiny_config(folder, weights=HEARD))
    for _ in trainer:
        trainer.stop()
        break
    assert [report.step for report in trainer] == [2, 3, 4]


def test_a_finished_run_is_compared_once_and_as_a_whole_when_it_is_resumed(folder: Path, ticking: Ticking) -> None:
    write_sounds(folder / "sounds", count=12)
    trainer = Trainer(tiny_config(folder, validation_files=6, **TEN))
    list(trainer)
    found = trainer.comparison
    assert list(trainer) == []
    assert trainer.comparison is found
    ticking.now += 1e6
    again = Trainer.resume(folder / "run")
    assert list(again) == []
    assert again.comparison is not None
    assert again.comparison.files == 6
    assert again.exported == trainer.exported


def test_a_result_keeps_its_figures_and_takes_its_latest_name(folder: Path) -> None:
    for run, ends in (("steps", {"steps": 2}), ("minutes", {"steps": 2, "minutes": 60})):
        config = tiny_config(folder, run_dir=folder / run, name="old", weights=HEARD, validation_files=1, **ends)
        list(Trainer(config))
        list(Trainer.resume(folder / run, name="new", licence="CC0-1.0"))
        known = melvoc.info(folder / run / "generator.safetensors")
        assert (known.name, known.licence) == ("new", "CC0-1.0")
        assert known.provenance["steps"] == "2"
        assert "held out, multi_scale_mel" in known.provenance


def test_what_was_given_last_holds_also_before_the_next_checkpoint(folder: Path) -> None:
    list(Trainer(tiny_config(folder, steps=2, weights=HEARD)))
    for _ in Trainer.resume(folder / "run", steps=9, patience=3, name="bells", checkpoint_every=100):
        break  # killed: there is no checkpoint of this session
    config = Trainer.resume(folder / "run").config
    assert (config.steps, config.patience, config.name, config.checkpoint_every) == (9, 3, "bells", 100)
    config = Trainer.resume(folder / "run", minutes=5).config
    assert (config.steps, config.minutes, config.patience) == (None, 5, 3)


def test_a_run_of_steps_that_goes_on_by_the_clock_has_checkpoints_at_its_tenths(folder: Path) -> None:
    list(Trainer(tiny_config(folder, steps=2, checkpoint_every=None, weights=HEARD)))
    assert Trainer.resume(folder / "run", steps=9).config.checkpoint_every == 1000
    assert Trainer.resume(folder / "run", minutes=5).config.checkpoint_every is None


def test_patience_waits_for_the_generator_to_learn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([2.0] * 6 + [3.0] * 6)
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(figures)})
    config = tiny_config(folder, steps=50, checkpoint_every=1, patience=2, discriminator_warmup=5)
    assert [report.step for report in Trainer(config)][-1] == 8, "the first that counts, and two that are not better"


def test_a_long_name_has_samples_too(folder: Path) -> None:
    (folder / "sounds" / "0.wav").rename(folder / "sounds" / f"{'カ' * 78}.wav")
    for number in range(1, 5):
        (folder / "sounds" / f"{number}.wav").rename(folder / "sounds" / f"{'カ' * 77}{number}.wav")
    list(Trainer(tiny_config(folder, steps=1, checkpoint_every=1, samples=2, validation_files=3, weights=HEARD)))
    made = sorted((folder / "run" / "samples" / "step-00000001").glob("*.recording.wav"))
    assert [path.name[:4] for path in made] == ["1-カカ", "2-カカ"]


def test_without_a_step_there_is_nothing_to_go_on_from(folder: Path) -> None:
    trainer = Trainer(tiny_config(folder, steps=0, validation_files=1, weights=HEARD))
    assert list(trainer) == []
    assert trainer.comparison is not None
    assert trainer.comparison.longer == "--steps 1000"
    assert trainer.exported == 0


UNUSED = {
    "discriminators": {"mpd": 1.0}, "keep_discriminators": True, "discriminator_warmup": 5, "mel_only_steps": 1,
    "judge_every": 2, "phase_rotation": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSED)
def test_what_has_no_effect_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(OptionError, match=rf"{name}=.* has no effect: no loss of a hifigan .* asks for discriminators"):
        Trainer(tiny_config(folder, weights=HEARD, segment=2048, **{name: UNUSED[name]}))
    assert not (folder / "run").exists()


def test_what_decays_and_what_waits_for_nothing(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"lr_decay=0.9 has no effect with schedule='cosine'"):
        Trainer(tiny_config(folder, steps=None, minutes=5, lr_decay=0.9))
    notes = Trainer(tiny_config(folder, patience=2, validation_files=0)).notes
    assert notes == ("no file is held out, so that patience has nothing to go by; hold out some (--validation-files)",)


def test_discriminators_that_have_learnt_nothing_are_no_start(folder: Path) -> None:
    list(Trainer(tiny_config(folder, weights=HEARD)))
    start = folder / "run" / "checkpoints" / "step-00000004.pt"
    with pytest.raises(CheckpointError, match="no loss of its run asked for discriminators, so that they have learnt"):
        Trainer(tiny_config(folder, run_dir=folder / "second", warm_discriminators=start))


def test_a_vocoder_is_a_snapshot_that_another_thread_may_take(folder: Path) -> None:
    trainer, taken = Trainer(tiny_config(folder, steps=30, checkpoint_every=100, weights=HEARD)), []
    begun, over = threading.Event(), threading.Event()

    def take() -> None:
        begun.wait(60)
        while not over.is_set():
            voc = trainer.vocoder()
            voc.mel_to_waveform(voc.mel(noise(2048), sample_rate=SPEC.sample_rate))
            taken.append(voc)

    thread = threading.Thread(target=take)
    thread.start()
    losses = []
    for report in trainer:
        begun.set()
        losses.append(report.losses)
    over.set()
    thread.join()
    quiet = Trainer(tiny_config(folder, run_dir=folder / "quiet", steps=30, checkpoint_every=100, weights=HEARD))
    assert losses == [report.losses for report in quiet]
    assert taken
    assert all(isinstance(voc, NeuralVocoder) for voc in taken)
    first = {name: value.clone() for name, value in taken[0].state_dict().items()}
    assert all(torch.equal(value, first[name]) for name, value in taken[0].state_dict().items())


def test_an_estimate_leaves_no_trace(folder: Path) -> None:
    expected = [report.losses for report in Trainer(tiny_config(folder, run_dir=folder / "other", steps=3))]
    trainer = Trainer(tiny_config(folder, steps=3))
    losses = [next(trainer).losses]
    before, tensors = torch.get_rng_state(), trainer.vocoder().state_dict()
    found = trainer.estimate()
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.step == 1
    assert all(torch.equal(value, tensors[name]) for name, value in trainer.vocoder().state_dict().items())
    assert losses + [report.losses for report in trainer] == expected
    assert found.parameters == sum(parameter.numel() for parameter in trainer.vocoder().parameters())
    assert found.steps == 3
    assert found.seconds == pytest.approx(3 * found.seconds_per_step)
    assert found.sound_per_second == pytest.approx(2 * 1024 / 16000 / found.seconds_per_step)
    assert found.memory is None or found.memory > 4 * found.parameters
    with pytest.raises(melvoc.MelvocError, match=r"steps=1, but it is a whole number of at least 2"):
        trainer.estimate(1)


def test_an_estimate_measures_what_most_of_the_run_is_made_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []

    class Watched(Stepper):
        def __call__(self, *given: Any) -> dict[str, float]:
            stages.append(self.stage)
            return super().__call__(*given)

    monkeypatch.setattr("melvoc.train.estimate.Stepper", Watched)
    phases = {"mel_only_steps": 2, "discriminator_warmup": 2, "judge_every": 3}
    Trainer(tiny_config(folder, steps=20, **phases)).estimate(2)
    assert stages == ["judged", "judged", "heard", "heard"]
    stages.clear()
    Trainer(tiny_config(folder, run_dir=folder / "short", steps=2, **phases | {"judge_every": 1})).estimate(2)
    assert stages == ["heard", "heard"], "the run ends before anything is judged"


def test_a_run_of_minutes_ends_by_the_clock(folder: Path, ticking: Ticking) -> None:
    trainer = Trainer(tiny_config(folder, **TEN))
    reports = list(trainer)
    assert trainer.finished
    assert 500 < ticking.now < 660, "its comparison included"
    assert reports[0].learning_rate == pytest.approx(2e-4, rel=0.01)
    assert reports[-1].learning_rate < 1e-5
    assert all(one.learning_rate >= other.learning_rate for one, other in pairwise(reports))
    saved = [report.step for report in reports if report.checkpoint]
    assert 5 <= len(saved) <= 11
    assert saved[-1] == reports[-1].step
    assert all((report.validation is None) == (report.checkpoint is None) for report in reports)
    assert (folder / "run" / "generator.safetensors").exists()
    assert list(Trainer.resume(folder / "run")) == [], "its minutes are spent"


def test_minutes_go_on_where_a_run_was_killed(folder: Path, ticking: Ticking) -> None:
    trainer = Trainer(tiny_config(folder, **TEN))
    for report in trainer:
        if report.checkpoint:
            break
    spent = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])["spent"]
    ticking.now = 0.0
    rest = list(Trainer.resume(folder / "run"))
    assert rest[0].step == report.step + 1
    assert rest[0].learning_rate < report.learning_rate
    assert 500 < spent + ticking.now < 660


def test_a_pause_is_not_counted(folder: Path, ticking: Ticking) -> None:
    trainer = Trainer(tiny_config(folder, **TEN))
    next(iter(trainer))
    ticking.now += 1e6
    assert len(list(trainer)) > 5
