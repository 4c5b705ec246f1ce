"""A small generator for your own sounds: HiFi-GAN trained on a folder of 5 to 500 files.

- `TrainConfig`, `LossWeights`: everything that configures a run (`melvoc.train.config`).
- `Trainer`: the loop, an iterator of `TrainReport` (`melvoc.train.trainer`).
- `Discriminators`: MPD and MSD, as published (`melvoc.train.discriminators`).
- `DivergedError`: a loss became NaN (`melvoc.train.state`).
"""

from __future__ import annotations

from melvoc.audio.folder import Skipped
from melvoc.train.config import LossWeights, TrainConfig
from melvoc.train.discriminators import Discriminators, MultiPeriodDiscriminator, MultiScaleDiscriminator
from melvoc.train.state import DivergedError
from melvoc.train.trainer import Trainer, TrainReport

__all__ = [
    "Discriminators",
    "DivergedError",
    "LossWeights",
    "MultiPeriodDiscriminator",
    "MultiScaleDiscriminator",
    "Skipped",
    "TrainConfig",
    "TrainReport",
    "Trainer",
]
