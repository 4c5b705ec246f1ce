"""Mels or sounds to sound, a batch of rows at a time."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.audio.resampling import resampled_length, whole_rate
from melvoc.batch.columns import Outcome, Task, column, columns, is_path, numbers, run_together
from melvoc.batch.mels import sound_tasks
from melvoc.errors import OptionError, SpecError
from melvoc.host import public
from melvoc.loading import load
from melvoc.nn.forks import ForkLock
from melvoc.spectrogram.check import batch_mel, judge
from melvoc.spectrogram.file import read_mel
from melvoc.storage.pair import expanded
from melvoc.synthesis import stacked
from melvoc.vocoder import Vocoder

_LOCK = ForkLock()


@dataclass(frozen=True)
class Vocode:
    """Turns a dict of columns with mels, or with sounds, into one with the vocoder's sound as well.

    Rows are independent: each is what `voc.mel_to_waveform` or `voc.resynthesize` makes of it alone, within 1e-4
    (rounding of float32; docs/bulk.md). Rows of equal length run together, sorted by length. A bad row (also a mel that
    is possible but improbable, as on the command line: among a million rows nobody reads a warning) gets a sentence in
    the column `error` and a sound of no samples; a row whose `error` is not empty is left as it is. What is wrong with
    every row is raised: a column that is not there, a vocoder that does not load.

    The vocoder is loaded once per process, at the first call, and shared by all objects that ask for the same one.
    Nothing is set for the process: torch's threads are those that the engine gave it (Ray and Spark: as many as the
    task has processors).

    Args:
        name_or_path: what `melvoc.load` takes.
        device: to run on; "auto" is the best available.
        mel: column of mels in the vocoder's spec, `[n_mels, T]` each, or paths of saved mels.
        sound: column of sounds, for copy synthesis instead: `[N]` in [-1, 1], paths of sound files, or dicts as
            `datasets` has them. None: mels are used.
        rate: the sounds' rate in Hz, or the name of a column of rates. Files and dicts have their own.
        audio: column to write: `[N]` float32 each (`[channels, N]` of a vocoder with several); its rate in Hz is in a
            column of that name with `_rate` behind it.
        error: column to write: what is wrong with a row, "" for a good one (not None, so that the column has one type
            whatever a batch holds).
        sample_rate: of the result, in Hz. None: the vocoder's.
        refine: rounds that bring the sound closer to the mel (docs/refinement.md).

    Where the vocoder has `conditions`, they are columns of the same names.

    Raises:
        OptionError: sample_rate or rate is none, or rate without sound.

    Example:
        >>> import numpy
        >>> from melvoc.batch import Vocode
        >>> vocode = Vocode("griffinlim", sound="sound", rate=48000)
        >>> rows = vocode({"id": ["a", "b"], "sound": [numpy.zeros(5000), [0.1, None]]})
        >>> len(rows["audio"][0]), rows["audio_rate"][0], rows["error"][0]
        (4594, 44100, '')
        >>> len(rows["audio"][1]), rows["error"][1][:9]
        (0, 'the sound')
    """

    name_or_path: str | os.PathLike[str]
    device: str = "auto"
    mel: str = "mel"
    sound: str | None = None
    rate: str | int | None = None
    audio: str = "audio"
    error: str = "error"
    sample_rate: int | None = None
    refine: int = 0

    def __post_init__(self) -> None:
        if self.sample_rate is not None:
            whole_rate(self.sample_rate)
        if self.rate is not None and self.sound is None:
            raise OptionError(f"rate={self.rate!r} without sound: mels have their spec's; name the column of sounds")

    @public
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a batch, and those with its sound.

        Raises:
            MelvocError: a column that is not there, or a vocoder that does not load.
        """
        voc = loaded(self.name_or_path, self.device)
        given = column(batch, self.mel if self.sound is None else self.sound)
        outcome = Outcome.begin(batch, self.error, len(given))
        self._of_sounds(voc, batch, given, outcome) if self.sound else self._of_mels(voc, batch, given, outcome)
        empty = torch.zeros(voc.channels, 0)
        waves = [outcome.made.get(row, empty) for row in range(len(given))]
        sounds = [(wave[0] if voc.channels == 1 else wave).float().cpu().numpy() for wave in waves]
        rates = [self.sample_rate or voc.sample_rate] * len(given)
        return columns(batch, {self.audio: sounds, f"{self.audio}_rate": rates, self.error: outcome.errors})

    def _of_mels(self, voc: Vocoder, batch: Mapping[str, Any], given: list[Any], outcome: Outcome) -> None:
        further = {name: column(batch, name) for name in voc.conditions}
        found = Outcome(outcome.errors)
        for row, value in enumerate(given):
            own = {name: values[row] for name, values in further.items()}
            found.attempt(row, functools.partial(_mel_task, voc, row, value, own))
        rate, bands = self.sample_rate or voc.sample_rate, voc.spec.n_mels
        channels = [one.channels for one in voc.conditions.values()]

        def work(tasks: list[Task]) -> list[Tensor]:
            mel, *others = torch.stack([task.value for task in tasks]).split([bands, *channels], 1)
            made = voc.mel_to_waveform(
                mel,
                spec=voc.spec,  # each was judged by itself
                conditions=dict(zip(voc.conditions, others, strict=True)),
                refine=self.refine,
                sample_rate=rate,
            )
            return [_fitted(wave, task.samples, voc, rate) for wave, task in zip(made, tasks, strict=True)]

        run_together(list(found.made.values()), voc.block_frames, work, outcome)

    def _of_sounds(self, voc: Vocoder, batch: Mapping[str, Any], given: list[Any], outcome: Outcome) -> None:
        tasks = sound_tasks(batch, given, self.rate, outcome)

        def work(tasks: list[Task]) -> list[Tensor]:
            return list(
                voc.resynthesize(
                    torch.cat([task.value for task in tasks]),
                    sample_rate=tasks[0].key,
                    output_sample_rate=self.sample_rate,
                    refine=self.refine,
                )
            )

        run_together(tasks, voc.block_frames * voc.spec.hop_length, work, outcome)


