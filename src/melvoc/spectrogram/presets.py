"""Mel conventions in use, as data: the fields of `MelSpec` that differ from its defaults.

Sources: HiFi-GAN's and BigVGAN's published config.json, vocos 0.1.0, its branch for Matcha,
torchaudio 2.11, librosa 0.11, ESPnet, transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_44K = {"sample_rate": 44100, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
_44K_256X = {"sample_rate": 44100, "n_fft": 1024, "hop_length": 256, "n_mels": 128}
_24K = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100}
_22K = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80}
_22K_8K = _22K | {"f_max": 8000.0}
_CENTERED = {"magnitude_eps": 0.0, "center": True}
_MATCHA = {"magnitude_eps": 0.0}  # HiFi-GAN's mel, but for what stands under its root
_TORCHAUDIO = _CENTERED | {"mel_scale": "htk", "norm": None, "log_floor": 1e-7}  # its mel, as Vocos takes the log
_VOCOS = _24K | _TORCHAUDIO

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # registered vocoders
        "bigvgan_v2_44khz_128band_512x": _44K,
        "bigvgan_v2_44khz_128band_256x": _44K_256X,
        "bigvgan_v2_24khz_100band_256x": _24K,
        "bigvgan_v2_22khz_80band_256x": _22K,
        "bigvgan_v2_22khz_80band_fmax8k_256x": _22K_8K,
        "bigvgan_24khz_100band": _24K,
        "bigvgan_22khz_80band": _22K_8K,
        "bigvgan_base_24khz_100band": _24K,
        "bigvgan_base_22khz_80band": _22K_8K,
        **{f"flow2gan_libritts_24khz_{steps}step": _VOCOS for steps in (1, 2, 4)},
        **{f"flow2gan_24khz_{steps}step": _VOCOS for steps in (1, 2, 4)},
        **{f"flow2gan_44khz_128band_512x_{steps}step": _44K | _TORCHAUDIO for steps in (1, 2, 4)},
        "hifigan_universal_v1": _22K_8K,
        "vocos_mel_24khz": _VOCOS,
        "lucasnewman_vocos_mel_24khz": _VOCOS,
        "vocos_mel_22khz": _22K_8K | _MATCHA,
        "vocos_mel_hifigan_compat_44100khz": _MATCHA
        | {"sample_rate": 44100, "n_fft": 2048, "hop_length": 512, "n_mels": 80, "f_max": 8000.0},
        "wavenext_mel": _22K_8K | _MATCHA,
        "griffinlim": _44K,
        # other conventions
        "hifigan_22khz_80band_256x": _22K_8K,
        "distill_v1_48khz_128band": _CENTERED
        | {"sample_rate": 48000, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
        | {"mel_scale": "htk", "norm": None, "power": 2.0, "log": "log1p"},
        "vocos_24khz_100band": _VOCOS,
        "librosa_22khz_128band_db": _CENTERED
        | {"sample_rate": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
        | {"power": 2.0, "log": "db", "pad_mode": "constant"},
        "speecht5_16khz_80band_log10": _CENTERED
        | {"sample_rate": 16000, "n_fft": 1024, "hop_length": 256, "n_mels": 80}
        | {"f_min": 80.0, "f_max": 7600.0, "log": "log10", "log_floor": 1e-10},
        "espnet_style_22khz_80band_log10": _22K
        | _CENTERED
        | {"win_length": 800, "f_min": 80.0, "f_max": 7600.0, "log": "log10", "log_floor": 1e-10},
    }
)
