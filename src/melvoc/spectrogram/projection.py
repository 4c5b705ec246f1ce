"""The two projections behind Griffin-Lim and refinement.

The spectrum of a sound that has a given mel lies in two sets:

    the spectra that have the mel:  their magnitudes give it, through the filter bank;
    the consistent spectra:         some signal has them.

Griffin and Lim (1984) find their way by projecting onto one and the other in turn. `Projection` has the arithmetic of
both, in a spec's own frames: `correct` leads to the first set, `analyse` after `overlap_add` to the second.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from melvoc.nn.powers import overlap_add
from melvoc.spectrogram.conversion import Care, filter_bank, to_nepers
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants

QUIETEST = 1e-20  # added to powers: 200 dB below one sample, and the square of its reciprocal is a float32
_WEAKEST = 1e-3  # of the largest sum of squared windows
_LOUDEST = 20.0  # nepers of amplitude, far above full scale, whatever the decoder produced


class Projection:
    """The arithmetic of both projections for one spec, device and dtype. It has no state; `projection` makes it once.

    Args:
        spec: of the mel, at the rate of the sound.
        device: where to compute.
        dtype: float32 or float64.

    Attributes:
        weakest: the least that `overlap_add` is divided by, where frames hardly overlap.
    """

    def __init__(self, spec: MelSpec, device: torch.device, dtype: torch.dtype) -> None:
        self.spec = spec
        self.window, _ = constants(spec, device, dtype)
        self._bank = filter_bank(spec, device, dtype)
        self.weakest = _WEAKEST * self.weights(2 * -(-spec.n_fft // spec.hop_length)).max()

    def target(self, mel: Tensor) -> Tensor:
        """A log-mel in linear units, 0 at the floor and bounded: `[B, n_mels, t]` to `[B, t, n_mels]`."""
        nepers = to_nepers(mel, self.spec)
        linear = nepers.clamp(max=_LOUDEST * self.spec.power).exp()
        if self.spec.log != "log1p":
            linear = torch.where(nepers > math.log(self.spec.log_floor) + 1e-3, linear, 0.0)
        return linear.transpose(1, 2)

    def correct(self, powers: Tensor, target: Tensor, *, steps: int = 1, care: Care | None = None) -> Tensor:
        """Factors for the powers of spectra that bring their mel closer to a target: 1 where no band covers a bin.

        Args:
            powers: `[B, C, t, n_bins]` from `squares`; the mel is that of the channels' mean.
            target: `[B, t, n_mels]`, linear.
            steps: of Richardson and Lucy: see `FilterBank.correct`.
            care: how far each step goes. None: all the way.

        Returns:
            `[B, 1, t, n_bins]`, real; negative where rounding makes a 0 so.
        """
        spec = self.spec
        mean = powers.mean(1) if powers.shape[1] > 1 else powers[:, 0]
        seen, wanted = (mean + spec.magnitude_eps if spec.magnitude_eps else mean).flatten(0, 1), target.flatten(0, 1)
        seen = seen if spec.power == 2.0 else seen.sqrt()
        factors = self._bank.correct(seen, wanted, care, outside=1.0)
        for _ in range(steps - 1):
            factors = factors * self._bank.correct(seen * factors, wanted, care, outside=1.0)
        factors = (factors if spec.power == 2.0 else factors.square()).view_as(mean)
        if spec.magnitude_eps:  # the filters see powers + eps, and what they see is what the factors are for
            factors = torch.addcdiv(factors, factors - 1.0, mean, value=spec.magnitude_eps)
        return factors[:, None]

    def analyse(self, padded: Tensor) -> Tensor:
        """The spectra of a padded signal's whole frames: `[B, C, n]` to `[B, C, t, n_bins]`; t may be 0."""
        spec = self.spec
        if padded.shape[-1] < spec.n_fft:
            kind = torch.complex128 if padded.dtype == torch.float64 else torch.complex64
            return padded.new_zeros(*padded.shape[:-1], 0, spec.n_bins, dtype=kind)
        spectra: Tensor = torch.fft.rfft(padded.unfold(-1, spec.n_fft, spec.hop_length) * self.window)
        return spectra

    def overlap_add(self, spectra: Tensor) -> Tensor:
        """The windowed frames of spectra, added up: `[B, C, t, n_bins]` to `[B, C, (t - 1) * hop_length + n_fft]`."""
        return overlap_add(torch.fft.irfft(spectra, self.spec.n_fft) * self.window, self.spec.hop_length)

    def weights(self, frames: int) -> Tensor:
        """The squared windows of so many frames, added up: what `overlap_add` is to be divided by."""
        return overlap_add(self.window.square().expand(frames, -1), self.spec.hop_length)


@lru_cache(maxsize=16)
def projection(spec: MelSpec, device: torch.device, dtype: torch.dtype) -> Projection:
    """The projections of a spec, made once."""
    with torch.inference_mode(False):
        return Projection(spec, device, dtype)


def squares(spectra: Tensor) -> Tensor:
    """Squared magnitudes, never quite 0; several times as fast as abs or a sum over the two parts."""
    parts = torch.view_as_real(spectra).square()
    return torch.add(parts[..., 0], parts[..., 1]) + QUIETEST
