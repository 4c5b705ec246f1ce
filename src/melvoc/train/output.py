"""What follows a step: validations, checkpoints, samples and the result, all of them the first process's work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from melvoc.errors import MelvocError
from melvoc.neural import NeuralVocoder
from melvoc.progress import Progress, Report, watched
from melvoc.train.beginning import as_stored
from melvoc.train.best import Best
from melvoc.train.comparison import Comparison, compare
from melvoc.train.config import ResolvedConfig
from melvoc.train.distributed import World
from melvoc.train.folder import RunFolder
from melvoc.train.material import Material
from melvoc.train.pace import Pace
from melvoc.train.results import provenance_of, reopened, vocoder_of, write_discriminators, write_generator
from melvoc.train.samples import pictures, write_samples
from melvoc.train.state import TrainState, stage_of
from melvoc.train.validate import DECISIVE, MOST_FILES, validate


class Output:
    """The files of a run, and how far it is.

    Args:
        folder: of the run.
        config: of the run.
        state: of the training.
        material: of the run.
        pace: its clock.
        world: its processes.
        progress: as the trainer's.

    Attributes:
        reached: the share of the run that is over, the same in every process.
        best: the best checkpoint.
        comparison: of the result with Griffin-Lim, once the run is over.
        exported: step of the generator that was exported last, or None.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: ResolvedConfig,
        state: TrainState,
        material: Material,
        pace: Pace,
        world: World,
        progress: Progress | None,
    ) -> None:
        self._folder, self._config, self._state, self._material = folder, config, state, material
        self._pace, self._world, self.progress = pace, world, progress
        self.reached, self.best = 0.0, Best()
        self.comparison: Comparison | None = None
        self.saved: int | None = None
        self.exported: int | None = None
        self._began = state.step
        self._heard: tuple[int, dict[str, float]] = (-1, {})
        self._chooses = config.patience is not None or config.minutes is not None

    def begin(self, stored: dict[str, Any] | None) -> None:
        """Take over what a checkpoint has, and do everything that can fail on a full or read-only disk.

        Raises:
            MelvocError: the folder cannot be written, or has no room.
        """
        step, folder, config = self._state.step, self._folder, self._config
        if stored:
            self.best, self.saved, self._began = Best.from_dict(stored["best"]), step, step
            self._heard = step, stored.get("heard", {})
            before = stored["config"]
            self._chooses |= stored.get("chooses", any(before.get(end) is not None for end in ("patience", "minutes")))
        if self._world.first:
            folder.make()
            kept = config.keep_checkpoints + 2 - len(folder.steps())  # the best, and one before the oldest is removed
            folder.check_room(self._state.size, min(self._pace.checkpoints(config, step), max(1, kept)))
            folder.cut_log(step)
            folder.write("config.json", as_stored(config))
        self._agree()

    def follow(self) -> tuple[dict[str, float] | None, Path | None]:
        """After a step, validate and save where it is time to: every so many steps, or after each part of the minutes.

        Returns:
            The figures of a validation, in the first process, and the path of a checkpoint.
        """
        config, step, before = self._config, self._state.step, self.reached
        self._agree()
        last = self.reached >= 1.0
        if config.checkpoint_every is None:
            due = last or bool(self._world.first_says(self._pace.due(before, self.reached))[0])
        else:
            due = last or step % config.checkpoint_every == 0
        checked = due if config.validate_every is None else last or step % config.validate_every == 0
        figures = self._validate() if checked else None
        if checked:
            self._agree()
        if not due and self.reached < 1.0:
            return figures, None
        if self._world.first:
            with self._pace.costing("save"):
                self._save_due(figures)
        self._agree()
        return figures, self._folder.checkpoint(step)

    def _agree(self) -> None:
        """Take the first process's word, its clock's and its patience's, for how far the run is."""
        reached = self._pace.reached(self._state.step)
        if self.best.without_patience(self._config.patience):
            reached = 1.0
        (self.reached,) = self._world.first_says(reached)

    def _validate(self) -> dict[str, float] | None:
        """The figures of the held-out files; None if there are none, and in all processes but the first."""
        config, sounds = self._config, self._material.held_out
        if not sounds or not self._world.first:
            return None
        network = self._state.average.network(config.record, config.generator)

        def measured(report: Report) -> dict[str, float]:
            return validate(network, sounds, config.spec, segment=config.segment, report=report)

        with self._pace.costing("validate"):
            figures = watched(self.progress, "validate", min(MOST_FILES, len(sounds)), measured)
        self._heard = self._state.step, figures
        if not self._frozen(self._state.step - 1):
            self.best.heard(figures)
        return figures

    def _save_due(self, figures: dict[str, float] | None) -> None:
        """A checkpoint with its samples, and the generator by itself if it is the best so far."""
        if self.best.saves(self._state.step, figures):
            self._write(lambda: write_generator(self.vocoder(), self._folder.path / "best.safetensors"))
        self.save()  # before the samples, which no step depends on
        sounds = self._material.held_out[: self._config.samples]
        if sounds:
            self._write(lambda: self._sample(self._folder.samples(self._state.step)))

    def save(self) -> None:
        """A checkpoint, unless it was written or begun with."""
        if self.saved == (step := self._state.step):
            return
        keep, best = self._config.keep_checkpoints, self.best.step
        self._write(lambda: self._folder.save(step, self._content(), keep=keep, best=best))
        self.saved = step

    def export(self) -> None:
        """The result, and the discriminators if they are to be kept."""
        vocoder = self._result()
        self._write(lambda: write_generator(vocoder, self._folder.path / "generator.safetensors"))
        self.exported = int(vocoder.provenance["steps"])
        if self._config.keep_discriminators:
            self._write(lambda: write_discriminators(self._state, self._folder.path / "discriminators.pt"))

    def compare(self) -> Comparison:
        """The result beside Griffin-Lim, in `RUN/results.json` and in its file.

        It ends with the minutes of a run; a session that begins at their end takes its time.
        """
        config, sounds, vocoder = self._config, self._material.held_out, self._result()
        goes_on = self._state.step > self._began

        def compared(report: Report) -> Comparison:
            return compare(
                vocoder,
                sounds,
                segment=config.segment,
                longer=self._longer(),
                unmoved=self._unmoved(),
                late=self._pace.over if goes_on else lambda: False,
                report=report,
            )

        found = watched(self.progress, "compare", max(1, min(MOST_FILES, len(sounds))), compared)
        vocoder.provenance["compared"] = found.words
        self._write(lambda: write_generator(vocoder, self._folder.path / "generator.safetensors"))
        self._write(lambda: self._folder.write("results.json", self._results(vocoder, found)))
        self.comparison = found
        return found

    def _longer(self) -> str:
        """How to train four times as long, by what has ended the run; "" where that has stopped helping."""
        config, steps = self._config, self._state.step
        if self.best.learnt:
            return ""
        longer = f"--steps {4 * steps or 1000}" if config.minutes is None else f"--minutes {4 * config.minutes:g}"
        if not steps:  # there is no checkpoint
            return longer
        if config.patience is not None and self.best.without_patience(config.patience):
            longer += f" --patience {4 * config.patience}"
        return f"--resume {longer}"

    def _unmoved(self) -> int:
        """The run's steps if the discriminators alone have learnt in all of them, in the first and the last, else 0."""
        steps = self._state.step
        return steps if steps and self._frozen(0) and self._frozen(steps - 1) else 0

    def _frozen(self, step: int) -> bool:
        """Whether the discriminators alone learn in a step."""
        return stage_of(self._config, step) == "warm-up"

    def vocoder(self, engine: Literal["auto", "torch"] = "torch") -> NeuralVocoder:
        """The running mean as it is now."""
        provenance = provenance_of(self._material.data, self._pace.seconds)
        return vocoder_of(self._state, self._config, provenance, lambda: self._heard, engine=engine)

    def _content(self) -> dict[str, Any]:
        """What a checkpoint has."""
        batch = self._config.batch_size * self._world.size
        step, figures = self._heard
        return {
            **self._state.to_dict(),
            "config": as_stored(self._config),
            "batch": batch,
            "data": self._material.data,
            "position": self._state.step * batch,
            "best": self.best.to_dict(),
            "heard": figures if step == self._state.step else {},
            "chooses": self._chooses,
            "pace": self._pace.to_dict(),
        }

    def _result(self) -> NeuralVocoder:
        """What is exported: the best running mean of a run that the clock or patience ends, or did until it was told to
        end otherwise, else the last."""
        best, config = self._folder.path / "best.safetensors", self._config
        if self._chooses and self.best.step is not None and best.is_file():
            return reopened(best, config, self._state.device)
        return self.vocoder()

    def _results(self, vocoder: NeuralVocoder, comparison: Comparison) -> dict[str, Any]:
        return {
            "result": "generator.safetensors",
            "name": vocoder.name,
            "steps": int(vocoder.provenance["steps"]),
            "minutes": self._pace.seconds / 60,
            "sounds": self._material.data,
            "held_out": [sound.name for sound in self._material.held_out],
            "best_by": DECISIVE,
            "best": self.best.to_dict(),
            "comparison": comparison.to_dict(),
        }

    def _sample(self, folder: Path) -> None:
        sounds, segment = self._material.held_out[: self._config.samples], self._config.segment
        try:
            write_samples(self.vocoder(), sounds, folder, segment=segment, drawn=pictures())
        except OSError as error:
            why = error.strerror or error
            raise MelvocError(f"{folder}: cannot be written ({why}); make room and resume") from error

    def _write(self, write: Callable[[], object]) -> None:
        """Write a file, whole or not at all."""
        watched(self.progress, "write", 1, lambda _: write())
