"""The multi-scale mel distance against BigVGAN-v2's own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from signals import noise

from melvoc.errors import MelvocError
from melvoc.metrics.multi_scale_mel import SCALES, multi_scale_mel, multi_scale_mel_distance, scales


@pytest.mark.parametrize("rate", [24000, 44100])
def test_it_is_bigvgans_loss(golden_dir: Path, rate: int) -> None:
    golden = load_file(golden_dir / "multi_scale_mel.safetensors")
    sound, real, loss = (golden[f"{rate}.{name}"] for name in ("x", "y", "loss"))
    torch.testing.assert_close(multi_scale_mel_distance(real[:, 0], sound[:, 0], rate), loss[0], rtol=1e-5, atol=0)


def test_a_tenfold_sound_is_a_decade_away_at_each_of_seven_scales() -> None:
    assert multi_scale_mel(noise(), 10 * noise(), 16000) == pytest.approx(7, abs=0.4)  # some high bands are empty
    assert multi_scale_mel(noise(), noise(), 16000) == 0


@pytest.mark.parametrize("rate", [1000, 8000, 44100, 48000, 88200, 96000, 192000, 384000])
def test_there_are_seven_scales_at_every_rate_of_sound(rate: int) -> None:
    found = {spec.n_fft: spec.n_mels for spec in scales(rate)}
    assert list(found) == list(SCALES)
    assert found == SCALES if rate <= 44100 else all(1 <= found[window] <= SCALES[window] for window in SCALES)
    assert multi_scale_mel(noise(), 10 * noise(), rate) == pytest.approx(7, abs=0.4)


def test_its_gradient_is_finite_at_silence() -> None:
    sound = torch.zeros(1, 4096, requires_grad=True)
    multi_scale_mel_distance(noise(4096)[None], sound, 16000).backward()
    assert sound.grad is not None
    assert sound.grad.isfinite().all()


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 1000 samples, but this figure needs at least 1025"):
        multi_scale_mel(noise(1000), noise(1000), 16000)
