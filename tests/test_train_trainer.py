"""The trainer from outside: reports, exact resuming, refusals, warm starts, what is left on disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import neural, randomised
from training import GENERATOR, GENERATORS, SPEC, noise, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

import melvoc
from melvoc import CheckpointError, MelSpec, MelSpectrogram, MelvocError, audio
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.spectrogram.file import save_mel
from melvoc.train import Discriminators, DivergedError, LossWeights, Trainer, TrainReport
from melvoc.train.folder import load_checkpoint
from melvoc.train.losses import Term
from melvoc.train.pace import learning_rates


def train(tmp_path: Path, *, resume: bool = False, **changes: Any) -> list[TrainReport]:
    if not (tmp_path / "sounds").exists():
        write_sounds(tmp_path / "sounds", count=4)
    return list(Trainer(tiny_config(tmp_path, **changes), resume=resume))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainReport]]:
    """A run of four steps: its folder is read, and copied where it is changed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder)


@pytest.fixture
def copied(finished: tuple[Path, list[TrainReport]], tmp_path: Path) -> Path:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_reports_every_step_and_leaves_a_vocoder(finished: tuple[Path, list[TrainReport]]) -> None:
    folder, reports = finished
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert {"discriminator", "adversarial", "feature", "mel"} < set(reports[0].losses)
    assert [report.validation is not None for report in reports] == [False, True, False, True]
    assert all(report.seconds > 0 and report.learning_rate == 2e-4 for report in reports)
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert lines == [report.to_dict() for report in reports]
    assert names(folder / "run" / "checkpoints") == ["step-00000002.pt", "step-00000004.pt"]
    vocoder = melvoc.load(folder / "run" / "generator.safetensors", device="cpu")
    assert vocoder.spec == SPEC
    mel = vocoder.mel(noise(2048), sample_rate=SPEC.sample_rate)
    assert vocoder.mel_to_waveform(mel).shape == (1, 1, 2048)
    assert "discriminators.pt" not in names(folder / "run")


def test_left_with_break_and_resumed_it_gives_the_same_losses(
    finished: tuple[Path, list[TrainReport]], tmp_path: Path
) -> None:
    _, whole = finished
    write_sounds(tmp_path / "sounds", count=4)
    for report in Trainer(tiny_config(tmp_path)):
        if report.step == 3:
            break
    assert not (tmp_path / "run" / "generator.safetensors").exists()
    torch.manual_seed(99)  # whatever else the process draws meanwhile
    rest = train(tmp_path, resume=True)
    assert [report.losses for report in rest] == [report.losses for report in whole[2:]]
    trainer = Trainer(tiny_config(tmp_path), resume=True)
    sound = f"3 files, {trainer.seconds_of_sound:.0f} s of sound"
    assert repr(trainer) == f"<Trainer of hifigan: step 4 of 4, {sound}, cpu, in {str(tmp_path / 'run')!r}>"
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]  # the third was made twice, and is logged once
    mine = melvoc.load(tmp_path / "run" / "generator.safetensors", device="cpu")
    theirs = melvoc.load(finished[0] / "run" / "generator.safetensors", device="cpu")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())


OTHERS = [name for name in GENERATORS if name != "hifigan"]  # whose runs the fixture and the tests above have


