"""Tiny vocoders of every architecture, and ONNX Runtime, for the tests of what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import neural, randomised
from torch import Tensor

from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.flow2gan import Flow2GAN, Flow2GANConfig
from melvoc.architectures.glnet import GLNet, GLNetConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.istftnet import ISTFTNet, ISTFTNetConfig
from melvoc.architectures.speecht5hifigan import SpeechT5HiFiGAN, SpeechT5HiFiGANConfig
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.architectures.wavenext import WaveNeXt, WaveNeXtConfig
from melvoc.neural import NeuralVocoder
from melvoc.spectrogram.spec import MelSpec
from melvoc.vocoder import Vocoder

SPEC = MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=8)
STAGES: dict[str, Any] = {
    "n_mels": 8, "upsample_rates": (4, 4), "upsample_kernel_sizes": (8, 9), "upsample_initial_channel": 16,
    "resblock_kernel_sizes": (3, 7), "resblock_dilation_sizes": ((1, 3), (1, 3)),
}  # fmt: skip
ONE_STAGE = STAGES | {"upsample_rates": (4,), "upsample_kernel_sizes": (8,)}
BACKBONE: dict[str, Any] = {
    "n_mels": 8, "dim": 16, "intermediate_dim": 24, "num_layers": 2, "n_fft": 64, "hop_length": 16,
}  # fmt: skip
CORRECTED: dict[str, Any] = {
    "n_mels": 8, "mel": json.dumps(SPEC.to_dict()), "rounds": 3, "n_fft": 16, "stft_hop_length": 4, "dim": 16,
    "intermediate_dim": 24, "num_layers": 2,
}  # fmt: skip
FLOW: dict[str, Any] = {
    "n_mels": 8, "hop_length": 16, "n_ffts": (32, 16), "hop_lengths": (16, 8), "widths": (16, 12), "num_layers": (2, 2),
    "kernel_sizes": (7, 7), "encoder_channels": 8, "encoder_layers": 2,
}  # fmt: skip
NETWORKS: dict[str, Any] = {
    "hifigan": lambda: HiFiGAN(HiFiGANConfig(**STAGES)),
    "hifigan v3": lambda: HiFiGAN(HiFiGANConfig(**STAGES, resblock="2")),
    "speecht5": lambda: SpeechT5HiFiGAN(SpeechT5HiFiGANConfig(**STAGES)),
    "bigvgan v1": lambda: BigVGAN(BigVGANConfig(**STAGES, activation="snake", snake_logscale=False)),
    "bigvgan v2": lambda: BigVGAN(BigVGANConfig(**STAGES, use_tanh_at_final=False, use_bias_at_final=False)),
    "istftnet": lambda: ISTFTNet(ISTFTNetConfig(**ONE_STAGE)),
    "vocos": lambda: Vocos(VocosConfig(**BACKBONE)),
    "vocos same": lambda: Vocos(VocosConfig(**BACKBONE, padding="same")),
    "wavenext": lambda: WaveNeXt(WaveNeXtConfig(**BACKBONE)),
    "glnet": lambda: GLNet(GLNetConfig(**CORRECTED)),
    "flow2gan 1": lambda: Flow2GAN(Flow2GANConfig(**FLOW)),
    "flow2gan 2": lambda: Flow2GAN(Flow2GANConfig(**FLOW, n_timesteps=2)),
    "flow2gan velocity": lambda: Flow2GAN(Flow2GANConfig(**FLOW, n_timesteps=2, predicts="velocity", reduction="sum")),
}


def tiny(name: str, spec: MelSpec = SPEC, **options: Any) -> NeuralVocoder:
    """A vocoder with random weights; in plain torch, which is what the graphs are held against."""
    return neural(randomised(NETWORKS[name]()), name=name, spec=spec, engine="torch", **options)


def some_mel(voc: Vocoder, frames: int, batch: int = 1, seed: int = 0) -> Tensor:
    noise = torch.randn(batch, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(seed))
    return voc.spec.clamp(2 * noise - 4)


def session(model: bytes | Path) -> Any:
    """An inference session on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)


def metadata(model: bytes | Path) -> dict[str, str]:
    return dict(session(model).get_modelmeta().custom_metadata_map)


def run(runtime: Any, **inputs: Tensor) -> Tensor:
    """The first output."""
    return torch.from_numpy(runtime.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def run_in_pieces(runtime: Any, pieces: list[Tensor]) -> list[Tensor]:
    """What a streaming graph gives for each piece of a mel, as docs/export.md says to use it."""
    states = json.loads(runtime.get_modelmeta().custom_metadata_map["melvoc.states"])
    batch, sounds = len(pieces[0]), []
    now = {
        name: np.full([batch if size == "batch" else size for size in state["shape"]], state["value"], state["kind"])
        for name, state in states.items()
    }
    for number, piece in enumerate(pieces, start=1):
        last = np.array([int(number == len(pieces))])
        sound, *after = runtime.run(None, {"mel": piece.numpy(), "last": last, **now})
        now = dict(zip(states, after, strict=True))
        sounds.append(torch.from_numpy(sound))
    return sounds
