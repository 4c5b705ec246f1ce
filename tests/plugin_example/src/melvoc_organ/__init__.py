"""An organ of sines: a vocoder plugin for melvoc that needs no training, and streams.

Each sine has a whole number of periods per frame, so that overlapping frames always agree on its phase. How loud each
one is follows from the mel, through the pseudo-inverse of the matrix of the sines' own mels, which melvoc's analysis
computes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram, MelvocError, Vocoder
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import Conv1d, ConvTranspose1d

SPEC = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)


class Organ(Vocoder):
    """Sines at the multiples of `sample_rate / hop_length`, as loud as the mel says.

    Args:
        name: the vocoder's name in messages.
        gain: of the result, above 0.
    """

    def __init__(self, *, name: str = "organ", gain: float = 1.0) -> None:
        super().__init__(name=name, spec=SPEC)
        if not gain > 0:
            raise MelvocError(f"gain={gain!r}, but it is a number above 0")
        hop, pipes = SPEC.hop_length, SPEC.hop_length // 2 - 1
        time = torch.arange(2 * hop) - hop  # a frame reaches into both neighbours, and fades out there
        numbers = torch.arange(1, pipes + 1)[:, None]
        sines = torch.sin(2 * math.pi * numbers * time / hop)
        self.registration = Conv1d(SPEC.n_mels, pipes, 1, bias=False)
        self.pipes = ConvTranspose1d(pipes, 1, 2 * hop, hop)
        with torch.no_grad():
            # Low bands share a pipe: almost nothing tells them apart, and that must not be amplified.
            inverse = torch.linalg.pinv(_mels_of_sines(pipes), rtol=0.1)
            self.registration.weight.copy_(gain * inverse[..., None])
            self.pipes.weight.copy_((torch.hann_window(2 * hop) * sines)[:, None])
            self.pipes.bias.zero_()

    def graph(self) -> Node:
        """The vocoder as an expression, from which `forward` and exact streaming follow."""
        return Chain((Map(torch.exp), self.registration, Map(torch.relu), self.pipes))


def load_organ(name: str, *, device: torch.device | str, dtype: torch.dtype | None, gain: float = 1.0) -> Organ:
    """The factory that the entry point names."""
    return Organ(name=name, gain=gain).to(device, dtype)


def _mels_of_sines(count: int) -> Tensor:
    """`[n_mels, count]`: the mel, before its logarithm, of each sine at full scale."""
    time = torch.arange(4 * SPEC.n_fft)
    sines = torch.sin(2 * math.pi * torch.arange(1, count + 1)[:, None] * time / SPEC.hop_length)
    mels = MelSpectrogram(SPEC)(sines)
    return mels[..., mels.shape[-1] // 2].exp().T
