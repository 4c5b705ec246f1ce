"""Starting from weights that there are: published pairs of every architecture, and BigVGAN-v2's fine-tuning, one step
of which is held to its own code."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import neural, randomised
from torch import Tensor, nn
from training import GENERATOR, GENERATORS, SPEC, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

import melvoc
from melvoc import CheckpointError, MelSpec
from melvoc.architectures.hifigan import HiFiGAN
from melvoc.train import TrainConfig, Trainer, warm
from melvoc.train.discriminators.constant_q import DoubledRate
from melvoc.train.recipes import trained, trained_architecture

PUBLISHED = {
    "resblock": "1", "upsample_rates": [8, 8], "upsample_kernel_sizes": [16, 16], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]], "use_tanh_at_final": False,
    "use_bias_at_final": False, "activation": "snakebeta", "snake_logscale": True,
    "num_mels": 20, "sampling_rate": 24000, "n_fft": 256, "hop_size": 64, "win_size": 256, "fmin": 0, "fmax": None,
    "learning_rate": 1e-4, "adam_b1": 0.8, "adam_b2": 0.99, "lr_decay": 0.9999996,
    "mpd_reshapes": [2, 3, 5, 7, 11], "use_spectral_norm": False, "discriminator_channel_mult": 0.125,
    "use_cqtd_instead_of_mrd": True, "cqtd_filters": 16, "use_multiscale_melloss": True, "lambda_melloss": 15,
    "clip_grad_norm": 3.0,
}  # fmt: skip


MEL = {"num_mels": 20, "sampling_rate": 16000, "n_fft": 256, "hop_size": 64, "win_size": 256, "fmin": 0, "fmax": None}
FEATURES = {"sample_rate": 16000, "n_fft": 256, "hop_length": 64, "n_mels": 20, "padding": "same"}
BACKBONE = {"input_channels": 20, "dim": 16, "intermediate_dim": 32, "num_layers": 2}


def sections(head: str) -> dict[str, Any]:
    """Vocos' config.yaml."""
    parts = {
        "feature_extractor": ("feature_extractors.MelSpectrogramFeatures", FEATURES),
        "backbone": ("models.VocosBackbone", BACKBONE),
        "head": (f"heads.{head}", {"dim": 16, "n_fft": 256, "hop_length": 64, "padding": "same"}),
    }
    return {name: {"class_path": f"vocos.{kind}", "init_args": values} for name, (kind, values) in parts.items()}


# The configuration of the tiny generator of each architecture, and the names of both files, as they are published.
PAIRS: dict[str, tuple[dict[str, Any], str, str]] = {
    "hifigan": (GENERATORS["hifigan"].to_dict() | MEL, "config.json", "generator_v2"),
    "bigvgan": (GENERATORS["bigvgan"].to_dict() | MEL, "config.json", "bigvgan_generator.pt"),
    "istftnet": (GENERATORS["istftnet"].to_dict() | MEL, "config.json", "g_00001000"),
    "vocos": (sections("ISTFTHead"), "config.yaml", "pytorch_model.bin"),
    "wavenext": (sections("WaveNextHead"), "config.yaml", "pytorch_model.bin"),
}


def test_every_architecture_that_is_trained_has_a_published_pair_here() -> None:
    assert set(PAIRS) == {record.name for record, _ in trained() if record.layouts}


@pytest.mark.parametrize("name", PAIRS)
def test_a_run_starts_from_the_published_pair_of_any_architecture(tmp_path: Path, name: str) -> None:
    values, config, weights = PAIRS[name]
    write_sounds(tmp_path / "sounds", count=4)
    network = randomised(trained_architecture(name, None)[0].network(GENERATORS[name])).requires_grad_(False)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / config).write_text(json.dumps(values))
    torch.save(network.state_dict(), tmp_path / "published" / weights)
    changes = {"spec": None, "generator": None, "segment": 2048, "discriminators": {"cqt": 1.0}, "ramp_steps": 0}
    trainer = Trainer(tiny_config(tmp_path, warm_start=tmp_path / "published", discriminator_warmup=0, **changes))
    assert (trainer.config.architecture, trainer.generator) == (name, GENERATORS[name])
    assert (trainer.spec.sample_rate, trainer.spec.hop_length, trainer.spec.n_mels) == (16000, 64, 20)
    mel = torch.randn(1, 20, 16) - 4
    torch.testing.assert_close(trainer.vocoder()(mel), network(mel), atol=1e-5, rtol=1e-4)
    assert {"discriminator", "adversarial", "feature", "mel"} < set(next(trainer).losses)


