"""Which checkpoint is the best, and how long none has been better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from melvoc.train.validate import DECISIVE

TOLERANCE = 0.02  # of the least distance: checkpoints that a few held-out files do not tell apart
LEARNT = 3  # validations in a row without a better one


class Best:
    """The best checkpoint of a run so far: the latest whose `DECISIVE` figure is next to the least.

    Where a network begins with good sound, the least is often that of a checkpoint which has hardly been trained: by so
    little, a few held-out files do not tell checkpoints apart (docs/training.md has what that cost).

    Attributes:
        step: of the best checkpoint, or None.
        figures: of its validation.
        least: the best figure of any validation, also of those without a checkpoint.
        stale: validations since then.
        least_saved: the best figure of any checkpoint.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.figures: dict[str, float] = {}
        self.least = self.least_saved = math.inf
        self.stale = 0

    def heard(self, figures: Mapping[str, float] | None) -> None:
        """Take in a validation; None or empty: nothing was held out. One that is NaN is not better."""
        if figures:
            better = figures[DECISIVE] < self.least
            self.least, self.stale = (figures[DECISIVE], 0) if better else (self.least, self.stale + 1)

    def saves(self, step: int, figures: Mapping[str, float] | None) -> bool:
        """Whether a checkpoint with this validation is the best, which it then is."""
        if not figures or not math.isfinite(figures[DECISIVE]):
            return False
        self.least_saved = min(self.least_saved, figures[DECISIVE])
        if figures[DECISIVE] > self.least_saved * (1.0 + TOLERANCE):
            return False
        self.step, self.figures = step, dict(figures)
        return True

    def without_patience(self, patience: int | None) -> bool:
        """Whether as many validations as that have not been better."""
        return patience is not None and self.stale >= patience

    @property
    def learnt(self) -> bool:
        """Whether it has stopped getting better: what is learnt now is the sounds that are trained on, by heart."""
        return self.stale >= LEARNT

    def to_dict(self) -> dict[str, Any] | None:
        """What a run that goes on needs."""
        if math.isinf(min(self.least, self.least_saved)):
            return None
        found = {} if self.step is None else {"step": self.step, **self.figures}
        return {**found, "least": self.least, "stale": self.stale, "least_saved": self.least_saved}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Self:
        """The best of a stored run; runs of before know less of the least, and older ones have another figure."""
        best, values = cls(), dict(stored or {})
        best.stale = values.pop("stale", 0)
        best.least = values.pop("least", values.get(DECISIVE, math.inf))
        best.least_saved = values.pop("least_saved", best.least)
        best.step, best.figures = values.pop("step", None), values
        return best
