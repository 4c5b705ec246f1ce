"""The STFT distance against auraloss, and against answers that are known."""

from __future__ import annotations

import math

import pytest
import torch
from signals import noise

from melvoc.errors import MelvocError
from melvoc.metrics.mr_stft import mr_stft, stft_distance


def test_it_is_auralosses_multi_resolution_loss_and_has_its_gradient() -> None:
    freq = pytest.importorskip("auraloss.freq")
    real, sound = noise(6000)[None].expand(2, -1), torch.stack([noise(6000, seed=2), noise(6000, seed=3, level=0.3)])
    real, sound = real.double(), sound.double()  # in float32 a difference of nearly 0 may have either sign
    ours, theirs = sound.clone().requires_grad_(), sound.clone().requires_grad_()
    loss = freq.MultiResolutionSTFTLoss()
    for part in loss.stft_losses:
        part.window = torch.hann_window(part.win_length, dtype=torch.float64)
    expected = loss(theirs[:, None], real[:, None])
    found = stft_distance(real, ours)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9)


def test_a_tenfold_sound_is_nine_and_ln_10_away() -> None:
    assert mr_stft(noise(), 10 * noise(), 16000) == pytest.approx(9 + math.log(10), abs=1e-3)


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e-4, 1e-3])
def test_the_distance_to_near_silence_is_no_absurd_figure(level: float) -> None:
    assert 5 < mr_stft(noise(level=level), noise(seed=2), 16000) < 20


def test_the_gradient_is_finite_at_silence() -> None:
    sound = torch.zeros(1, 4096, requires_grad=True)
    stft_distance(noise(4096)[None], sound).backward()
    assert sound.grad is not None
    assert sound.grad.isfinite().all()


def test_a_sound_that_is_too_short() -> None:
    with pytest.raises(MelvocError, match="the sound has 1024 samples, but this figure needs at least 1025"):
        mr_stft(noise(1024), noise(1024), 16000)
    assert mr_stft(noise(1025), noise(1025), 16000) == 0
