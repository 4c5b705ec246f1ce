"""Griffin-Lim: sound from any mel without a trained model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import OptionError, SpecError, quoted
from melvoc.options import LoadOptions
from melvoc.progress import checkpoint
from melvoc.spectrogram.conversion import filter_bank
from melvoc.spectrogram.projection import projection
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import constants
from melvoc.vocoder import Vocoder

_FIRST_STEPS = 5  # of the inversion that Griffin-Lim starts from and keeps correcting
_TINY = 1e-30
_OVERLAP = 64  # samples whose transform takes as long as the addition of one more overlapping frame
_WORK = 1 << 23  # samples transformed for one frame in all rounds: a second; the default's are 67 thousand
_PHASES = 1 << 12  # phases to draw from, cheaper than computing a sine for each


class GriffinLim(Vocoder):
    """Phases by fast Griffin-Lim, with magnitudes kept in agreement with the mel.

    Alternates between signal and spectrum (Griffin and Lim 1984) with momentum (Perraudin, Balazs and Sondergaard
    2013). The magnitudes behind a mel are unknown, so every second round corrects the signal's own magnitudes to match
    the mel, instead of imposing a first guess throughout. It needs no weights, gives the same result for the same seed
    whatever the batch, and takes a fixed time: `n_iter` rounds whatever the mel. Where the sound would exceed full
    scale it is attenuated, not clipped. It does not stream, and no gradient flows through it.

    These are the rounds of `melvoc.post.refine`, from random phases. They have a loop of their own, in place over the
    whole signal: in pieces, and with room for gradients, they are much slower.

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
        self.licence = "MIT"  # melvoc's own: it has no weights
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
        spec = self.spec
        work = mel if mel.dtype in (torch.float32, torch.float64) else mel.float()
        batch, _, frames = mel.shape
        target = projection(spec, work.device, work.dtype).target(work).reshape(batch * frames, spec.n_mels)
        stft = _STFT(spec, batch, frames, work)
        bank = filter_bank(spec, work.device, work.dtype)
        magnitude = bank.invert(target, steps=_FIRST_STEPS).pow_(1.0 / spec.power).view(batch, frames, -1)
        spectrum = magnitude * self._first_phases(frames, work)
        before, factors, scale = torch.zeros_like(spectrum), torch.empty_like(spectrum), torch.empty_like(magnitude)
        for left in range(self.n_iter, 0, -1):  # in place where possible: fresh memory costs as much as the arithmetic
            checkpoint()
            found = stft.analyse(stft.synthesize(spectrum))
            if left % 2:
                self._correct(magnitude, found, target, factors)
            torch.sub(found, before, alpha=self.momentum / (1.0 + self.momentum), out=spectrum)
            spectrum *= factors.copy_(_powers(spectrum, factors, out=scale).rsqrt_().mul_(magnitude))
            before = found
        return _within_full_scale(stft.synthesize(spectrum), spec.hop_length)[:, None].to(mel.dtype)

    def _correct(self, magnitude: Tensor, spectrum: Tensor, target: Tensor, scratch: Tensor) -> None:
        """Set the magnitudes to those of a spectrum, corrected towards the target mel."""
        bank = filter_bank(self.spec, target.device, target.dtype)
        seen = _powers(spectrum, scratch, out=magnitude).view(target.shape[0], -1)
        if self.spec.power == 1.0:
            seen.sqrt_()
        seen *= bank.correct(seen, target)
        if self.spec.power == 2.0:
            seen.sqrt_()

    def _first_phases(self, frames: int, like: Tensor) -> Tensor:
        """`[frames, n_bins]` of modulus 1: the same for every row of a batch, every device and every dtype."""
        generator = torch.Generator().manual_seed(self.seed)
        turns = torch.randint(_PHASES, (frames, self.spec.n_bins), generator=generator, dtype=torch.int32, device="cpu")
        angles = torch.arange(_PHASES, dtype=torch.float64, device="cpu") * (2 * math.pi / _PHASES)
        circle = torch.polar(torch.ones_like(angles), angles)
        return circle.to(like.device, torch.complex(like[:0], like[:0]).dtype)[turns.to(like.device)]


