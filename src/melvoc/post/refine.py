"""Refinement: rounds that give any vocoder's sound the mel that it was made from.

One round analyses the sound, corrects the magnitudes towards the mel, and synthesises the change; the phases are the
network's. It is Griffin and Lim's (1984) iteration, with the momentum of Perraudin, Balazs and Sondergaard (2013), from
a start that is nearly right. docs/refinement.md derives it and shows what it gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.errors import OptionError, SpecError, quoted
from melvoc.nn.graph import join
from melvoc.nn.state import Stateful
from melvoc.nn.window import Window
from melvoc.post import PostMachine, PostStep, Sound
from melvoc.spectrogram.conversion import Care
from melvoc.spectrogram.projection import Projection, projection, squares
from melvoc.spectrogram.spec import MelSpec

MOST = 256  # rounds
MOMENTUM, FIRST_STEPS = 0.99, 2  # these and what follows: measured in docs/refinement.md
CARE = Care(softness=0.3, most=4.0)  # 12 dB, which also bounds what a rounding error can grow to
_PIECE = 128  # frames that are worked on at a time: their spectra stay in the processor's cache


@dataclass(frozen=True)
class Refine(PostStep):
    """Rounds of refinement.

    Args:
        rounds: from 1 to 256.

    Raises:
        OptionError: another number of rounds.
    """

    kind: ClassVar[str] = "refine"
    rounds: int

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, Integral) or not 1 <= self.rounds <= MOST:
            raise OptionError(f"refine={quoted(self.rounds)}, but it is a whole number of rounds from 0 to {MOST}")
        object.__setattr__(self, "rounds", int(self.rounds))

    def open(self, sound: Sound) -> Rounds:
        """A new machine.

        Raises:
            SpecError: the sound's rate is no multiple of the mel's in which the mel's frames are whole samples.
        """
        return Rounds(
            sound_spec(sound),
            self.rounds,
            momentum=MOMENTUM,
            care=CARE,
            first_steps=FIRST_STEPS,
            gain=(sound.sample_rate / sound.spec.sample_rate) ** sound.spec.power,
        )

    def delay(self, sound: Sound) -> int:
        """A sample is final when the last frame over it is: n_fft for the first round, whole frames for the others."""
        spec = sound_spec(sound)
        return spec.n_fft - 1 + (self.rounds - 1) * (-(-spec.n_fft // spec.hop_length) - 1) * spec.hop_length

    def to_dict(self) -> dict[str, Any]:
        """The number of rounds."""
        return {"rounds": self.rounds}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The step of `to_dict`'s values."""
        if set(values) != {"rounds"}:
            raise OptionError(f"refine has {quoted(sorted(values))}, but it takes rounds")
        return cls(values["rounds"])


class Rounds(PostMachine):
    """Several rounds, one after the other: each takes what is final of the one before.

    Args:
        spec: of the mel, at the rate of the sound.
        rounds: how many.
        momentum: from 0 to less than 1; a round subtracts momentum / (1 + momentum) of the last.
        care: how far a correction goes. None: all the way.
        first_steps: steps of the first round's correction, which has most to correct; the others have one.
        gain: of the mel at the rate of the sound, whose frames have more samples or fewer.
    """

    parts = ("_rounds",)

    def __init__(
        self,
        spec: MelSpec,
        rounds: int,
        *,
        momentum: float,
        care: Care | None = None,
        first_steps: int = 1,
        gain: float = 1.0,
    ) -> None:
        self._spec, self._gain = spec, gain
        self._rounds = [Round(spec, momentum, care, 1 if number else first_steps) for number in range(rounds)]

    def __call__(self, frames: Tensor, wave: Tensor, last: bool) -> Tensor:
        """Take the next frames and samples, in the dtype of the wave but never in less than float32."""
        exact = wave if wave.dtype in (torch.float32, torch.float64) else wave.float()
        arithmetic = projection(self._spec, exact.device, exact.dtype)
        pieces, done = exact.split(_PIECE * self._spec.hop_length, -1), []
        with torch.autocast(exact.device.type, enabled=False):
            target = self._gain * arithmetic.target(frames.to(exact.dtype))
            for number, piece in enumerate(pieces, start=1):
                done.append(self._push(arithmetic, target, piece, last and number == len(pieces)))
                target = target[:, :0]
        return join(*done).to(wave.dtype)

    def _push(self, arithmetic: Projection, target: Tensor, wave: Tensor, last: bool) -> Tensor:
        earlier: Tensor | None = None
        for one in self._rounds:
            wave, earlier = one(arithmetic, target, wave, earlier, last)
        return wave


