"""Losses by hand, and that no gradient is computed that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import GENERATOR, SPEC, noise, one_thread, tiny_config  # noqa: F401 - one_thread is used by being here

from melvoc import MelSpec, MelSpectrogram
from melvoc.architectures.hifigan import ARCHITECTURE
from melvoc.metrics.mr_stft import mr_stft
from melvoc.train import LossWeights
from melvoc.train.data import Batch
from melvoc.train.distributed import World
from melvoc.train.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    loss_spec,
    mel_loss,
    stft_loss,
)
from melvoc.train.state import DivergedError, Stepper, TrainState


def batch(size: int = 2, samples: int = 1024) -> Batch:
    wave = noise(size * samples).view(size, 1, samples)
    return Batch(wave=wave, mel=MelSpectrogram(SPEC)(wave))


def test_least_squares_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.5, 0.5]])  # real row, generated row
    judged = [(scores, [])]
    assert discriminator_loss(judged).item() == pytest.approx((0 + 1) / 2 + 0.25)
    assert discriminator_loss(judged * 3).item() == pytest.approx(3 * 0.75)
    assert adversarial_loss([(scores[1:], [])]).item() == pytest.approx(0.25)


def test_feature_loss_is_the_sum_of_mean_absolute_differences() -> None:
    mine = [(torch.zeros(1, 1), [torch.zeros(1, 2, 3), torch.ones(1, 4)])]
    theirs = [(torch.zeros(1, 1), [torch.full((1, 2, 3), 0.5), torch.zeros(1, 4)])]
    assert feature_loss(mine, theirs).item() == pytest.approx(1.5)


def test_the_loss_mel_is_melvocs_own_up_to_nyquist_in_natural_logarithm() -> None:
    spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=30, f_max=4000, log="db", power=2.0)
    measure = loss_spec(spec)
    assert (measure.f_max, measure.log, measure.power, measure.log_floor) == (8000, "ln", 1.0, 1e-5)
    wave = noise(4096)[None, None]
    silence = torch.full_like(wave, 1e-9)
    expected = (MelSpectrogram(measure)(wave) - MelSpectrogram(measure)(silence)).abs().mean()
    torch.testing.assert_close(mel_loss(wave, silence, measure), expected)


def test_a_tenfold_wave_is_ln_10_away_and_only_the_generated_side_learns() -> None:
    real, generated = noise(2048)[None, None].requires_grad_(), (0.1 * noise(2048))[None, None].requires_grad_()
    loss = mel_loss(generated, real, SPEC)
    assert loss.item() == pytest.approx(2.302585, abs=1e-3)
    loss.backward()
    assert real.grad is None
    assert generated.grad is not None


def test_the_stft_loss_is_the_metrics_distance_and_only_the_generated_side_learns() -> None:
    real, generated = noise(4096)[None, None].requires_grad_(), (0.5 * noise(4096, seed=2))[None, None].requires_grad_()
    loss = stft_loss(generated, real)
    assert loss.item() == pytest.approx(mr_stft(real[0, 0].detach(), generated[0, 0].detach(), 16000), rel=1e-5)
    loss.backward()
    assert real.grad is None
    assert generated.grad is not None
    assert generated.grad.isfinite().all()


def make(tmp_path: Path, **changes: object) -> tuple[TrainState, Stepper]:
    config = tiny_config(tmp_path, **changes).resolved()
    state = TrainState.new(config, ARCHITECTURE, GENERATOR, torch.device("cpu"))
    return state, Stepper(state, config, SPEC, World())


def test_the_generators_turn_leaves_no_gradient_in_the_discriminators(tmp_path: Path) -> None:
    state, step = make(tmp_path)
    step(batch(), (1e-4, 1e-4))
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    seen: list[bool] = []
    state.discriminators.mpd.register_forward_hook(lambda module, args, result: seen.append(result[0][0].requires_grad))
    step._generators_turn(batch().wave, step.state.generator(batch().mel), alone=False)
    assert seen == [True, False]  # the generated one for the generator's sake, the real one not at all
    assert all(parameter.grad is None for parameter in state.discriminators.parameters())


def test_real_and_generated_sound_are_one_batch_in_the_discriminators_turn(tmp_path: Path) -> None:
    state, step = make(tmp_path)
    sizes: list[int] = []
    state.discriminators.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[0]))
    step(batch(), (1e-4, 1e-4))
    assert sizes == [4, 2, 2]


def test_phases_without_discriminators_and_with_the_discriminators_alone(tmp_path: Path) -> None:
    state, step = make(tmp_path, mel_only_steps=1, discriminator_warmup=1)
    before = {name: value.clone() for name, value in state.discriminators.state_dict().items()}
    assert set(step(batch(), (1e-4, 1e-4))) == {"mel", "generator_gradient"}
    assert all(torch.equal(value, before[name]) for name, value in state.discriminators.state_dict().items())
    weights = state.generator.folded()
    assert set(step(batch(), (1e-4, 1e-4))) == {"discriminator", "discriminator_gradient"}
    assert all(torch.equal(value, weights[name]) for name, value in state.generator.folded().items())
    assert {"discriminator", "adversarial", "feature", "mel"} < set(step(batch(), (1e-4, 1e-4)))


def test_a_weight_of_zero_leaves_a_loss_out(tmp_path: Path) -> None:
    _, step = make(tmp_path, weights=LossWeights(adversarial=0, feature=0))
    assert set(step(batch(), (1e-4, 1e-4))) == {"mel", "generator_gradient"}
    _, step = make(tmp_path, weights=LossWeights(feature=0, mel=0))
    assert set(step(batch(), (1e-4, 1e-4))) == {
        "discriminator", "discriminator_gradient", "adversarial", "generator_gradient",
    }  # fmt: skip


def test_a_loss_that_is_nan_is_named_and_changes_nothing(tmp_path: Path) -> None:
    state, step = make(tmp_path)
    step(batch(), (1e-4, 1e-4))
    before = {name: value.clone() for name, value in state.generator.folded().items()}
    bad = batch()
    bad.wave[0, 0, 3] = float("nan")
    with pytest.raises(
        DivergedError, match="step 2: discriminator is nan .*no weight of the discriminator was changed"
    ):
        step(bad, (1e-4, 1e-4))
    good = batch()
    step.spec = MelSpec.from_dict(SPEC.to_dict() | {"log_floor": 1e-5})
    step.stft = lambda generated, real: generated.sum() * float("inf")
    with pytest.raises(DivergedError, match="step 2: stft is -?inf|nan .*no weight of the generator"):
        step(good, (1e-4, 1e-4))
    assert all(torch.equal(value, before[name]) for name, value in state.generator.folded().items())
    assert state.step == 1


def test_bfloat16_is_for_the_networks_alone(tmp_path: Path) -> None:
    _, full = make(tmp_path, precision="float32")
    state, half = make(tmp_path, precision="bfloat16")
    expected, found = full(batch(), (1e-4, 1e-4)), half(batch(), (1e-4, 1e-4))
    assert set(found) == set(expected)
    for name in ("discriminator", "adversarial", "mel"):
        assert found[name] == pytest.approx(expected[name], rel=0.03)
        assert found[name] != expected[name]
    assert all(parameter.dtype == torch.float32 for parameter in state.generator.parameters())


def test_gradients_are_clipped(tmp_path: Path) -> None:
    state, step = make(tmp_path, clip_gradients=1e-3)
    report = step(batch(), (1e-4, 1e-4))
    assert report["generator_gradient"] > 1e-3
    norms = [p.grad.norm() for p in state.generator.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)
