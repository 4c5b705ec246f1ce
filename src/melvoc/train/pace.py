"""How far a run is, by its steps and by the clock, when it ends, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from melvoc.train.config import ResolvedConfig

PARTS = 10  # of a run with minutes, each with a checkpoint at its end
RESERVED = 0.05  # of the minutes, for the comparison at the end, which takes no more than there is
LEAST_RATE = 0.01  # of the learning rate, where the cosine ends
_SHARE = 0.1  # of the time at most, for checkpoints of a run with minutes
_MARGIN = 1.25  # on what was measured: another time it may take longer
_MEMORY = 20  # steps, over which a step's duration is averaged


class Pace:
    """The clock of a run. It stands still between two loops, and goes on with what an earlier session took.

    Nobody says whether a loop was left or its body is slow: the time after `rest` counts once `work` goes on, and not
    before, so that what is saved in a pause has none of it.

    Args:
        config: of the run.
        began: when this session did, as `time.monotonic` tells it.
        stored: what `to_dict` of an earlier session gave.
    """

    def __init__(self, config: ResolvedConfig, began: float, stored: Mapping[str, Any] | None = None) -> None:
        self._limit = math.inf if config.minutes is None else 60.0 * config.minutes
        self._steps = math.inf if config.steps is None else config.steps
        self._mark, self._resting = began, False
        known = stored or {}
        self._spent: float = known.get("seconds", 0.0)
        self._costs: dict[str, float] = dict(known.get("costs", {}))
        self._step: float = known.get("step", 0.0)
        self._part: float = known.get("part", 0.0)
        self._counted = _MEMORY if self._step else 0

    @property
    def seconds(self) -> float:
        """Spent so far, by this session and those before it."""
        return self._spent + (0.0 if self._resting else time.monotonic() - self._mark)

    def go_on(self) -> None:
        """Forget the time since `rest`: nobody was training."""
        self._mark, self._resting = time.monotonic(), False

    def work(self) -> None:
        """Go on, with the time since `rest`: it was spent in the loop."""
        self._resting = False

    def rest(self) -> None:
        """Stand still until `work` or `go_on`."""
        self._spent, self._mark, self._resting = self.seconds, time.monotonic(), True

    def stepped(self, seconds: float) -> None:
        """Take in how long a step took, without what follows it."""
        self._counted = min(_MEMORY, self._counted + 1)
        self._step += (seconds - self._step) / self._counted

    @contextmanager
    def costing(self, what: str) -> Iterator[None]:
        """Measure what a validation or a checkpoint takes; the run's end will take as much as the last one."""
        begun = time.monotonic()
        yield
        self._costs[what] = time.monotonic() - begun

    def reached(self, step: int) -> float:
        """The share of the run that is over, 1 where there is no time for another step."""
        by_steps = 1.0 if step >= self._steps else step / self._steps
        return max(by_steps, 1.0 if self._late() else self.seconds / self._room())

    def due(self, before: float, now: float) -> bool:
        """Whether a part of a run with minutes is over, and its checkpoint worth its time."""
        if int(now * PARTS) == int(before * PARTS) or (now < 1.0 and self._share() > _SHARE):
            return False
        self._part = self.seconds
        return True

    def left(self, step: int) -> float:
        """Seconds until the end, by whatever comes first."""
        by_steps = (self._steps - step) * self._step if step else math.inf
        return max(0.0, min(by_steps, self._limit - self.seconds))

    def steps_in_all(self, step: int) -> int:
        """How many steps the run will have made."""
        if not self._step:
            return step
        return int(min(self._steps, step + max(0.0, self._room() - self.seconds) / self._step))

    def speed(self) -> float:
        """Steps per second, at present."""
        return 1.0 / self._step if self._step else 0.0

    def checkpoints(self, config: ResolvedConfig, step: int) -> int:
        """How many may still be written."""
        if config.checkpoint_every is None:
            return PARTS
        return math.ceil(max(0.0, self._steps - step) / config.checkpoint_every) if self._steps < math.inf else PARTS

    def over(self) -> bool:
        """Whether all the minutes are spent."""
        return self.seconds > self._limit

    def to_dict(self) -> dict[str, Any]:
        """What a session that goes on needs. Where no time for a step is left, all the minutes count as spent."""
        seconds = max(self.seconds, self._limit) if self._late() else self.seconds
        return {"seconds": seconds, "costs": self._costs, "step": self._step, "part": self._part}

    def _late(self) -> bool:
        """Whether there is no time for another step."""
        return self.seconds + self._step > self._room()

    def _room(self) -> float:
        """Seconds for steps, and for the validations between them."""
        return max(0.0, self._limit - self._reserve()) if math.isfinite(self._limit) else math.inf

    def _reserve(self) -> float:
        """Seconds that the end of the run takes."""
        return _MARGIN * sum(self._costs.values()) + RESERVED * self._limit

    def _share(self) -> float:
        """Of the time since the last part, what a checkpoint would take."""
        return sum(self._costs.values()) / max(1e-9, self.seconds - self._part)


def learning_rates(config: ResolvedConfig, step: int, decay_steps: int, reached: float = 0.0) -> tuple[float, float]:
    """The generator's and the discriminators' rate in a step: functions of nothing else, so that a resumed run has the
    same. The generator's rises from nearly 0 over the first steps in which it learns.

    Args:
        config: of the run.
        step: steps made before.
        decay_steps: between decays.
        reached: share of the run that is over, for the cosine.
    """
    if config.schedule == "cosine":
        factor = LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * reached)) / 2
    else:
        factor = config.lr_decay ** (step // decay_steps)
    rate = float(config.learning_rate * factor)
    waiting = config.discriminator_warmup if step >= config.mel_only_steps else 0
    ramp = min(1.0, max(0, step - waiting + 1) / max(1, config.ramp_steps))
    return rate * ramp, rate
