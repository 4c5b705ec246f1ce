"""The generator as it is trained is the generator, of every architecture, and its running mean is one."""

from __future__ import annotations

import pytest
import torch
from networks import GOLDEN, golden_network, randomised
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from training import GENERATOR, GENERATORS

from melvoc import CheckpointError
from melvoc.architecture import Architecture
from melvoc.architectures.hifigan import ARCHITECTURE, HiFiGANConfig
from melvoc.recipe import convolutions
from melvoc.train.ema import Average, TrainableGenerator
from melvoc.train.precision import compute_in_bfloat16
from melvoc.train.recipes import trained

RECORDS = {record.name: record for record, _ in trained()}
every_architecture = pytest.mark.parametrize("name", RECORDS)


def random_generator(name: str, seed: int = 0) -> TrainableGenerator:
    """As it is trained, every parameter random."""
    learning = TrainableGenerator(RECORDS[name], GENERATORS[name])
    learning.load_folded(randomised(plain(name), seed).state_dict(), source="x")
    return learning


def plain(name: str) -> nn.Module:
    return RECORDS[name].network(GENERATORS[name])


@every_architecture
def test_the_folded_weights_give_the_same_sound(name: str, rng: torch.Generator) -> None:
    learning, other = random_generator(name), plain(name)
    other.load_state_dict(learning.folded(), strict=True)
    mel = torch.randn(2, 20, 12, generator=rng)
    torch.testing.assert_close(other(mel), learning(mel))


@every_architecture
def test_loading_folded_weights_is_exact(name: str) -> None:
    other = randomised(plain(name))
    for key, value in random_generator(name).folded().items():
        torch.testing.assert_close(value, other.state_dict()[key])


@pytest.mark.parametrize("golden", ["bigvgan_v2_tiny", "bigvgan_resblock2_snake_tiny", "vocos_tiny"])
def test_the_running_mean_holds_every_parameter(golden: str) -> None:
    network, mel, _ = golden_network(GOLDEN, golden)
    record = RECORDS[golden.partition("_")[0]]
    learning = TrainableGenerator(record, network.config)
    normed = sum(isinstance(module, ParametrizationList) for module in learning.modules())
    assert normed == (0 if "vocos" in golden else len(convolutions(network)))
    learning.load_folded(network.state_dict(), source="x")
    mean = Average(learning, 0.9)
    assert list(mean.tensors) == list(network.state_dict())
    weights = {id(weight) for module in convolutions(network) for weight in module.parameters()}
    assert [key for key, tensor in network.named_parameters() if id(tensor) not in weights], "snakes and norms"
    before = {key: tensor.clone() for key, tensor in mean.tensors.items()}
    with torch.no_grad():
        for parameter in learning.parameters():
            parameter += 0.01
    mean.update(learning, 5)
    same = [key for key, tensor in mean.tensors.items() if torch.equal(tensor, before[key])]
    assert not same
    mean.load(learning.folded())
    torch.testing.assert_close(mean.network(record, network.config)(mel), learning(mel))


def test_the_mean_takes_counts_as_they_are() -> None:
    """A package's network may have batch norms, which count batches."""

    class Normed(nn.Module):
        def __init__(self, config: object) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

    learning = TrainableGenerator(Architecture(name="n", title="N", config=HiFiGANConfig, network=Normed), GENERATOR)
    mean = Average(learning, 0.5)
    learning.network.norm(torch.ones(3, 2, 4))
    mean.update(learning, 100)
    assert mean.tensors["norm.num_batches_tracked"].item() == 1
    torch.testing.assert_close(mean.tensors["norm.running_mean"], torch.full((2,), 0.05))


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


def test_the_wave_of_hifigan_is_float32_under_bfloat16() -> None:
    """Rounded to bfloat16 itself, a sound is 1.0 from itself in log-mel L1, which no weights can mend."""
    record = ARCHITECTURE
    network = TrainableGenerator(record, GENERATOR)
    mel = 2 * torch.randn(1, GENERATOR.n_mels, 16) - 4
    with torch.no_grad():
        exact = network(mel)
        assert record.recipe is not None
        assert record.recipe.autocast is not None
        for layer in record.recipe.autocast(network.network):
            compute_in_bfloat16(layer, torch.device("cpu"))
        made = network(mel)
    assert made.dtype == torch.float32
    error = float((made - exact).norm() / exact.norm())
    assert 1e-6 < error < 0.01, "it computes inside in bfloat16"
    assert not torch.equal(made, made.bfloat16().float()), "and its samples are not rounded"


def test_another_trainers_mean_takes_no_gradients_away() -> None:
    """torch's cache of normed weights, where one thread opens it, is every thread's."""
    generator = TrainableGenerator(ARCHITECTURE, GENERATOR)
    mel = torch.randn(1, GENERATOR.n_mels, 8)
    inside, seen = generator.network.forward, []

    def beside(mel: torch.Tensor) -> torch.Tensor:
        seen.append(generator.folded())  # what another thread may do at any time
        return inside(mel)  # type: ignore[no-any-return]

    generator.network.forward = beside  # type: ignore[method-assign]
    generator(mel).sum().backward()
    assert seen
    without = [name for name, weight in generator.named_parameters() if weight.grad is None]
    assert without == []


def test_each_weight_is_normed_once() -> None:
    generator, calls = TrainableGenerator(ARCHITECTURE, GENERATOR), []
    layers = [module for module in generator.modules() if isinstance(module, ParametrizationList)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, args: calls.append(module))
    generator(torch.randn(1, GENERATOR.n_mels, 8))
    assert len(calls) == len(layers) == len(set(calls))
