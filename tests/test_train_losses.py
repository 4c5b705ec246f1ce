"""Losses by hand, and that no gradient is computed that nobody uses."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from training import GENERATORS, SPEC, noise, one_thread, tiny_config  # noqa: F401 - one_thread is used by being here

from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.metrics.mr_stft import mr_stft
from melvoc.metrics.multi_scale_mel import multi_scale_mel
from melvoc.train import LossWeights
from melvoc.train.augment import rotated, rotations
from melvoc.train.data import Batch, seed_of
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
from melvoc.train.precision import halved
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
    generated = step.state.generator(batch().mel).float()
    step._generators_turn(batch(), generated, (batch().wave, generated))
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


def test_discriminators_judge_in_every_nth_step_after_their_warm_up(tmp_path: Path) -> None:
    _, step = make(tmp_path, mel_only_steps=1, discriminator_warmup=1, judge_every=2)
    reports = [step(batch(), (1e-4, 1e-4)) for _ in range(6)]
    assert ["discriminator" in report for report in reports] == [False, True, False, True, False, True]
    assert ["mel" in report for report in reports] == [True, False, True, True, True, True]


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
    generator = GENERATORS["bigvgan"]
    _, full = make(tmp_path, generator=generator, segment=2048, precision="float32")
    _, half = make(tmp_path, generator=generator, segment=2048, precision="bfloat16")
    expected, found = (step(batch(samples=2048), (1e-4, 1e-4)) for step in (full, half))
    assert found["mel"] == expected["mel"]
    assert found["discriminator"] != expected["discriminator"]


def note(seen: dict[str, torch.dtype], key: str, module: torch.nn.Module, args: object, result: torch.Tensor) -> None:
    seen[key] = result.dtype


def test_a_convnext_computes_its_products_in_bfloat16_and_adds_them_up_in_float32(tmp_path: Path) -> None:
    for name in ("vocos", "wavenext"):
        state, step = make(tmp_path, generator=GENERATORS[name], segment=2048, precision="bfloat16")
        seen: dict[str, torch.dtype] = {}
        for key, module in state.generator.network.named_modules():
            module.register_forward_hook(functools.partial(note, seen, key))
        _, full = make(tmp_path, generator=GENERATORS[name], segment=2048, precision="float32")
        found, expected = (one(batch(samples=2048), (1e-4, 1e-4)) for one in (step, full))
        half = {key for key, dtype in seen.items() if dtype == torch.bfloat16}
        assert half == {f"backbone.convnext.{block}.pwconv{layer}" for block in (0, 1) for layer in (1, 2)}
        assert found["mel"] == pytest.approx(expected["mel"], rel=0.01)
        assert found["mel"] != expected["mel"]
        assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_where_the_cpu_multiplies_matrices_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, flags = torch.device("cpu"), tmp_path / "cpuinfo"
    monkeypatch.setattr("melvoc.train.precision._CPUINFO", flags)
    auto = tiny_config(tmp_path, precision="auto")
    assert not halved(auto, cpu), "a system that does not say"
    for text, expected in (("flags\t\t: fpu amx_bf16 avx2\n", True), ("flags\t\t: fpu amx_tile avx512_bf16\n", False)):
        flags.write_text("processor\t: 0\n" + text)
        assert halved(auto, cpu) is expected
    assert halved(auto, torch.device("cuda"))
    assert not halved(auto, torch.device("mps"))
    assert halved(tiny_config(tmp_path, precision="bfloat16"), cpu)
    assert not halved(tiny_config(tmp_path, precision="float32"), torch.device("cuda"))


def test_the_discriminators_get_both_sounds_with_the_same_phases_in_both_turns(tmp_path: Path) -> None:
    def judged(**changes: object) -> list[torch.Tensor]:
        state, step = make(tmp_path, weights=LossWeights(mel=0.0), **changes)
        given: list[torch.Tensor] = []
        state.discriminators.register_forward_pre_hook(lambda module, args: given.append(args[0].detach()))
        sound = batch()
        sounds.append(torch.cat([sound.wave, state.generator(sound.mel).detach()]))
        step(sound, (1e-4, 1e-4))
        return given

    sounds: list[torch.Tensor] = []
    both, generated, real = judged(phase_rotation=1.0)
    assert torch.equal(both, torch.cat([real, generated]))
    seeds = [seed_of(0, "phases", row) for row in (0, 1)]
    phases = torch.stack([rotations(1.0, torch.Generator().manual_seed(seed)) for seed in seeds]).repeat(2, 1)
    torch.testing.assert_close(both, rotated(sounds[0], phases), atol=1e-6, rtol=1e-5)
    assert float((both - sounds[0]).abs().max()) > 0.01
    assert torch.equal(judged()[0], sounds[1]), "no rotation is the sounds themselves"
    with pytest.raises(SpecError, match=r"segment=512 is shorter than a window \(513\)"):
        tiny_config(tmp_path, phase_rotation=1.0, segment=512)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    state, step = make(tmp_path, clip_gradients=1e-3)
    report = step(batch(), (1e-4, 1e-4))
    assert report["generator_gradient"] > 1e-3
    norms = [p.grad.norm() for p in state.generator.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)
