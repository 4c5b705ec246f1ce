"""The single path from mel to sound, behind whole, batched, blocked and streamed synthesis and `voc.resynthesize`.

    frames -> network -> steps after it -> clamp -> resampling -> clamp

Everything works in pieces. A vocoder that needs the whole mel gathers them and returns all its sound at the end; whole
synthesis is the same run, fed with one or more blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melvoc.arrays import as_tensor
from melvoc.audio.resampling import Resampler, resampled_length
from melvoc.errors import MelvocError, PluginError, SpecError
from melvoc.nn.graph import Machine, join
from melvoc.post import PostMachine, PostStep, Sound
from melvoc.progress import Report
from melvoc.spectrogram.transform import MelSpectrogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from melvoc.vocoder import Vocoder


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A further per-frame input, such as pitch.

    Attributes:
        unit: of its values (e.g. "Hz").
        low: the smallest allowed value.
        high: the largest allowed value.
        channels: values per frame.
    """

    unit: str
    low: float
    high: float
    channels: int = 1


class Run:
    """One mel on its way to sound, in pieces.

    Args:
        vocoder: whose network is run.
        steps: that follow the network.
        sample_rate: of the result, in Hz.
        lookahead_frames: None for exact results; n to return the sound of all but the last n frames with each push.
        rows: of the batch that this mel has. None: all of them.

    Attributes:
        sample_rate: of the result, in Hz.
        latency_samples: samples by which the sound lags behind the mel, at the result's rate.
        latency_frames: the same in mel frames, rounded up.

    Raises:
        SpecError: lookahead_frames is not a whole number from 0 up.
    """

    def __init__(
        self,
        vocoder: Vocoder,
        *,
        steps: tuple[PostStep, ...],
        sample_rate: int,
        lookahead_frames: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        sound = Sound(
            spec=vocoder.spec,
            channels=vocoder.channels,
            samples_per_frame=vocoder.samples_per_frame,
            sample_rate=vocoder.sample_rate,
        )
        self._sound, self._name, self._streams, self._engine = sound, vocoder.name, vocoder.can_stream, vocoder.engine()
        self._device, self._dtype = vocoder.device, vocoder.mel_dtype
        self.sample_rate, self.wave_dtype = sample_rate, wave_dtype(vocoder)
        network = self._engine.open(vocoder.graph()) if self._streams else Gathered(vocoder)
        if rows is not None:
            network.of_rows(torch.tensor(rows, device="cpu"))
        self._way = Way(network, [step.open(sound) for step in steps], sound)
        delay = vocoder.graph().delay(0) if self._streams else 0
        delay += sum(step.delay(sound) for step in steps)
        exact = -(-delay // sound.samples_per_frame)
        if lookahead_frames is not None and (type(lookahead_frames) is not int or lookahead_frames < 0):
            raise SpecError(
                f"lookahead_frames={lookahead_frames!r}, but it is a whole number of frames from 0 (to {exact}, which "
                "is exact), or None"
            )
        self._guessed = 0 if lookahead_frames is None else max(0, exact - lookahead_frames)
        self._waited = exact - self._guessed
        resampled = sample_rate != sound.sample_rate
        self._resampler = Resampler(sound.sample_rate, sample_rate) if resampled else None
        samples = delay if not self._guessed else self._waited * sound.samples_per_frame
        self.latency_samples = self._resampler.delay(samples) if self._resampler else samples
        frame = sample_rate * sound.samples_per_frame
        self.latency_frames = -(-self.latency_samples * sound.sample_rate // frame)
        self._frames = 0  # taken so far
        self._final = 0  # samples that the network and its steps have produced
        self._given = 0  # samples returned to the caller, before resampling

    @property
    def started(self) -> bool:
        """Whether any frames have arrived."""
        return self._frames > 0

    def __call__(self, frames: Tensor, last: bool, out: Tensor | None = None) -> Tensor:
        """Take the next frames.

        Args:
            frames: the next ones `[B, n_mels + condition channels, t]`; t may be 0.
            last: whether the mel ends with them.
            out: a tensor to write to, from its beginning, or None.

        Returns:
            `[B, channels, n]`, what is ready, in [-1, 1]; the beginning of `out` if that was given.

        Raises:
            PluginError: the vocoder returned other numbers of channels or samples than its contract says.
            MelvocError: it made NaN or Inf.
        """
        with torch.inference_mode() if self._streams else nullcontext():
            wave = self._advance(frames.to(self._device, self._dtype), last).to(self.wave_dtype)
            if not self._engine.finite(wave):
                raise MelvocError(
                    f"{self._name} made NaN or Inf of a finite mel: its weights are damaged or its dtype too narrow; "
                    "load it in float32, or get the file again"
                )
            if self._resampler is None:
                return self._clamped(wave, out)
            return self._clamped(self._resampler(self._clamped(wave, None), last), out)

    def _clamped(self, wave: Tensor, out: Tensor | None) -> Tensor:
        part = torch.empty_like(wave) if out is None else out[..., : wave.shape[-1]]
        self._engine.clamp(wave, part)
        return part

    def _advance(self, frames: Tensor, last: bool) -> Tensor:
        """Samples that have not been returned to the caller yet."""
        count, hop = frames.shape[-1], self._sound.samples_per_frame
        self._frames += count
        final = self._way(frames, last) if count or last else frames.new_zeros(len(frames), self._sound.channels, 0)
        before, self._final = self._final, self._final + final.shape[-1]
        shape, due = list(final.shape[:2]), [len(frames), self._sound.channels]
        if final.shape[-1] and shape != due:
            raise PluginError(
                f"{self._name} gave {shape} rows and channels of sound, but the contract is {due}; correct its graph "
                "or its channels"
            )
        if last and self._final != self._frames * hop:
            raise PluginError(
                f"{self._name} gave {self._final} samples for {self._frames} frames, but the contract is {hop} per "
                "frame; the delay of its graph or of a step is wrong"
            )
        wave = join(final, self._guess(frames[..., -1:])) if self._guessed and not last and count else final
        wave = wave[..., self._given - before :]  # what a guess returned is not returned again
        self._given += wave.shape[-1]
        return wave

    def _guess(self, frame: Tensor) -> Tensor:
        """The samples after the final ones, up to the look-ahead, as if the last frame were repeated."""
        wave = self._way.fork()(frame.expand(-1, -1, self._guessed), False)
        wanted = (self._frames - self._waited) * self._sound.samples_per_frame - self._final
        return wave[..., : max(0, wanted)]


class Way(Machine):
    """The network's machine, followed by those of the steps after it.

    Args:
        network: turns frames into sound.
        steps: applied to the sound, in order.
        sound: the sound's properties.
    """

    parts = ("network", "steps")

    def __init__(self, network: Machine, steps: list[PostMachine], sound: Sound) -> None:
        self.network, self.steps, self.sound = network, steps, sound

    def __call__(self, frames: Tensor, last: bool) -> Tensor:
        """The sound that is now final."""
        wave, mel = self.network(frames, last), frames[:, : self.sound.spec.n_mels]  # the conditions follow
        if not wave.shape[-1]:  # with any number of channels
            wave = frames.new_zeros(frames.shape[0], self.sound.channels, 0)
        for step in self.steps:
            wave = step(mel, wave, last)
        return wave


class Gathered(Machine):
    """A vocoder that needs the whole mel: gathers the frames and returns all the sound at the end."""

    state = ("before",)

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder
        self.before: list[Tensor] = []

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """Nothing, or everything.

        Raises:
            PluginError: the vocoder returned a different shape than its contract says.
        """
        if not last:
            self.before.append(x)
            return x[..., :0]
        frames = join(*self.before, x)
        wave = self.vocoder(frames)
        expected = (frames.shape[0], self.vocoder.channels, frames.shape[-1] * self.vocoder.samples_per_frame)
        if not isinstance(wave, Tensor) or tuple(wave.shape) != expected:
            shape = list(wave.shape) if isinstance(wave, Tensor) else type(wave).__name__
            raise PluginError(
                f"{type(self.vocoder).__name__}.forward gave {shape} for a mel of {list(frames.shape)}, but the "
                f"contract is [B, channels, T * samples_per_frame] = {list(expected)}"
            )
        return wave


def synthesise(
    vocoder: Vocoder,
    frames: Tensor,
    *,
    steps: tuple[PostStep, ...],
    sample_rate: int,
    block_frames: int | None,
    rows: Sequence[int] | None = None,
    report: Report = lambda done: None,
) -> Tensor:
    """The sound of complete mels, in blocks where the vocoder streams.

    Args:
        vocoder: what makes the sound.
        frames: `[B, n_mels + condition channels, T]`, T >= 1.
        steps: that follow the network.
        sample_rate: of the result, in Hz.
        block_frames: at most this many frames per block. None: the vocoder's own choice.
        rows: as in `Run`.
        report: called after each block with the frames done.

    Returns:
        `[B, channels, ceil(T * samples_per_frame * sample_rate / vocoder.sample_rate)]` in [-1, 1].
    """
    size = check_block(vocoder, block_frames)
    run, total = Run(vocoder, steps=steps, sample_rate=sample_rate, rows=rows), frames.shape[-1]
    samples = resampled_length(total * vocoder.samples_per_frame, vocoder.sample_rate, sample_rate)
    wave = torch.empty(frames.shape[0], vocoder.channels, samples, dtype=run.wave_dtype, device=vocoder.device)
    size = -(-total // -(-total // size)) if vocoder.can_stream else total  # blocks of about the same length
    blocks = frames.split(size, dim=-1)
    done = taken = 0
    for number, block in enumerate(blocks, start=1):
        done += run(block, number == len(blocks), wave[..., done:]).shape[-1]
        taken += block.shape[-1]
        report(taken)
    return wave


class Resynthesis:
    """To mel and back in pieces: analysis in the vocoder's own spec, then synthesis, at the input's length.

    Args:
        vocoder: what makes the sound.
        steps: that follow the network.
        sample_rate: of the input, in Hz.
        output_sample_rate: of the result, in Hz.
        block_frames: at most this many mel frames are synthesised at once. None: the vocoder's own choice.

    Attributes:
        samples: the best number to push at a time: those of one block of frames.

    Raises:
        MelvocError: a vocoder that needs more than a mel, or block_frames for one that cannot run in blocks.
    """

    def __init__(
        self,
        vocoder: Vocoder,
        *,
        steps: tuple[PostStep, ...],
        sample_rate: int,
        output_sample_rate: int,
        block_frames: int | None = None,
    ) -> None:
        if vocoder.conditions:
            names = ", ".join(vocoder.conditions)
            raise MelvocError(f"{vocoder.name} needs {names} besides the mel; use mel_to_waveform(mel, conditions=...)")
        self._size = check_block(vocoder, block_frames)
        self._rates, self._device = (sample_rate, output_sample_rate), vocoder.device
        self._analysis = MelSpectrogram(vocoder.spec).stream(sample_rate=sample_rate, cover=True)
        self._run = Run(vocoder, steps=steps, sample_rate=output_sample_rate)
        self.samples = resampled_length(self._size * vocoder.spec.hop_length, vocoder.spec.sample_rate, sample_rate)
        self._given = 0
        self._held: Tensor | None = None  # what is ready, and no part of the result before more has been pushed

    @property
    def taken(self) -> int:
        """Samples pushed so far."""
        return self._analysis.taken

    def push(self, waveform: Tensor) -> Tensor:
        """The next samples `[B, n]`, B that of the first piece; returns `[B, channels, m]`, what is ready."""
        return self._sound(self._analysis.push(waveform.to(self._device)), last=False)

    def flush(self) -> Tensor:
        """End the signal, of which at least one sample was pushed.

        Returns:
            `[B, channels, m]`; the total is `ceil(N * output_sample_rate / sample_rate)` samples.
        """
        return self._sound(self._analysis.flush(), last=True)

    def _sound(self, mel: Tensor, *, last: bool) -> Tensor:
        blocks = mel.split(self._size, dim=-1)
        pieces = [self._run(block, last and number == len(blocks)) for number, block in enumerate(blocks, start=1)]
        wave = torch.cat(pieces if self._held is None else [self._held, *pieces], dim=-1)
        ready = resampled_length(self.taken, *self._rates) - self._given
        self._held = wave[..., ready:]
        self._given += min(ready, wave.shape[-1])
        return wave[..., :ready]


def stacked(
    vocoder: Vocoder,
    mel: Tensor,
    conditions: Mapping[str, Tensor | NDArray[Any]] | None,
    padding: Tensor | None = None,
) -> Tensor:
    """The frames that a network sees: the mel, then each condition in the vocoder's order, as further channels.

    Args:
        vocoder: what the conditions are for.
        mel: `[B, n_mels, T]`.
        conditions: by name, `[B, T]` (one channel) or `[B, channels, T]`.
        padding: `[B, 1, T]`, true in frames whose values do not matter. None: all matter.

    Raises:
        SpecError: a condition that is missing, unexpected, misshapen, out of range, or has NaN or Inf.
    """
    given, wanted = dict(conditions or {}), vocoder.conditions
    if given.keys() != wanted.keys():
        listed = ", ".join(f"{name} ({one.unit})" for name, one in wanted.items()) or "none"
        raise SpecError(f"conditions are {sorted(given)}, but {vocoder.name} takes {listed}; pass exactly those")
    parts = [mel]
    for name, what in wanted.items():
        value = as_tensor(given[name], f"condition {name!r}").to(mel.device, vocoder.mel_dtype)  # a mel may have less
        value = value[:, None] if value.dim() == 2 else value
        expected = [mel.shape[0], what.channels, mel.shape[-1]]
        if list(value.shape) != expected:
            raise SpecError(f"condition {name!r} is {list(value.shape)}, but for this mel it is {expected}")
        counting = value if padding is None else value.masked_select(~padding)
        within = (counting >= what.low) & (counting <= what.high)
        if not bool(within.all()):  # false for NaN too
            raise SpecError(
                f"condition {name!r} ranges from {float(counting.min()):.4g} to {float(counting.max()):.4g}, but it is "
                f"finite and from {what.low:g} to {what.high:g} {what.unit}"
            )
        parts.append(value)
    return torch.cat(parts, dim=1) if len(parts) > 1 else mel


def wave_dtype(vocoder: Vocoder) -> torch.dtype:
    """The dtype of the sound: float32, or float64 of a vocoder that computes in it."""
    return torch.float64 if vocoder.dtype == torch.float64 else torch.float32


def check_block(vocoder: Vocoder, block_frames: int | None) -> int:
    """Frames per block.

    Raises:
        SpecError: not a whole number of at least 1.
        MelvocError: a vocoder that cannot run in blocks.
    """
    if block_frames is None:
        return vocoder.block_frames
    if isinstance(block_frames, bool) or not isinstance(block_frames, Integral) or block_frames < 1:
        raise SpecError(f"block_frames={block_frames!r}, but a block has a whole number of frames, at least 1")
    if not vocoder.can_stream:
        raise MelvocError(f"block_frames={block_frames}, but {vocoder.name} cannot run in blocks; omit it")
    return int(block_frames)
