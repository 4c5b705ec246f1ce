"""An organ of sines: a vocoder plugin for melvoc that needs no training, and streams.

Each sine has a whole number of periods in a frame, so that frames, faded into each other, never fight over its phase.
How loud each one is follows from the mel by the pseudo-inverse of "which mel does each sine have?", which melvoc's own
analysis answers.
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
        name: what the vocoder is called in messages.
        gain: of the result, more than 0.
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
            # Low bands share a pipe: what tells them apart is nearly nothing, and must not be amplified.
            inverse = torch.linalg.pinv(_mels_of_sines(pipes), rtol=0.1)
            self.registration.weight.copy_(gain * inverse[..., None])
            self.pipes.weight.copy_((torch.hann_window(2 * hop) * sines)[:, None])
            self.pipes.bias.zero_()

    def graph(self) -> Node:
        """The vocoder as an expression; that it streams, exactly, follows from it."""
        return Chain((Map(torch.exp), self.registration, Map(torch.relu), self.pipes))

    def forward(self, mel: Tensor) -> Tensor:
        """`[B, n_mels, T]` to `[B, 1, T * hop_length]`."""
        return self.graph()(mel)


def load_organ(name: str, *, device: torch.device | str, dtype: torch.dtype | None, gain: float = 1.0) -> Organ:
    """The factory that the entry point names."""
    return Organ(name=name, gain=gain).to(device, dtype)


def _mels_of_sines(count: int) -> Tensor:
    """`[n_mels, count]`: the mel, before its logarithm, of each sine at full scale."""
    time = torch.arange(4 * SPEC.n_fft)
    sines = torch.sin(2 * math.pi * torch.arange(1, count + 1)[:, None] * time / SPEC.hop_length)
    mels = MelSpectrogram(SPEC)(sines)
    return mels[..., mels.shape[-1] // 2].exp().T
