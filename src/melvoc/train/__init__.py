"""A generator for your own sounds, of any architecture with a recipe, trained on a folder of 5 to 500 files.

- `TrainConfig`, `LossWeights`: everything that configures a run (`melvoc.train.config`).
- `Trainer`: the loop, an iterator of `TrainReport` (`melvoc.train.trainer`).
- `Comparison`: how the result compares with Griffin-Lim (`melvoc.train.comparison`).
- `Estimate`: what a run takes (`melvoc.train.estimate`).
- `PROFILES`: what a run takes where nobody says (`melvoc.train.profiles`).
- `Discriminators`: those that judge, as published (`melvoc.train.discriminators`).
- `DivergedError`: a loss became NaN (`melvoc.train.state`).
"""

from __future__ import annotations

from melvoc.audio.folder import Skipped
from melvoc.recipe import LossWeights
from melvoc.train.comparison import Comparison
from melvoc.train.config import TrainConfig
from melvoc.train.discriminators import Discriminators
from melvoc.train.estimate import Estimate
from melvoc.train.profiles import PROFILES, Profile
from melvoc.train.report import TrainReport
from melvoc.train.state import DivergedError
from melvoc.train.trainer import Trainer

__all__ = [
    "PROFILES",
    "Comparison",
    "Discriminators",
    "DivergedError",
    "Estimate",
    "LossWeights",
    "Profile",
    "Skipped",
    "TrainConfig",
    "TrainReport",
    "Trainer",
]
