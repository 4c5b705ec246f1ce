"""The training loop: an iterator of reports that an application, a notebook or the command line drives."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from melvoc.audio.folder import Skipped
from melvoc.errors import CheckpointError, MelvocError, about
from melvoc.host import public
from melvoc.progress import Progress, Report, check_progress, watched
from melvoc.spectrogram.file import ENDINGS
from melvoc.train.config import TrainConfig, check_fit, trained_architecture
from melvoc.train.data import Segments, fingerprint, split
from melvoc.train.distributed import join
from melvoc.train.folder import RunFolder
from melvoc.train.results import vocoder_of, write_discriminators, write_generator
from melvoc.train.sounds import check_enough, find_sounds, gather, read_sounds, spec_of_mels
from melvoc.train.state import DivergedError, Stepper, TrainState, learning_rates
from melvoc.train.validate import DECISIVE, MOST_FILES, validate
from melvoc.train.warm import WarmStart, read_discriminators, read_generator

R = TypeVar("R")
LEAST_DECAY_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """One step.

    Attributes:
        step: from 1; the steps made so far, including those before a resume.
        losses: by name, unweighted: those of "discriminator", "adversarial", "feature", "mel" and "stft" that are in
            use, and "generator_gradient", "discriminator_gradient", the norms before clipping.
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
    """Trains a generator on a folder of sounds.

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
        config: with spec, generator and warm-up filled in.
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
        self._folder = RunFolder(config.run_dir)

        def find(_: Report) -> tuple[list[Skipped], dict[str, Any] | None, WarmStart | None]:
            others = find_sounds(config.audio_dir, ignored=() if config.mels_dir is None else ENDINGS)[1]
            with about(config.run_dir):
                stored = self._stored(resume)
            if config.warm_start is None or stored:
                return others, stored, None
            with about(config.warm_start):
                return others, stored, read_generator(config.warm_start)

        others, stored, warm = watched(progress, "find", 1, find)
        self._world = join(config.device)
        with ExitStack() as failed:
            failed.callback(self.close)  # or torch complains of an open group beside the error
            self._prepare(config, stored, warm)
            failed.pop_all()
        self.skipped += tuple(others)

    def _prepare(self, config: TrainConfig, stored: dict[str, Any] | None, warm: WarmStart | None) -> None:
        """Read and check everything, and make the networks."""
        if stored:
            self._compare(config, stored)
            config = config.resumed(stored["config"])
        if config.mels_dir is not None and (said := spec_of_mels(config.mels_dir)) and not (config.spec or warm):
            config = dataclasses.replace(config, spec=said)
        config = config.resolved(spec=warm.spec, generator=warm.generator) if warm else config.resolved()
        assert config.spec is not None
        assert config.generator is not None
        assert config.segment is not None
        check_fit(config, config.spec)
        self.config, self.spec, self.generator = config, config.spec, config.generator
        self._segment = config.segment
        self._record = trained_architecture(config.architecture, config.generator)
        sounds, _ = find_sounds(config.audio_dir)
        watched(self.progress, "read", len(sounds), self._read_sounds)
        if stored and stored["data"] != self._data:
            raise CheckpointError(
                f"{config.audio_dir}: not the sounds of this run ({_listed(stored['data'], self._data)}); resume with "
                "the same folder, or start a new run in another run folder",
                path=str(self._folder.path),
            )
        watched(self.progress, "prepare", 1, lambda _: self._make_networks(config, stored, warm))

    def _make_networks(self, config: TrainConfig, stored: dict[str, Any] | None, warm: WarmStart | None) -> None:
        """The networks, with the weights that the run begins with, and its folder."""
        self.state = TrainState.new(config, self._record, self.generator, self._world.device)
        self._stepper = Stepper(self.state, config, self.spec, self._world)
        self._best: dict[str, float] | None = None
        self.resumed_from: int | None = None
        if stored:
            self._restore(stored)
        elif warm:
            with about(warm.source):
                self.state.generator.load_folded(warm.tensors, source=warm.source)
            self.state.average.load(self.state.generator.folded())
        if config.warm_discriminators is not None and not stored:
            name = os.fspath(config.warm_discriminators)
            with about(name):
                self.state.discriminators.load_published(read_discriminators(name), source=name)
        self._saved: int | None = self.resumed_from
        self._prepare_folder()

    # Public interface

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

    def vocoder(self) -> Any:
        """The current generator (its running mean) as an independent `melvoc.Vocoder`."""
        return vocoder_of(self.state, self._record, self.generator, self.spec, name=self._folder.path.resolve().name)

    def close(self) -> None:
        """Leave the process group, if this trainer opened it."""
        self._world.close()

    def __repr__(self) -> str:
        """One line: how far, on what, and where."""
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        return (
            f"<Trainer of {self._record.name}: step {self.step} of {self.config.steps}, {files}, "
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
        batch = self._segments.batch(position, config.batch_size, world.device)
        try:
            losses = self._stepper(batch, rates)
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._way_out()}") from None
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
        if not self._world.first or not self._held_out:
            return None
        network = self.state.average.network(self._record, self.generator)
        files = min(MOST_FILES, len(self._held_out))

        def measured(report: Report) -> dict[str, float]:
            return validate(network, self._held_out, self.spec, segment=self._segment, report=report)

        return watched(self.progress, "validate", files, measured)

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

    def _way_out(self) -> str:
        steps = self._folder.steps()
        if not steps:
            return "start again with a lower learning rate"
        path = self._folder.checkpoint(steps[-1])
        return f"the last good state is {path}: start a new run from it (warm start) with a lower learning rate"

    def _content(self) -> dict[str, Any]:
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if self._world.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._world.device)
        batch = self.config.batch_size * self._world.size
        return {
            **self.state.to_dict(),
            "config": self.config.to_dict(),
            "batch": batch,
            "data": self._data,
            "position": self.state.step * batch,
            "best": self._best,
            "random": random,
        }

    def _stored(self, resume: bool) -> dict[str, Any] | None:
        if resume:
            return self._folder.load_last()
        if steps := self._folder.steps():
            raise MelvocError(
                f"{self._folder.path}: has a run at step {steps[-1]} already; resume it (--resume, resume=True), or "
                "choose another folder"
            )
        return None

    def _compare(self, config: TrainConfig, stored: dict[str, Any]) -> None:
        different = config.differences(stored["config"])
        batch = config.batch_size * self._world.size
        if stored["batch"] != batch:
            different["batch_size (of all processes)"] = (stored["batch"], batch)
        if different:
            listed = "; ".join(f"{name}: the run has {old!r}, now {new!r}" for name, (old, new) in different.items())
            raise CheckpointError(
                f"{self._folder.path}: resumed with another configuration ({listed}); resume as it was started, or "
                "start a new run in another folder",
                path=str(self._folder.path),
            )

    def _read_sounds(self, report: Report) -> None:
        config = self.config
        entries = read_sounds(config.audio_dir, self.spec, mels=config.mels_dir)
        sounds, skipped = gather(_counted(entries, report), config.audio_dir, self.spec)
        trained, self._held_out = split(sounds, held_out=config.validation_files, seed=config.seed)
        check_enough(trained, self._held_out, self.spec)
        self._segments = Segments(
            trained,
            self.spec,
            segment=self._segment,
            seed=config.seed,
            gain_db=config.gain_db,
            flip_polarity=config.flip_polarity,
            tilt_db=config.tilt_db,
        )
        a_pass = math.ceil(self._segments.segments_a_pass / (config.batch_size * self._world.size))
        self.decay_steps = config.lr_decay_steps or max(LEAST_DECAY_STEPS, a_pass)
        self._data = {
            "files": len(sounds),
            "seconds": round(sum(len(sound.wave) for sound in sounds) / self.spec.sample_rate, 3),
            "paired mels": config.mels_dir is not None,
            "fingerprint": fingerprint(sounds),
        }
        self.skipped: tuple[Skipped, ...] = tuple(skipped)
        self.notes = (*self._folder.notes, *(f"{s.name}: {s.note}" for s in sounds if s.note), *self._segments.notes)
        self.files = tuple(sound.name for sound in trained)
        self.held_out = tuple(sound.name for sound in self._held_out)
        self.seconds_of_sound = sum(len(sound.wave) for sound in trained) / self.spec.sample_rate

    def _restore(self, stored: dict[str, Any]) -> None:
        source = os.fspath(self._folder.checkpoint(stored["step"]))
        with about(source):
            self.state.load(stored, source=source)
        self._best = stored["best"]
        self.resumed_from = self.state.step
        torch.set_rng_state(stored["random"]["cpu"])
        if "cuda" in stored["random"] and self._world.device.type == "cuda":
            torch.cuda.set_rng_state(stored["random"]["cuda"], self._world.device)

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


def _counted(entries: Iterator[R], report: Report) -> Iterator[R]:
    for count, entry in enumerate(entries, start=1):
        yield entry
        report(count)


def _listed(old: dict[str, Any], new: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {old.get(name)!r}, now {new[name]!r}" for name in new if old.get(name) != new[name])
