"""What other packages compute: that melvoc calls them as they are meant, on real speech. Skipped without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from signals import RATE, noise, smeared, tone
from torch import Tensor

from melvoc import audio, resample
from melvoc.errors import MelvocError, MissingPackageError
from melvoc.registry import all_metrics

METRICS = {metric.name: metric for metric in all_metrics() if metric.packages}


def figure(name: str, reference: Tensor, sound: Tensor, rate: int) -> float:
    try:
        return METRICS[name].function(reference, sound, rate)
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def speech(data_dir: Path) -> Tensor:
    """One and a half seconds of LJ Speech, 22.05 kHz."""
    return audio.read(data_dir / "audio" / "ljspeech" / "LJ001-0012.wav")[0][0, 22050 : 22050 * 5 // 2]


@pytest.mark.parametrize(
    ("name", "itself"),
    [("pesq", 4.644), ("stoi", 1.0), ("visqol", 4.732), ("visqol_speech", 5.0), ("zimtohrli", 5.0)],
)
def test_a_recording_against_itself_has_the_highest_figure_and_noise_a_low_one(
    name: str, itself: float, speech: Tensor
) -> None:
    metric = METRICS[name]
    assert figure(name, speech, speech, 22050) == pytest.approx(itself, abs=0.01)
    assert metric.low <= figure(name, speech, noise(len(speech)), 22050) < itself - 0.5
    assert itself <= metric.high + 0.01


def test_pesq_is_the_packages_of_16_khz_wide_band(speech: Tensor) -> None:
    package = pytest.importorskip("pesq", reason="pesq is not installed")
    sound = speech + noise(len(speech), level=0.01)
    at_16 = [resample(wave, 22050, 16000).numpy() for wave in (speech, sound)]
    assert figure("pesq", speech, sound, 22050) == pytest.approx(package.pesq(16000, *at_16, "wb"), abs=1e-5)


def test_pesq_of_a_long_sound_is_the_mean_of_parts(speech: Tensor) -> None:
    """In one piece the package's C code crashes somewhere above a minute."""
    long = resample(speech, 22050, 16000).repeat(30)[: 31 * 16000]
    sound = long + noise(len(long), level=0.01)
    halves = [figure("pesq", *pair, 16000) for pair in zip(long.chunk(2), sound.chunk(2), strict=True)]
    assert figure("pesq", long, sound, 16000) == pytest.approx(sum(halves) / 2)


def test_what_has_no_speech_has_no_figure_but_a_reason(speech: Tensor) -> None:
    figure("pesq", speech, speech, 22050)
    with pytest.raises(MelvocError, match="PESQ has no figure for this sound: .*(utterance|short|Buffer)"):
        figure("pesq", speech[:2000], speech[:2000], 22050)
    figure("stoi", speech, speech, 22050)
    with pytest.raises(MelvocError, match=r"STOI needs about 0\.4 s of speech"):
        figure("stoi", speech[:4000], speech[:4000], 22050)


@pytest.mark.parametrize("name", METRICS)
def test_silence_has_no_figure(name: str, speech: Tensor) -> None:
    with pytest.raises(MelvocError, match="is silent|silence|cannot be imported"):
        METRICS[name].function(speech, torch.zeros(len(speech)), 22050)


def test_distillmos_hears_the_sound_alone(speech: Tensor) -> None:
    clean = figure("distillmos", noise(), speech, 22050)
    assert 3 < clean <= 5
    assert figure("distillmos", speech, smeared(speech, n_fft=2048), 22050) < clean - 1
    assert not METRICS["distillmos"].reference


@pytest.mark.slow
def test_periodicity_and_voicing_tell_a_tone_from_noise() -> None:
    voiced, unvoiced = tone(200, RATE // 2) + noise(RATE // 2, level=1e-3), noise(RATE // 2)
    assert figure("periodicity", voiced, voiced, RATE) == 0
    assert figure("periodicity", voiced, unvoiced, RATE) > 0.5
    assert figure("vuv_f1", voiced, voiced, RATE) == 1
    half = torch.cat([voiced[: RATE // 4], unvoiced[: RATE // 4]])
    assert figure("vuv_f1", voiced, half, RATE) == pytest.approx(2 / 3, abs=0.15)  # half of the frames are found
    with pytest.raises(MelvocError, match="neither the recording nor the sound is voiced anywhere"):
        figure("vuv_f1", unvoiced, unvoiced, RATE)
