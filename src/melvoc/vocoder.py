"""The base of every vocoder: a mel specification and a way from mel to sound.

To write one, subclass `Vocoder`, call `super().__init__(name=..., spec=...)` and define `forward`; or define `graph`,
the network as an expression of nodes (`melvoc.nn.graph`), from which `forward` follows, and which can stream.
Checks, shapes, lengths, resampling and clamping are inherited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.audio.resampling import resampled_length, whole_rate
from melvoc.errors import MelMismatchError, MelvocError, SpecError
from melvoc.host import public
from melvoc.nn.graph import Engine, Node
from melvoc.options import pick_device
from melvoc.post import PostStep
from melvoc.progress import Progress, Report, check_progress, watched
from melvoc.spectrogram.check import check_mel, rows_of
from melvoc.spectrogram.spec import MelSpec, check_spec
from melvoc.spectrogram.transform import MelSpectrogram, batch_wave
from melvoc.streaming import VocoderStream
from melvoc.synthesis import Condition, Resynthesis, Run, check_block, stacked, synthesise, wave_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_CONDITIONS: Mapping[str, Condition] = MappingProxyType({})


class Vocoder(nn.Module):
    """Turns mels into sound.

    Args:
        name: the vocoder's name in messages.
        spec: the only kind of mel that it understands.

    Attributes:
        licence: of the weights, None if unknown.
        provenance: where they come from, as arbitrary names and values; empty if unknown.
    """

    licence: str | None = None
    provenance: dict[str, str]

    def __init__(self, *, name: str, spec: MelSpec) -> None:
        super().__init__()
        check_spec(spec)
        self.name = name
        self.spec = spec
        self.provenance = {}
        self.post: tuple[PostStep, ...] = ()  # steps after the network, run in every form of synthesis
        self.register_buffer("_anchor", torch.empty(0, dtype=torch.float32, device="cpu"), persistent=False)
        self._anchor: Tensor
        self._analysis = (MelSpectrogram(spec),)  # a tuple: not in the state dict, and float32 whatever `to` does

    # For subclasses to define

    def forward(self, mel: Tensor) -> Tensor:
        """The vocoder itself, without any checks; differentiable where possible.

        Args:
            mel: `[B, n_mels, T]` in this vocoder's spec, device and dtype, followed by its `conditions`, in order, as
                further channels.

        Returns:
            `[B, channels, T * samples_per_frame]`.
        """
        if type(self).graph is Vocoder.graph:
            raise NotImplementedError(f"{type(self).__name__} has neither forward(mel) nor graph()")
        return self.graph()(mel)

    def graph(self) -> Node:
        """The network as an expression that can run in pieces. Override it to stream.

        Raises:
            MelvocError: this vocoder cannot stream.
        """
        raise MelvocError(
            f"{self.name} cannot stream: {type(self).__name__} needs the whole mel at once; use mel_to_waveform, or a "
            "vocoder that has a graph"
        )

    def engine(self) -> Engine:
        """What runs the graph: plain torch, unless a subclass has something faster."""
        return Engine()

    @property
    def engine_name(self) -> str:
        """What that is: "torch", or one of melvoc's own, "cpu", "cuda" or "mps"."""
        return "torch"

    @property
    def block_frames(self) -> int:
        """Mel frames per block of long input, where the vocoder streams."""
        return 128

    @property
    def channels(self) -> int:
        """Channels of the sound: 1."""
        return 1

    @property
    def samples_per_frame(self) -> int:
        """Samples of sound per mel frame: the mel's hop length."""
        return self.spec.hop_length

    @property
    def sample_rate(self) -> int:
        """Sample rate of the sound in Hz: the mel's."""
        return self.spec.sample_rate

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Further per-frame inputs that the network needs, by name: none."""
        return _NO_CONDITIONS

    # Inherited

    def __repr__(self) -> str:
        """One line: what it makes, how large it is, and where and how it computes."""
        millions = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"<{type(self).__name__} {self.name!r}: {self.sample_rate} Hz, {self.spec.n_mels} bands, hop "
            f"{self.spec.hop_length}, {millions:.3g} M parameters, {str(self.dtype).removeprefix('torch.')}, "
            f"{self.device}, engine {self.engine_name}>"
        )

    @public
    def __call__(self, mel: Tensor) -> Tensor:
        """Call `forward`, as with any module."""
        return super().__call__(mel)  # type: ignore[no-any-return]

    @public
    def to(self, *arguments: Any, **named: Any) -> Self:
        """As any module's `to`; `device="auto"` is the best available.

        Raises:
            OptionError: a device that is not available.
        """
        device = named.get("device", arguments[0] if arguments else None)
        if isinstance(device, str | int | torch.device):
            chosen = pick_device(device)
            if "device" in named:
                return super().to(*arguments, **named | {"device": chosen})
            return super().to(chosen, *arguments[1:], **named)
        return super().to(*arguments, **named)

    def get_sample_rate(self) -> int:
        """`sample_rate`, as a method."""
        return self.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters(), self._anchor).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which the vocoder computes."""
        return next(self.parameters(), self._anchor).dtype

    @property
    def mel_dtype(self) -> torch.dtype:
        """The dtype of the mel that `forward` takes: `dtype`, unless a subclass keeps its input more precise."""
        return self.dtype

    @property
    def can_stream(self) -> bool:
        """Whether `stream` works, and long input runs in blocks."""
        return type(self).graph is not Vocoder.graph

    @public
    def mel(self, waveform: Tensor | NDArray[Any], *, sample_rate: int) -> Tensor:
        """The mel of a waveform in this vocoder's own spec.

        Args:
            waveform: `[N]`, `[B, N]` or `[B, 1, N]`, in [-1, 1]: a tensor or a NumPy array.
            sample_rate: the waveform's, in Hz; the waveform is resampled if this is not the spec's.

        Returns:
            `[B, n_mels, spec.frames(N')]`, float32 (float64 for a float64 waveform), on the vocoder's device.

        Raises:
            SpecError: a waveform of another shape or type, with NaN or Inf, or shorter than the padding.
        """
        wave = batch_wave(waveform).to(self.device)
        return self._analysis[0].to(self.device)(wave, sample_rate=whole_rate(sample_rate))  # type: ignore[no-any-return]

    @public
    @torch.no_grad()
    def mel_to_waveform(
        self,
        mel: Tensor | NDArray[Any],
        *,
        spec: MelSpec | None = None,
        lengths: Sequence[int] | Tensor | None = None,
        length: int | None = None,
        conditions: Mapping[str, Tensor | NDArray[Any]] | None = None,
        refine: int | None = None,
        sample_rate: int | None = None,
        block_frames: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Turn mels into sound.

        Args:
            mel: `[n_mels, T]`, `[B, n_mels, T]` or `[B, 1, n_mels, T]` in this vocoder's spec: a tensor or NumPy array.
            spec: the mel's spec, if known: compared with the vocoder's field by field. Without it, the mel's range is
                checked more closely, and an improbable mel is warned about. Shape, finiteness and a range beyond which
                a mel is noise are always checked.
            lengths: valid frames per row, B counts from 0 to T; frames beyond them never influence the result.
            length: samples wanted, at the result's rate: a longer result is cut, a shorter one is padded by at most one
                hop of zeros. Cannot be combined with lengths.
            conditions: the inputs that `voc.conditions` lists, by name: `[B, T]` or `[B, channels, T]`.
            refine: rounds that bring the sound closer to the mel (docs/refinement.md), 0 for none. None: the vocoder's.
            sample_rate: of the result, in Hz. None: the vocoder's.
            block_frames: frames per block of long input (vocoders that stream). None: chosen from model and device.
            progress: called with ("synthesise", done, total) in frames; what it raises cancels (docs/applications.md).

        Returns:
            `[B, channels, T * samples_per_frame]` in [-1, 1] (`ceil(T * samples_per_frame * sample_rate /
            voc.sample_rate)` if resampled), float32 or the vocoder's float64. Samples past a row's end are 0.

        Raises:
            MelMismatchError: spec is not the vocoder's.
            SpecError: the mel cannot be one of this vocoder's spec, or lengths, length or conditions do not fit it.
            OptionError: refine is no number of rounds.
        """
        if spec is not None:
            self._match(spec)
        mel, rate, steps = rows_of(mel, self.spec), self._rate(sample_rate), self._steps(refine)
        check_block(self, block_frames)
        check_progress(progress)

        def sound(part: Tensor, report: Report, rows: list[int] | None = None) -> Tensor:
            return synthesise(
                self, part, steps=steps, sample_rate=rate, block_frames=block_frames, rows=rows, report=report
            )

        if lengths is None:
            mel = check_mel(mel, self.spec, known=spec is not None)  # not copied: it may be long
            wanted = None if length is None else self._samples(length, mel.shape[-1], rate)
            every = stacked(self, mel, conditions)
            wave = watched(progress, "synthesise", mel.shape[-1], lambda report: sound(every, report))
            return wave if wanted is None else F.pad(wave[..., :wanted], (0, max(0, wanted - wave.shape[-1])))
        if length is not None:
            raise SpecError(f"length={length!r} together with lengths; give one or the other")
        groups, total = _groups(lengths, mel), mel.shape[-1] * self.samples_per_frame
        padding = torch.ones_like(mel[:, :1], dtype=torch.bool)
        for frames, rows in groups:
            check_mel(mel[rows, :, :frames], self.spec, known=spec is not None)
            padding[rows, :, :frames] = False
        total = resampled_length(total, self.sample_rate, rate)
        wave = torch.zeros(mel.shape[0], self.channels, total, dtype=wave_dtype(self), device=self.device)
        every = stacked(self, mel, conditions, padding)

        def fill(report: Report) -> None:
            before = 0
            for frames, rows in groups:
                made = sound(every[rows, :, :frames], lambda done, before=before: report(before + done), rows)  # type: ignore[misc]
                wave[rows, :, : made.shape[-1]] = made
                before += frames

        watched(progress, "synthesise", max(1, sum(frames for frames, _ in groups)), fill)
        return wave

    @public
    @torch.no_grad()
    def resynthesize(
        self,
        waveform: Tensor | NDArray[Any],
        *,
        sample_rate: int,
        output_sample_rate: int | None = None,
        refine: int | None = None,
        block_frames: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Turn a sound into its mel and back, at the same length.

        Args:
            waveform: `[N]`, `[B, N]` or `[B, 1, N]`, in [-1, 1]: a tensor or a NumPy array.
            sample_rate: the waveform's, in Hz.
            output_sample_rate: of the result, in Hz. None: the vocoder's.
            refine: as in `mel_to_waveform`.
            block_frames: as in `mel_to_waveform`.
            progress: as in `mel_to_waveform`, in samples of the waveform.

        Returns:
            `[B, channels, ceil(N * output_sample_rate / sample_rate)]` in [-1, 1].

        Raises:
            SpecError: as `mel`, or a waveform without samples.
        """
        wave = batch_wave(waveform)
        if not wave.numel():
            raise SpecError(f"the waveform is {list(wave.shape)}, without any samples; give at least one")
        old, new = whole_rate(sample_rate), self._rate(output_sample_rate)
        run = Resynthesis(
            self, steps=self._steps(refine), sample_rate=old, output_sample_rate=new, block_frames=block_frames
        )
        check_progress(progress)

        def whole(report: Report) -> Tensor:
            made = []
            for piece in wave.split(run.samples, dim=-1):
                made.append(run.push(piece))
                report(min(run.taken, wave.shape[-1] - 1))  # not all: the last of the sound is made below
            return torch.cat([*made, run.flush()], dim=-1)

        return watched(progress, "synthesise", wave.shape[-1], whole)

    @public
    @torch.no_grad()
    def prepare(self, *, progress: Progress | None = None) -> None:
        """Compile kernels and prepare weights, so that the first call takes about as long as later ones.

        It makes the sound of a short and of a long silence, and discards it. It may be called from any thread, also
        while others synthesise.

        Args:
            progress: called with ("compile", done, total); what it raises cancels.

        Example:
            >>> import melvoc
            >>> melvoc.load("griffinlim", n_iter=2).prepare()
        """
        check_progress(progress)

        def run(report: Report) -> None:
            for frames in (16, self.block_frames):
                silence = torch.zeros(1, self.spec.samples(frames) + self.spec.n_fft, device=self.device)
                mel = self.mel(silence, sample_rate=self.spec.sample_rate)[..., :frames]
                empty = {
                    name: torch.full((1, one.channels, mel.shape[-1]), min(max(0.0, one.low), one.high))
                    for name, one in self.conditions.items()
                }
                frames_in = stacked(self, mel, empty)
                synthesise(self, frames_in, steps=self.post, sample_rate=self.sample_rate, block_frames=None)

        watched(progress, "compile", 1, run)

    @public
    def stream(
        self,
        *,
        spec: MelSpec | None = None,
        refine: int | None = None,
        lookahead_frames: int | None = None,
        sample_rate: int | None = None,
    ) -> VocoderStream:
        """Turn a mel into sound as it arrives. See `VocoderStream`.

        Args:
            spec: the mel's spec, where it is known, as in `mel_to_waveform`.
            refine: as in `mel_to_waveform`; the stream's latency includes what it waits for.
            lookahead_frames: None for exact streaming; n for an approximation that waits for only n frames.
            sample_rate: of the result, in Hz. None: the vocoder's.

        Raises:
            MelvocError: this vocoder cannot stream.
        """
        if not self.can_stream:
            self.graph()
        if spec is not None:
            self._match(spec)
        steps, rate = self._steps(refine), self._rate(sample_rate)
        run = Run(self, steps=steps, sample_rate=rate, lookahead_frames=lookahead_frames)
        return VocoderStream(self, run, known=spec is not None)

    def _steps(self, refine: int | None) -> tuple[PostStep, ...]:
        """The steps after the network, with so many rounds of refinement."""
        if refine is None:
            return self.post
        from melvoc.post.refine import refined  # not needed for `import melvoc`

        return refined(self.post, refine)

    def _rate(self, sample_rate: int | None) -> int:
        return self.sample_rate if sample_rate is None else whole_rate(sample_rate)

    def _samples(self, length: int, frames: int, rate: int) -> int:
        """The requested length of the sound of `frames` frames, validated."""
        made, hop = (resampled_length(n * self.samples_per_frame, self.sample_rate, rate) for n in (frames, 1))
        most = made + hop
        if isinstance(length, bool) or not isinstance(length, Integral) or not 0 <= length <= most:
            raise SpecError(
                f"length={length!r}, but this mel gives {made} samples, and at most one hop ({hop}) of zeros is "
                f"added; give a whole number from 0 to {most}"
            )
        return int(length)

    def _match(self, spec: MelSpec) -> None:
        check_spec(spec)
        if different := self.spec.diff(spec):
            listed = "; ".join(
                f"{field}: {self.name} needs {mine!r}, the mel has {theirs!r}"
                for field, (mine, theirs) in different.items()
            )
            raise MelMismatchError(
                f"this mel is not {self.name}'s. {listed}. Make it with voc.mel(waveform, sample_rate=...), or see "
                "melvoc.convert_mel",
                fields=different,
            )


def _groups(lengths: Sequence[int] | Tensor, mel: Tensor) -> list[tuple[int, list[int]]]:
    """Rows of equal length, to run as one batch: what lies beyond a row's length is never even read."""
    batch, frames = mel.shape[0], mel.shape[-1]
    counts = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    if not isinstance(counts, Iterable) or isinstance(counts, str | bytes | Mapping):
        raise SpecError(f"lengths={lengths!r}, but it is a list of frame counts, one per mel")
    counts = [count.item() if isinstance(count, Tensor) and count.numel() == 1 else count for count in counts]
    if len(counts) != batch:
        raise SpecError(f"lengths has {len(counts)} entries for {batch} mels; give one number of frames per mel")
    groups: dict[int, list[int]] = {}
    for row, count in enumerate(counts):
        if isinstance(count, bool) or not hasattr(count, "__index__") or not 0 <= count <= frames:
            raise SpecError(f"lengths[{row}]={count!r}, but it is a whole number of frames from 0 to {frames}")
        groups.setdefault(int(count), []).append(row)
    return [(count, rows) for count, rows in groups.items() if count]
