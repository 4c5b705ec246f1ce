"""Mel: columns with sounds in, mels out."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import melvoc
from melvoc.batch import Mel

SPEC = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")


def test_each_row_has_its_mel(rng: torch.Generator) -> None:
    waves = [0.1 * torch.randn(size, generator=rng) for size in (3000, 9000, 3000)]
    rates = [22050, 48000, 22050]
    made = pickle.loads(pickle.dumps(Mel(SPEC, sound="wave", rate="hz", mel="m")))(
        {"wave": [wave.numpy() for wave in waves], "hz": rates}
    )
    assert list(made) == ["wave", "hz", "m", "error"]
    for wave, rate, mel in zip(waves, rates, made["m"], strict=True):
        expected = melvoc.MelSpectrogram(SPEC)(wave, sample_rate=rate)[0].numpy()
        assert mel.dtype == np.float32
        np.testing.assert_allclose(mel, expected, atol=1e-4, rtol=0)


def test_bad_rows_have_no_frames_and_say_why() -> None:
    made = Mel("hifigan_22khz_80band_256x", rate=22050)({"sound": [np.zeros(0), np.zeros(3000), np.full(3000, np.inf)]})
    assert [mel.shape for mel in made["mel"]] == [(80, 0), (80, 11), (80, 0)]
    assert [bool(text) for text in made["error"]] == [True, False, True]
    assert "NaN or Inf" in made["error"][2]


def test_mistakes_are_raised() -> None:
    with pytest.raises(melvoc.SpecError, match="'nobody'"):
        Mel("nobody")
    with pytest.raises(melvoc.OptionError, match="there is no column 'hz' among 'sound'"):
        Mel(SPEC, rate="hz")({"sound": []})