def test_a_run_starts_from_a_name_that_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    network = randomised(HiFiGAN(GENERATOR)).requires_grad_(False)
    melvoc.save(neural(network, name="first", spec=SPEC), tmp_path / "first.safetensors")
    asked: list[str] = []
    monkeypatch.setattr(warm, "download", lambda name: asked.append(name) or tmp_path / "first.safetensors")
    for name in ("hifigan_universal_v1", "hf://somebody/something"):
        trainer = Trainer(tiny_config(tmp_path, spec=None, generator=None, warm_start=name))
        assert (trainer.spec, trainer.generator) == (SPEC, GENERATOR)
    assert asked == ["hifigan_universal_v1", "hf://somebody/something"]


class PublishedLoop:
    """What BigVGAN's train.py does, with its own networks and losses, on the CPU.

    torchaudio, which does not import beside a CPU's torch, is replaced where the discriminator doubles the rate.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        package = pytest.importorskip("bigvgan", reason="needs the peer: pip install --no-deps bigvgan==2.4.1")
        pytest.importorskip("nnAudio", reason="needs nnaudio, for the peer's discriminator: pip install nnaudio")
        transforms = types.ModuleType("torchaudio.transforms")
        transforms.Spectrogram, transforms.Resample = None, lambda orig_freq, new_freq: DoubledRate()
        monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        monkeypatch.setitem(sys.modules, "torchaudio.transforms", transforms)
        discriminators = importlib.import_module("bigvgan.discriminators")
        self.losses = importlib.import_module("bigvgan.loss")
        self.h = h = package.AttrDict(PUBLISHED)
        self.generator = package.BigVGAN(h)
        self.mpd = discriminators.MultiPeriodDiscriminator(h)
        self.mrd = discriminators.MultiScaleSubbandCQTDiscriminator(h)
        self.mel_loss = self.losses.MultiScaleMelSpectrogramLoss(sampling_rate=h.sampling_rate)
        betas = (h.adam_b1, h.adam_b2)
        both = itertools.chain(self.mrd.parameters(), self.mpd.parameters())
        self.optim_g = torch.optim.AdamW(self.generator.parameters(), h.learning_rate, betas=betas)
        self.optim_d = torch.optim.AdamW(both, h.learning_rate, betas=betas)
        self.schedule(-1)

    def schedule(self, last_epoch: int) -> None:
        exponential = torch.optim.lr_scheduler.ExponentialLR
        optimizers = (self.optim_g, self.optim_d)
        self.schedulers = [exponential(optim, gamma=self.h.lr_decay, last_epoch=last_epoch) for optim in optimizers]

    def step(self, x: Tensor, y: Tensor) -> None:
        losses, clip = self.losses, nn.utils.clip_grad_norm_
        made = self.generator(x)
        self.optim_d.zero_grad()
        total = 0
        for judge in (self.mrd, self.mpd):
            real, generated, _, _ = judge(y, made.detach())
            total = total + losses.discriminator_loss(real, generated)[0]
        total.backward()
        clip(self.mpd.parameters(), self.h.clip_grad_norm)
        clip(self.mrd.parameters(), self.h.clip_grad_norm)
        self.optim_d.step()
        self.optim_g.zero_grad()
        total = self.mel_loss(y, made) * self.h.lambda_melloss
        for judge in (self.mrd, self.mpd):
            _, generated, features, theirs = judge(y, made)
            total = total + losses.feature_loss(features, theirs) + losses.generator_loss(generated)[0]
        total.backward()
        clip(self.generator.parameters(), self.h.clip_grad_norm)
        self.optim_g.step()

    def decay(self) -> None:
        for scheduler in self.schedulers:
            scheduler.step()

    def save(self, folder: Path) -> Path:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(PUBLISHED))
        torch.save({"generator": self.generator.state_dict()}, folder / "bigvgan_generator.pt")
        judges = folder / "bigvgan_discriminator_optimizer.pt"
        content = {name: getattr(self, name).state_dict() for name in ("mpd", "mrd", "optim_g", "optim_d")}
        torch.save({**content, "steps": 1, "epoch": 0}, judges)
        return judges

    def resume(self, judges: Path) -> None:
        content = torch.load(judges, weights_only=True)
        self.optim_g.load_state_dict(content["optim_g"])
        self.optim_d.load_state_dict(content["optim_d"])
        self.schedule(content["epoch"])


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> PublishedLoop:
    """The published loop, two steps old."""
    loop, spec = PublishedLoop(monkeypatch), MelSpec.from_config(PUBLISHED)
    for _ in range(2):
        wave = 0.3 * torch.randn(2, 1, 2048)
        loop.step(2 * torch.randn(2, spec.n_mels, 32) - 4, wave)
        loop.decay()
    return loop


def fine_tuning(folder: Path, judges: Path, **changes: Any) -> Trainer:
    if not (folder / "sounds").exists():
        write_sounds(folder / "sounds", count=4, samples=9000, rate=24000)
    values: dict[str, Any] = {
        "audio_dir": folder / "sounds", "run_dir": folder / "run", "profile": "bigvgan_v2",
        "warm_start": judges.parent, "warm_discriminators": judges, "preset": "slim", "batch_size": 2,
        "segment": 2048, "steps": 1, "clip_gradients": PUBLISHED["clip_grad_norm"], "device": "cpu",
        "precision": "float32",
    }  # fmt: skip
    return Trainer(TrainConfig(**values | changes))


def compared(mine: list[Tensor], theirs: list[Tensor], before: list[Tensor]) -> float:
    """The largest difference of two steps, as a share of the largest step."""
    moved = max((one - old).abs().max().item() for one, old in zip(theirs, before, strict=True))
    assert moved > 1e-5
    return max((one - other).abs().max().item() for one, other in zip(mine, theirs, strict=True)) / moved


def test_a_step_is_that_of_the_published_loop(loop: PublishedLoop, tmp_path: Path) -> None:
    judges = loop.save(tmp_path / "published")
    trainer = fine_tuning(tmp_path, judges)
    batch = trainer._material.segments.batch(0, 2, torch.device("cpu"))
    sides = [(trainer.state.generator, loop.generator)]
    sides += [(trainer.state.discriminators.mpd, loop.mpd), (trainer.state.discriminators.cqt, loop.mrd)]
    before = [[parameter.detach().clone() for parameter in theirs.parameters()] for _, theirs in sides]
    for (mine, _), old in zip(sides, before, strict=True):
        assert all(torch.equal(now, then) for now, then in zip(mine.parameters(), old, strict=True))
    report = next(trainer)
    loop.resume(judges)
    loop.step(batch.mel, batch.wave)
    assert report.learning_rate == pytest.approx(loop.optim_g.param_groups[0]["lr"], rel=1e-12)
    assert report.losses["generator_gradient"] > 3 < report.losses["discriminator_gradient"], "both are clipped"
    for (mine, theirs), old in zip(sides, before, strict=True):
        assert compared(list(mine.parameters()), list(theirs.parameters()), old) < 1e-2


def test_optimizers_that_come_along_need_no_ramp(loop: PublishedLoop, tmp_path: Path) -> None:
    judges = loop.save(tmp_path / "published")
    config = fine_tuning(tmp_path, judges).config
    assert (config.ramp_steps, config.discriminator_warmup, config.lr_decay_steps) == (0, 0, 1)
    assert config.learning_rate == pytest.approx(1e-4 * 0.9999996**2, rel=1e-12)
    plain = fine_tuning(tmp_path, judges, profile=None, discriminators={"mpd": 1.0, "cqt": 1.0}).config
    assert (plain.ramp_steps, plain.learning_rate, plain.lr_decay_steps) == (1000, 1e-4, None)
    content = torch.load(judges, weights_only=True)
    torch.save({name: content[name] for name in ("mpd", "mrd")}, judges)
    assert fine_tuning(tmp_path, judges).config.ramp_steps == 1000
    del content["optim_d"]["state"][3]
    torch.save(content, judges)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: its optimizers are those of other networks; omit the"):
        fine_tuning(tmp_path, judges)
    torch.save(content | {"optim_g": {}}, judges)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: its optimizers have no state; omit the profile"):
        fine_tuning(tmp_path, judges)
