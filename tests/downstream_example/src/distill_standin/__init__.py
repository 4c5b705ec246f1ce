"""A stand-in for distill: a model of mels and the vocoder that belongs to it, in one file; sound at 48 kHz throughout.

Only melvoc's public names are used. The vocoder's own sample rate and mel never show outside of this class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

import melvoc

SAMPLE_RATE = 48000


class Model(nn.Module):
    """Mel to fewer numbers and back (where distill has a VAE), and a vocoder.

    Args:
        vocoder: any of melvoc's own.
        size: numbers a frame.
    """

    def __init__(self, vocoder: melvoc.Vocoder, size: int = 16) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.encoder = nn.Conv1d(vocoder.spec.n_mels, size, 1)
        self.decoder = nn.Conv1d(size, vocoder.spec.n_mels, 1)

    @torch.no_grad()
    def forward(self, sound: Tensor) -> Tensor:
        """Sound `[N]` at 48 kHz to its reconstruction `[1, 1, N]`, also at 48 kHz."""
        mel = self.vocoder.mel(sound, sample_rate=SAMPLE_RATE)
        mel = self.decoder(self.encoder(mel)) - 5
        wave = self.vocoder.mel_to_waveform(mel, spec=self.vocoder.spec, sample_rate=SAMPLE_RATE)
        missing = sound.shape[-1] - wave.shape[-1]  # less than a frame
        return nn.functional.pad(wave, (0, missing))

    def save(self, path: Path) -> None:
        """One file, the vocoder in it as plain tensors."""
        own = {key: value for key, value in self.state_dict().items() if not key.startswith("vocoder.")}
        torch.save({"model": own, "vocoder": melvoc.pack(self.vocoder)}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From such a file, which holds nothing but tensors."""
        content = torch.load(path, weights_only=True)
        model = cls(melvoc.unpack(content["vocoder"], device="cpu"))
        model.load_state_dict(content["model"], strict=False)
        return model


def main() -> None:
    """Embed a generator, take it out again, and render a second of noise with both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("generator", type=Path, help="a melvoc file")
    parser.add_argument("model", type=Path, help="the file to write")
    arguments = parser.parse_args()
    model = Model(melvoc.load(arguments.generator, device="cpu"))
    model.save(arguments.model)
    again = Model.load(arguments.model)
    sound = 0.1 * torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    before, after = model(sound), again(sound)
    assert torch.equal(before, after), "the embedded generator is not the one that was saved"
    assert after.shape == (1, 1, SAMPLE_RATE)
    as_bytes = melvoc.from_bytes(melvoc.to_bytes(again.vocoder), device="cpu")
    assert as_bytes.spec == model.vocoder.spec
    sys.stdout.write(f"{as_bytes.sample_rate} Hz inside, {SAMPLE_RATE} Hz outside\n")
