"""A graph of ONNX as a vocoder: checked by two short runs when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.errors import CheckpointError, MelvocError, OptionError, SpecError, kind_of
from melvoc.nn.graph import Node
from melvoc.onnx.blocks import Blocks
from melvoc.onnx.metadata import Metadata
from melvoc.onnx.port import LAST, Port, find_port
from melvoc.onnx.session import Session, best_device, provider_of
from melvoc.onnx.steps import Steps
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.synthesis import Condition
from melvoc.vocoder import Vocoder

_FEW, _MANY = 8, 16  # frames of the two runs


class OnnxVocoder(Vocoder):
    """A graph of ONNX as a vocoder; no gradient flows through it.

    A frame is always `samples_per_frame` samples: what a graph gives beyond the last frame is cut, and for one that
    gives up to a frame less (Vocos with centred frames), the last frame is repeated. It streams if its graph is the
    step of a stream, or if its file says how many frames around one its sound depends on; those are computed anew with
    each piece.

    Args:
        session: of the file.
        port: how its graph takes a mel.
        spec: of the mel.
        metadata: of the file.

    Raises:
        CheckpointError: its sound does not fit the spec.
    """

    def __init__(self, session: Session, port: Port, *, spec: MelSpec, metadata: Metadata) -> None:
        super().__init__(name=metadata.name, spec=spec)
        self._session, self._port, self._conditions, self._context = (
            session, port, metadata.conditions, metadata.context,
        )  # fmt: skip
        self.licence, self.provenance = metadata.texts.get("melvoc.licence"), metadata.provenance
        self._sound_rate = metadata.whole("melvoc.sample_rate", spec.sample_rate)
        self._hop = metadata.whole("melvoc.samples_per_frame", spec.hop_length)
        self._latency = metadata.whole("melvoc.latency_samples", 0, least=0)
        self._repeated = 0  # copies of the last frame that follow it
        self._batch = port.batch
        self._channels = self._try_out()

    @property
    def channels(self) -> int:
        """Channels of the sound."""
        return self._channels

    @property
    def samples_per_frame(self) -> int:
        """Samples of sound per mel frame."""
        return self._hop

    @property
    def sample_rate(self) -> int:
        """Sample rate of the sound in Hz."""
        return self._sound_rate

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """The graph's inputs besides the mel."""
        return self._conditions

    @property
    def engine_name(self) -> str:
        """What runs it."""
        return "onnxruntime"

    @property
    def can_stream(self) -> bool:
        """Whether the graph is the step of a stream, or the file says how far around a frame its sound depends on."""
        return self._context is not None or bool(self._port.states)

    @property
    def block_frames(self) -> int:
        """Mel frames per block of long input: several times those that each block computes anew."""
        return max(128, 4 * sum(self._context or ()))

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        """`[B, n_mels + condition channels, T]` to `[B, channels, T * samples_per_frame]`."""
        frames = F.pad(mel, (0, self._repeated), mode="replicate") if self._repeated else mel
        waves = [self._sound(rows) for rows in frames.split(len(mel) if self._batch else 1)]
        return torch.cat(waves)[..., : mel.shape[-1] * self._hop]

    def graph(self) -> Node:
        """The graph step by step, or in overlapping blocks.

        Raises:
            MelvocError: the file does not say how far they have to overlap.
        """
        if self._port.states:
            return Steps(self._step, self._at_first, self._hop, self._latency)
        if self._context is None:
            raise MelvocError(
                f"{self.name} cannot stream: {self._session.path} does not say how many frames around one its sound "
                "depends on (melvoc.context_frames in its metadata); use mel_to_waveform"
            )
        before, after = self._context
        return Blocks(self.forward, before, after + self._repeated, self._hop)

    def _sound(self, frames: Tensor) -> Tensor:
        return self._step(frames, self._at_first(len(frames)), True)[0]

    def _step(self, frames: Tensor, states: Sequence[Tensor], last: bool) -> tuple[Tensor, list[Tensor]]:
        """The sound of frames and the states after them; only the step of a stream has states."""
        inputs, port = self._port.inputs(frames), self._port
        if port.states:
            inputs |= {LAST: torch.tensor([int(last)]), **dict(zip(port.states, states, strict=True))}
        outputs = self._session.run(inputs, self.device)
        count = len(outputs) - len(port.states)
        return port.sound(outputs[:count]).to(frames), outputs[count:]

    def _at_first(self, rows: int) -> list[Tensor]:
        return [state.at_first(rows) for state in self._port.states.values()]

    def _try_out(self) -> int:
        """Compare the graph with what is expected of it.

        Returns:
            Channels of its sound.

        Raises:
            CheckpointError: it gives another number of samples.
        """
        low, _ = self.spec.limits
        parts = [torch.full((2, self.spec.n_mels, _MANY), low)]
        parts += [torch.full((2, x.channels, _MANY), min(max(0.0, x.low), x.high)) for x in self._conditions.values()]
        silence = torch.cat(parts, dim=1)
        try:
            short, long = self._sound(silence[:1, :, :_FEW]), self._sound(silence[:1])
            made = (long.shape[-1] - short.shape[-1]) / (_MANY - _FEW)
            beyond = short.shape[-1] - _FEW * self._hop
            if made != self._hop or abs(beyond) > self._hop or short.shape[0] != 1:
                raise MelvocError(
                    f"its graph makes {list(short.shape)} of {_FEW} frames and {list(long.shape)} of {_MANY}, but for "
                    f"its spec a frame is {self._hop} samples; pass the spec that it was trained on (spec=...)"
                )
        except MelvocError as error:
            path = self._session.path
            raise CheckpointError(f"{path}: {str(error).removeprefix(f'{path}: ')}", path=path) from error
        self._repeated = int(beyond < 0)
        if self._batch:
            try:
                self._batch = self._sound(silence).shape[0] == 2
            except MelvocError:  # a batch that is dynamic in name only
                self._batch = False
        return int(short.shape[1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        place = fn(self._anchor)
        if place.dtype != self._anchor.dtype:
            raise OptionError(f"{self.name} computes in the types of its graph, not in {place.dtype}; omit dtype")
        provider_of(place.device)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]


def load_onnx(
    name: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    spec: MelSpec | str | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> OnnxVocoder:
    """The factory behind the path of an ONNX file.

    Args:
        name: the path.
        device: "cpu", "cuda" (with onnxruntime-gpu), or "auto": cuda where torch and onnxruntime have it.
        dtype: None, or float32: a graph has its own types.
        spec: of the mel, or the name of its preset, where the file does not say it.
        engine: has no effect.
        memory: has no effect.

    Raises:
        MissingPackageError: without onnxruntime.
        CheckpointError: no such file, a damaged one, or a graph that makes no sound of this mel.
        SpecError: neither the file nor the caller says what its mel is, or they differ.
        OptionError: a device or a dtype that it cannot use.
    """
    place = best_device() if device == "auto" else device
    options = LoadOptions(device=place, dtype=dtype, engine=engine, memory=memory)
    session = Session(name)
    opened = session.on(torch.device("cpu"))
    metadata = Metadata.of(opened, session.path)
    known = _spec_of(metadata, spec)
    port = find_port(opened, known, metadata)
    vocoder = OnnxVocoder(session, port, spec=known, metadata=metadata).to(options.place, options.dtype)
    session.on(options.place)  # an error here, not in the first call
    return vocoder


def read_metadata(path: str) -> Metadata:
    """What a file says of itself.

    Raises:
        MissingPackageError: without onnxruntime.
        CheckpointError: no such file, or a damaged one.
    """
    session = Session(path)
    return Metadata.of(session.on(torch.device("cpu")), session.path)


def _spec_of(metadata: Metadata, given: MelSpec | str | None) -> MelSpec:
    """The spec that the file or the caller says.

    Raises:
        SpecError: neither does, or they differ.
    """
    stated, spec = metadata.spec, MelSpec.preset(given) if isinstance(given, str) else given
    if not isinstance(spec, MelSpec | None):
        raise SpecError(f"spec={given!r} is {kind_of(given)}, but it is a melvoc.MelSpec, or the name of a preset")
    if spec is None and stated is None:
        raise SpecError(
            f"{metadata.path}: does not say what its mel is; pass spec= (a melvoc.MelSpec, or the name of a preset)"
        )
    if spec is None or stated is None:
        return spec or stated  # type: ignore[return-value]
    if different := stated.diff(spec):
        listed = "; ".join(f"{field}: the file has {its!r}, spec= {mine!r}" for field, (its, mine) in different.items())
        raise SpecError(f"{metadata.path}: says what its mel is, and spec= is another. {listed}. Omit spec=")
    return spec
