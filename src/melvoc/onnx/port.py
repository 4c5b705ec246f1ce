"""How a graph takes a mel and returns sound: found by the names and shapes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melvoc.errors import CheckpointError
from melvoc.nn.stft import InverseSTFT
from melvoc.onnx.metadata import Metadata, State
from melvoc.onnx.sherpa import SPECTRAL
from melvoc.spectrogram.spec import MelSpec

LAST = "last"  # the input of a stream's step that is 1 with the last piece, else 0
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Port:
    """How a graph takes a mel and returns sound.

    Attributes:
        mel: the mel's input.
        rank: of that input: 3, or 2 for one without a batch.
        bands: the axis of its bands, -2 or -1.
        batch: whether it takes any number of rows, by its shape.
        dtype: of its inputs.
        conditions: its further inputs, with the channels of each.
        inverse: what makes sound of its outputs (magnitude, cosine and sine); None: its first output is sound.
        states: of the step of a stream: further inputs, and after the sound further outputs.
    """

    mel: str
    rank: int
    bands: int
    batch: bool
    dtype: torch.dtype
    conditions: Mapping[str, int]
    inverse: InverseSTFT | None
    states: Mapping[str, State]

    def inputs(self, frames: Tensor) -> dict[str, Tensor]:
        """What the graph is given.

        Args:
            frames: `[B, n_mels + condition channels, T]`; B is 1 unless the graph takes a batch.
        """
        bands = frames.shape[1] - sum(self.conditions.values())
        mel, *others = frames.to(self.dtype).split([bands, *self.conditions.values()], dim=1)
        mel = mel if self.bands == -2 else mel.transpose(1, 2)
        mel = mel if self.rank == 3 else mel[0]
        return {self.mel: mel.contiguous(), **dict(zip(self.conditions, others, strict=True))}

    def sound(self, outputs: Sequence[Tensor]) -> Tensor:
        """`[B, channels, samples]` float32, of what the graph returned."""
        if self.inverse is not None:
            magnitude, cosine, sine = outputs
            return self.inverse(torch.cat([magnitude * cosine, magnitude * sine], dim=1))  # type: ignore[no-any-return]
        wave = outputs[0].float()
        return wave if wave.dim() == 3 else wave.reshape(-1, 1, wave.shape[-1])


def find_port(session: Any, spec: MelSpec, metadata: Metadata) -> Port:
    """How a graph takes the mels of a spec.

    Args:
        session: onnxruntime's.
        spec: of the mels.
        metadata: of the file.

    Raises:
        CheckpointError: it is no vocoder's, or none for this spec.
    """

    def wrong(what: str) -> CheckpointError:
        return CheckpointError(f"{metadata.path}: {what}", path=metadata.path)

    inputs, outputs = session.get_inputs(), session.get_outputs()
    conditions = {name: one.channels for name, one in metadata.conditions.items()}
    states = metadata.states
    beside = {*conditions, *states, *((LAST,) if states else ())}
    mels = [entry for entry in inputs if entry.name not in beside]
    if len(mels) != 1 or len(inputs) != 1 + len(beside):
        raise wrong(f"its inputs are {_listed(inputs)}, but a vocoder's is one mel; export the vocoder alone")
    inverse, mel = metadata.inverse(), mels[0]
    if len(outputs) != (1 if inverse is None else 3) + len(states):
        raise wrong(
            f"its outputs are {_listed(outputs)}, but a vocoder's is one sound (or, with model_type {SPECTRAL!r} in "
            "the metadata, a magnitude, a cosine and a sine); export it so"
        )
    if mel.type not in _TYPES or len(mel.shape) not in (2, 3):
        raise wrong(f"its input is {_listed(mels)}, but a mel is floating point, [batch, n_mels, frames]; export it so")
    if isinstance(mel.shape[0], int) and mel.shape[0] != 1 and len(mel.shape) == 3:
        raise wrong(f"its input is {_listed(mels)}, a fixed batch; export it with a dynamic one, or of 1")
    bands = _axis_of_bands(mel.shape[-2:], spec.n_mels)
    if bands is None:
        raise wrong(
            f"its input is {_listed(mels)}, but this spec has n_mels={spec.n_mels}; pass the spec of its training"
        )
    if isinstance(mel.shape[-3 - bands], int):
        raise wrong(f"its input is {_listed(mels)}, a fixed number of frames; export it with a dynamic one")
    return Port(
        mel=mel.name,
        rank=len(mel.shape),
        bands=bands,
        batch=len(mel.shape) == 3 and mel.shape[0] != 1,
        dtype=_TYPES[mel.type],
        conditions=conditions,
        inverse=inverse,
        states=states,
    )


def _axis_of_bands(shape: Sequence[object], n_mels: int) -> int | None:
    """-2 or -1: the one that says so, -2 where neither says anything; None if neither can be."""
    for axis in (-2, -1):
        if shape[axis] == n_mels and shape[-3 - axis] != n_mels:
            return axis
    fixed = [size for size in shape if isinstance(size, int)]
    return -2 if not fixed or fixed == [n_mels, n_mels] else None


def _listed(entries: Sequence[Any]) -> str:
    """Names, shapes and types of inputs or outputs."""
    return ", ".join(f"{entry.name} {entry.shape} {entry.type}" for entry in entries[:6]) or "none"
