"""The training loop: an iterator of reports that an application, a notebook or the command line drives."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from melvoc.architecture import NetworkConfig
from melvoc.errors import about
from melvoc.host import public
from melvoc.neural import NeuralVocoder
from melvoc.progress import Progress, Report, check_progress, watched
from melvoc.spectrogram.file import ENDINGS
from melvoc.spectrogram.spec import MelSpec
from melvoc.train.config import ResolvedConfig, TrainConfig
from melvoc.train.distributed import join
from melvoc.train.folder import RunFolder
from melvoc.train.material import read_material
from melvoc.train.results import vocoder_of, write_discriminators, write_generator
from melvoc.train.resuming import check_config, check_sounds, resumed
from melvoc.train.sounds import Found, find_sounds, spec_of_mels
from melvoc.train.state import DivergedError, Stepper, TrainState, learning_rates
from melvoc.train.validate import DECISIVE, MOST_FILES, validate
from melvoc.train.warm import WarmStart, read_start


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """One step.

    Attributes:
        step: from 1; the steps made so far, including those before a resume.
        losses: by name, unweighted: "discriminator" and those of `LossWeights` that are in use; and
            "generator_gradient", "discriminator_gradient", the norms before clipping.
        learning_rate: of the generator in this step.
        seconds: how long this step took, including validation and checkpoint.
        validation: "multi_scale_mel" (by which a checkpoint is the best), "mel_l1" and "mr_stft" of the held-out files,
            the metrics of those names; None if this step was not validated.
        checkpoint: written after this step, or None.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    validation: dict[str, float] | None = None
    checkpoint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)


