"""Griffin-Lim's rounds as a node: where a network that corrects them begins."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from melvoc.nn.graph import Branches, Chain, Composite, Engine, Machine, Map
from melvoc.nn.noise import Noise
from melvoc.nn.stft import InverseSTFT
from melvoc.post import Sound
from melvoc.post.refine import Refine, Rounds
from melvoc.spectrogram.conversion import filter_bank
from melvoc.spectrogram.projection import projection
from melvoc.spectrogram.spec import MelSpec

FIRST_STEPS = 5  # of the inversion that the rounds start from, as in Griffin-Lim
MOMENTUM = 0.99  # as in Griffin-Lim


class Rounded(Composite):
    """Sound of a mel without weights: rounds of refinement from random phases, the same for every sound.

    Args:
        spec: of the mel.
        rounds: how many.

    Shape:
        `[B, n_mels, T]` to `[B, 1, T * hop_length]`, without a gradient.
    """

    def __init__(self, spec: MelSpec, rounds: int) -> None:
        self.spec, self.rounds = spec, rounds
        self.phases = Noise(2 * spec.n_bins, by_row=False)
        self.start = Chain(
            (
                Branches((Map(self.magnitudes), self.phases), turned),
                InverseSTFT(spec.n_fft, spec.hop_length, center=spec.center),
            )
        )
        self.nodes = (self.start,)

    @torch.no_grad()
    def __call__(self, mel: Tensor) -> Tensor:
        """Run on the complete mel."""
        return self.refinement()(mel, self.start(mel), True)

    def open(self, engine: Engine) -> Machine:
        """The start's machine, and the rounds, which work in pieces of any length."""
        return RoundedMachine(engine.open(self.start), self.refinement())

    def delay(self, samples: int) -> int:
        """The start's, and the rounds' own."""
        sound = Sound(
            spec=self.spec, channels=1, samples_per_frame=self.spec.hop_length, sample_rate=self.spec.sample_rate
        )
        return self.start.delay(samples) + Refine(self.rounds).delay(sound)

    def refinement(self) -> Rounds:
        """The rounds' machine."""
        return Rounds(self.spec, self.rounds, momentum=MOMENTUM)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """One of the spectra with this mel: `[B, n_mels, T]` to `[B, n_bins, T]`."""
        target = projection(self.spec, mel.device, mel.dtype).target(mel)
        spectra = filter_bank(self.spec, mel.device, mel.dtype).invert(target.flatten(0, 1), steps=FIRST_STEPS)
        return spectra.pow(1.0 / self.spec.power).view(*target.shape[:2], -1).transpose(1, 2)


def turned(parts: Iterable[Tensor]) -> Tensor:
    """Magnitudes `[B, bins, T]` with the phases of complex numbers `[B, 2 * bins, T]`."""
    magnitude, numbers = parts
    real, imaginary = numbers.chunk(2, dim=1)
    scale = magnitude * torch.rsqrt(real.square() + imaginary.square() + torch.finfo(numbers.dtype).tiny)
    return torch.cat([scale * real, scale * imaginary], dim=1)


class RoundedMachine(Machine):
    """Runs `Rounded`."""

    parts = ("start", "rounds")

    def __init__(self, start: Machine, rounds: Rounds) -> None:
        self.start, self.rounds = start, rounds

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Take the next frames."""
        return self.rounds(x, self.start(x, last), last)
