"""Griffin-Lim: sound from any mel without a trained model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import OptionError, quoted
from melvoc.options import LoadOptions
from melvoc.post.refine import Rounds
from melvoc.spectrogram.projection import projection
from melvoc.spectrogram.spec import MelSpec
from melvoc.vocoder import Vocoder

_FIRST_STEPS = 5  # of the inversion that Griffin-Lim starts from
_OVERLAP = 64  # samples whose transform takes as long as the addition of one more overlapping frame
_WORK = 1 << 23  # samples transformed for one frame in all rounds: a second; the default's are 67 thousand
_PHASES = 1 << 12  # phases to draw from, cheaper than computing a sine for each


class GriffinLim(Vocoder):
    """Phases by fast Griffin-Lim, with magnitudes kept in agreement with the mel.

    Alternates between signal and spectrum (Griffin and Lim 1984) with momentum (Perraudin, Balazs and Sondergaard
    2013). The magnitudes behind a mel are unknown, so each round corrects the signal's own magnitudes to match the mel,
    instead of imposing a first guess throughout: they are the rounds of `melvoc.post.refine`, from random phases. It
    needs no weights, gives the same result for the same seed whatever the batch, and takes a fixed time: `n_iter`
    rounds whatever the mel. Where the sound would exceed full scale it is attenuated, not clipped. It does not stream,
    and no gradient flows through it.

    Args:
        spec: any. None: 44.1 kHz, n_fft 2048, hop 512, 128 bands.
        n_iter: rounds, at least 1, and no more than take about a second per frame.
        momentum: from 0 (plain Griffin-Lim) to less than 1; a round subtracts momentum / (1 + momentum) of the last.
        seed: of the initial phases, from 0 up.
        name: its name in messages.

    Raises:
        OptionError: an option of the wrong type or out of range.
    """

    def __init__(
        self,
        *,
        spec: MelSpec | None = None,
        n_iter: int = 32,
        momentum: float = 0.99,
        seed: int = 0,
        name: str = "griffinlim",
    ) -> None:
        super().__init__(name=name, spec=MelSpec.preset("griffinlim") if spec is None else spec)
        per_frame = self.spec.n_fft + _OVERLAP * -(-self.spec.n_fft // self.spec.hop_length)
        self.n_iter = _whole("n_iter", n_iter, 1, max(1, _WORK // per_frame))
        self.seed = _whole("seed", seed, 0, 2**63 - 1)
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise OptionError(f"momentum={quoted(momentum)}, but it is a number from 0 to less than 1; 0.99 is usual")
        self.momentum = float(momentum)

    @property
    def options(self) -> dict[str, Any]:
        """What it takes to make this vocoder again, as JSON values: all there is to save."""
        return {"spec": self.spec.to_dict(), "n_iter": self.n_iter, "momentum": self.momentum, "seed": self.seed}

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, name: str = "griffinlim") -> Self:
        """Make a vocoder from its `options`.

        Raises:
            OptionError: an option that is unknown, missing or not allowed.
        """
        if set(options) != {"spec", "n_iter", "momentum", "seed"}:
            raise OptionError(f"options={quoted(options)}, but Griffin-Lim takes spec, n_iter, momentum, seed")
        return cls(**{**options, "spec": MelSpec.from_dict(options["spec"])}, name=name)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        """`[B, n_mels, T]` to `[B, 1, T * hop_length]`."""
        work = mel if mel.dtype in (torch.float32, torch.float64) else mel.float()
        arithmetic = projection(self.spec, work.device, work.dtype)
        magnitudes = arithmetic.guess(arithmetic.target(work), steps=_FIRST_STEPS)
        wave = arithmetic.synthesize((magnitudes * self._first_phases(mel.shape[-1], work))[:, None])
        wave = Rounds(self.spec, self.n_iter, momentum=self.momentum)(work, wave, True)
        return _within_full_scale(wave[:, 0], self.spec.hop_length)[:, None].to(mel.dtype)

    def _first_phases(self, frames: int, like: Tensor) -> Tensor:
        """`[frames, n_bins]` of modulus 1: the same for every row of a batch, every device and every dtype."""
        generator = torch.Generator().manual_seed(self.seed)
        turns = torch.randint(_PHASES, (frames, self.spec.n_bins), generator=generator, dtype=torch.int32, device="cpu")
        angles = torch.arange(_PHASES, dtype=torch.float64, device="cpu") * (2 * math.pi / _PHASES)
        circle = torch.polar(torch.ones_like(angles), angles)
        return circle.to(like.device, torch.complex(like[:0], like[:0]).dtype)[turns.to(like.device)]


def load_griffinlim(
    name: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
    spec: MelSpec | None = None,
    n_iter: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> GriffinLim:
    """The factory behind the name `griffinlim`. The options are `GriffinLim`'s; engine and memory have no effect."""
    options = LoadOptions(device=device, dtype=dtype, engine=engine, memory=memory)
    vocoder = GriffinLim(spec=spec, n_iter=n_iter, momentum=momentum, seed=seed, name=name)
    return vocoder.to(options.place, options.dtype)


def _within_full_scale(wave: Tensor, hop_length: int) -> Tensor:
    """`[B, frames * hop_length]` attenuated around peaks beyond +-1, which phases other than the original's lead to.

    The gain is linear between frame boundaries. Clamping instead would make clicks that fill every band.
    """
    frames = wave.view(wave.shape[0], -1, hop_length)
    fits = F.pad(frames.abs().amax(-1).clamp(min=1.0).reciprocal(), (1, 1), value=1.0)
    borders = torch.minimum(fits[:, :-1], fits[:, 1:])
    places = torch.arange(hop_length, dtype=wave.dtype, device=wave.device) / hop_length
    gain = torch.lerp(borders[:, :-1, None], borders[:, 1:, None], places)
    return (frames * gain).view_as(wave)


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise OptionError(f"{name}={quoted(value)}, but it is a whole number from {least} to {most} (with this spec)")
    return int(value)
