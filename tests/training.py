"""A tiny training set-up for several test modules: seconds, not minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from melvoc import MelSpec, audio
from melvoc.architecture import NetworkConfig
from melvoc.architectures import glnet
from melvoc.architectures.bigvgan import BigVGANConfig
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.architectures.istftnet import ISTFTNetConfig
from melvoc.architectures.vocos import VocosConfig
from melvoc.architectures.wavenext import WaveNeXtConfig
from melvoc.train import TrainConfig

SPEC = MelSpec(sample_rate=16000, n_fft=256, hop_length=64, n_mels=20)
GENERATOR = HiFiGANConfig(
    n_mels=20,
    upsample_rates=(8, 8),
    upsample_kernel_sizes=(16, 16),
    upsample_initial_channel=8,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
)
GENERATORS: dict[str, NetworkConfig] = {  # one of each architecture that melvoc trains
    "hifigan": GENERATOR,
    "bigvgan": BigVGANConfig(**GENERATOR.to_dict()),
    "vocos": VocosConfig(
        n_mels=20, dim=16, intermediate_dim=32, num_layers=2, n_fft=256, hop_length=64, padding="same"
    ),
    "wavenext": WaveNeXtConfig(n_mels=20, dim=16, intermediate_dim=32, num_layers=2, n_fft=256, hop_length=64),
    "istftnet": ISTFTNetConfig(
        **GENERATOR.to_dict() | {"upsample_rates": (4, 4), "upsample_kernel_sizes": (8, 8)},
        gen_istft_n_fft=16, gen_istft_hop_size=4,
    ),
    "glnet": replace(glnet.sized(16, 2, SPEC), rounds=2),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are so small that threads only wait for each other; for the modules that import this."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(samples: int, seed: int = 0, level: float = 0.2) -> Tensor:
    """`[N]` of white noise."""
    return (level * torch.randn(samples, generator=torch.Generator().manual_seed(seed))).clamp(-0.95, 0.95)


def write_sounds(folder: Path, count: int = 3, samples: int = 6000, rate: int = 16000) -> Path:
    """Files 0.wav, 1.wav and so on, of noise, each a little longer than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        audio.write(folder / f"{number}.wav", noise(samples + 500 * number, seed=number), rate)
    return folder


def tiny_config(tmp_path: Path, **changes: Any) -> TrainConfig:
    """A run of a few steps on `tmp_path/sounds`, in `tmp_path/run`."""
    values: dict[str, Any] = {
        "audio_dir": tmp_path / "sounds",
        "run_dir": tmp_path / "run",
        "spec": SPEC,
        "generator": GENERATOR,
        "preset": "slim",
        "batch_size": 2,
        "segment": 1024,
        "steps": 4,
        "checkpoint_every": 2,
        "device": "cpu",
        "samples": 0,
        "precision": "float32",  # whatever CPU the tests run on
    }
    return TrainConfig(**(values | changes))
