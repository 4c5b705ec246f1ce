"""Validation: its figures are the metrics' of those names, and any length of file has them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import Tensor, nn
from training import SPEC, noise, one_thread, tiny_config, write_sounds  # noqa: F401

from melvoc.metrics.mel_l1 import mel_l1
from melvoc.metrics.mr_stft import mr_stft
from melvoc.metrics.multi_scale_mel import multi_scale_mel
from melvoc.train.best import Best
from melvoc.train.sounds import Sound
from melvoc.train.trainer import Trainer
from melvoc.train.validate import DECISIVE, validate


class Echo(nn.Module):
    """Makes the same sound of any mel."""

    def __init__(self, sound: Tensor) -> None:
        super().__init__()
        self.sound = nn.Parameter(sound)

    def forward(self, mel: Tensor) -> Tensor:
        return self.sound[None, None, : SPEC.samples(mel.shape[-1])]


def test_the_figures_are_those_of_evaluation() -> None:
    real, made = noise(6400), noise(6400, seed=5)
    found = validate(Echo(made), [Sound(name="a", wave=real)], SPEC, segment=1024)
    expected = {
        "multi_scale_mel": multi_scale_mel(real, made, 16000),
        "mel_l1": mel_l1(real, made, 16000),
        "mr_stft": mr_stft(real, made, 16000),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert next(iter(found)) == DECISIVE


def test_they_are_means_over_files_and_there_are_none_without_files() -> None:
    one, other = (Sound(name=name, wave=noise(6400, seed=seed)) for name, seed in (("a", 1), ("b", 2)))
    network = Echo(noise(6400, seed=5))
    alone = [validate(network, [sound], SPEC, segment=1024) for sound in (one, other)]
    both = validate(network, [one, other], SPEC, segment=1024)
    assert both == pytest.approx({name: (alone[0][name] + alone[1][name]) / 2 for name in both})
    assert validate(network, [], SPEC, segment=1024) == {}


def test_a_file_of_a_few_frames_has_figures_too() -> None:
    found = validate(Echo(noise(2000, seed=5)), [Sound(name="a", wave=noise(300))], SPEC, segment=320)
    assert all(0 < value < 100 for value in found.values())


def best_of(figures: list[float]) -> int | None:
    best = Best()
    for step, figure in enumerate(figures, 1):
        best.heard({DECISIVE: figure})
        best.saves(step, {DECISIVE: figure})
    return best.step


@pytest.mark.parametrize(
    ("figures", "step"),
    [
        ([3.0, 2.0, 1.0], 3),
        ([1.0, 1.0], 2),
        ([1.0, 1.019, 1.015], 3),
        ([1.0, 1.021, 1.5], 1),
        ([1.0, 1.01, 1.019, 1.028], 3),  # of the least, not of the one before
        ([1.0, 1.015, 0.98, 1.01], 3),
    ],
)
def test_the_best_is_the_latest_that_is_next_to_the_least(figures: list[float], step: int) -> None:
    """A few held-out files do not tell apart what differs by less, and the later one has learnt more."""
    assert best_of(figures) == step


def test_a_validation_between_checkpoints_is_no_checkpoints_figure() -> None:
    best = Best()
    for step, figure in enumerate([1.0, 0.7, 0.72], 1):
        best.heard({DECISIVE: figure})
        if step != 2:
            assert best.saves(step, {DECISIVE: figure}), "of the two that there are it is the better one"
    assert (best.step, best.least, best.least_saved, best.stale) == (3, 0.7, 0.72, 1)
    assert vars(Best.from_dict(best.to_dict())) == vars(best)


def test_the_best_of_a_warm_up_is_kept() -> None:
    best = Best()
    assert best.saves(5, {DECISIVE: 1.0}), "and it was not heard: the generator was frozen"
    again = Best.from_dict(best.to_dict())
    assert (again.step, again.saves(10, {DECISIVE: 9.0})) == (5, False)


def test_a_run_whose_best_is_by_an_older_figure_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    trainer = Trainer(tiny_config(tmp_path, steps=1, checkpoint_every=1))
    trainer._output.best = Best.from_dict({"step": 1, "mel": 0.1, "stft": 0.1})
    monkeypatch.setattr("melvoc.train.output.validate", lambda *args, **kwargs: {DECISIVE: 1.0})
    assert next(trainer).validation == {DECISIVE: 1.0}
    assert trainer._output.best.to_dict() == {"step": 1, DECISIVE: 1.0, "least": 1.0, "stale": 0, "least_saved": 1.0}


def test_a_validation_that_is_nan_is_no_best() -> None:
    best = Best()
    best.heard({"multi_scale_mel": 1.0})
    assert best.saves(10, {"multi_scale_mel": 1.0})
    for step, figure in ((20, math.nan), (30, math.inf)):
        best.heard({"multi_scale_mel": figure})
        assert not best.saves(step, {"multi_scale_mel": figure})
    assert (best.step, best.least, best.least_saved, best.stale) == (10, 1.0, 1.0, 2), "patience does not wait for it"
