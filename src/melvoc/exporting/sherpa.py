"""Files for sherpa-onnx (k2-fsa), whose text-to-speech models bring their acoustic half and take a vocoder's file.

Its loader looks at `model_type` (csrc/vocoder.cc). `hifigan` is any network with sound for its output; of `vocos` it
takes magnitudes and the cosines and sines of the phases, and does the inverse STFT itself, with parameters that stand
in the metadata. It does only centred ones well, so that every other vocoder becomes the first kind.
"""

from __future__ import annotations

from torch import Tensor

from melvoc.architectures.vocos import LARGEST_MAGNITUDE, Vocos
from melvoc.errors import MelvocError
from melvoc.exporting.functions import lower_function
from melvoc.exporting.graph import Builder, Name, Signal
from melvoc.exporting.nodes import lower
from melvoc.nn.graph import Chain, Map
from melvoc.onnx.sherpa import SOUND, SPECTRAL
from melvoc.post import PostStep
from melvoc.vocoder import Vocoder


def check_sherpa(vocoder: Vocoder) -> None:
    """Check that sherpa-onnx can use such a vocoder at all.

    Raises:
        MelvocError: one with conditions, several channels or a sound rate of its own.
    """
    if vocoder.conditions or vocoder.channels != 1 or vocoder.sample_rate != vocoder.spec.sample_rate:
        raise MelvocError(
            f"{vocoder.name} is not for sherpa-onnx, which gives a vocoder a mel alone and plays one channel at the "
            "mel's rate; write it with target='onnx'"
        )


def inverted_outside(vocoder: Vocoder, steps: tuple[PostStep, ...]) -> Vocos | None:
    """The network whose inverse STFT sherpa-onnx does, if it is one and nothing follows it."""
    network = getattr(vocoder, "network", None)
    return network if isinstance(network, Vocos) and network.config.padding == "center" and not steps else None


def sherpa_metadata(vocoder: Vocoder, network: Vocos | None) -> dict[str, str]:
    """What its loader reads; numbers of the inverse STFT stand where those of the mel stand in other files."""
    said: dict[str, object] = {"model_type": SOUND, "version": 1, "maintainer": "melvoc"}
    said |= {"sample_rate": vocoder.sample_rate, "num_mels": vocoder.spec.n_mels}
    if network is not None:
        n_fft, hop = network.config.n_fft, network.config.hop_length
        said |= {"model_type": SPECTRAL, "n_fft": n_fft, "win_length": n_fft, "hop_length": hop}
        said |= {"center": 1, "normalized": 0, "window_type": "hann", "pad_mode": "reflect"}
    return {key: str(value) for key, value in said.items()}


def lower_spectral(builder: Builder, network: Vocos, mel: Signal) -> dict[str, Name]:
    """The outputs that sherpa-onnx takes, `[batch, n_fft // 2 + 1, frames]` each, in its order."""
    bins = network.config.n_fft // 2 + 1
    x = lower(builder, Chain((*network.backbone.nodes, Map(network.head.out))), mel)
    log_magnitude, phase = (builder.slice(x.name, start, start + bins, axis=1) for start in (0, bins))
    magnitude = lower_function(builder, _magnitude, Signal(log_magnitude, bins))
    return {"mag": magnitude.name, "x": builder.node("Cos", phase), "y": builder.node("Sin", phase)}


def _magnitude(logarithm: Tensor) -> Tensor:
    return logarithm.exp().clamp(max=LARGEST_MAGNITUDE)
