"""What the keys of other people's configurations are about: the mel, the network, or how it was trained.

A key that names the mel or the network is never dropped: it is read, or it is an error. Keys of training, data loading
and optimizers are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any


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
