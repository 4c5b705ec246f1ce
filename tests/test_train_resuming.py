"""Runs that go on from their folder: with everything that they had, and what is given again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from training import GENERATOR, SPEC, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

from melvoc import CheckpointError
from melvoc.errors import OptionError
from melvoc.train import LossWeights, Trainer, TrainReport


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainReport]]:
    """A run of four steps with options of its own, that was begun in its folder."""
    folder = tmp_path_factory.mktemp("finished")
    write_sounds(folder / "sounds", count=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = tiny_config(Path(), seed=7, tilt_db=1.0, weights=LossWeights(mel=30), patience=9, name="bells")
        return folder, list(Trainer(config))


@pytest.fixture
def copied(finished: tuple[Path, list[TrainReport]], tmp_path: Path) -> Path:
    shutil.copytree(finished[0] / "run", tmp_path / "moved")
    (tmp_path / "moved" / "checkpoints" / "step-00000004.pt").unlink()
    return tmp_path / "moved"


def test_a_folder_is_all_that_a_run_needs_to_go_on(finished: tuple[Path, list[TrainReport]], copied: Path) -> None:
    trainer = Trainer.resume(copied)
    config = trainer.config
    assert (trainer.resumed_from, config.steps, config.seed, config.tilt_db) == (2, 4, 7, 1.0)
    assert (trainer.spec, trainer.generator, config.weights.mel, config.patience) == (SPEC, GENERATOR, 30, 9)
    assert [report.losses for report in trainer] == [report.losses for report in finished[1][2:]]
    assert trainer.vocoder().name == "bells"


def test_a_run_keeps_its_precision_on_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    monkeypatch.setattr("melvoc.train.precision._amx", lambda: True)
    first = Trainer(tiny_config(tmp_path, steps=1, precision="auto"))
    list(first)
    monkeypatch.setattr("melvoc.train.precision._amx", lambda: False)
    again = [Trainer.resume(tmp_path / "run"), Trainer(tiny_config(tmp_path, precision="auto"), resume=True)]
    assert {trainer.config.precision for trainer in (first, *again)} == {"bfloat16"}
    with pytest.raises(CheckpointError, match="precision: the run has 'bfloat16', now 'float32'"):
        Trainer.resume(tmp_path / "run", precision="float32")


def test_a_run_of_before_precisions_were_stored_goes_on_twice(copied: Path) -> None:
    path = copied / "checkpoints" / "step-00000002.pt"
    content = torch.load(path, weights_only=True)
    content["config"]["precision"] = "auto"
    torch.save(content, path)
    for _ in range(2):  # the first has written its own to config.json, and no checkpoint
        Trainer.resume(copied).close()


def test_what_is_given_again_is_compared_and_ends_are_replaced(copied: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\(seed: the run has 7, now 8\)"):
        Trainer.resume(copied, seed=8)
    with pytest.raises(CheckpointError, match=r"weights\.mel: the run has 30, now 31"):
        Trainer.resume(copied, weights=LossWeights(mel=31))
    with pytest.raises(CheckpointError, match="architecture: the run has 'hifigan', now 'vocos'"):
        Trainer.resume(copied, architecture="vocos")
    with pytest.raises(OptionError, match=r"no such field of the configuration: 'minuets', 'colour'; .*'minutes'"):
        Trainer.resume(copied, minuets=3, colour=1)
    config = Trainer.resume(copied, seed=7, minutes=5, batch_size=2, patience=1, licence="CC0-1.0").config
    assert (config.minutes, config.steps, config.patience, config.licence) == (5, None, 1, "CC0-1.0")
    assert config.schedule == "decay", "what is computed stays"
    config = Trainer.resume(copied, minutes=5, steps=9).config
    assert (config.minutes, config.steps) == (5, 9)


def test_where_the_configuration_is_damaged_the_checkpoint_has_it(copied: Path, tmp_path: Path) -> None:
    (copied / "config.json").write_text("{")
    assert Trainer.resume(copied).config.seed == 7
    (copied / "config.json").unlink()
    assert Trainer.resume(copied).config.seed == 7
    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from; start without --resume"):
        Trainer.resume(tmp_path / "none")
