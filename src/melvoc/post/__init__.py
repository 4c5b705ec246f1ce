"""Steps after the network, one per file: processing of any vocoder's sound with the mel at hand.

A step's module is named after its `kind` and has the class as `STEP`. A vocoder's own steps (`Vocoder.post`) run in
every form of synthesis and are stored in its melvoc file.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from melvoc.errors import OptionError, quoted
from melvoc.nn.state import Stateful
from melvoc.spectrogram.spec import MelSpec

LONGEST = 64  # steps of one vocoder


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What a step is told about the vocoder whose sound it processes.

    Attributes:
        spec: of the mel.
        channels: of the sound.
        samples_per_frame: samples of sound per mel frame.
        sample_rate: of the sound, in Hz.
    """

    spec: MelSpec
    channels: int
    samples_per_frame: int
    sample_rate: int


class PostMachine(Stateful, ABC):
    """The state of one step in one stream, declared as `Stateful` says."""

    @abstractmethod
    def __call__(self, frames: Tensor, wave: Tensor, last: bool) -> Tensor:
        """Take the next frames and the next sound, and return the sound that is now final.

        Args:
            frames: the next frames `[B, n_mels, t]`; t may be 0.
            wave: the next sound `[B, channels, n]`, which lags behind the frames; n may be 0.
            last: whether the signal ends with both.

        Returns:
            `[B, channels, m]`; m may be 0. In total, as many samples go out as came in.
        """


class PostStep(ABC):
    """A step with its options, the same for every stream."""

    kind: ClassVar[str]

    @abstractmethod
    def open(self, sound: Sound) -> PostMachine:
        """A new machine for such sound."""

    @abstractmethod
    def delay(self, sound: Sound) -> int:
        """Samples by which the output lags behind the input."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a step from `to_dict`'s values.

        Raises:
            OptionError: an option that is unknown, missing or not allowed.
        """


def describe(steps: tuple[PostStep, ...]) -> list[dict[str, Any]]:
    """Steps as JSON values, in order."""
    return [{"kind": step.kind, **step.to_dict()} for step in steps]


def revive(described: object) -> tuple[PostStep, ...]:
    """The steps of `describe`'s result.

    Raises:
        OptionError: a kind that this melvoc does not have, or options that the step does not take.
    """
    if not isinstance(described, list) or len(described) > LONGEST:
        raise OptionError(f"post={quoted(described)}, but it is a list of at most {LONGEST} steps")
    return tuple(_step(values) for values in described)


def _step(values: object) -> PostStep:
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(kind, str) or not kind.isidentifier():
        raise OptionError(f"{quoted(values)} is not a step; give a dict with a 'kind'")
    try:
        step: type[PostStep] = importlib.import_module(f"{__name__}.{kind}").STEP
    except (ImportError, AttributeError) as error:
        raise OptionError(f"this melvoc has no step {quoted(kind)}; update melvoc") from error
    return step.from_dict({name: value for name, value in values.items() if name != "kind"})
