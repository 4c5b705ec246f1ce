"""How a result compares with Griffin-Lim: figures of the same mels, and words that promise nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from training import SPEC, noise, one_thread  # noqa: F401 - one_thread is used by being here

from melvoc import MelvocError
from melvoc.griffinlim import GriffinLim
from melvoc.metrics import Metric
from melvoc.metrics.multi_scale_mel import multi_scale_mel
from melvoc.train import Comparison
from melvoc.train import comparison as module
from melvoc.train.comparison import compare
from melvoc.train.sounds import Sound


class Teller:
    """A vocoder that gives what it is told to, refined or not."""

    spec, device = SPEC, torch.device("cpu")

    def __init__(self, raw: Tensor, refined: Tensor) -> None:
        self.waves = {0: raw, 4: refined}

    def mel_to_waveform(self, mel: Tensor, *, refine: int, **options: Any) -> Tensor:
        return self.waves[refine][None, None, : SPEC.samples(mel.shape[-1])]


def row(raw: float, refined: float, rival: float) -> dict[str, float]:
    return {"raw": raw, "refine=4": refined, "griffinlim": rival}


def test_all_three_are_measured_on_the_same_excerpt() -> None:
    wave = noise(6400)
    other = noise(6400, seed=5)
    found = compare(Teller(other, wave), [Sound(name="a", wave=wave)], segment=1024, longer="--minutes 4")  # type: ignore[arg-type]
    rival = GriffinLim(spec=SPEC).mel_to_waveform(GriffinLim(spec=SPEC).mel(wave, sample_rate=16000))[0, 0]
    expected = row(multi_scale_mel(wave, other, 16000), 0.0, multi_scale_mel(wave, rival, 16000))
    assert found.figures["multi_scale_mel"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.verdicts["multi_scale_mel"] == "refine=4"
    assert found.files == 1
    assert {"multi_scale_mel", "mel_l1"} <= set(found.figures)


def test_figures_are_means_over_files_and_late_ends_after_one() -> None:
    sounds = [Sound(name=str(seed), wave=noise(6400, seed=seed)) for seed in range(3)]
    teller = Teller(noise(6400, seed=8), noise(6400, seed=9))
    alone = [compare(teller, [sound], segment=1024, longer="").figures["mel_l1"]["raw"] for sound in sounds]  # type: ignore[arg-type]
    found = compare(teller, sounds, segment=1024, longer="")  # type: ignore[arg-type]
    assert found.figures["mel_l1"]["raw"] == pytest.approx(sum(alone) / 3)
    done: list[int] = []
    late = compare(teller, sounds, segment=1024, longer="", late=lambda: True, report=done.append)  # type: ignore[arg-type]
    assert (late.files, done) == (1, [1])
    assert late.figures["mel_l1"]["raw"] == pytest.approx(alone[0])


def test_a_metric_that_is_missing_or_has_no_figure_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(reference: Tensor, sound: Tensor, rate: int) -> float:
        raise MelvocError("silent")

    deaf = Metric(
        name="deaf", title="", function=refuses, better="higher", low=0, high=1, source="", deaf_to="everything"
    )
    monkeypatch.setattr(module, "METRICS", (*module.METRICS[:2], deaf))
    found = compare(Teller(noise(6400), noise(6400)), [Sound(name="a", wave=noise(6400))], segment=1024, longer="")  # type: ignore[arg-type]
    assert set(found.figures) == {"multi_scale_mel", "mel_l1"}


def test_the_words_say_what_is_not_there_yet() -> None:
    figures = {"multi_scale_mel": row(1.2, 0.61, 0.7), "zimtohrli": row(3.25, 4.7, 4.73)}
    found = Comparison(files=6, figures=figures, longer="--resume --minutes 120")
    assert found.words == (
        "on 6 held-out files: multi-scale mel 1.2 as it is, 0.61 with 4 rounds of refinement, Griffin-Lim 0.7: better "
        "with refinement; Zimtohrli 3.25 as it is, 4.7 with 4 rounds of refinement, Griffin-Lim 4.73: not there yet; "
        "train longer (--resume --minutes 120), and use --refine 4 until then"
    )
    assert not found.better
    assert found.to_dict()["verdicts"] == {"multi_scale_mel": "refine=4", "zimtohrli": None}


def test_the_words_of_one_that_has_stopped_getting_better() -> None:
    words = Comparison(files=1, figures={"mel_l1": row(0.4, 0.3, 0.2)}, longer="").words
    assert words.endswith(
        "not there yet; it has stopped getting better on them, so more sounds help now, not more time; "
        "use it with --refine 4"
    )


@pytest.mark.parametrize("files", [0, 2])
def test_the_words_of_one_that_has_not_moved(files: int) -> None:
    """Even where it is better: that is what it began with."""
    figures = {"mel_l1": row(0.1, 0.1, 0.2)} if files else {}
    words = Comparison(files=files, figures=figures, longer="--resume --steps 40", unmoved=10).words
    assert words.endswith(
        "; the generator is as it began: in all 10 steps the discriminators alone have learnt; lower "
        "--discriminator-warmup, or give the run more time"
    )


def test_the_words_of_one_that_is_better() -> None:
    refined = Comparison(files=1, figures={"visqol": row(4.0, 4.5, 4.4), "multi_scale_mel": row(0.1, 0.1, 0.2)})
    assert refined.better
    assert refined.words.startswith("on 1 held-out file: ViSQOL 4 as it is")
    assert refined.words.endswith("better; use it with --refine 4")
    alone = Comparison(files=2, figures={"multi_scale_mel": row(0.1, 0.1, 0.2)})
    assert alone.words.endswith("better; it is better than Griffin-Lim as it is")
    equal = Comparison(files=2, figures={"multi_scale_mel": row(0.2, 0.2, 0.2)}, longer="--steps 4")
    assert equal.verdicts == {"multi_scale_mel": None}
    assert not equal.better


def test_what_decides_is_what_tells_it_from_griffin_lim() -> None:
    """One candidate has to be ahead in all of it; ViSQOL may be a tenth less, and a log-mel L1 does not count."""
    figures = {"multi_scale_mel": row(0.9, 0.86, 0.87), "zimtohrli": row(4.8, 4.78, 4.73), "mel_l1": row(0.4, 0.3, 0.2)}
    near = Comparison(files=6, figures=figures | {"visqol": row(4.71, 4.61, 4.7)})
    assert near.best == "refine=4"
    assert "Griffin-Lim 0.2: not there yet" in near.words
    assert near.words.endswith("; use it with --refine 4")
    far = Comparison(files=6, figures=figures | {"visqol": row(4.71, 4.59, 4.7)})
    assert far.best is None, "the generator alone has the ViSQOL, the refined one the mel distance"
    behind = Comparison(files=6, figures=figures | {"visqol": row(4.65, 4.62, 4.7)})
    assert behind.better
    assert "ViSQOL 4.65 as it is, 4.62 with 4 rounds of refinement, Griffin-Lim 4.7: next to it" in behind.words
    assert behind.verdicts["visqol"] is None


def test_without_held_out_files_nothing_is_claimed() -> None:
    found = Comparison(files=0)
    assert found.words.startswith("nothing was held out, so how it compares with Griffin-Lim is not known")
    assert not found.better