@pytest.mark.parametrize("name", OTHERS)
def test_every_architecture_trains_resumes_exactly_and_starts_another_run(tmp_path: Path, name: str) -> None:
    weights = LossWeights(adversarial=1, feature=1, mel=45, stft=1, multi_scale_mel=1, refined=0.5)
    changes = {"architecture": name, "generator": GENERATORS[name], "weights": weights, "segment": 2560}
    changes |= {"phase_rotation": 1.0, "precision": "bfloat16"}
    write_sounds(tmp_path / "sounds", count=4)
    whole = train(tmp_path, run_dir=tmp_path / "whole", steps=3, checkpoint_every=1, **changes)
    assert {"discriminator", "adversarial", "feature", "mel", "stft", "refined_mel"} < set(whole[0].losses)
    for report in Trainer(tiny_config(tmp_path, steps=3, checkpoint_every=1, **changes)):
        if report.step == 1:
            break
    again = changes | {"generator": None, "segment": None, "weights": LossWeights()}
    rest = train(tmp_path, resume=True, steps=3, **again)
    assert [report.losses for report in rest] == [report.losses for report in whole[1:]]
    files = [tmp_path / run / "generator.safetensors" for run in ("whole", "run")]
    mine, theirs = (melvoc.load(file, device="cpu") for file in files)
    assert mine.architecture.name == name
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in mine.state_dict().items())
    moved = Trainer(tiny_config(tmp_path, run_dir=tmp_path / "new", **changes)).vocoder().state_dict()
    assert not [key for key, value in mine.state_dict().items() if torch.equal(value, moved[key])]
    mel = mine.mel(noise(2048), sample_rate=SPEC.sample_rate)
    for source in (files[0], tmp_path / "whole" / "checkpoints" / "step-00000003.pt"):
        found = {"spec": None, "generator": None, "segment": None, "warm_start": source}
        warm = tiny_config(tmp_path, run_dir=tmp_path / "warm", **found)
        trainer = Trainer(warm)
        assert (trainer.spec, trainer.generator, trainer.config.architecture) == (SPEC, GENERATORS[name], name)
        torch.testing.assert_close(trainer.vocoder()(mel), mine(mel), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_nan_stops_every_architectures_run(tmp_path: Path, name: str) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    trainer = Trainer(tiny_config(tmp_path, generator=GENERATORS[name], segment=2048))
    next(trainer)
    before = {key: value.clone() for key, value in trainer.state.generator.folded().items()}
    nan = Term(name="mel", weight=1.0, loss=lambda generated, real: generated.sum() * float("nan"))
    trainer._stepper.heard = [nan]
    with pytest.raises(DivergedError, match="step 2: mel is nan"):
        next(trainer)
    assert all(torch.equal(value, before[key]) for key, value in trainer.state.generator.folded().items())


def test_the_folder_of_sounds_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds, walked, walk = write_sounds(tmp_path / "sounds", count=4), [], os.walk
    monkeypatch.setattr(os, "walk", lambda root, **options: walked.append(root) or walk(root, **options))
    Trainer(tiny_config(tmp_path))
    assert walked == [sounds]


def test_stop_ends_after_the_step_and_save_lets_it_go_on(
    finished: tuple[Path, list[TrainReport]], tmp_path: Path
) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    trainer = Trainer(tiny_config(tmp_path))
    for _ in trainer:
        trainer.stop()
    assert trainer.stopped
    assert trainer.save().name == "step-00000001.pt"
    assert [report.losses for report in train(tmp_path, resume=True)] == [r.losses for r in finished[1][1:]]


@pytest.mark.parametrize(("steps", "said"), [(3, True), (4, False)])
def test_a_run_that_ends_before_the_generator_learns_says_so(tmp_path: Path, steps: int, said: bool) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    config = tiny_config(tmp_path, steps=steps, discriminator_warmup=3, validation_files=1)
    with Trainer(config) as trainer:
        list(trainer)
        assert trainer.comparison is not None
        assert ("in all 3 steps the discriminators alone have learnt" in trainer.comparison.words) is said


def test_more_steps_are_added_to_a_finished_run_and_none_are_made_past_the_end(copied: Path) -> None:
    (copied / "run" / "generator.safetensors").unlink()
    assert train(copied, resume=True, steps=3) == []
    assert (copied / "run" / "generator.safetensors").exists()
    assert [report.step for report in train(copied, resume=True, steps=5, checkpoint_every=50)] == [5]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed: the run has 0, now 1"),
        ({"segment": 2048}, "segment: the run has 1024, now 2048"),
        ({"weights": LossWeights(feature=1.0)}, r"weights\.feature: the run has 2\.0, now 1\.0"),
        ({"batch_size": 3}, r"batch_size \(of all processes\): the run has 2, now 3"),
        ({"learning_rate": 1e-3, "tilt_db": 0.0}, r"learning_rate: .*; tilt_db: the run has 3\.0, now 0\.0"),
        ({"preset": "full"}, "preset: the run has 'slim', now 'full'"),
        ({"spec": MelSpec.from_dict(SPEC.to_dict() | {"f_min": 20.0})}, r"spec\.f_min: the run has 0\.0, now 20\.0"),
        ({"spec": MelSpec.from_dict(SPEC.to_dict() | {"n_mels": 24}), "generator": None}, r"spec\.n_mels: .* now 24"),
    ],
)
def test_another_configuration_is_refused_field_by_field(copied: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        train(copied, resume=True, steps=6, **changes)


def test_other_sounds_are_refused(copied: Path) -> None:
    audio.write(copied / "sounds" / "9.wav", noise(5000, seed=9), 16000)
    with pytest.raises(CheckpointError, match=r"not the sounds of this run \(files: 4, now 5"):
        train(copied, resume=True, steps=6)


def test_resuming_nothing_and_starting_over_something_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=r"has a run at step 4 already; resume it"):
        train(copied)
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from; start without --resume"):
        train(copied, resume=True, run_dir=tmp_path / "other")


