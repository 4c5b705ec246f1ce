"""A vocoder that takes a mel in pieces and gives sound in pieces.

The machines of `melvoc.nn.graph` carry the state of every layer, so that the pieces, joined, are what one call over
the whole mel gives, and nothing is computed twice. What is left to do here is what a caller sees: checks, the batch,
the look-ahead, the sample rate and the end.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from melvoc.audio.resampling import Resampler
from melvoc.errors import MelvocError, SpecError
from melvoc.host import public
from melvoc.nn.graph import Machine
from melvoc.spectrogram.check import check_piece, rows_of
from melvoc.spectrogram.spec import MelSpec


class VocoderStream:
    """One stream of one vocoder; `Vocoder.stream` makes them. For one thread; streams do not share state.

    With `lookahead_frames=n` less than `latency_frames` of the exact stream, each push answers at once all but the
    last n frames: the frames that the network would still need are taken to repeat the last one. What has been given
    out stays; later pieces are computed from the true frames. That costs `latency_frames - n` extra frames of
    computation a push.

    Attributes:
        latency_samples: samples by which the sound is behind the mel, at the stream's sample rate.
        latency_frames: the look-ahead in mel frames, rounded up.
        sample_rate: of the sound, in Hz.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        spec: MelSpec,
        delay: int,
        device: torch.device,
        dtype: torch.dtype,
        lookahead_frames: int | None = None,
        sample_rate: int | None = None,
    ) -> None:
        exact = -(-delay // spec.hop_length)
        if lookahead_frames is not None and (type(lookahead_frames) is not int or lookahead_frames < 0):
            raise SpecError(
                f"lookahead_frames={lookahead_frames!r}, but it is a whole number of frames from 0 (to {exact}, which "
                "is exact), or None"
            )
        self._machine: Machine | None = machine
        self._spec, self._device, self._dtype = spec, device, dtype
        self._guessed = 0 if lookahead_frames is None else max(0, exact - lookahead_frames)
        self.sample_rate = spec.sample_rate if sample_rate is None else sample_rate
        resampled = self.sample_rate != spec.sample_rate
        self._resampler = Resampler(spec.sample_rate, self.sample_rate) if resampled else None
        samples = delay if not self._guessed else (exact - self._guessed) * spec.hop_length
        self._waited = exact - self._guessed
        self.latency_samples = self._resampler.delay(samples) if self._resampler else samples
        self.latency_frames = -(-self.latency_samples * spec.sample_rate // (self.sample_rate * spec.hop_length))
        self._batch: int | None = None
        self._frames = 0  # pushed so far
        self._final = 0  # samples that the machine has given
        self._given = 0  # samples that the caller has been given, before resampling
        self._last: Tensor | None = None
        self._end = "was closed"

    @public
    def push(self, mel: Tensor) -> Tensor:
        """The next frames.

        Args:
            mel: `[n_mels, t]`, `[B, n_mels, t]` or `[B, 1, n_mels, t]`; t may be 0, B is the first piece's.

        Returns:
            `[B, 1, n]`, every sample that is ready, in [-1, 1]; n may be 0.

        Raises:
            SpecError: a piece that does not fit the vocoder or the stream, which goes on.
            MelvocError: the stream was flushed, closed, or failed before.
        """
        self._alive()
        mel = rows_of(mel, self._spec, empty=True)
        if self._batch is not None and mel.shape[0] != self._batch:
            raise SpecError(f"this piece has a batch of {mel.shape[0]}, but the stream began with {self._batch}")
        check_piece(mel, self._spec)
        self._batch = mel.shape[0]
        return self._run(mel.to(self._device, self._dtype), last=False)

    @public
    def flush(self) -> Tensor:
        """End the mel.

        Returns:
            `[B, 1, n]`, the samples that were still waiting.

        Raises:
            MelvocError: the stream was flushed, closed, or failed before.
        """
        self._alive()
        empty = torch.zeros(self._batch or 1, self._spec.n_mels, 0, device=self._device, dtype=self._dtype)
        wave = self._run(empty, last=True) if self._frames else self._empty()
        self._finish("was flushed")
        return wave

    def close(self) -> None:
        """Release the state; further pushes are refused."""
        if self._machine is not None:
            self._finish("was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _alive(self) -> None:
        if self._machine is None:
            raise MelvocError(f"this stream {self._end} and takes no more frames; open a new one with voc.stream()")

    def _finish(self, end: str) -> None:
        self._machine, self._resampler, self._last, self._end = None, None, None, end

    def _empty(self) -> Tensor:
        return torch.zeros(self._batch or 1, 1, 0, device=self._device, dtype=self._wave_dtype)

    @property
    def _wave_dtype(self) -> torch.dtype:
        return torch.float64 if self._dtype == torch.float64 else torch.float32

    def _run(self, mel: Tensor, last: bool) -> Tensor:
        """Push through the machine; a failure in between leaves no usable state, so that it ends the stream."""
        try:
            with torch.inference_mode():
                wave = self._resample(self._advance(mel, last), last)
        except BaseException:
            self._finish("failed in an earlier push")
            raise
        return wave.clone()  # an ordinary tensor, which autograd may see, not one of inference mode

    def _advance(self, mel: Tensor, last: bool) -> Tensor:
        """Samples that the caller has not been given yet."""
        assert self._machine is not None  # _alive has seen to it
        self._frames += mel.shape[-1]
        final = self._machine(mel, last) if mel.shape[-1] or last else mel[:, :1]
        self._final += final.shape[-1]
        parts = [final] if final.shape[-1] else []
        if self._guessed and not last:
            self._last = mel[..., -1:].clone() if mel.shape[-1] else self._last
            if mel.shape[-1] and self._last is not None:
                parts.append(self._guess(self._last))
        wave = torch.cat(parts, dim=-1) if parts else self._empty()
        wave = wave[..., self._given - (self._final - final.shape[-1]) :]  # what a guess gave out stays given
        self._given += wave.shape[-1]
        return wave.to(self._wave_dtype).clamp(-1.0, 1.0)

    def _guess(self, frame: Tensor) -> Tensor:
        """The samples after the final ones, up to the look-ahead, as if the last frame went on."""
        assert self._machine is not None
        wave = self._machine.fork()(frame.expand(-1, -1, self._guessed), False)
        wanted = (self._frames - self._waited) * self._spec.hop_length - self._final
        return wave[..., : max(0, wanted)]

    def _resample(self, wave: Tensor, last: bool) -> Tensor:
        if self._resampler is None:
            return wave
        return self._resampler(wave, last).clamp(-1.0, 1.0)
