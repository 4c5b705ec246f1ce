"""Each preset's mel of a real sound is found to be its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.audio import read
from melvoc.spectrogram.presets import PRESETS

RATE = 44100
SPECS = list(dict.fromkeys(MelSpec.preset(name) for name in PRESETS))


@pytest.fixture(scope="module")
def sound() -> Tensor:
    """A second and a half of a guitar, with the silence before it."""
    wave, rate = read(Path(__file__).parents[1] / "docs" / "audio" / "guitar_harmonics.flac")
    assert rate == RATE
    return torch.nn.functional.pad(wave[0, : int(1.4 * RATE)], (int(0.1 * RATE), 0))


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_mel_is_its_own(name: str, sound: Tensor) -> None:
    spec = MelSpec.preset(name)
    ranked = MelSpec.identify(MelSpectrogram(spec)(sound, sample_rate=RATE), sound, RATE)
    equal = [other for other in PRESETS if MelSpec.preset(other) == spec]
    assert [candidate.preset for candidate in ranked[: len(equal)]] == equal
    assert {distance for _, distance in ranked[: len(equal)]} == {ranked[0].distance}
    assert ranked[0].distance < 1e-4
    assert all(distance > 1e-4 or MelSpec.preset(other).diff(spec).keys() == {"magnitude_eps"}
               for other, distance in ranked[len(equal) :])  # fmt: skip
    assert [distance for _, distance in ranked] == sorted(distance for _, distance in ranked)


def test_another_programs_mel_is_found_though_it_is_cut_rounded_and_an_array(sound: Tensor) -> None:
    mel = MelSpectrogram(MelSpec.preset("vocos_24khz_100band"))(sound, sample_rate=RATE)
    ranked = MelSpec.identify(mel[0, :, :-1].double().numpy() + 1e-4, sound.double().numpy(), RATE)
    assert MelSpec.preset(ranked[0].preset) == MelSpec.preset("vocos_24khz_100band")
    assert ranked[0].distance < 2e-4
    assert ranked[-1].distance > 0.1


def test_rows_are_compared_with_their_own_sounds(sound: Tensor) -> None:
    both = torch.stack([sound, sound.flip(0)])
    mel = MelSpectrogram(MelSpec.preset("griffinlim"))(both)
    assert MelSpec.identify(mel[:, None], both[:, None], RATE)[0].distance == 0.0
    assert MelSpec.identify(mel.flip(0), both, RATE)[0].distance > 0.1
    with pytest.raises(SpecError, match="the mel has 2 rows, but the audio has 1; give each mel its sound"):
        MelSpec.identify(mel, sound, RATE)


@pytest.mark.parametrize("shape", [(77, 120), (128, 20), (120, 128), (128,), (80, 0)])
def test_a_mel_that_no_preset_makes(shape: tuple[int, ...], sound: Tensor) -> None:
    with pytest.raises(SpecError, match=r"no preset makes so many bands and frames .* of 66149 samples at 44100 Hz"):
        MelSpec.identify(torch.zeros(shape), sound, RATE)


def test_what_is_no_sound_or_no_number(sound: Tensor) -> None:
    mel = MelSpectrogram(MelSpec.preset("griffinlim"))(sound)
    with pytest.raises(SpecError, match="the waveform is torch.int16"):
        MelSpec.identify(mel, np.zeros(66150, dtype=np.int16), RATE)
    with pytest.raises(SpecError, match="1 NaN or Inf among"):
        MelSpec.identify(mel.index_fill(2, torch.tensor(3), 0.0).masked_fill(mel == mel.max(), np.nan), sound, RATE)
    with pytest.raises(SpecError, match="sample_rate=0, but it is a whole number of Hz"):
        MelSpec.identify(mel, sound, 0)


@pytest.mark.parametrize("samples", [769, 1100, 2047])
def test_a_sound_is_long_enough_where_it_has_a_mel(samples: int, sound: Tensor) -> None:
    short = sound[-samples:]
    mel = MelSpectrogram(MelSpec.preset("bigvgan_v2_44khz_128band_512x"))(short)
    best = MelSpec.identify(mel, short, RATE)[0]
    assert MelSpec.preset(best.preset) == MelSpec.preset("bigvgan_v2_44khz_128band_512x")
    assert best.distance < 1e-5


def test_a_short_sound_rules_out_what_it_is_too_short_for(sound: Tensor) -> None:
    short = sound[-700:]
    mel = MelSpectrogram(MelSpec.preset("bigvgan_v2_44khz_128band_256x"))(short)
    found = [name for name, _ in MelSpec.identify(mel, short, RATE)]
    assert found == ["bigvgan_v2_44khz_128band_256x", "librosa_22khz_128band_db"], "zeros are padded to any length"
