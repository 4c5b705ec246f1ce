"""What an ONNX file says of itself, as docs/export.md has it; of others' files nothing is expected."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from melvoc.errors import CheckpointError, SpecError, quoted, reason
from melvoc.nn.stft import InverseSTFT
from melvoc.onnx.sherpa import SPECTRAL
from melvoc.spectrogram.spec import MelSpec
from melvoc.synthesis import Condition

_LARGEST_CONTEXT = 1 << 16  # frames
_LARGEST_STATE = 1 << 24  # numbers a row
_MOST_CHANNELS = 1 << 12  # of a condition
_LARGEST_VALUE = 1e38  # of one that float32 can have
_KINDS = {"float32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True)
class State:
    """A tensor that the step of a stream takes and gives.

    Attributes:
        shape: at first; "batch" is the mel's.
        kind: its type.
        value: of all its elements at first.
    """

    shape: tuple[int | str, ...]
    kind: torch.dtype
    value: float

    def at_first(self, rows: int) -> Tensor:
        """The state before the first piece."""
        return torch.full([rows if isinstance(size, str) else size for size in self.shape], self.value, dtype=self.kind)


@dataclass(frozen=True)
class Metadata:
    """The texts in a file, by key.

    Args:
        texts: as they are.
        path: of the file, for messages.
    """

    texts: Mapping[str, str]
    path: str

    @property
    def name(self) -> str:
        """The vocoder's; the file's, if it does not say."""
        return self.texts.get("melvoc.name") or Path(self.path).stem

    @property
    def spec(self) -> MelSpec | None:
        """Of its mel; None if it does not say.

        Raises:
            CheckpointError: it is none.
        """
        stated = self._json("melvoc.spec")
        try:
            return None if stated is None else MelSpec.from_dict(stated)
        except SpecError as error:
            raise self._wrong("melvoc.spec", str(error)) from error

    @property
    def provenance(self) -> dict[str, str]:
        """Where its weights come from."""
        stated = self._json("melvoc.provenance", {})
        if not isinstance(stated, dict):
            raise self._wrong("melvoc.provenance", "it maps names to values")
        return {str(key): str(value) for key, value in stated.items()}

    @property
    def conditions(self) -> dict[str, Condition]:
        """The graph's inputs besides the mel, in order."""
        stated = self._json("melvoc.conditions", {})
        try:
            found = {name: _condition(one) for name, one in stated.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise self._wrong("melvoc.conditions", reason(error)) from error
        if not all(map(_possible, found.values())):
            raise self._wrong("melvoc.conditions", 'it is like {"f0": {"unit": "Hz", "low": 0.0, "high": 2000.0}}')
        return found

    @property
    def context(self) -> tuple[int, int] | None:
        """The frames before and after one that its sound depends on; None if the file does not say."""
        stated = self._json("melvoc.context_frames")
        if stated is None:
            return None
        if (
            not isinstance(stated, list)
            or [type(n) is int and 0 <= n <= _LARGEST_CONTEXT for n in stated] != [True] * 2
        ):
            raise self._wrong("melvoc.context_frames", "it has the frames before and after one: [12, 12]")
        return stated[0], stated[1]

    @property
    def states(self) -> dict[str, State]:
        """The states of a file that is the step of a stream, in order; none of one that takes whole mels."""
        stated = self._json("melvoc.states", {})
        try:
            found = {
                name: State(tuple(one["shape"]), _KINDS[one["kind"]], one["value"]) for name, one in stated.items()
            }
            for state in found.values():
                if math.prod(size for size in state.shape if not isinstance(size, str)) > _LARGEST_STATE:
                    raise ValueError(f"a state has at most {_LARGEST_STATE} numbers a row")
                state.at_first(1)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._wrong("melvoc.states", f"{type(error).__name__}: {reason(error)}") from error
        return found

    def whole(self, key: str, default: int, least: int = 1) -> int:
        """A whole number."""
        stated = self._json(key, default)
        if type(stated) is not int or stated < least:
            raise self._wrong(key, f"it is a whole number from {least}")
        return stated

    def inverse(self) -> InverseSTFT | None:
        """The transform that sherpa-onnx's `vocos` models leave to their user; None if the file is none of these.

        Raises:
            CheckpointError: one that melvoc does not have.
        """
        if self.texts.get("model_type") != SPECTRAL:
            return None
        n_fft, hop = self.whole("n_fft", 1024), self.whole("hop_length", 256)  # the defaults are sherpa-onnx's
        plain = self.texts.get("window_type", "hann") == "hann" and self.texts.get("normalized", "0") in ("0", "false")
        if not plain or self.whole("win_length", n_fft) != n_fft or n_fft % 2 or hop > n_fft // 2:
            raise self._wrong(
                "model_type", f"{SPECTRAL}, but its inverse transform is not one of a Hann window as long as n_fft"
            )
        return InverseSTFT(n_fft, hop, center=self.texts.get("center", "1") in ("1", "true"))

    def _json(self, key: str, default: Any = None) -> Any:
        try:
            return json.loads(self.texts[key]) if key in self.texts else default
        except (ValueError, RecursionError) as error:
            raise self._wrong(key, reason(error)) from error

    def _wrong(self, key: str, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {key} in its metadata is {quoted(self.texts.get(key))} ({why}); export it again",
            path=self.path,
        )

    @classmethod
    def of(cls, session: Any, path: str) -> Self:
        """That of a file which onnxruntime has opened."""
        return cls(dict(session.get_modelmeta().custom_metadata_map), path)


def _condition(stated: Mapping[str, Any]) -> Condition:
    """From its fields, where a bound that is null is infinite."""
    values = dict(stated)
    for key, end in (("low", -math.inf), ("high", math.inf)):
        if key in values and values[key] is None:
            values[key] = end
    return Condition(**values)


def _possible(condition: Condition) -> bool:
    """Whether its fields are what they must be: a file's can be anything that JSON has."""
    bounds, channels = (condition.low, condition.high), condition.channels
    numbers = all(type(bound) is float or (type(bound) is int and abs(bound) < _LARGEST_VALUE) for bound in bounds)
    between = numbers and condition.low <= condition.high and condition.low < _LARGEST_VALUE > -condition.high
    return between and isinstance(condition.unit, str) and type(channels) is int and 0 < channels <= _MOST_CHANNELS
