"""What the keys of other people's configurations are about: the mel, the network, or how it was trained.

A key that names the mel or the network is never dropped: it is read, or it is an error. Keys of training, data loading
and optimizers are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from melvoc.errors import SpecError, quoted


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MEL = _words("""
    mel mels norm normalize normalized normalise log db power center centre pad padding clip floor window win fft hop
    preemphasis preemph emphasis scale base eps htk slaney stft spec spectrogram mean std stats level freq fmin fmax
    band bands bins min max
""")
NETWORK = _words("""
    resblock resblocks upsample upsampling ups downsample kernel kernels dilation dilations channel channels conv convs
    pre post activation snake logscale slope leaky relu tanh clamp final bias generator layers layer
    hidden block blocks rates factors groups dropout f0 pitch harmonic source nsf speaker gin condition
    conditional cond embedding istft
""")
_TRAINING = _words("""
    loss losses melloss lambda weight grad lr learning adam betas optim optimizer scheduler decay batch worker workers
    gpus dist seed segment dataset data file files dir path interval steps step epoch epochs train training valid
    validation eval checkpoint save warmup freeze discriminator disc mpd mrd msd cqtd resolutions volume spectral amp
    fp ema version comment name
""")
# Published keys of that sort that have none of those words.
_OF_TRAINING = _words("num_freq resblock_initial_channel c_mel log_every")

# Our field: the key in a HiFi-GAN or BigVGAN config.json.
CONFIG_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "sample_rate": "sampling_rate",
        "n_fft": "n_fft",
        "hop_length": "hop_size",
        "win_length": "win_size",
        "n_mels": "num_mels",
        "f_min": "fmin",
        "f_max": "fmax",
    }
)
# What forks of that code call a field besides its own name and the key above.
_FURTHER_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"norm": ("mel_norm",), "power": ("mel_power",), "log_floor": ("clip_val", "mel_floor")}
)


def unaccounted(values: Mapping[str, Any], known: Collection[str], words: Collection[str]) -> str | None:
    """The first key that is about something and is not read; None where there is none.

    Args:
        values: a published configuration. A key without a value says nothing.
        known: the keys that are read.
        words: of what it is about, `MEL` or `NETWORK`.
    """
    for key, value in values.items():
        parts = set(re.findall(r"[a-z]+[0-9]?", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).lower()))
        if value is None or key in known or key in _OF_TRAINING or parts & _TRAINING:
            continue
        if not parts.isdisjoint(words):
            return str(key)
    return None


def mel_fields(config: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """What a HiFi-GAN or BigVGAN configuration says of a mel: values by `MelSpec`'s names of its fields.

    Raises:
        SpecError: a key is missing, contradicts another, or is about the mel and not read.
    """
    if missing := [key for key in CONFIG_KEYS.values() if key not in config]:
        raise SpecError(
            f"this config has no {', '.join(map(repr, missing))}; a published config.json has "
            f"{', '.join(CONFIG_KEYS.values())}: add what is missing, or write out MelSpec(...)"
        )
    names = {field: {CONFIG_KEYS.get(field, field), field, *_FURTHER_KEYS.get(field, ())} for field in fields}
    values: dict[str, Any] = {}
    for field, further in names.items():
        null = field in ("norm", "sample_rate", "n_fft", "hop_length", "n_mels")  # elsewhere it means the default
        said = [config[key] for key in sorted(further) if key in config and (null or config[key] is not None)]
        if any(value != said[0] for value in said):
            raise SpecError(f"this config says {' and '.join(map(quoted, said))} for {field}; remove the wrong one")
        values |= {field: said[0]} if said else {}
    known = {key for further in names.values() for key in further}
    if odd := unaccounted(config, known, MEL):
        raise SpecError(
            f"this config says {odd}={quoted(config[odd])}, which melvoc does not read and which may make another "
            "mel; write MelSpec(...) out, or remove the key if it says nothing new"
        )
    return values
