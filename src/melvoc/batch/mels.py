"""Sounds to mels, a batch of rows at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melvoc.batch.columns import Outcome, Task, column, columns, run_together, sound_of
from melvoc.host import public
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram

TOGETHER = 2**20  # samples analysed at once: their spectra are some 100 MB


@dataclass(frozen=True)
class Mel:
    """Turns a dict of columns with sounds into one with their mels as well, on the CPU.

    Rows are independent, as in `Vocode`, to which this is the other half.

    Args:
        spec: of the mels: a `MelSpec`, or a preset's name; of a vocoder, `melvoc.info(name).spec`.
        sound: column of sounds: `[N]` in [-1, 1], paths of sound files, or dicts as `datasets` has them.
        rate: the sounds' rate in Hz, or the name of a column of rates. Files and dicts have their own.
        mel: column to write: `[n_mels, T]` float32 each, of a bad row without frames.
        error: column to write: what is wrong with a row, "" for a good one.

    Raises:
        SpecError: a preset that is not known.

    Example:
        >>> import numpy
        >>> from melvoc.batch import Mel
        >>> rows = Mel("hifigan_22khz_80band_256x", rate=22050)({"sound": [numpy.zeros(25600)]})
        >>> rows["mel"][0].shape, rows["error"]
        ((80, 100), [''])
    """

    spec: MelSpec | str
    sound: str = "sound"
    rate: str | int | None = None
    mel: str = "mel"
    error: str = "error"

    def __post_init__(self) -> None:
        if not isinstance(self.spec, MelSpec):
            object.__setattr__(self, "spec", MelSpec.preset(self.spec))

    @public
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch, and those with its mels.

        Raises:
            OptionError: a column that is not there.
        """
        assert isinstance(self.spec, MelSpec)
        given, analysis = column(batch, self.sound), MelSpectrogram(self.spec)
        outcome = Outcome.begin(batch, self.error, len(given))
        tasks = sound_tasks(batch, given, self.rate, outcome)

        def work(tasks: list[Task]) -> list[Tensor]:
            return list(analysis(torch.cat([task.value for task in tasks]), sample_rate=tasks[0].key))

        run_together(tasks, TOGETHER, work, outcome)
        empty = torch.zeros(self.spec.n_mels, 0)
        mels = [outcome.made.get(row, empty).numpy() for row in range(len(given))]
        return columns(batch, {self.mel: mels, self.error: outcome.errors})


def sound_tasks(batch: Mapping[str, Any], given: list[Any], rate: str | int | None, outcome: Outcome) -> list[Task]:
    """The rows whose sound can be read; rows of one rate have one key.

    Raises:
        OptionError: there is no column of rates.
    """
    rates = column(batch, rate) if isinstance(rate, str) else [rate] * len(given)
    found = Outcome(outcome.errors)
    for row, (value, own) in enumerate(zip(given, rates, strict=True)):
        found.attempt(row, functools.partial(_task, row, value, own))
    return list(found.made.values())


def _task(row: int, value: Any, rate: object) -> Task:
    wave, own = sound_of(value, rate)
    return Task(row, wave, key=own)
