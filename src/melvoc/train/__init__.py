"""A generator for your own sounds, of any architecture with a recipe, trained on a folder of 5 to 500 files.

- `TrainConfig`, `LossWeights`: everything that configures a run (`melvoc.train.config`).
- `Trainer`: the loop, an iterator of `TrainReport` (`melvoc.train.trainer`).
- `Discriminators`: those that judge, as published (`melvoc.train.discriminators`).
- `DivergedError`: a loss became NaN (`melvoc.train.state`).
"""

from __future__ import annotations

from melvoc.audio.folder import Skipped
from melvoc.recipe import LossWeights
from melvoc.train.config import TrainConfig
from melvoc.train.discriminators import Discriminators
from melvoc.train.report import TrainReport
from melvoc.train.state import DivergedError
from melvoc.train.trainer import Trainer

__all__ = [
    "Discriminators",
    "DivergedError",
    "LossWeights",
    "Skipped",
    "TrainConfig",
    "TrainReport",
    "Trainer",
]