class _STFT:
    """Analysis and synthesis of exactly `frames * hop_length` samples, with the spec's own window and padding."""

    def __init__(self, spec: MelSpec, batch: int, frames: int, like: Tensor) -> None:
        self._spec, self._frames = spec, frames
        self._window, _ = constants(spec, like.device, like.dtype)
        self._samples = spec.samples(frames)
        span = (frames - 1) * spec.hop_length + spec.n_fft
        self._after = span - spec.pad - self._samples  # samples by which the last frame reaches beyond the end
        fits = max(spec.pad, self._after) < self._samples
        self._mode = spec.pad_mode if fits else "constant"  # too short to mirror
        self._overlaps = -(-spec.n_fft // spec.hop_length)
        self._pieces = like.new_empty(batch, frames, spec.n_fft)
        self._sum = like.new_empty(batch, frames + self._overlaps - 1, spec.hop_length)
        taps = F.pad(self._window, (0, self._overlaps * spec.hop_length - spec.n_fft))
        self._taps = taps.view(self._overlaps, spec.hop_length)
        envelope = self._overlap_add(self._window.expand(batch, frames, -1))[:1]
        self._gain = envelope.clamp(min=1e-3 * float(envelope.max())).reciprocal()

    def analyse(self, wave: Tensor) -> Tensor:
        """`[B, frames * hop_length]` to `[B, frames, n_bins]`."""
        padded = F.pad(wave[:, None], (self._spec.pad, max(0, self._after)), mode=self._mode)[:, 0]
        pieces = padded.unfold(-1, self._spec.n_fft, self._spec.hop_length)[:, : self._frames]
        spectrum: Tensor = torch.fft.rfft(torch.mul(pieces, self._window, out=self._pieces))
        return spectrum

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """`[B, frames, n_bins]` to the `[B, frames * hop_length]` with the nearest spectrum (Griffin and Lim 1984)."""
        return self._overlap_add(torch.fft.irfft(spectrum, self._spec.n_fft)) * self._gain

    def _overlap_add(self, pieces: Tensor) -> Tensor:
        """Window and overlap-add `[B, frames, n_fft]`, hop_length apart, to the signal without its padding: a view."""
        hop, total = self._spec.hop_length, self._sum.zero_()
        if pieces.shape[-1] % hop:
            pieces = F.pad(pieces, (0, self._overlaps * hop - pieces.shape[-1]))
        parts = pieces.reshape(*pieces.shape[:2], self._overlaps, hop)
        for shift in range(self._overlaps):
            total[:, shift : shift + self._frames].addcmul_(parts[:, :, shift], self._taps[shift])
        wave = total.view(total.shape[0], -1)[:, self._spec.pad :][:, : self._samples]
        return F.pad(wave, (0, self._samples - wave.shape[1]))


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


def default_spec(sample_rate: int) -> MelSpec:
    """A mel for sounds of a rate, where none is given: 128 bands, n_fft 2048 and hop 512, or a multiple of both at
    rates so high that some band would have no bin.

    Raises:
        SpecError: no such mel for this rate.
    """
    for times in (1, 2, 4, 8):
        with suppress(SpecError):
            return MelSpec(sample_rate=sample_rate, n_fft=2048 * times, hop_length=512 * times, n_mels=128)
    return MelSpec(sample_rate=sample_rate, n_fft=2048, hop_length=512, n_mels=128)


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


def _powers(spectrum: Tensor, scratch: Tensor, *, out: Tensor) -> Tensor:
    """Squared magnitudes, never quite 0; several times as fast as abs. `scratch` is a spectrum to be overwritten."""
    parts, squares = torch.view_as_real(spectrum), torch.view_as_real(scratch)
    torch.mul(parts, parts, out=squares)  # all in one piece: strides of two are several times slower
    return torch.add(squares[..., 0], squares[..., 1], out=out).add_(_TINY)


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise OptionError(f"{name}={quoted(value)}, but it is a whole number from {least} to {most} (with this spec)")
    return int(value)
