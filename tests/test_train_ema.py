"""The generator with weight norm is the generator without it, and its running mean is one."""

from __future__ import annotations

import pytest
import torch
from networks import randomised
from training import GENERATOR

from melvoc import CheckpointError
from melvoc.architectures.hifigan import ARCHITECTURE, HiFiGAN
from melvoc.train.ema import Average, TrainableGenerator


def test_the_folded_weights_give_the_same_sound(rng: torch.Generator) -> None:
    learning = TrainableGenerator(ARCHITECTURE, GENERATOR)
    plain = HiFiGAN(GENERATOR)
    plain.load_state_dict(learning.folded(), strict=True)
    mel = torch.randn(2, 20, 12, generator=rng)
    torch.testing.assert_close(plain(mel), learning(mel))


def test_loading_folded_weights_is_exact() -> None:
    plain, learning = randomised(HiFiGAN(GENERATOR)), TrainableGenerator(ARCHITECTURE, GENERATOR)
    learning.load_folded(plain.state_dict(), source="x")
    for name, value in learning.folded().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


def test_weights_of_another_generator_are_refused() -> None:
    learning = TrainableGenerator(ARCHITECTURE, GENERATOR)
    tensors = learning.folded()
    with pytest.raises(CheckpointError, match=r"x: 'conv_pre.weight' is \[3\], but this generator has \[8, 20, 7\]"):
        learning.load_folded(tensors | {"conv_pre.weight": torch.zeros(3)}, source="x")
    del tensors["conv_pre.bias"]
    with pytest.raises(CheckpointError, match=r"1 names differ, 'conv_pre.bias' first"):
        learning.load_folded(tensors, source="x")


def test_the_mean_follows_and_forgets_its_first_value() -> None:
    learning = TrainableGenerator(ARCHITECTURE, GENERATOR)
    mean = Average(learning, 0.9)
    with torch.no_grad():
        learning.network.conv_post.bias.fill_(1.0)
    expected = 0.0
    for step in range(100):
        mean.update(learning, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
    assert mean.tensors["conv_post.bias"].item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0.999


def test_no_mean_is_the_present_weights() -> None:
    learning = TrainableGenerator(ARCHITECTURE, GENERATOR)
    mean = Average(learning, 0.0)
    with torch.no_grad():
        learning.network.conv_post.bias.fill_(1.0)
    mean.update(learning, 50)
    assert mean.network(ARCHITECTURE, GENERATOR).conv_post.bias.item() == 1.0