class Trainer:
    """Trains a generator of any architecture that has a recipe on a folder of sounds.

        trainer = Trainer(TrainConfig(audio_dir="sounds", run_dir="run", preset="slim", steps=20000))
        for report in trainer:
            print(report.step, report.losses["mel"])
        vocoder = melvoc.load("run/generator.safetensors")

    The loop can be left at any step, with `break` or from another thread with `stop()`; `save()` then writes a
    checkpoint, from which `resume=True` continues with the same losses as an uninterrupted run. Making a trainer reads
    and checks everything before the first step.

    Args:
        config: of the run.
        resume: whether to continue from the last checkpoint in the run's folder.
        progress: called with (stage, done, total) during what takes long besides steps: "find", "read", "prepare",
            "validate" and "write". What it raises cancels, and leaves the run's files whole (docs/applications.md).

    Attributes:
        progress: that function; it may be replaced between two steps.
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
    def __init__(self, config: TrainConfig, *, resume: bool = False, progress: Progress | None = None) -> None:
        check_progress(progress)
        self.progress = progress
        self._stopped = False
        self._best: dict[str, float] | None = None
        self._saved: int | None = None
        self.resumed_from: int | None = None
        self._folder = RunFolder(config.run_dir)
        found, stored, warm = watched(progress, "find", 1, lambda _: self._find(config, resume))
        self._world = join(config.device)
        with ExitStack() as failed:
            failed.callback(self.close)  # or torch complains of an open group beside the error
            self.config = self._decide(config, stored, warm)
            watched(progress, "read", len(found.sounds), lambda report: self._read(found, stored, report))
            watched(progress, "prepare", 1, lambda _: self._make(stored, warm))
            failed.pop_all()

    # Public interface

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
        """Whether `stop` was called."""
        return self._stopped

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files (the only one, unless there are several)."""
        return self._world.first

    def stop(self) -> None:
        """End the loop after the current step; may be called from a signal handler or another thread."""
        self._stopped = True

    def __iter__(self) -> Self:
        """The trainer itself; the next loop continues where one left with `break` stopped."""
        return self

    @public
    @torch.inference_mode(False)
    @torch.enable_grad()
    def __next__(self) -> TrainReport:
        """Make one step; after the last one, write the generator.

        Raises:
            DivergedError: a loss is NaN or infinite.
            MelvocError: a file cannot be written.
        """
        if self.state.step >= self.config.steps:
            self.export()
            raise StopIteration
        if self._world.any(self._stopped):
            raise StopIteration
        return self._one_step()

    def save(self) -> Path:
        """Write a checkpoint of the current state, unless this trainer has written it or began with it.

        Raises:
            MelvocError: it cannot be written.
        """
        path = self._folder.checkpoint(self.state.step)
        if self._world.first and self._saved != self.state.step:
            best = None if self._best is None else int(self._best["step"])
            keep = self.config.keep_checkpoints
            self._write(lambda: self._folder.save(self.state.step, self._content(), keep=keep, best=best))
        self._saved = self.state.step
        self._world.wait()
        return path

    def export(self) -> Path:
        """Write `RUN/generator.safetensors`, and the discriminators if the configuration keeps them.

        Raises:
            MelvocError: it cannot be written.
        """
        path = self._folder.path / "generator.safetensors"
        if self._world.first:
            self._write(lambda: write_generator(self.vocoder(), path))
            if self.config.keep_discriminators:
                self._write(lambda: write_discriminators(self.state, self._folder.path / "discriminators.pt"))
        self._world.wait()
        return path

    def vocoder(self) -> NeuralVocoder:
        """The current generator (its running mean) as an independent `melvoc.Vocoder`."""
        return vocoder_of(self.state, self.config, name=self._folder.path.resolve().name)

    def close(self) -> None:
        """Leave the process group, if this trainer opened it."""
        self._world.close()

    def __repr__(self) -> str:
        """One line: how far, on what, and where."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        return (
            f"<Trainer of {self.config.architecture}: step {self.step} of {self.config.steps}, {files}, "
            f"{self.seconds_of_sound:.0f} s of sound, {self._world.device}, in {os.fspath(self.config.run_dir)!r}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # Internals

    def _one_step(self) -> TrainReport:
        start, config, world = time.perf_counter(), self.config, self._world
        rates = learning_rates(config, self.state.step, self.decay_steps)
        position = self.state.step * config.batch_size * world.size + world.rank * config.batch_size
        batch = self._material.segments.batch(position, config.batch_size, world.device)
        try:
            losses = self._stepper(batch, rates)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._folder.way_out()}") from None
        step = self.state.step
        last = step == config.steps
        due = step % config.checkpoint_every == 0 or last
        checked = due if config.validate_every is None else step % config.validate_every == 0 or last
        validation = self._validate() if checked else None
        path = self._save_due(validation) if due else None
        report = TrainReport(
            step=step,
            losses=losses,
            learning_rate=rates[0],
            seconds=time.perf_counter() - start,
            validation=validation,
            checkpoint=None if path is None else str(path),
        )
        if world.first:
            self._folder.append(report.to_dict())
        return report

    def _validate(self) -> dict[str, float] | None:
        """Done by the first process; the others wait at their next exchange."""
        if not self._world.first or not self._material.held_out:
            return None
        config = self.config
        network, sounds = self.state.average.network(config.record, config.generator), self._material.held_out

        def measured(report: Report) -> dict[str, float]:
            return validate(network, sounds, config.spec, segment=config.segment, report=report)

        return watched(self.progress, "validate", min(MOST_FILES, len(sounds)), measured)

    def _write(self, write: Callable[[], object]) -> None:
        """Write a file, whole or not at all."""
        watched(self.progress, "write", 1, lambda _: write())

    def _save_due(self, validation: dict[str, float] | None) -> Path:
        """Save a checkpoint, and the generator by itself if it is the best so far."""
        least = (self._best or {}).get(DECISIVE, math.inf)  # older runs have another figure
        if validation and validation[DECISIVE] < least:
            self._best = {"step": self.state.step, **validation}
            self._write(lambda: write_generator(self.vocoder(), self._folder.path / "best.safetensors"))
        return self.save()

    def _content(self) -> dict[str, Any]:
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self._world.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._world.device)
        batch = self.config.batch_size * self._world.size
        return {
            **self.state.to_dict(),
            "config": self.config.to_dict(),
            "batch": batch,
            "data": self._material.data,
            "position": self.state.step * batch,
            "best": self._best,
            "random": random,
        }

    def _find(self, config: TrainConfig, resume: bool) -> tuple[Found, dict[str, Any] | None, WarmStart | None]:
        """The sounds, the checkpoint to go on from, what to start from."""
        found = find_sounds(config.audio_dir, ignored=() if config.mels_dir is None else ENDINGS)
        stored = self._folder.stored(resume)
        return found, stored, None if stored else read_start(config)

    def _decide(self, config: TrainConfig, stored: dict[str, Any] | None, warm: WarmStart | None) -> ResolvedConfig:
        """The configuration with nothing left open: from the run that goes on, the warm start, the mels, the recipe."""
        if stored:
            check_config(config, stored, self._world.size)
            config = resumed(config, stored["config"])
        mels = None if config.mels_dir is None else spec_of_mels(config.mels_dir)
        if warm and warm.generator:
            return config.resolved(spec=warm.generator.spec, generator=warm.generator.generator, rate=warm.rate)
        return config.resolved(mels=mels)

    def _read(self, found: Found, stored: dict[str, Any] | None, report: Report) -> None:
        """Read the sounds."""
        self._material = read_material(self.config, found, report)
        if stored:
            check_sounds(self.config, stored, self._material.data)
        self.decay_steps = self._material.decay_steps(self.config, self._world.size)
        self.skipped = self._material.skipped
        self.notes = (*self._folder.notes, *self._material.notes)
        self.files, self.seconds_of_sound = self._material.files, self._material.seconds
        self.held_out = tuple(sound.name for sound in self._material.held_out)

    def _make(self, stored: dict[str, Any] | None, warm: WarmStart | None) -> None:
        """The networks, with the weights that the run begins with, and its folder."""
        self.state = TrainState.new(self.config, self._world.device)
        self._begin(stored, warm)
        self._stepper = Stepper(self.state, self.config, self._world)
        self._prepare_folder()

    def _begin(self, stored: dict[str, Any] | None, warm: WarmStart | None) -> None:
        """Replace the random weights by those that the run begins with."""
        state, config = self.state, self.config
        if stored:
            source = os.fspath(self._folder.checkpoint(stored["step"]))
            with about(source):
                state.load(stored, source=source)
            self._best, self.resumed_from = stored["best"], state.step
            torch.set_rng_state(stored["random"]["cpu"])
            if "cuda" in stored["random"] and self._world.device.type == "cuda":
                torch.cuda.set_rng_state(stored["random"]["cuda"], self._world.device)
        if warm:
            warm.begin(state, config)
        self._saved = self.resumed_from

    def _prepare_folder(self) -> None:
        """Do everything that can fail on a full or read-only disk before the first step."""
        if not self._world.first:
            return
        self._folder.make()
        state = self.state
        parameters = [p for module in (state.generator, state.discriminators) for p in module.parameters()]
        size = sum(parameter.numel() * 4 for parameter in parameters)
        config, made = self.config, len(self._folder.steps())
        ahead = math.ceil(max(0, config.steps - state.step) / config.checkpoint_every)
        kept = config.keep_checkpoints + 2 - made  # the best, and the one written before the oldest is removed
        self._folder.check_room(3 * size, min(ahead, max(1, kept)))  # weights, and AdamW's two moments
        self._folder.cut_log(self.state.step)
        self._folder.write_config(self.config.to_dict())
