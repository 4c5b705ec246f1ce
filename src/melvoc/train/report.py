"""What a step says to whoever drives the trainer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Stage = Literal["heard", "warm-up", "judged"]
_MEMORY = 50  # steps, over which losses are smoothed


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """One step.

    Attributes:
        step: from 1; the steps made so far, including those before a resume.
        steps: of the whole run; with minutes, as many as there will be at the present speed.
        losses: by name, unweighted: "discriminator" and those of `LossWeights` that are in use; and
            "generator_gradient", "discriminator_gradient", the norms before clipping.
        smoothed: the same, averaged over the last 50 steps or so of this session.
        learning_rate: of the generator in this step.
        stage: "heard", the generator learns from losses of sound alone; "warm-up", only the discriminators learn;
            "judged", both do.
        seconds: how long this step took, including validation and checkpoint.
        spent: seconds of the run so far, including those before a resume, without pauses.
        eta: seconds until its end, at the present speed.
        sound_per_second: seconds of sound trained on per second, of all processes.
        validation: "multi_scale_mel" (by which a checkpoint is the best), "mel_l1" and "mr_stft" of the held-out files,
            the metrics of those names; None if this step was not validated.
        checkpoint: written after this step, or None.
    """

    step: int
    steps: int
    losses: dict[str, float]
    smoothed: dict[str, float]
    learning_rate: float
    stage: Stage
    seconds: float
    spent: float
    eta: float
    sound_per_second: float
    validation: dict[str, float] | None = None
    checkpoint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)


class Smoothed:
    """Running means of losses: of all steps at first, then of about the last 50."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[int, float]] = {}

    def take(self, losses: dict[str, float]) -> dict[str, float]:
        """The means with a step's losses; only those that the step has."""
        for name, value in losses.items():
            count, mean = self._means.get(name, (0, 0.0))
            count = min(_MEMORY, count + 1)
            self._means[name] = count, mean + (value - mean) / count
        return {name: self._means[name][1] for name in losses}
