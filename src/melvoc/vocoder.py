"""What every vocoder is: a mel specification and a way from mel to sound.

To write one, subclass `Vocoder`, call `super().__init__(name=..., spec=...)` and define `forward`. Checks, shapes,
lengths, resampling and clamping are inherited. Streaming is inherited too where `graph` gives the network as an
expression of nodes (`melvoc.nn.graph`).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from melvoc.audio.resampling import resample
from melvoc.errors import MelMismatchError, MelvocError, PluginError, SpecError
from melvoc.host import public
from melvoc.nn.graph import Engine, Node
from melvoc.post import PostStep
from melvoc.spectrogram.check import check_mel, rows_of
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.streaming import VocoderStream

SERIAL = 32_000  # values that torch copies on a CPU without waking its threads, which then wait beside an engine's


class Vocoder(nn.Module):
    """From mel to sound.

    Args:
        name: what the vocoder is called in messages.
        spec: the only mel that it understands.
    """

    def __init__(self, *, name: str, spec: MelSpec) -> None:
        super().__init__()
        if not isinstance(spec, MelSpec):
            raise SpecError(f"spec={spec!r} is a {type(spec).__name__}, but a vocoder needs a melvoc.MelSpec")
        self.name = name
        self.spec = spec
        self.post: tuple[PostStep, ...] = ()  # steps after the network, in every form of synthesis
        self.register_buffer("_anchor", torch.empty(0, device="cpu"), persistent=False)
        self._anchor: Tensor
        self._analysis = (MelSpectrogram(spec),)  # a tuple: no part of the state dict, and float32 whatever `to` says

    # What a subclass defines

    def forward(self, mel: Tensor) -> Tensor:
        """The vocoder itself, differentiable where that is possible; nothing is checked here.

        Args:
            mel: `[B, n_mels, T]` in this vocoder's spec, device and dtype.

        Returns:
            `[B, 1, T * hop_length]`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward(mel)")

    def graph(self) -> Node:
        """The network as an expression that runs in pieces. Override to stream.

        Raises:
            MelvocError: this vocoder cannot stream.
        """
        raise MelvocError(
            f"{self.name} cannot stream: {type(self).__name__} needs the whole mel at once; "
            "use mel_to_waveform, or a vocoder that streams (BigVGAN, HiFi-GAN, Vocos)"
        )

    def engine(self) -> Engine:
        """What runs the graph: plain torch, unless a subclass has something faster."""
        return Engine()

    @property
    def block_frames(self) -> int:
        """Mel frames a block of long input, where the vocoder streams."""
        return 128

    # What it inherits

    @public
    def __call__(self, mel: Tensor) -> Tensor:
        """`forward`, as of any module."""
        return super().__call__(mel)  # type: ignore[no-any-return]

    @property
    def sample_rate(self) -> int:
        """Samples a second of what comes out, in Hz."""
        return self.spec.sample_rate

    def get_sample_rate(self) -> int:
        """`sample_rate`, as a method."""
        return self.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters(), self._anchor).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type, which is what the vocoder computes in."""
        return next(self.parameters(), self._anchor).dtype

    @property
    def mel_dtype(self) -> torch.dtype:
        """The type in which `forward` takes a mel: `dtype`, unless a subclass keeps its input more exact."""
        return self.dtype

    @property
    def can_stream(self) -> bool:
        """Whether `stream` works, and long input runs in blocks."""
        return type(self).graph is not Vocoder.graph

    @public
    def mel(self, waveform: Tensor, *, sample_rate: int | None = None) -> Tensor:
        """The mel of a waveform in this vocoder's own spec.

        Args:
            waveform: `[N]`, `[B, N]` or `[B, 1, N]`, in [-1, 1].
            sample_rate: the waveform's, in Hz; it is resampled where it is not the vocoder's. None: the vocoder's.

        Returns:
            `[B, n_mels, spec.frames(N')]`, float32 (float64 for a float64 waveform), on the vocoder's device.

        Raises:
            SpecError: a waveform of another shape or type, with NaN or Inf, or shorter than the padding.
        """
        if not isinstance(waveform, Tensor):
            kind = type(waveform).__name__
            raise SpecError(f"the waveform is a {kind}, but it is a torch.Tensor; torch.as_tensor makes one")
        rate, waveform = self._rate(sample_rate), waveform.to(self.device)
        if rate != self.sample_rate:
            waveform = resample(waveform, rate, self.sample_rate)
        return self._analysis[0].to(self.device)(waveform)  # type: ignore[no-any-return]

    @public
    @torch.no_grad()
    def mel_to_waveform(
        self,
        mel: Tensor,
        *,
        spec: MelSpec | None = None,
        lengths: Sequence[int] | Tensor | None = None,
        sample_rate: int | None = None,
        block_frames: int | None = None,
    ) -> Tensor:
        """Turn mels into sound.

        Args:
            mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]` in this vocoder's spec.
            spec: the mel's spec, where it is known: compared with the vocoder's field by field. Without it the mel
                is checked for what can be checked (shape, finiteness, range).
            lengths: B frame counts, from 0 to T; what lies beyond a row's count never influences the result.
            sample_rate: of the result, in Hz. None: the vocoder's.
            block_frames: frames a block of long input (vocoders that stream). None: chosen from model and device.

        Returns:
            `[B, 1, T * hop_length]` in [-1, 1] (`ceil(T * hop_length * sample_rate / voc.sample_rate)` where
            resampled), float32 or the vocoder's float64. Samples past a row's end are 0.

        Raises:
            MelMismatchError: spec is not the vocoder's.
            SpecError: the mel cannot be one of this vocoder's spec, or lengths do not fit it.
        """
        if spec is not None:
            self._match(spec)
        mel = rows_of(mel, self.spec)
        rate = self._rate(sample_rate)
        wave_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32

        def sound(part: Tensor) -> Tensor:
            made = self._synthesize(part.to(self.device, self.mel_dtype), block_frames).to(wave_dtype)
            return made if rate == self.sample_rate else resample(made, self.sample_rate, rate).clamp_(-1.0, 1.0)

        if lengths is None:
            return sound(check_mel(mel, self.spec, known=spec is not None))  # not copied: it may be long
        total = _resampled(self.spec.samples(mel.shape[-1]), self.sample_rate, rate)
        wave = torch.zeros(mel.shape[0], 1, total, dtype=wave_dtype, device=self.device)
        for length, rows in _groups(lengths, mel):
            made = sound(check_mel(mel[rows, :, :length], self.spec, known=spec is not None))
            wave[rows, :, : made.shape[-1]] = made
        return wave

    @public
    def stream(self, *, lookahead_frames: int | None = None, sample_rate: int | None = None) -> VocoderStream:
        """Turn a mel into sound while it comes. See `VocoderStream`.

        Args:
            lookahead_frames: None for exact streaming; n for an approximation that waits for n frames only.
            sample_rate: of the result, in Hz. None: the vocoder's.

        Raises:
            MelvocError: this vocoder cannot stream.
        """
        graph = self.graph()
        return VocoderStream(
            self.engine().open(graph),
            spec=self.spec,
            delay=graph.delay(0),
            device=self.device,
            dtype=self.mel_dtype,
            lookahead_frames=lookahead_frames,
            sample_rate=self._rate(sample_rate),
        )

    def _rate(self, sample_rate: int | None) -> int:
        if sample_rate is None:
            return self.sample_rate
        if isinstance(sample_rate, bool) or not isinstance(sample_rate, Integral) or not 1 <= sample_rate < 2**31:
            raise SpecError(f"sample_rate={sample_rate!r}, but it is a whole number of Hz from 1 to {2**31 - 1}")
        return int(sample_rate)

    def _match(self, spec: MelSpec) -> None:
        if not isinstance(spec, MelSpec):
            raise SpecError(f"spec={spec!r} is a {type(spec).__name__}; pass the melvoc.MelSpec the mel was made with")
        if different := self.spec.diff(spec):
            listed = "; ".join(
                f"{field}: {self.name} needs {mine!r}, the mel has {theirs!r}"
                for field, (mine, theirs) in different.items()
            )
            raise MelMismatchError(
                f"this mel is not {self.name}'s. {listed}. Make it with voc.mel(waveform), or see melvoc.convert_mel"
            )

    def _synthesize(self, mel: Tensor, block_frames: int | None) -> Tensor:
        """`[B, n_mels, T]`, T >= 1, to `[B, 1, T * hop_length]` in [-1, 1]: in blocks where the vocoder streams."""
        whole = isinstance(block_frames, Integral) and not isinstance(block_frames, bool)
        if block_frames is not None and not (whole and block_frames >= 1):
            raise SpecError(f"block_frames={block_frames!r}, but a block has a whole number of frames, at least 1")
        expected = (mel.shape[0], 1, self.spec.samples(mel.shape[-1]))
        if not self.can_stream:
            if block_frames is not None:
                raise MelvocError(f"block_frames={block_frames}, but {self.name} cannot run in blocks; leave it away")
            wave = self(mel)
            if not isinstance(wave, Tensor) or tuple(wave.shape) != expected:
                shape = list(wave.shape) if isinstance(wave, Tensor) else type(wave).__name__
                raise PluginError(
                    f"{type(self).__name__}.forward gave {shape} for a mel of {list(mel.shape)}, but the contract is "
                    f"[B, 1, T * hop_length] = {list(expected)}"
                )
            return wave.clamp(-1.0, 1.0)
        wave = torch.empty(expected, dtype=mel.dtype, device=mel.device)
        at_once = max(1, SERIAL // mel.shape[0]) if mel.device.type == "cpu" else expected[-1]
        done = 0
        with torch.inference_mode():
            machine = self.engine().open(self.graph())
            count = -(-mel.shape[-1] // int(block_frames or self.block_frames))
            blocks = mel.split(-(-mel.shape[-1] // count), dim=-1)  # all of about one length
            for number, block in enumerate(blocks, start=1):
                piece = machine(block, number == len(blocks))
                for part in piece.split(at_once, dim=-1) if piece.shape[-1] else ():
                    torch.clamp(part, -1.0, 1.0, out=wave[..., done : done + part.shape[-1]])
                    done += part.shape[-1]
        if done != expected[-1]:
            raise PluginError(f"{type(self).__name__}.graph gave {done} samples for {expected[-1]}; its delay is wrong")
        return wave


def _resampled(samples: int, old: int, new: int) -> int:
    return -(-samples * new // old)


def _groups(lengths: Sequence[int] | Tensor, mel: Tensor) -> list[tuple[int, list[int]]]:
    """Rows of equal length, which run as one batch: what is beyond a row's length is never even read."""
    batch, frames = mel.shape[0], mel.shape[-1]
    counts = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    if not isinstance(counts, Sequence) and not hasattr(counts, "__iter__"):
        raise SpecError(f"lengths={lengths!r}, but it is a list of frame counts, one a mel")
    counts = list(counts)
    if len(counts) != batch:
        raise SpecError(f"lengths has {len(counts)} entries for {batch} mels; give one number of frames a mel")
    groups: dict[int, list[int]] = {}
    for row, count in enumerate(counts):
        if isinstance(count, bool) or not hasattr(count, "__index__") or not 0 <= count <= frames:
            raise SpecError(f"lengths[{row}]={count!r}, but it is a whole number of frames from 0 to {frames}")
        groups.setdefault(int(count), []).append(row)
    return [(count, rows) for count, rows in groups.items() if count]
