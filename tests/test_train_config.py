"""Configurations that cannot run are refused when they are made; rates follow from the hop length."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import GENERATOR, GENERATORS, SPEC, tiny_config

from melvoc import MelSpec, MelvocError, SpecError
from melvoc.architectures.bigvgan import BigVGANConfig
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.errors import OptionError
from melvoc.nn.rates import upsampling
from melvoc.train import LossWeights, TrainConfig, recipes
from melvoc.train.config import ResolvedConfig
from melvoc.train.discriminators import KINDS
from melvoc.train.profiles import PROFILES
from melvoc.train.recipes import sized_generator, trained, trained_architecture
from melvoc.train.resuming import differences, resumed


@pytest.mark.parametrize(
    ("hop", "rates", "kernels"),
    [
        (512, (8, 8, 2, 2, 2), (16, 16, 4, 4, 4)),  # DESIGN.md, section 6
        (256, (8, 8, 2, 2), (16, 16, 4, 4)),  # HiFi-GAN V1 and V2
        (300, (6, 5, 5, 2), (12, 11, 11, 4)),
        (441, (7, 7, 3, 3), (15, 15, 7, 7)),
    ],
)
def test_rates_and_kernels_are_the_published_ones_where_there_are_such(
    hop: int, rates: tuple[int, ...], kernels: tuple[int, ...]
) -> None:
    assert upsampling(hop) == (rates, kernels)


@given(st.integers(2, 4096))
@settings(max_examples=200, deadline=None)
def test_rates_multiply_to_the_hop_length_or_the_error_names_one_that_has_rates(hop: int) -> None:
    try:
        rates, kernels = upsampling(hop)
    except SpecError as error:
        near = int(str(error).split("such as ")[1].split(",")[0])
        assert math.prod(upsampling(near)[0]) == near
        return
    assert math.prod(rates) == hop
    assert all(kernel >= rate and (kernel - rate) % 2 == 0 for rate, kernel in zip(rates, kernels, strict=True))
    assert len(rates) <= 6


ALL = [record.name for record, _ in trained()]


def test_what_is_trained_by_default_is_v2() -> None:
    assert set(ALL) == set(GENERATORS)
    record, recipe = trained_architecture(None, None)
    config = sized_generator(record, recipe, None, MelSpec.preset("griffinlim"))
    assert config == HiFiGANConfig(
        n_mels=128,
        upsample_rates=(8, 8, 2, 2, 2),
        upsample_kernel_sizes=(16, 16, 4, 4, 4),
        upsample_initial_channel=128,
    )


@pytest.mark.parametrize("name", ALL)
def test_every_size_of_every_architecture_is_a_network_for_its_spec(name: str) -> None:
    spec = MelSpec.preset("griffinlim")
    record, recipe = trained_architecture(name, None)
    assert list(recipe.sizes)[:2] == ["small", "base"]
    counts = []
    for size in recipe.sizes:
        config = sized_generator(record, recipe, size, spec)
        assert (config.n_mels, config.hop_length) == (spec.n_mels, spec.hop_length)
        counts.append(sum(parameter.numel() for parameter in record.empty(config).parameters()))
    assert counts[0] < counts[1]
    with pytest.raises(MelvocError, match=rf"size='huge', but the sizes of {record.title} are 'small', 'base'"):
        sized_generator(record, recipe, "huge", spec)


def test_a_hop_without_rates_is_refused_at_once(tmp_path: Path) -> None:
    spec = MelSpec(sample_rate=44100, n_fft=2048, hop_length=509, n_mels=80)
    with pytest.raises(SpecError, match=r"hop_length=509 = 509 is not a product.*such as 507"):
        TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", spec=spec, segment=509 * 32, preset="slim")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment": 1000}, r"segment=1000 is not a multiple of hop_length=64; use 1024"),
        ({"segment": 128}, r"segment=128 is shorter than a window \(256\)"),
        ({"segment": 1024, "weights": LossWeights(stft=15)}, r"shorter than a window \(2048\)"),
        ({"batch_size": 0}, r"batch_size=0, but it is a whole number of at least 1"),
        ({"steps": 1.5}, r"steps=1.5, but it is a whole number"),
        ({"learning_rate": 0}, r"learning_rate=0, but it is a number above 0"),
        ({"learning_rate": math.nan}, r"learning_rate=nan"),
        ({"lr_decay": 1.1}, r"lr_decay=1.1, but it is a number above 0 and at most 1"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0, but it is a number at least 0 and below 1"),
        ({"discriminators": {"mpd": 1.0, "cwt": 1.0}}, r"discriminators=.*'cwt'.*, but .* some of mpd, msd, mrd, cqt"),
        ({"preset": {"mpd": "slim", "cwt": "full"}}, r"preset=.*'cwt'.*, or a dict of them for some of mpd, msd, mrd"),
        ({"preset": {"mpd": "tiny"}}, r"preset=\{'mpd': 'tiny'\}, but it is one of 'full', 'slim', or a dict"),
        ({"discriminators": {}}, r"discriminators=\{\}"),
        ({"profile": "v3"}, r"profile='v3', but it is one of 'cpu', 'gpu', 'published', 'bigvgan_v2'"),
        ({"profile": "bigvgan_v2"}, r"profile='bigvgan_v2' is of bigvgan, not of hifigan; omit the profile"),
        ({"discriminators": {"mpd": 0.0}}, r"discriminators.mpd=0.0, but it is a number above 0"),
        ({"discriminators": {"mrd": 1.0}}, r"segment=1024 is shorter than a window \(1025\); use at least 1088"),
        (
            {"architecture": "griffinlim"},
            r"architecture='griffinlim', but melvoc trains hifigan, bigvgan, glnet, istftnet, vocos, wavenext",
        ),
        ({"architecture": "vocos"}, r"generator=HiFiGANConfig\(.*, but it is a VocosConfig\(\.\.\.\)"),
        ({"size": "base"}, r"size='base' is another generator than the one that was given; omit size"),
        ({"size": "huge"}, r"size='huge', but the sizes of HiFi-GAN are"),
        ({"betas": (0.9,)}, r"betas="),
        ({"betas": (0.9, 1.0)}, r"betas=1.0"),
        ({"minutes": 0}, r"minutes=0, but it is a number above 0"),
        ({"patience": 0}, r"patience=0, but it is a whole number of at least 1"),
        ({"schedule": "linear"}, r"schedule='linear', but it is one of 'decay', 'cosine'"),
        ({"preset": "tiny"}, r"preset='tiny', but it is one of 'full', 'slim'"),
        ({"precision": "float16"}, r"precision='float16'"),
        ({"validation_files": -1}, r"validation_files=-1"),
        ({"mel_only_steps": 5, "weights": LossWeights(mel=0)}, r"mel_only_steps=5 .* would learn nothing"),
        ({"judge_every": 2, "weights": LossWeights(mel=0)}, r"judge_every=2 .* would learn nothing; set judge_every=1"),
        ({"judge_every": 0}, r"judge_every=0, but it is a whole number of at least 1"),
        ({"weights": 3}, r"weights=3"),
        ({"spec": "44khz"}, r"spec='44khz' is a str"),
        ({"generator": 1}, r"generator=1"),
        ({"spec": MelSpec(sample_rate=16000, n_fft=256, hop_length=32, n_mels=20)}, r"makes 64 samples of 20 bands"),
        ({"run_dir": ""}, r"run_dir is empty"),
        ({"run_dir": None}, r"run_dir=None, but it is the path of a folder"),
        ({"audio_dir": None}, r"audio_dir=None, but it is the path of a folder"),
        ({"flip_polarity": "no"}, "flip_polarity='no', but it is True or False"),
        ({"keep_clipped": 1}, "keep_clipped=1, but it is True or False"),
        ({"mels_dir": 3}, "mels_dir=3, but it is a path"),
        ({"size": ["small"]}, r"size=\['small'\], but it is a text"),
        ({"device": None}, "device=None, but it is 'auto' or a torch device"),
        ({"seed": 2**63}, "seed=9223372036854775808, but it is less than 2\\^63"),
    ],
)
def test_bad_values_are_refused_with_the_rule(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MelvocError, match=message):
        tiny_config(tmp_path, **changes)


def test_losses_that_are_all_off_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match="would learn nothing"):
        tiny_config(tmp_path, weights=LossWeights(adversarial=0, mel=0))
    with pytest.raises(MelvocError, match=r"weights\.mel=-1"):
        LossWeights(mel=-1)


def test_the_run_folder_is_not_the_audio_folder(tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match="is the folder of the audio itself"):
        tiny_config(tmp_path, run_dir=tmp_path / "sounds")


def test_differences_are_named_field_by_field_and_leave_out_what_may_differ(tmp_path: Path) -> None:
    stored = json.loads(json.dumps(tiny_config(tmp_path).resolved().to_dict()))
    same = tiny_config(tmp_path, steps=99, checkpoint_every=7, device="auto", batch_size=4)
    assert differences(same, stored) == {}
    other = tiny_config(tmp_path, learning_rate=1e-3, weights=LossWeights(mel=10), seed=5)
    assert differences(other, stored) == {
        "learning_rate": (2e-4, 1e-3),
        "seed": (0, 5),
        "weights.mel": (45.0, 10),
    }


def test_what_is_left_open_is_filled_in(tmp_path: Path) -> None:
    config = TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b").resolved()
    assert config.spec == MelSpec.preset("griffinlim")
    assert config.generator is not None
    assert config.generator.hop_length == 512
    assert config.discriminator_warmup == 0


@pytest.mark.parametrize(
    ("preset", "profile", "alone", "ramp"), [(None, "cpu", 0, 100), ("slim", "published", 500, 1000)]
)
def test_new_discriminators_first_learn_alone_only_where_they_are_asked_for(
    tmp_path: Path, preset: Literal["slim"] | None, profile: str, alone: int, ramp: int
) -> None:
    warm = TrainConfig(
        audio_dir=tmp_path / "a", run_dir=tmp_path / "b", warm_start="x", segment=4096, preset=preset, device="cpu"
    ).resolved(spec=SPEC, generator=GENERATOR)
    assert (warm.spec, warm.generator, warm.profile) == (SPEC, GENERATOR, profile)
    assert (warm.discriminator_warmup, warm.ramp_steps) == (alone, ramp)


def left_open(tmp_path: Path, **given: Any) -> ResolvedConfig:
    return TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", **given).resolved()


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda:1", "gpu"), ("mps", "gpu")])
def test_a_device_has_its_profile(tmp_path: Path, device: str, name: str) -> None:
    profile, config = PROFILES[name], left_open(tmp_path, device=device)
    assert (config.profile, config.recipe.quick, config.size) == (name, True, profile.size)
    assert (config.batch_size, config.segment, config.preset) == (profile.batch_size, 16384, profile.preset)
    assert config.weights == LossWeights().over(profile.weights or LossWeights())
    assert (config.minutes, config.steps, config.schedule, config.checkpoint_every) == (30.0, None, "cosine", None)
    stepwise = left_open(tmp_path, device=device, steps=7)
    assert (stepwise.minutes, stepwise.steps, stepwise.schedule, stepwise.checkpoint_every) == (None, 7, "decay", 1000)
    both = left_open(tmp_path, device=device, steps=7, minutes=2)
    assert (both.minutes, both.steps, both.schedule, both.checkpoint_every) == (2, 7, "cosine", None)


def test_what_is_given_stands_in_the_place_of_a_profiles(tmp_path: Path) -> None:
    config = left_open(tmp_path, device="cpu", architecture="bigvgan", batch_size=3, weights=LossWeights(stft=2))
    assert (config.profile, config.architecture, config.batch_size, config.segment) == ("cpu", "bigvgan", 3, 8192)
    assert (config.weights.mel, config.weights.stft, config.weights.adversarial) == (0.0, 2, 0.0)
    for asked in ({"preset": "slim"}, {"discriminators": {"mpd": 1.0}}, {"profile": "published"}):
        config = left_open(tmp_path, device="cpu", **asked)
        assert (config.profile, config.architecture, config.weights.feature) == ("published", "hifigan", 2.0)
    assert left_open(tmp_path, device="cpu", profile="gpu", preset="full").weights.refined == 1.0
    with pytest.raises(OptionError, match=r"profile='fast', but it is one of 'cpu', 'gpu', 'published'"):
        left_open(tmp_path, profile="fast")


def test_a_mel_that_the_quick_architecture_does_not_take_has_the_default_one(tmp_path: Path) -> None:
    odd = MelSpec(sample_rate=44100, n_fft=2048, hop_length=441, n_mels=128)
    config = left_open(tmp_path, device="cpu", spec=odd)
    assert (config.profile, config.recipe.default, config.generator.hop_length) == ("cpu", True, 441)
    paired = TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", device="cpu").resolved(mels=odd)
    assert (paired.architecture, paired.generator.hop_length) == (config.architecture, 441)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_names_what_there_is(tmp_path: Path, name: str) -> None:
    profile, config = PROFILES[name], left_open(tmp_path, profile=name)
    _, recipe = trained_architecture(config.architecture, None)
    assert recipe.quick or not profile.quick
    assert profile.size is None or profile.size in recipe.sizes
    assert config.weights.hears
    assert set(config.discriminators) <= set(KINDS)


@pytest.mark.parametrize(
    ("name", "rate", "betas", "segment", "judges", "weights"),
    [  # what was published, where docs/training.md says nothing else
        ("hifigan", 2e-4, (0.8, 0.99), 16384, {"mpd": 1.0, "msd": 1.0}, (1.0, 2.0, 45.0, 0.0)),
        ("bigvgan", 1e-4, (0.8, 0.99), 8192, {"mpd": 1.0, "mrd": 1.0}, (1.0, 2.0, 45.0, 0.0)),
        ("vocos", 5e-4, (0.8, 0.9), 16384, {"mpd": 0.2, "mrd": 0.1 / 3}, (1.0, 1.0, 45.0, 0.0)),
        ("wavenext", 5e-4, (0.8, 0.9), 16384, {"mpd": 0.2, "mrd": 0.1 / 3}, (1.0, 1.0, 45.0, 0.0)),
        ("istftnet", 2e-4, (0.8, 0.99), 16384, {"mpd": 1.0, "msd": 1.0}, (1.0, 2.0, 45.0, 0.0)),
    ],
)
def test_what_is_not_given_is_the_architectures_recipe(
    tmp_path: Path, name: str, rate: float, betas: Any, segment: int, judges: Any, weights: Any
) -> None:
    published = functools.partial(TrainConfig, audio_dir=tmp_path / "a", run_dir=tmp_path / "b", profile="published")
    config = published(architecture=name).resolved()
    assert (config.learning_rate, config.betas, config.segment, config.discriminators) == (rate, betas, segment, judges)
    assert (config.batch_size, config.preset, config.schedule, config.minutes) == (8, "full", "cosine", 30.0)
    assert (config.weights.adversarial, config.weights.feature, config.weights.mel, config.weights.stft) == weights
    assert (config.architecture, config.size, type(config.generator)) == (name, "small", type(GENERATORS[name]))
    one = published(architecture=name, weights=LossWeights(feature=0), size="base").resolved()
    assert (one.weights.mel, one.weights.feature, one.size) == (45.0, 0, "base")
    assert one.generator != config.generator


def test_bigvgan_v2s_profile_is_its_published_configuration(tmp_path: Path, golden_dir: Path) -> None:
    published = json.loads((golden_dir / "hub_configs" / "bigvgan_v2_44khz_128band_512x.json").read_text())
    places = {"audio_dir": tmp_path / "a", "run_dir": tmp_path / "b"}
    config = TrainConfig(**places, profile="bigvgan_v2", size="large").resolved()
    assert config.generator == BigVGANConfig.from_published(published)
    weights = LossWeights(adversarial=1.0, feature=2.0, mel=0.0, stft=0.0, multi_scale_mel=15.0)
    assert config.weights == dataclasses.replace(weights, refined=0.0)
    assert config.discriminators == {"mpd": 1.0, "cqt": 1.0}
    assert (config.segment, config.clip_gradients, config.lr_decay_steps) == (65536, published["clip_grad_norm"], 1)
    assert (config.learning_rate, config.lr_decay) == (published["learning_rate"], published["lr_decay"])
    assert config.betas == (published["adam_b1"], published["adam_b2"])
    stored = json.loads(json.dumps(config.to_dict()))
    assert resumed(TrainConfig(**places), stored).resolved() == config
    other = TrainConfig(**places, profile="bigvgan_v2", lr_decay=0.5)
    assert differences(other, stored) == {"lr_decay": (0.9999996, 0.5)}


def test_without_a_judged_loss_a_warm_start_waits_for_no_discriminators(tmp_path: Path) -> None:
    weights = LossWeights(adversarial=0, feature=0)
    config = tiny_config(tmp_path, warm_start="x", weights=weights).resolved(spec=SPEC, generator=GENERATOR)
    assert (config.discriminator_warmup, config.ramp_steps) == (0, 1000)


def test_a_generator_or_a_warm_start_says_its_architecture(tmp_path: Path) -> None:
    for name, generator in GENERATORS.items():
        assert tiny_config(tmp_path, generator=generator, segment=2048).resolved().architecture == name
        warm = tiny_config(tmp_path, generator=None, spec=None, segment=None, warm_start="x.safetensors")
        assert warm.resolved(spec=SPEC, generator=generator).architecture == name
    other = tiny_config(tmp_path, generator=None, segment=None, warm_start="x", architecture="bigvgan")
    with pytest.raises(MelvocError, match=r"architecture='bigvgan', but the warm start is a vocos; omit architecture"):
        other.resolved(spec=SPEC, generator=GENERATORS["vocos"])


def test_vocos_takes_any_hop_that_its_frames_overlap_by(tmp_path: Path) -> None:
    spec = MelSpec(sample_rate=44100, n_fft=2048, hop_length=509, n_mels=80)
    config = TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", spec=spec, architecture="vocos").resolved()
    assert config.generator.hop_length == 509
    wide = MelSpec.from_dict(spec.to_dict() | {"hop_length": 1500})
    with pytest.raises(SpecError, match=r"Vocos' inverse STFT has the mel's frames: .* the hop at most half of it"):
        TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", spec=wide, architecture="vocos")


def test_wavenext_takes_any_hop_and_istftnet_what_its_upsamplings_lead_to() -> None:
    def made(name: str, hop: int) -> Any:
        record, recipe = trained_architecture(name, None)
        return sized_generator(record, recipe, None, MelSpec(sample_rate=44100, n_fft=2048, hop_length=hop, n_mels=20))

    assert made("wavenext", 509).hop_length == 509
    for hop, rates, last in ((512, (8, 8), 8), (256, (8, 8), 4), (320, (8, 8), 5), (300, (6, 5), 10), (441, (7, 7), 9)):
        config = made("istftnet", hop)
        assert (config.upsample_rates, config.gen_istft_hop_size, config.gen_istft_n_fft) == (rates, last, 4 * last)
        assert config.hop_length == hop
    with pytest.raises(SpecError, match=r"hop_length=509, but iSTFTNet makes 2 to 16 samples of each .* as 256 or 512"):
        made("istftnet", 509)


def test_a_run_of_before_the_recipes_goes_on(tmp_path: Path) -> None:
    stored = tiny_config(tmp_path).resolved().to_dict()
    old = {name: value for name, value in stored.items() if name not in ("architecture", "size", "discriminators")}
    config = tiny_config(tmp_path, spec=None, generator=None, segment=None)
    old["weights"] = {name: old["weights"][name] for name in ("adversarial", "feature", "mel", "stft")}
    assert differences(config, old) == {}
    assert differences(dataclasses.replace(config, weights=LossWeights(refined=1.0)), old) == {
        "weights.refined": (0.0, 1.0)
    }
    assert resumed(config, old).resolved() == tiny_config(tmp_path).resolved()


def test_a_spec_beside_a_warm_start_must_be_its_own(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="n_mels: 20, the file 40"):
        tiny_config(tmp_path).resolved(spec=MelSpec(sample_rate=16000, n_fft=512, hop_length=64, n_mels=40))


def test_a_segment_is_long_enough_for_the_recipes_own_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, recipe = trained_architecture(None, None)
    recipe = dataclasses.replace(recipe, segment=512, weights=LossWeights(multi_scale_mel=15.0))
    monkeypatch.setattr(recipes, "all_architectures", lambda: [dataclasses.replace(record, recipe=recipe)])
    assert tiny_config(tmp_path, segment=None).resolved().segment == 2048
    with pytest.raises(SpecError, match=r"segment=1024 is shorter than a window \(2048\)"):
        tiny_config(tmp_path, segment=1024)


def test_a_short_segment_has_no_losses_after_refinement_unless_they_are_asked_for(tmp_path: Path) -> None:
    given = {"audio_dir": tmp_path / "a", "run_dir": tmp_path / "b", "device": "cpu", "segment": 4096}
    given["spec"] = MelSpec.preset("griffinlim")
    assert TrainConfig(**given).resolved().weights.refined == 0.0  # type: ignore[arg-type]
    assert TrainConfig(**given | {"segment": 6144}).resolved().weights.refined == 1.0  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"segment=4096 is shorter than a window \(5632\); use at least 5632"):
        TrainConfig(**given, weights=LossWeights(refined=1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("hop", "segment"), [(512, 16384), (300, 16500), (320, 16320), (1024, 16384)])
def test_a_segment_that_was_not_given_fits(hop: int, segment: int, tmp_path: Path) -> None:
    spec = MelSpec(sample_rate=24000, n_fft=2048, hop_length=hop, n_mels=40)
    config = TrainConfig(audio_dir=tmp_path / "a", run_dir=tmp_path / "b", spec=spec)
    assert config.resolved().segment == segment
    stored = config.resolved().to_dict()
    assert differences(config, stored) == {}
    assert resumed(config, stored).segment == segment


WORDS = st.text(min_size=1).filter(str.strip)
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "architecture": st.sampled_from(ALL),
    "size": st.sampled_from(["small", "base"]),
    "profile": st.sampled_from(list(PROFILES)),
    "preset": st.sampled_from(["full", "slim"]),
    "discriminators": st.dictionaries(st.sampled_from(list(KINDS)), st.floats(0.1, 9), min_size=1),
    "minutes": st.floats(0.1, 1e4),
    "steps": st.integers(0, 10**9),
    "patience": st.integers(1, 99),
    "batch_size": st.integers(1, 99),
    "learning_rate": st.floats(1e-6, 1),
    "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    "schedule": st.sampled_from(["decay", "cosine"]),
    "weights": st.builds(LossWeights, mel=st.floats(1, 50), stft=st.none() | st.floats(0, 50)),
    "keep_clipped": st.booleans(),
    "name": WORDS,
    "licence": WORDS,
    "mels_dir": WORDS,
    "spec": st.just(SPEC),
}


@given(st.fixed_dictionaries({}, optional=GIVEN))
@settings(max_examples=60, deadline=None)
def test_a_configuration_survives_json(values: dict[str, Any]) -> None:
    config = TrainConfig(audio_dir="a", run_dir="b", **values)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generators_configuration_survives_json(tmp_path: Path, name: str) -> None:
    paths = {"audio_dir": "a", "run_dir": "b", "segment": None}
    config = tiny_config(tmp_path, generator=GENERATORS[name], architecture=None, **paths)
    for one in (config, config.resolved()):
        again = type(one).from_dict(json.loads(json.dumps(one.to_dict())))
        assert again == one
        assert type(again.generator) is type(GENERATORS[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minuts": 3, "step": 1}, r"no such field of the configuration: 'minuts', 'step'; .*'minutes'"),
        ({"weights": {"mel": 1, "sound": 2}}, r"no such field of the configuration: 'weights\.sound'"),
        ([1], r"a configuration is a dict of fields, not a list"),
        ({"generator": {"n_mels": 20, "colour": 3}}, r"colour"),
        ({"spec": {"n_mels": 20}}, r"sample_rate"),
        ({"steps": "many"}, r"steps='many', but it is a whole number"),
    ],
)
def test_json_that_is_no_configuration_is_refused(values: Any, message: str) -> None:
    given = {"audio_dir": "a", "run_dir": "b"} | values if isinstance(values, dict) else values
    with pytest.raises(MelvocError, match=message):
        TrainConfig.from_dict(given)
