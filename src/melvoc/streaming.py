"""A vocoder that takes a mel in pieces and returns sound in pieces.

The machines of `melvoc.nn.graph` carry the state of every layer, so that the pieces, joined, equal one call over the
whole mel, and nothing is computed twice. `melvoc.synthesis` does the work; this module is the public interface: checks,
the batch size and the end of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from melvoc.errors import MelvocError, SpecError
from melvoc.host import public
from melvoc.spectrogram.check import check_piece, rows_of, warn_of
from melvoc.synthesis import Run, stacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from melvoc.spectrogram.likelihood import Verdict, Watch
    from melvoc.vocoder import Vocoder


class VocoderStream:
    """One stream of one vocoder, made by `Vocoder.stream`. For one thread; streams do not share state.

    With `lookahead_frames=n` below the exact stream's `latency_frames`, each push returns the sound of all but the
    last n frames at once: the frames that the network would still need are assumed to repeat the last one. Sound
    already returned stays as it is; later pieces are computed from the true frames. That costs `latency_frames - n`
    extra frames of computation per push.

    Attributes:
        latency_samples: samples by which the sound lags behind the mel, at the stream's sample rate.
        latency_frames: the look-ahead in mel frames, rounded up.
        sample_rate: of the sound, in Hz.
    """

    def __init__(self, vocoder: Vocoder, run: Run, *, known: bool = False) -> None:
        self._vocoder, self._run = vocoder, run
        self.sample_rate = run.sample_rate
        self.latency_samples, self.latency_frames = run.latency_samples, run.latency_frames
        self._watch = None if known else _watch(vocoder)  # where the caller has named the mel's spec nothing is guessed
        self._batch: int | None = None
        self._end: str | None = None  # why no more frames are taken

    @public
    def push(
        self, mel: Tensor | NDArray[Any], *, conditions: Mapping[str, Tensor | NDArray[Any]] | None = None
    ) -> Tensor:
        """Take the next frames.

        Args:
            mel: `[n_mels, t]`, `[B, n_mels, t]` or `[B, 1, n_mels, t]`, a tensor or a NumPy array; t may be 0, B must
                be the first piece's.
            conditions: of these frames, as in `mel_to_waveform`.

        Returns:
            `[B, channels, n]`, every sample that is ready, in [-1, 1]; n may be 0.

        Raises:
            SpecError: a piece that does not fit the vocoder or the stream; the stream stays usable.
            MelvocError: the stream was already flushed or closed, or failed before.
        """
        self._alive()
        spec = self._vocoder.spec
        mel = rows_of(mel, spec, empty=True)
        if self._batch is not None and mel.shape[0] != self._batch:
            raise SpecError(f"this piece has a batch of {mel.shape[0]}, but the stream began with {self._batch}")
        check_piece(mel, spec)
        frames = stacked(self._vocoder, mel, conditions).clone()  # it is kept, and the caller may write into its own
        if self._watch is not None:
            self._warn(self._watch.push(mel))
        self._batch = mel.shape[0]
        return self._advance(frames, last=False)

    @public
    def flush(self) -> Tensor:
        """End the mel.

        Returns:
            `[B, channels, n]`, the samples that were still waiting.

        Raises:
            MelvocError: the stream was already flushed or closed, or failed before.
        """
        self._alive()
        if self._watch is not None:
            self._warn(self._watch.flush())
        vocoder, batch = self._vocoder, self._batch or 1
        if self._run.started:
            width = vocoder.spec.n_mels + sum(one.channels for one in vocoder.conditions.values())
            wave = self._advance(torch.zeros(batch, width, 0, dtype=torch.float32, device="cpu"), last=True)
        else:
            wave = torch.zeros(batch, vocoder.channels, 0, device=vocoder.device, dtype=self._run.wave_dtype)
        self._finish("was flushed")
        return wave

    def __repr__(self) -> str:
        """One line: of which vocoder, at which rate, how late, and how far."""
        frames = "frame" if self.latency_frames == 1 else "frames"
        return (
            f"<VocoderStream of {self._vocoder.name!r}: {self.sample_rate} Hz, latency {self.latency_samples} samples "
            f"({self.latency_frames} {frames}), {self._end or 'open'}>"
        )

    def close(self) -> None:
        """Release the state; further pushes are refused."""
        if self._end is None:
            self._finish("was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _alive(self) -> None:
        if self._end is not None:
            raise MelvocError(f"this stream {self._end} and takes no more frames; open a new one with voc.stream()")

    def _warn(self, verdict: Verdict | None) -> None:
        if verdict:
            warn_of(verdict, self._vocoder.spec)

    def _finish(self, end: str) -> None:
        self._end = end
        del self._run

    def _advance(self, frames: Tensor, *, last: bool) -> Tensor:
        """A failure leaves no usable state, so it ends the stream."""
        try:
            wave = self._run(frames, last)
        except BaseException:
            self._finish("failed in an earlier push")
            raise
        return wave.clone()  # an ordinary tensor that autograd accepts, not an inference-mode one


def _watch(vocoder: Vocoder) -> Watch:
    from melvoc.spectrogram.likelihood import Watch

    return Watch(vocoder.spec)