def loaded(name: str | os.PathLike[str], device: str) -> Vocoder:
    """The vocoder of this process: loaded once, and again where the file has changed; a `Path` is never a name."""
    with _LOCK:  # or two threads would load it at once
        source = name if isinstance(name, str) else Path(name)
        path = Path(expanded(os.fspath(source)))
        status = path.stat() if path.is_file() else None
        return _loaded(source, device, status and (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=4)
def _loaded(name: str | Path, device: str, stamp: object) -> Vocoder:
    return load(name, device=device)


def _mel_task(voc: Vocoder, row: int, value: Any, conditions: Mapping[str, Any]) -> Task:
    """A row with a mel that is possible and probable, its conditions as further channels.

    Raises:
        SpecError: it is not.
        MelvocError: a file that cannot be read.
    """
    samples = None
    if is_path(value):
        saved = read_mel(os.fsdecode(value))
        value, samples = saved.mel, saved.samples
        if saved.spec is not None:
            voc._match(saved.spec)
    mel = batch_mel(torch.from_numpy(numbers(value, "the mel")), voc.spec)
    if len(mel) != 1:
        raise SpecError(f"the row has {len(mel)} mels, but a row is one [n_mels, T]; give each a row of its own")
    if verdict := judge(mel, voc.spec):
        raise SpecError(
            f"{verdict}, not the mel of {voc.name}; if it is, voc.mel_to_waveform(mel, spec=voc.spec) makes its sound"
        )
    frames = stacked(voc, mel, {name: numbers(own, f"condition {name!r}")[None] for name, own in conditions.items()})
    return Task(row, frames[0], samples=samples)


def _fitted(wave: Tensor, samples: int | None, voc: Vocoder, rate: int) -> Tensor:
    """A sound as long as what its mel was made of, where that is known."""
    if samples is None:
        return wave
    length = resampled_length(samples, voc.spec.sample_rate, rate)
    return torch.nn.functional.pad(wave[..., :length], (0, max(0, length - wave.shape[-1])))
