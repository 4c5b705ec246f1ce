"""Refinement inside training: the losses hear what a network's vocoder gives after a round of it, so that the network
learns what the mel does not say, and leaves to the round what the mel says anyway."""

from __future__ import annotations

from torch import Tensor

from melvoc.post import Sound
from melvoc.post.refine import Refine
from melvoc.spectrogram.spec import MelSpec


class RefinedSound:
    """Segments after one round of `melvoc.post.refine`: the same arithmetic as in inference, with gradients.

    What a round does near the ends of a segment depends on samples outside of it, so only the samples that it gives
    anyway are compared.

    Args:
        spec: of the mels.

    Shape:
        mel `[B, n_mels, T]`, generated and real `[B, 1, T * hop_length]`, to refined and real `[B, 1, N]`, N samples
        from the middle: all but `edges`.
    """

    def __init__(self, spec: MelSpec) -> None:
        self._sound = Sound(spec=spec, channels=1, samples_per_frame=spec.hop_length, sample_rate=spec.sample_rate)
        self._before, self._after = edges(spec)

    def __call__(self, mel: Tensor, generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Refine a batch; gradients flow to what is generated."""
        refined = Refine(1).open(self._sound)(mel, generated, True)
        inner = slice(self._before, real.shape[-1] - self._after)
        return refined[..., inner], real[..., inner]


def edges(spec: MelSpec) -> tuple[int, int]:
    """How many samples at the start and at the end of a segment are in a frame that reaches beyond it."""
    hop = spec.hop_length
    missing = spec.n_fft - hop - spec.pad  # samples after the end that the last frame sees
    return (-(-spec.pad // hop) - 1) * hop - spec.pad + spec.n_fft, -(-missing // hop) * hop + spec.pad
