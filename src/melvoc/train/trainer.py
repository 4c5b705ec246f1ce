"""The training loop: an iterator of reports that an application, a notebook or the command line drives."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch

from melvoc.architecture import NetworkConfig
from melvoc.host import public
from melvoc.neural import NeuralVocoder
from melvoc.progress import Progress, Report, check_progress, watched
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.beginning import begin, decide, find
from melvoc.train.comparison import Comparison
from melvoc.train.config import TrainConfig
from melvoc.train.distributed import join
from melvoc.train.estimate import Estimate, estimated
from melvoc.train.folder import RunFolder
from melvoc.train.given import Audio
from melvoc.train.material import read_material
from melvoc.train.output import Output
from melvoc.train.pace import Pace, learning_rates
from melvoc.train.report import Smoothed, TrainReport
from melvoc.train.resuming import changed, check_sounds
from melvoc.train.samples import WITHOUT_PICTURES, pictures
from melvoc.train.sounds import Found
from melvoc.train.state import DivergedError, Stepper, TrainState
from melvoc.train.warm import WarmStart

AIMLESS = "no file is held out, so that patience has nothing to go by; hold out some (--validation-files)"


class Trainer:
    """Trains a generator of any architecture that has a recipe on a folder of sounds.

        trainer = Trainer(TrainConfig(audio_dir="sounds", run_dir="run", minutes=30))
        for report in trainer:
            print(report.step, report.steps, report.eta, report.smoothed)
        print(trainer.comparison.words)
        vocoder = melvoc.load("run/generator.safetensors")

    The loop can be left at any step, with `break` or from another thread with `stop()`, and another loop goes on from
    there. `save()` writes a checkpoint, from which `Trainer.resume(run_dir)` continues, in another process too, with
    the same losses as an uninterrupted run (with minutes, nearly: the learning rate follows the clock). Making a
    trainer reads and checks everything before the first step.

    Args:
        config: of the run.
        audio: the sounds, in place of the configuration's folder: files, or `(waveform, sample_rate)`, `[N]` or
            `[C, N]`, in a list or by name. A run that goes on needs them again.
        resume: whether to continue from the last checkpoint in the run's folder.
        progress: called with (stage, done, total) during what takes long besides steps: "find", "read", "prepare",
            "validate", "write" and "compare". What it raises cancels, and leaves the run's files whole
            (docs/applications.md).

    Attributes:
        config: with everything filled in that was left open.
        skipped: files that are not used, with reasons.
        notes: what else should be known before the first step, one line each: files that are cut, batches that are
            mostly padding, checkpoints that could not be read.
        files: names of the files that are trained on.
        held_out: names of the files for validation.
        seconds_of_sound: total duration of the sound trained on.
        resumed_from: step of the checkpoint that the run was resumed from, or None.

    Raises:
        MelvocError: bad input, with a suggested fix; a folder that has checkpoints while resume is False.
        CheckpointError: resume without a checkpoint, or with another configuration (all fields that differ are named).
        SpecError: spec, generator and segment do not belong together.
    """

    @public
    @torch.inference_mode(False)
    def __init__(
        self,
        config: TrainConfig,
        *,
        audio: Audio | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> None:
        check_progress(progress)
        began = time.monotonic()
        self._stopped = self._halted = self._looping = self._concluded = False
        self._smoothed = Smoothed()
        self.resumed_from: int | None = None
        self._folder = RunFolder(config.run_dir)
        found, stored, warm = watched(progress, "find", 1, lambda _: find(config, audio, self._folder, resume))
        self._world = join(config.device)
        with ExitStack() as failed:
            failed.callback(self.close)  # or torch complains of an open group beside the error
            self.config = decide(config, stored, warm, self._world.size, self._world.device)
            chosen = config.segment is None and not stored
            watched(progress, "read", len(found.sounds), lambda report: self._read(found, stored, chosen, report))
            self._pace = Pace(self.config, began, (stored or {}).get("pace"))
            watched(progress, "prepare", 1, lambda _: self._make(stored, warm, progress))
            self._pace.rest()
            failed.pop_all()

    # Public interface

    @classmethod
    def resume(
        cls,
        run_dir: str | os.PathLike[str],
        *,
        audio: Audio | None = None,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Self:
        """Go on with a run, with all that its `config.json` has.

        Args:
            run_dir: its folder, which may have been moved.
            audio: as in `Trainer`, if the run was given it.
            progress: as in `Trainer`.
            changes: fields of `TrainConfig` that are given again: `minutes`, `steps` and the like replace the run's,
                and what is computed must be the same.

        Raises:
            CheckpointError: no run, or what is given again differs from it.
            OptionError: a field that there is not.
        """
        stored = RunFolder(run_dir).config()
        config = changed(stored, changes | {"run_dir": run_dir})
        return cls(config, audio=audio, resume=True, progress=progress)

    @property
    def progress(self) -> Progress | None:
        """The function that reports; it may be replaced between two steps."""
        return self._output.progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        check_progress(progress)
        self._output.progress = progress

    @property
    def comparison(self) -> Comparison | None:
        """How the result compares with Griffin-Lim on the held-out files; None before the run is over."""
        return self._output.comparison

    @property
    def exported(self) -> int | None:
        """Step of the generator that was exported last; None before, and in all processes but the first."""
        return self._output.exported

    @property
    def spec(self) -> MelSpec:
        """Of the generator's mels."""
        return self.config.spec

    @property
    def generator(self) -> NetworkConfig:
        """The generator's configuration."""
        return self.config.generator

    @property
    def step(self) -> int:
        """Steps made so far."""
        return self.state.step

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, and no new loop has begun since."""
        return self._stopped

    @property
    def finished(self) -> bool:
        """Whether the run is at its end: no steps are left, no time, or no patience."""
        return self._output.reached >= 1.0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files (the only one, unless there are several)."""
        return self._world.first

    def stop(self) -> None:
        """End the loop after the current step; may be called from a signal handler or another thread. A new loop goes
        on."""
        self._stopped, self._halted = True, self._looping

    def __iter__(self) -> Self:
        """The trainer itself; the next loop continues where one was left with `break` or ended by `stop`. The time
        between two loops is none of the run's minutes."""
        if self._halted:
            self._stopped = self._halted = False
        self._looping = True
        self._pace.go_on()
        return self

    @public
    @torch.inference_mode(False)
    @torch.enable_grad()
    def __next__(self) -> TrainReport:
        """Make one step; after the last one, write the generator, and compare it with Griffin-Lim.

        Raises:
            DivergedError: a loss is NaN or infinite.
            MelvocError: a file cannot be written.
        """
        self._pace.work()
        try:
            return self._following()
        finally:
            self._pace.rest()

    @public
    def save(self) -> Path:
        """Write a checkpoint of the current state, unless this trainer has written it or began with it.

        Raises:
            MelvocError: it cannot be written.
        """
        if self._world.first:
            self._output.save()
        self._world.wait()
        return self._folder.checkpoint(self.state.step)

    @public
    def export(self) -> Path:
        """Write `RUN/generator.safetensors` (the best one, if the run has or had minutes or patience), and the
        discriminators if the configuration keeps them.

        Raises:
            MelvocError: it cannot be written.
        """
        if self._world.first:
            self._output.export()
        self._world.wait()
        return self._folder.path / "generator.safetensors"

    @public
    def compare(self) -> Comparison | None:
        """Compare what `export` writes with Griffin-Lim on the held-out files, and write `RUN/results.json`.

        Returns:
            The comparison, or None in a process that is not the first.

        Raises:
            MelvocError: a file cannot be written.
        """
        if self._world.first:
            self._output.compare()
        self._world.wait()
        return self.comparison

    @public
    @torch.inference_mode(False)
    def estimate(self, steps: int = 3) -> Estimate:
        """What the run takes, measured on a few steps of a copy, which the run does not notice.

        Args:
            steps: that are made of each kind (judged or not), at least 2; the first is not counted.

        Raises:
            OptionError: fewer steps.
            MelvocError: as a step.
        """
        return estimated(self.config, self._material, self._world, step=self.state.step, tried=steps)

    @public
    @torch.inference_mode(False)
    def vocoder(self) -> NeuralVocoder:
        """The current generator (its running mean) as an independent vocoder: a snapshot, which another thread may take
        and use while training goes on."""
        return self._output.vocoder("auto")

    def close(self) -> None:
        """Leave the process group, if this trainer opened it."""
        self._world.close()

    def __repr__(self) -> str:
        """One line: how far, on what, and where."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        ends = f"{self.config.minutes:g} minutes" if self.config.steps is None else self.config.steps
        return (
            f"<Trainer of {self.config.architecture}: step {self.step} of {ends}, {files}, "
            f"{self.seconds_of_sound:.0f} s of sound, {self._world.device}, in {os.fspath(self.config.run_dir)!r}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # Internals

    def _following(self) -> TrainReport:
        """The next step, or the end of the loop."""
        if self.finished:
            self._conclude()
            raise StopIteration
        if self._world.any(self._stopped):
            self._stopped = self._halted = True
            self._looping = False
            raise StopIteration
        return self._one_step()

    def _conclude(self) -> None:
        """Write the result and compare it, once."""
        if not self._concluded:
            self.export()
            self.compare()
            self._concluded = True

    def _one_step(self) -> TrainReport:
        start, world, pace = time.monotonic(), self._world, self._pace
        rates = learning_rates(self.config, self.state.step, self.decay_steps, self._output.reached)
        stage, losses = self._stepper.stage, self._learn(rates)
        pace.stepped(time.monotonic() - start)
        validation, path = self._output.follow()
        report = TrainReport(
            step=self.state.step,
            steps=pace.steps_in_all(self.state.step),
            losses=losses,
            smoothed=self._smoothed.take(losses),
            learning_rate=rates[0],
            stage=stage,
            seconds=time.monotonic() - start,
            spent=pace.seconds,
            eta=pace.left(self.state.step),
            sound_per_second=pace.speed() * self._batch * self.config.segment / self.spec.sample_rate,
            validation=validation,
            checkpoint=None if path is None else str(path),
        )
        if world.first:
            self._folder.append(report.to_dict())
        return report

    @property
    def _batch(self) -> int:
        """Segments per step, of all processes."""
        return self.config.batch_size * self._world.size

    def _learn(self, rates: tuple[float, float]) -> dict[str, float]:
        """Make a step on the batch that is its turn."""
        position = self.state.step * self._batch + self._world.rank * self.config.batch_size
        batch = self._material.segments.batch(position, self.config.batch_size, self._world.device)
        try:
            return self._stepper(batch, rates)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._folder.way_out()}") from None

    def _read(self, found: Found, stored: dict[str, Any] | None, chosen: bool, report: Report) -> None:
        """Read the sounds, which a segment that was chosen for this run fits."""
        self._material = read_material(self.config, found, report, shorten=chosen)
        self.config = dataclasses.replace(self.config, segment=self._material.segments.segment)
        if stored:
            check_sounds(self.config, stored, self._material.data)
        self.decay_steps = self._material.decay_steps(self.config, self._world.size)
        self.skipped = self._material.skipped
        undrawn = self._material.held_out and self.config.samples and self._world.first and not pictures()
        aimless = self.config.patience is not None and not self._material.held_out
        said = (WITHOUT_PICTURES,) * bool(undrawn) + (AIMLESS,) * aimless
        self.notes = (*self._folder.notes, *self._material.notes, *said)
        self.files, self.seconds_of_sound = self._material.files, self._material.seconds
        self.held_out = tuple(sound.name for sound in self._material.held_out)

    def _make(self, stored: dict[str, Any] | None, warm: WarmStart | None, progress: Progress | None) -> None:
        """The networks, with the weights that the run begins with, and its folder."""
        config, world, folder = self.config, self._world, self._folder
        self.state = TrainState.new(config, world.device)
        begin(self.state, config, stored, warm, folder)
        self._output = Output(folder, config, self.state, self._material, self._pace, world, progress)
        if stored:
            self.resumed_from = self.state.step
        self._output.begin(stored)
        self._stepper = Stepper(self.state, config, world)
