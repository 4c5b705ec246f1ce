"""What a run promises, for every architecture that is trained; test_train_trainer.py has more of one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from training import GENERATORS, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

import melvoc
from melvoc import MelvocError
from melvoc.train import LossWeights, Trainer
from melvoc.train.recipes import trained

pytestmark = pytest.mark.parametrize("name", [record.name for record, _ in trained()])


def small(folder: Path, name: str, **changes: object) -> Trainer:
    values = {"generator": GENERATORS[name], "segment": 2048, "discriminators": {"mrd": 1.0}, "validation_files": 0}
    values["weights"] = LossWeights(adversarial=1.0, feature=1.0)  # whatever the recipe has
    return Trainer(tiny_config(folder, **values | changes))


def test_a_full_disk_is_said_before_the_work_and_loses_nothing_during_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    with monkeypatch.context() as patch:
        patch.setattr("melvoc.train.folder.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
        with pytest.raises(MelvocError, match=r"0 MB are free, but 2 more checkpoints of about \d+ MB"):
            small(tmp_path, name, steps=2, checkpoint_every=1)
    trainer = small(tmp_path, name, steps=2, checkpoint_every=1)
    next(trainer)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("melvoc.train.folder.torch.save", full)
        with pytest.raises(MelvocError, match=r"No space left.*step-00000001.pt is whole"):
            next(trainer)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000001.pt"]
    left_open = {"generator": None, "spec": None, "segment": None, "validation_files": 0}
    assert [report.step for report in Trainer(tiny_config(tmp_path, steps=2, **left_open), resume=True)] == [2]
    assert melvoc.load(tmp_path / "run" / "generator.safetensors", device="cpu").architecture.name == name


def test_a_folder_without_sound_or_that_cannot_be_made_is_said_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "sounds").mkdir()
    with pytest.raises(MelvocError, match=re.escape(str(tmp_path / "sounds"))):
        small(tmp_path, name)
    (tmp_path / "sounds" / "0.wav").write_bytes(b"no sound")
    with pytest.raises(MelvocError, match="0.wav"):
        small(tmp_path, name)
    (tmp_path / "sounds" / "0.wav").unlink()
    write_sounds(tmp_path / "sounds", count=4)
    (tmp_path / "file").touch()
    with pytest.raises(MelvocError, match="cannot be written"):
        small(tmp_path, name, run_dir=tmp_path / "file" / "run")


def test_every_judge_teaches_every_generator(tmp_path: Path, name: str) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    judges = {"mpd": 0.5, "msd": 0.5, "mrd": 0.5, "cqt": 0.5}
    trainer = small(tmp_path, name, discriminators=judges)
    before = {key: value.clone() for key, value in trainer.state.generator.folded().items()}
    report = next(trainer)
    assert all(torch.isfinite(torch.tensor(value)) for value in report.losses.values())
    after = trainer.state.generator.folded()
    assert sum((value != after[key]).any().item() for key, value in before.items()) > 3