def test_what_was_left_open_is_taken_from_the_run(copied: Path) -> None:
    trainer = Trainer(tiny_config(copied, spec=None, generator=None, steps=4), resume=True)
    assert (trainer.spec, trainer.generator, trainer.resumed_from) == (SPEC, GENERATOR, 4)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(copied: Path) -> None:
    last = copied / "run" / "checkpoints" / "step-00000004.pt"
    last.write_bytes(last.read_bytes()[:5000])
    (last.parent / ".step-00000004.x.part.pt").write_bytes(b"half")  # what SIGKILL may leave
    trainer = Trainer(tiny_config(copied), resume=True)
    assert trainer.resumed_from == 2
    assert [f"{last}: damaged" in note and note.endswith("; passed over") for note in trainer.notes] == [True]
    assert [report.step for report in trainer] == [3, 4]
    assert names(last.parent) == ["step-00000002.pt", "step-00000004.pt"]
    assert load_checkpoint(last)["step"] == 4, "the damaged one was written again"


@pytest.mark.parametrize("name", ["step-40.pt", "step-4.pt", "step-00000040.pt.bak", "step-00000009.pt", "notes.txt"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_stray_file_does_not_block_a_resume(copied: Path, name: str, content: bytes | None) -> None:
    stray = copied / "run" / "checkpoints" / name
    if content is None:
        torch.save({"weights": torch.zeros(3)}, stray)
    else:
        stray.write_bytes(content)
    trainer = Trainer(tiny_config(copied, steps=5), resume=True)
    assert trainer.resumed_from == 4
    assert len(trainer.notes) == (name == "step-00000009.pt"), "only what bears a checkpoint's name is worth a word"
    assert [report.step for report in trainer] == [5]
    assert stray.exists()


def test_without_any_checkpoint_that_can_be_read_the_way_out_is_another_folder(copied: Path) -> None:
    for path in (copied / "run" / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000004\.pt: damaged .*no other .*start a new run in another"):
        train(copied, resume=True)


def test_what_is_cut_or_mostly_padding_is_said_once(tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", count=5, samples=3000)
    content = (sounds / "4.wav").read_bytes()
    (sounds / "4.wav").write_bytes(content[: len(content) - 1000])
    audio.write(sounds / "short.wav", noise(500), 16000)
    trainer = Trainer(tiny_config(tmp_path, segment=1024, validation_files=0))
    assert [note.partition(" (")[0] for note in trainer.notes] == ["4.wav: cut or damaged"]
    trainer = Trainer(tiny_config(tmp_path, segment=16384, validation_files=0))
    assert "% of each batch is padding: 6 of 6 files are shorter than a segment (16384 samples)" in trainer.notes[1]
    assert len(trainer.notes) == 2


def test_a_segment_that_was_not_given_fits_the_sounds(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=5, samples=3000)
    trainer = Trainer(tiny_config(tmp_path, segment=None, steps=1, validation_files=0))
    assert (trainer.config.segment, trainer.notes) == (4096, ())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["segment"] == 4096
    list(trainer)
    assert Trainer.resume(tmp_path / "run").config.segment == 4096


def test_whatever_else_lies_in_the_folder_is_named(tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", count=3)
    for name in ("a.m4a", "b.m4a", "notes.txt"):
        (sounds / name).write_bytes(b"x")
    (sounds / "0.safetensors").write_bytes(b"x")
    named = {entry.name: entry.reason for entry in Trainer(tiny_config(tmp_path)).skipped}
    assert set(named) == {"a.m4a and 1 more .m4a", "notes.txt", "0.safetensors"}
    assert "ffmpeg -i a.m4a a.wav" in named["a.m4a and 1 more .m4a"]
    for number in range(3):
        wave, _ = audio.read(sounds / f"{number}.wav")
        save_mel(sounds / f"{number}.safetensors", MelSpectrogram(SPEC)(wave), SPEC)
    with_mels = Trainer(tiny_config(tmp_path, mels_dir=sounds)).skipped
    assert {entry.name for entry in with_mels} == set(named) - {"0.safetensors"}, "mels are in use"


def test_half_a_second_is_asked_of_what_is_trained_on(tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", count=3, samples=600)
    audio.write(sounds / "long.wav", noise(16000), 16000)
    seeds = range(12)
    refused = []
    for seed in seeds:
        try:
            assert Trainer(tiny_config(tmp_path, seed=seed, segment=1024)).seconds_of_sound >= 0.5
        except MelvocError as error:
            refused.append(str(error))
    assert 0 < len(refused) < len(seeds)
    for text in refused:
        assert "with 1 files held out 0.2" in text
        assert "hold out fewer (--validation-files 0" in text


def test_the_last_k_checkpoints_and_the_best_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distances = iter([5.0, 1.0, 3.0, 4.0, 2.0])
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {"multi_scale_mel": next(distances)})
    train(tmp_path, steps=5, checkpoint_every=1, keep_checkpoints=2)
    assert names(tmp_path / "run" / "checkpoints") == [f"step-0000000{step}.pt" for step in (2, 4, 5)]
    best = melvoc.load(tmp_path / "run" / "best.safetensors", device="cpu")
    assert best.provenance["steps"] == "2"


def test_without_enough_files_nothing_is_held_out(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=3)
    reports = train(tmp_path, steps=1)
    assert reports[0].validation is None
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_discriminators_are_kept_on_request_and_begin_another_run(tmp_path: Path) -> None:
    train(tmp_path, steps=1, keep_discriminators=True)
    kept = tmp_path / "run" / "discriminators.pt"
    Discriminators(divisor=8).load_published(torch.load(kept, weights_only=True))
    config = tiny_config(tmp_path, run_dir=tmp_path / "second", warm_discriminators=kept)
    trainer = Trainer(config)
    state = torch.load(kept, weights_only=True)
    assert all(torch.equal(v, state["mpd"][k]) for k, v in trainer.state.discriminators.mpd.state_dict().items())
    assert trainer.config.discriminator_warmup == 0


def test_a_warm_start_begins_with_the_files_sound_spec_and_generator(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    network = randomised(HiFiGAN(GENERATOR)).requires_grad_(False)
    melvoc.save(neural(network, name="first", spec=SPEC), tmp_path / "first.safetensors")
    config = tiny_config(tmp_path, spec=None, generator=None, warm_start=tmp_path / "first.safetensors")
    trainer = Trainer(config)
    assert (trainer.spec, trainer.generator) == (SPEC, GENERATOR)
    assert trainer.config.discriminator_warmup == 500  # the discriminators are new
    assert trainer.config.ramp_steps == 1000
    mel = torch.randn(1, 20, 16) - 4
    torch.testing.assert_close(trainer.vocoder()(mel), network(mel), atol=1e-5, rtol=1e-4)
    report = next(iter(trainer))
    assert set(report.losses) == {"discriminator", "discriminator_gradient"}


@pytest.mark.parametrize("file", ["g_00001000", "generator.pt", "the folder"])
def test_a_warm_start_from_a_published_generator_beside_its_configuration(tmp_path: Path, file: str) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    network = randomised(HiFiGAN(GENERATOR)).requires_grad_(False)
    place = tmp_path / "published"
    place.mkdir()
    torch.save({"generator": network.state_dict()}, place / (file if file != "the folder" else "g_1"))
    published = GENERATOR.to_dict() | {
        "num_mels": 20, "sampling_rate": 16000, "n_fft": 256, "hop_size": 64, "win_size": 256, "fmin": 0, "fmax": None,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(published))
    source = place if file == "the folder" else place / file
    trainer = Trainer(tiny_config(tmp_path, spec=None, generator=None, warm_start=source))
    assert (trainer.spec, trainer.generator) == (SPEC, GENERATOR)
    mel = torch.randn(1, 20, 16) - 4
    torch.testing.assert_close(trainer.vocoder()(mel), network(mel), atol=1e-5, rtol=1e-4)


def test_a_warm_start_from_a_checkpoint_of_another_run(
    finished: tuple[Path, list[TrainReport]], tmp_path: Path
) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    source = finished[0] / "run" / "checkpoints" / "step-00000004.pt"
    trainer = Trainer(tiny_config(tmp_path, warm_start=source, warm_discriminators=source, learning_rate=1e-5))
    average = load_checkpoint(source)["average"]
    for name, value in trainer.state.generator.folded().items():
        torch.testing.assert_close(value, average[name])
    assert {"mel", "discriminator"} < set(next(iter(trainer)).losses)


def test_a_warm_start_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    melvoc.save(melvoc.load("griffinlim", spec=SPEC), tmp_path / "gl.safetensors")
    with pytest.raises(CheckpointError, match=r"architecture='griffinlim', but melvoc trains hifigan"):
        Trainer(tiny_config(tmp_path, warm_start=tmp_path / "gl.safetensors"))
    (tmp_path / "generator_v1").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"no config\.json, config\.yaml or .* beside it.*a warm start is a melvoc"
    ):
        Trainer(tiny_config(tmp_path, warm_start=tmp_path / "generator_v1"))
    for missing in ("none", "none.safetensors"):
        with pytest.raises(CheckpointError, match="no such file"):
            Trainer(tiny_config(tmp_path, warm_start=tmp_path / missing))
    with pytest.raises(
        CheckpointError, match=r"no checkpoint is in this folder.*a warm start is a melvoc file"
    ) as seen:
        Trainer(tiny_config(tmp_path, warm_start=tmp_path / "sounds"))
    assert seen.value.path == str(tmp_path / "sounds")
    with pytest.raises(CheckpointError, match="no such file"):
        Trainer(tiny_config(tmp_path, warm_start=tmp_path / "none.pt"))


def test_a_run_on_another_models_mels(tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", count=5)
    (tmp_path / "mels").mkdir()
    for path in sounds.iterdir():
        wave, _ = audio.read(path)
        save_mel(tmp_path / "mels" / f"{path.stem}.safetensors", MelSpectrogram(SPEC)(wave[0]) + 0.1, SPEC)
    (tmp_path / "mels" / "0.safetensors").write_bytes(b"x")
    trainer = Trainer(tiny_config(tmp_path, spec=None, generator=None, mels_dir=tmp_path / "mels"))
    assert trainer.spec == SPEC  # what the mels say
    assert [entry.name for entry in trainer.skipped] == ["0.wav"]
    assert "its mel cannot be read" in trainer.skipped[0].reason
    reports = list(trainer)
    assert reports[-1].validation is not None
    with pytest.raises(CheckpointError, match="paired mels: True, now False"):
        train(tmp_path, resume=True, spec=None, generator=None, steps=9)


def test_nan_stops_the_run_and_the_last_checkpoint_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    trainer = Trainer(tiny_config(tmp_path, weights=LossWeights(adversarial=0, feature=0)))
    reports = iter(trainer)
    next(reports), next(reports)
    before = {name: value.clone() for name, value in trainer.state.generator.folded().items()}
    nan = Term(name="mel", weight=1.0, loss=lambda generated, real: generated.sum() * float("nan"))
    monkeypatch.setattr(trainer._stepper, "heard", [nan])
    with pytest.raises(DivergedError, match=r"step 3: mel is nan .*last good state is .*step-00000002.pt"):
        next(reports)
    assert all(torch.equal(value, before[name]) for name, value in trainer.state.generator.folded().items())
    assert all(
        bool(torch.isfinite(v).all())
        for v in load_checkpoint(tmp_path / "run/checkpoints/step-00000002.pt")["average"].values()
    )


def test_a_full_disk_is_said_before_the_work_and_loses_nothing_during_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    with monkeypatch.context() as patch:
        patch.setattr("melvoc.train.folder.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
        with pytest.raises(MelvocError, match=r"0 MB are free, but 2 more checkpoints of about 31 MB"):
            Trainer(tiny_config(tmp_path))
    trainer = Trainer(tiny_config(tmp_path))
    reports = iter(trainer)
    next(reports), next(reports), next(reports)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("melvoc.train.folder.torch.save", full)
    with pytest.raises(MelvocError, match=r"No space left.*step-00000002.pt is whole"):
        next(reports)
    monkeypatch.undo()
    assert names(tmp_path / "run" / "checkpoints") == ["step-00000002.pt"]
    assert [report.step for report in train(tmp_path, resume=True)] == [3, 4]


def test_a_run_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MelvocError, match="cannot be written"):
        train(tmp_path, run_dir=tmp_path / "file" / "run")


def test_the_learning_rate_is_a_function_of_the_step(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lr_decay=0.5)
    assert [learning_rates(config.resolved(), step, 10)[1] for step in (0, 9, 10, 25)] == [2e-4, 2e-4, 1e-4, 5e-5]


def _ramp(config: Any, step: int) -> float:
    generator, discriminators = learning_rates(config.resolved(), step, 10**9)
    return generator / discriminators


def test_a_warm_started_generators_rate_rises_once_it_learns(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, ramp_steps=4, discriminator_warmup=2)
    assert [_ramp(config, step) for step in range(8)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    config = tiny_config(tmp_path, ramp_steps=2, mel_only_steps=3, discriminator_warmup=2)
    assert [_ramp(config, step) for step in range(7)] == [0.5, 1, 1, 1, 1, 1, 1]
    assert _ramp(tiny_config(tmp_path), 0) == 1


def test_a_small_sets_rate_decays_no_faster_than_every_thousand_steps(copied: Path) -> None:
    assert Trainer(tiny_config(copied, steps=4), resume=True).decay_steps == 1000


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    reports = train(
        tmp_path, steps=60, checkpoint_every=100, learning_rate=2e-3, weights=LossWeights(adversarial=0, feature=0),
        validation_files=0,
    )  # fmt: skip
    first, last = (sum(report.losses["mel"] for report in part) for part in (reports[:5], reports[-5:]))
    assert last < 0.5 * first


# Progress


def test_the_stages_of_a_run(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done, total) not in told[-1:]:  # while it waits it says the same again
            told.append((stage, done, total))

    write_sounds(tmp_path / "sounds", count=4)
    config = tiny_config(tmp_path, steps=1, validation_files=2)
    with Trainer(config, progress=progress) as trainer:
        assert [event[0] for event in told if event[1] == 0] == ["find", "read", "prepare"]
        assert [event for event in told if event[0] == "read"] == [("read", done, 4) for done in range(5)]
        told.clear()
        assert len(list(trainer)) == 1
    assert [event[0] for event in told if event[1] == 0] == [
        "validate",
        "write",
        "write",
        "write",
        "compare",
        "write",
        "write",
    ]
    for stage in ("validate", "compare"):
        assert [event for event in told if event[0] == stage] == [(stage, done, 2) for done in range(3)]


@pytest.mark.parametrize("stage", ["find", "read", "prepare", "validate", "write"])
def test_a_run_is_cancelled_and_its_files_are_whole(tmp_path: Path, stage: str) -> None:
    def progress(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    write_sounds(tmp_path / "sounds", count=4)
    config = tiny_config(tmp_path, steps=1, validation_files=2)
    with pytest.raises(KeyboardInterrupt), Trainer(config, progress=progress) as trainer:
        for _ in trainer:
            pass
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert set(left) <= {"config.json", "log.jsonl"}, "nothing half-written"
    with Trainer(config) as trainer:
        assert len(list(trainer)) == 1


def test_what_a_network_draws_is_the_seeds_and_the_hosts_numbers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumes exactly, whatever the application has drawn meanwhile, which is left alone in turn."""
    begin, forward = HiFiGAN.__init__, HiFiGAN.forward

    def with_dropout(self: HiFiGAN, config: HiFiGANConfig) -> None:
        begin(self, config)
        self.dropout = torch.nn.Dropout(0.2)

    monkeypatch.setattr(HiFiGAN, "__init__", with_dropout)
    monkeypatch.setattr(HiFiGAN, "forward", lambda self, mel: forward(self, self.dropout(mel)))
    write_sounds(tmp_path / "sounds", count=2)

    def losses(run: str, stop: int) -> list[dict[str, float]]:
        torch.manual_seed(len(run))  # the application's own
        trainer = Trainer(tiny_config(tmp_path, run_dir=tmp_path / run, steps=4, checkpoint_every=1))
        before = torch.get_rng_state()
        found = []
        for report in trainer:
            found.append(report.losses)
            assert torch.equal(torch.get_rng_state(), before)
            if report.step == stop:
                break
        else:
            return found
        torch.manual_seed(99)
        before = torch.get_rng_state()
        resumed = Trainer.resume(tmp_path / run)
        assert torch.equal(torch.get_rng_state(), before)
        return found + [report.losses for report in resumed]

    whole = losses("whole", 9)
    assert losses("in two", 2) == whole
