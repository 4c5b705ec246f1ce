"""The networks against the published code's waves, and what their configurations refuse."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import TINY, VOCODERS, golden_network, random_mel

import melvoc
from melvoc.architectures.bigvgan import BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.vocos import VocosConfig
from melvoc.errors import OptionError


@pytest.mark.parametrize("name", TINY)
def test_golden_waves(golden_dir: Path, name: str) -> None:
    network, mel, wave = golden_network(golden_dir, name)
    with torch.no_grad():
        got = network(mel)
    assert got.shape == (mel.shape[0], 1, mel.shape[-1] * network.config.hop_length)
    torch.testing.assert_close(got[..., : wave.shape[-1]], wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VOCODERS)
def test_a_vocoder_is_pickled_for_another_process(name: str) -> None:
    """Its architecture goes along by its name."""
    voc = VOCODERS[name]
    again = pickle.loads(pickle.dumps(voc))
    assert again.architecture is voc.architecture
    assert copy.deepcopy(voc).architecture is voc.architecture
    mel = random_mel(voc, 9)
    assert torch.equal(again.mel_to_waveform(mel, spec=voc.spec), voc.mel_to_waveform(mel, spec=voc.spec))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_type_that_networks_do_not_compute_in(dtype: torch.dtype) -> None:
    with pytest.raises(OptionError, match=r"dtype=torch\..*8.*, but it is a floating-point torch.dtype that networks"):
        melvoc.load("griffinlim", dtype=dtype)


@pytest.mark.parametrize("name", ["hifigan_v2_random", "hifigan_v3_random"])
def test_golden_waves_of_full_size_hifigan(data_dir: Path, name: str) -> None:
    network, mel, wave = golden_network(data_dir / "golden", name)
    with torch.no_grad():
        torch.testing.assert_close(network(mel), wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_a_deep_copy_runs_its_own_weights(golden_dir: Path, name: str) -> None:
    network, mel, _ = golden_network(golden_dir, name)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        assert float(twin(mel).abs().max()) > 0
        assert float((twin(mel) - network(mel)).abs().max()) > 0


@pytest.mark.parametrize(
    ("rates", "kernels"), [((5, 5, 4, 3), (11, 11, 8, 7)), ((7, 7, 3, 3), (14, 14, 6, 6)), ((6,), (6,))]
)
def test_any_rates_give_exactly_their_product(rates: tuple[int, ...], kernels: tuple[int, ...]) -> None:
    config = HiFiGANConfig(
        n_mels=20, upsample_rates=rates, upsample_kernel_sizes=kernels, upsample_initial_channel=16,
        resblock="2", resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 2),),
    )  # fmt: skip
    wave = HiFiGAN(config)(torch.randn(1, 20, 5))
    assert wave.shape == (1, 1, 5 * config.hop_length)


def test_gradients_reach_the_mel_and_every_parameter() -> None:
    config = HiFiGANConfig(n_mels=8, upsample_rates=(4,), upsample_kernel_sizes=(8,), upsample_initial_channel=8)
    network, mel = HiFiGAN(config), torch.randn(1, 8, 6, requires_grad=True)
    network(mel).square().sum().backward()
    assert mel.grad is not None
    assert float(mel.grad.abs().max()) > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("config", [HiFiGANConfig(), BigVGANConfig(activation="snake"), VocosConfig(dim=64)])
def test_config_round_trips_through_json(config: Any) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upsample_rates": [8, 8]}, "upsample_rates has 2 entries and upsample_kernel_sizes 4"),
        ({"upsample_kernel_sizes": [16, 4, 4, 4]}, "4 for rate 8.*use 16"),
        ({"resblock": "3"}, "resblock='3'.*'1' and '2'"),
        ({"resblock_kernel_sizes": [3, 7, 8]}, "resblock_kernel_sizes has 8.*odd"),
        ({"resblock_kernel_sizes": [3]}, "resblock_kernel_sizes has 1 entries and resblock_dilation_sizes 3"),
        ({"n_mels": 80.0}, "n_mels=80.0.*whole number"),
        ({"n_mels": True}, "n_mels=True.*whole number"),
        ({"upsample_rates": []}, r"upsample_rates=\[\].*at least one"),
        ({"upsample_initial_channel": 100}, "upsample_initial_channel=100 cannot be halved 4 times.*multiple of 16"),
        ({"upsample_rate": [8]}, "no field 'upsample_rate'; did you mean 'upsample_rates'"),
    ],
)
def test_hifigan_config_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        HiFiGANConfig.from_dict(HiFiGANConfig().to_dict() | change)


def test_bigvgan_config_refuses_another_activation() -> None:
    with pytest.raises(OptionError, match="activation='relu'.*'snake' and 'snakebeta'"):
        BigVGANConfig(activation="relu")  # type: ignore[arg-type]


def test_a_published_config_without_the_generators_keys_is_named() -> None:
    with pytest.raises(OptionError, match="no 'num_mels', which HiFiGANConfig needs"):
        HiFiGANConfig.from_published({"learning_rate": 1e-4})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": {}}, "no 'head' section"),
        (
            {
                "head": {"dim": 8, "n_fft": 16, "hop_length": 4, "padding": "valid"},
                "backbone": {"input_channels": 8, "dim": 8, "intermediate_dim": 8, "num_layers": 1},
            },
            "padding='valid', but the published ones are center and same",
        ),
        (
            {"head": {}, "backbone": {"class_path": "os.system", "init_args": {}}},
            "a os.system.*reads Vocos with a VocosBackbone",
        ),
        ({"head": {}, "backbone": {"adanorm_num_embeddings": 4}}, "conditioned"),
        ({"head": {}, "backbone": {}}, "no 'input_channels'"),
    ],
)
def test_vocos_config_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        VocosConfig.from_published(config)
