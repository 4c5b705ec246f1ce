"""A round of refinement inside training is the round of inference, with the right gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import neural, randomised
from torch import Tensor
from training import GENERATORS, SPEC, noise, one_thread, tiny_config  # noqa: F401 - one_thread is used by being here

from melvoc import MelSpectrogram, MelvocError, SpecError
from melvoc.architectures.wavenext import WaveNeXt, sized
from melvoc.train import LossWeights
from melvoc.train.data import Batch
from melvoc.train.distributed import World
from melvoc.train.refinement import RefinedSound, edges
from melvoc.train.state import Stepper, TrainState

SPECS = {
    "default": SPEC,
    "centred": dataclasses.replace(SPEC, center=True, magnitude_eps=0.0),
    "uneven hop": dataclasses.replace(SPEC, hop_length=75),
    "power, zeros around": dataclasses.replace(SPEC, hop_length=128, power=2.0, log="db", pad_mode="constant"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_segment_is_refined_as_the_whole_sound_is_in_inference(name: str) -> None:
    spec, first, count = SPECS[name], 20, 16
    network = randomised(WaveNeXt(sized(16, 2, spec)))
    torch.nn.init.normal_(network.head.linear_2.weight, std=1e-3)  # or it is clipped
    vocoder = neural(network, name="w", spec=spec, engine="torch")
    mel = MelSpectrogram(spec)(noise(61 * spec.hop_length)[None])[..., :60]
    generated, whole = (vocoder.mel_to_waveform(mel, refine=rounds) for rounds in (0, 1))
    assert 0.01 < float(generated.abs().max()) < 1.0
    start, stop = first * spec.hop_length, (first + count) * spec.hop_length
    segment = generated[..., start:stop]
    found, real = RefinedSound(spec)(mel[..., first : first + count], segment, segment)
    before, after = edges(spec)
    torch.testing.assert_close(found, whole[..., start + before : stop - after], atol=1e-5, rtol=0)
    assert torch.equal(real, segment[..., before : segment.shape[-1] - after])
    assert float((found - real).abs().max()) > 1e-3, "the round does something"
    assert 0 < before <= spec.n_fft, "no more is left out than a window"
    assert 0 < after <= spec.n_fft


@pytest.mark.parametrize("name", SPECS)
def test_gradients_are_finite_differences(name: str) -> None:
    spec, frames = SPECS[name], 12
    wave = noise(frames * spec.hop_length).double()[None, None]
    mel = MelSpectrogram(spec)(F.pad(wave, (0, 500)))[..., :frames]
    generated = (0.6 * wave + noise(wave.shape[-1], seed=1, level=0.02)).requires_grad_()
    refined = RefinedSound(spec)

    def loss(x: Tensor) -> Tensor:
        return refined(mel, x, wave)[0].square().sum()

    (gradient,) = torch.autograd.grad(loss(generated), generated)
    for seed in range(3):
        direction = noise(wave.shape[-1], seed=10 + seed, level=1.0).double()[None, None]
        step = 1e-5 * direction
        with torch.no_grad():
            difference = (loss(generated + step) - loss(generated - step)) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-5)


def test_silence_has_finite_gradients() -> None:
    for level in (0.0, 1e-12):
        generated = torch.full((1, 1, 1024), level, requires_grad=True)
        refined, _ = RefinedSound(SPEC)(MelSpectrogram(SPEC)(noise(1024)[None]), generated, generated)
        refined.sum().backward()
        assert generated.grad is not None
        assert bool(torch.isfinite(generated.grad).all())


def losses(tmp_path: Path, **changes: object) -> dict[str, float]:
    config = tiny_config(tmp_path, generator=GENERATORS["vocos"], segment=4096, **changes).resolved()
    wave = noise(2 * 4096).view(2, 1, 4096)
    state = TrainState.new(config, torch.device("cpu"))
    return Stepper(state, config, World())(Batch(wave=wave, mel=MelSpectrogram(SPEC)(wave)), (1e-4, 1e-4))


def test_each_loss_of_sound_is_taken_after_the_round_as_well_and_none_where_the_weight_is_0(tmp_path: Path) -> None:
    names = {"adversarial", "feature", "discriminator", "discriminator_gradient", "generator_gradient"}
    plain = losses(tmp_path, weights=LossWeights(stft=1.0))
    both = losses(tmp_path, weights=LossWeights(stft=1.0, refined=0.5))
    assert set(plain) == names | {"mel", "stft"}
    assert set(both) == names | {"mel", "stft", "refined_mel", "refined_stft"}
    assert {name: both[name] for name in ("mel", "stft")} == {name: plain[name] for name in ("mel", "stft")}
    assert both["refined_mel"] < 0.7 * both["mel"]
    assert both["generator_gradient"] != plain["generator_gradient"]


def test_the_factor_weighs_every_loss_after_the_round(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, weights=LossWeights(multi_scale_mel=15.0, refined=0.5), segment=4096).resolved()
    stepper = Stepper(TrainState.new(config, torch.device("cpu")), config, World())
    assert {term.name: term.weight for term in stepper.heard_refined} == {
        "refined_mel": 22.5,
        "refined_multi_scale_mel": 7.5,
    }


def test_a_segment_is_long_enough_for_what_is_left_of_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"segment=512 is shorter than a window \(704\); use at least 704"):
        tiny_config(tmp_path, weights=LossWeights(refined=1.0), segment=512)
    with pytest.raises(MelvocError, match=r"weights\.refined=1\.0 is a factor of the losses of sound, which are all 0"):
        tiny_config(tmp_path, weights=LossWeights(refined=1.0, mel=0))
