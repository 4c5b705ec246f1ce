"""Losses by hand, and that no gradient is computed that nobody uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import GENERATORS, SPEC, noise, one_thread, tiny_config  # noqa: F401 - one_thread is used by being here

from melvoc import MelSpec, MelSpectrogram
from melvoc.metrics.mr_stft import mr_stft
from melvoc.metrics.multi_scale_mel import multi_scale_mel
from melvoc.train import LossWeights
from melvoc.train.data import Batch
from melvoc.train.discriminators.normed import Judgement
from melvoc.train.distributed import World
from melvoc.train.losses import (
    Term,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    heard_terms,
    loss_spec,
)
from melvoc.train.state import DivergedError, Stepper, TrainState


def batch(size: int = 2, samples: int = 1024) -> Batch:
    wave = noise(size * samples).view(size, 1, samples)
    return Batch(wave=wave, mel=MelSpectrogram(SPEC)(wave))


def test_least_squares_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.5, 0.5]])  # real row, generated row
    judged = [Judgement(scores, [])]
    assert discriminator_loss(judged).item() == pytest.approx((0 + 1) / 2 + 0.25)
    assert discriminator_loss(judged * 3).item() == pytest.approx(3 * 0.75)
    assert adversarial_loss([Judgement(scores[1:], [])]).item() == pytest.approx(0.25)
    weighed = [Judgement(scores, [], weight=0.1), *judged]
    assert discriminator_loss(weighed).item() == pytest.approx(1.1 * 0.75)
    assert adversarial_loss([Judgement(scores[1:], [], weight=0.1)]).item() == pytest.approx(0.025)


def test_feature_loss_is_the_sum_of_mean_absolute_differences() -> None:
    mine = Judgement(torch.zeros(1, 1), [torch.zeros(1, 2, 3), torch.ones(1, 4)])
    theirs = Judgement(torch.zeros(1, 1), [torch.full((1, 2, 3), 0.5), torch.zeros(1, 4)])
    assert feature_loss([mine], [theirs]).item() == pytest.approx(1.5)
    assert feature_loss([mine, mine._replace(weight=0.1)], [theirs, theirs]).item() == pytest.approx(1.65)


def test_the_loss_mel_is_melvocs_own_up_to_nyquist_in_natural_logarithm() -> None:
    spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=30, f_max=4000, log="db", power=2.0)
    measure = loss_spec(spec)
    assert (measure.f_max, measure.log, measure.power, measure.log_floor) == (8000, "ln", 1.0, 1e-5)


def heard(weights: LossWeights, generated: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
    return {term.name: term.loss(generated, real) for term in heard_terms(weights, SPEC)}


def test_a_tenfold_wave_is_ln_10_away_and_only_the_generated_side_learns() -> None:
    weights = LossWeights(mel=45.0, stft=15.0, multi_scale_mel=15.0)
    real, generated = noise(2048)[None, None].requires_grad_(), (0.1 * noise(2048))[None, None].requires_grad_()
    losses = heard(weights, generated, real)
    assert losses["mel"].item() == pytest.approx(2.302585, abs=1e-3)
    sum(losses.values()).backward()
    assert real.grad is None
    assert generated.grad is not None
    assert set(heard(LossWeights(mel=0, stft=1), generated, real)) == {"stft"}


def test_losses_of_sound_are_the_metrics_of_that_name() -> None:
    real, generated = noise(4096)[None, None], noise(4096, seed=1)[None, None]
    losses = heard(LossWeights(stft=1.0, multi_scale_mel=1.0), generated, real)
    assert losses["stft"].item() == mr_stft(real[0, 0], generated[0, 0], 16000)
    assert losses["multi_scale_mel"].item() == multi_scale_mel(real[0, 0], generated[0, 0], 16000)


def make(tmp_path: Path, **changes: object) -> tuple[TrainState, Stepper]:
    config = tiny_config(tmp_path, **changes).resolved()
    state = TrainState.new(config, torch.device("cpu"))
    return state, Stepper(state, config, World())


def test_the_generators_turn_leaves_no_gradient_in_the_discriminators(tmp_path: Path) -> None:
    state, step = make(tmp_path)
    step(batch(), (1e-4, 1e-4))
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    seen: list[bool] = []
    state.discriminators.mpd.register_forward_hook(lambda module, args, result: seen.append(result[0][0].requires_grad))
    step._generators_turn(batch(), step.state.generator(batch().mel), alone=False)
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
    step.heard = [Term(name="stft", weight=1.0, loss=lambda generated, real: generated.sum() * float("inf"))]
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
    for module in (state.generator, state.discriminators):  # the singular vectors of the spectral norm, too
        assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


def test_a_generator_that_autocast_would_harm_stays_float32_beside_its_discriminators(tmp_path: Path) -> None:
    generator = GENERATORS["vocos"]
    _, full = make(tmp_path, generator=generator, segment=2048, precision="float32")
    _, half = make(tmp_path, generator=generator, segment=2048, precision="bfloat16")
    expected, found = (step(batch(samples=2048), (1e-4, 1e-4)) for step in (full, half))
    assert found["mel"] == expected["mel"]
    assert found["discriminator"] != expected["discriminator"]


def test_gradients_are_clipped(tmp_path: Path) -> None:
    state, step = make(tmp_path, clip_gradients=1e-3)
    report = step(batch(), (1e-4, 1e-4))
    assert report["generator_gradient"] > 1e-3
    norms = [p.grad.norm() for p in state.generator.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)