class Round(Stateful):
    """One round, in pieces of any length.

    The sound is analysed in the mel's own frames; the change of each frame's spectrum is synthesised and added to it
    (rather than the spectrum itself, so that samples that hardly any frame covers stay as they are).
    """

    parts = ("_framing",)
    state = ("_targets", "_earlier", "_wave", "_sums", "_weights", "_skipped")

    def __init__(self, spec: MelSpec, momentum: float, care: Care | None, steps: int) -> None:
        self._inertia, self._care, self._steps = momentum / (1.0 + momentum), care, steps
        self._hop = spec.hop_length
        self._framing = Window(
            _as_it_is,
            span=spec.n_fft,
            stride=spec.hop_length,
            left=spec.pad,
            right=spec.n_fft - spec.hop_length - spec.pad,  # by which T frames reach beyond T * hop_length
            mode="reflect" if spec.pad_mode == "reflect" else "zeros",
        )
        self._targets: Tensor | None = None  # [B, t, n_mels] of frames that the sound has not reached yet
        self._earlier: Tensor | None = None  # [B, C, t, n_bins], what the round before found in them
        self._wave: Tensor | None = None  # [B, C, n] samples that are not final yet
        self._sums: Tensor | None = None  # [B, C, m] of the frames so far, to which later ones still add
        self._weights: Tensor | None = None  # [m] the squared windows' sums
        self._skipped = spec.pad  # samples of `_sums` that lie before the signal

    def __call__(
        self, arithmetic: Projection, target: Tensor, wave: Tensor, earlier: Tensor | None, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Take the next frames and samples.

        Args:
            arithmetic: of the spec.
            target: the next frames `[B, t, n_mels]`, linear; they come before their samples.
            wave: the next samples `[B, C, n]`.
            earlier: the spectra `[B, C, t, n_bins]` that the round before found just now; None for the first round.
            last: whether the signal ends with them.

        Returns:
            The samples that are now final, and the spectra found.
        """
        found = arithmetic.analyse(self._framing(wave, last))
        count = found.shape[-2]
        now, self._targets = _take(self._targets, target, count)
        if earlier is not None and self._inertia:
            before, self._earlier = _take(self._earlier, earlier, count)
        if count:
            powers = squares(found)
            gains = arithmetic.correct(powers, now, steps=self._steps, care=self._care)
            if earlier is not None and self._inertia:
                aim = torch.sub(found, before, alpha=self._inertia)
                change = aim * _root(gains * (powers / squares(aim))) - found
            else:
                change = found * (_root(gains) - 1.0)
            self._lay(arithmetic, change)
        return self._final(arithmetic, join(self._wave, wave), count, last), found

    def _lay(self, arithmetic: Projection, change: Tensor) -> None:
        """Add the frames of a change `[B, C, t, n_bins]` to the sums."""
        sums, weights = arithmetic.overlap_add(change), arithmetic.weights(change.shape[-2])
        if self._sums is not None and self._weights is not None:
            more = (0, sums.shape[-1] - self._sums.shape[-1])
            sums, weights = sums + F.pad(self._sums, more), weights + F.pad(self._weights, more)
        self._sums, self._weights = sums, weights

    def _final(self, arithmetic: Projection, wave: Tensor, count: int, last: bool) -> Tensor:
        """The samples that no later frame changes."""
        sums, weights = self._sums, self._weights
        if sums is None or weights is None:
            self._wave = wave[..., wave.shape[-1] if last else 0 :]
            return wave if last else wave[..., :0]
        done = sums.shape[-1] if last else count * self._hop
        change = sums[..., :done] / weights[:done].maximum(arithmetic.weakest)
        before = min(self._skipped, done)
        self._skipped -= before
        samples = wave.shape[-1] if last else done - before
        change = F.pad(change[..., before:], (0, samples - (done - before)))
        self._sums, self._weights, self._wave = sums[..., done:], weights[done:], wave[..., samples:].clone()
        return wave[..., :samples] + change


def sound_spec(sound: Sound) -> MelSpec:
    """The mel's spec at the rate of the sound: the same frames and bands, seen in its spectrum.

    Raises:
        SpecError: these frames are not whole samples of the sound, or it has not all of these bands.
    """
    spec, rate = sound.spec, sound.sample_rate
    if rate == spec.sample_rate and sound.samples_per_frame == spec.hop_length:
        return spec
    sizes = [size * rate / spec.sample_rate for size in (spec.n_fft, spec.win_length, spec.hop_length)]
    n_fft, win_length, hop_length = (int(size) for size in sizes)
    if sizes != [n_fft, win_length, hop_length] or hop_length != sound.samples_per_frame or n_fft % 2:
        raise SpecError(
            f"this vocoder cannot be refined: its mel has frames of {spec.n_fft} samples at {spec.sample_rate} Hz, "
            f"which are {sizes[0]:g} samples of its sound at {rate} Hz; omit refine, or give 0"
        )
    if spec.f_max > rate / 2:
        raise SpecError(
            f"this vocoder cannot be refined: its mel reaches up to {spec.f_max:g} Hz, its sound at {rate} Hz only to "
            f"{rate / 2:g} Hz; omit refine, or give 0"
        )
    gain = (rate / spec.sample_rate) ** 2  # of the powers in a longer frame
    return replace(
        spec,
        sample_rate=rate,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        magnitude_eps=spec.magnitude_eps * gain,
    )


def refined(steps: tuple[PostStep, ...], rounds: int) -> tuple[PostStep, ...]:
    """Steps with so many rounds of refinement, 0 for none: instead of those that are there, else at the end.

    Raises:
        OptionError: not a whole number of rounds from 0 up.
    """
    none = isinstance(rounds, Integral) and not isinstance(rounds, bool) and rounds == 0
    wanted = () if none else (Refine(rounds),)
    before = [isinstance(step, Refine) for step in steps]
    if not any(before):
        return (*steps, *wanted)
    place = before.index(True)
    return (*steps[:place], *wanted, *(step for step in steps[place:] if not isinstance(step, Refine)))


def _root(gains: Tensor) -> Tensor:
    return gains.clamp(min=1e-30).sqrt()  # not of 0, where its gradient is infinite


def _take(queue: Tensor | None, fresh: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` frames of a queue `[..., t, n]` and what follows it, and the rest."""
    parts = [part for part in (queue, fresh) if part is not None and part.shape[-2]]
    whole = torch.cat(parts, -2) if len(parts) > 1 else parts[0] if parts else fresh
    return whole[..., :count, :], whole[..., count:, :]


def _as_it_is(padded: Tensor) -> Tensor:
    return padded


STEP = Refine
