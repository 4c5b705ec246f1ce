"""The folder of a run: checkpoints, written completely or not at all, and a log that never runs ahead of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from melvoc.errors import CheckpointError, MelvocError, MissingCheckpointError, about, reason
from melvoc.storage.atomic import replacing
from melvoc.storage.reading import is_file, load_torch

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})\.pt")
_SPARE = 1 << 20


class RunFolder:
    """`RUN/checkpoints/step-00001000.pt`, `RUN/log.jsonl` and what is exported.

    Args:
        path: of the run; created if it does not exist.

    Raises:
        MelvocError: a folder that cannot be created or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.log = self.path / "log.jsonl"
        self._unreadable: dict[int, str] = {}

    @property
    def notes(self) -> list[str]:
        """Of each checkpoint that `load_last` passed over, why."""
        return [f"{reason}; passed over" for reason in self._unreadable.values()]

    def make(self) -> None:
        """Create the folders, and remove what a killed process left half-written.

        Raises:
            MelvocError: they cannot be created or written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for left in [*self.checkpoints.glob(".*.part.*"), *self.path.glob(".*.part.*")]:
                left.unlink()
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"room?")
        except OSError as error:
            raise MelvocError(
                f"{self.path}: cannot be written ({error.strerror or error}); choose another folder"
            ) from error

    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending, without those that could not be read."""
        if not self.checkpoints.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.checkpoints.iterdir())
        return sorted({int(match[1]) for match in matches if match} - self._unreadable.keys())

    def stored(self, resume: bool) -> dict[str, Any] | None:
        """The content of the checkpoint to go on from, None in a folder without one.

        Raises:
            CheckpointError: as `load_last`.
            MelvocError: the folder has a run, but is not to be resumed.
        """
        if resume:
            with about(self.path):
                return self.load_last()
        if steps := self.steps():
            raise MelvocError(
                f"{self.path}: has a run at step {steps[-1]} already; resume it (--resume, resume=True), or choose "
                "another folder"
            )
        return None

    def way_out(self) -> str:
        """What to do about a run whose losses have become NaN."""
        steps = self.steps()
        if not steps:
            return "start again with a lower learning rate"
        path = self.checkpoint(steps[-1])
        return f"the last good state is {path}: start a new run from it (warm start) with a lower learning rate"

    def checkpoint(self, step: int) -> Path:
        """The path of a step's checkpoint."""
        return self.checkpoints / f"step-{step:08d}.pt"

    def save(self, step: int, content: Mapping[str, Any], *, keep: int, best: int | None) -> Path:
        """Write a checkpoint, then remove all but the last `keep` and the best.

        Raises:
            MelvocError: it cannot be written; earlier ones are unchanged.
        """
        target = self.checkpoint(step)
        try:
            with replacing(target) as temporary, temporary.open("wb") as file:
                torch.save({"format": FORMAT, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            self._unreadable.pop(step, None)
        except (OSError, RuntimeError) as error:
            before = [other for other in self.steps() if other != step]
            rest = f"{self.checkpoint(before[-1]).name} is whole" if before else "there is no earlier one"
            free = shutil.disk_usage(self.checkpoints).free / 1e6
            raise MelvocError(
                f"{target}: cannot be written ({error}; {free:.0f} MB are free); make room and resume ({rest})"
            ) from error
        for other in self.steps()[:-keep]:
            if other != best:
                self.checkpoint(other).unlink(missing_ok=True)
        kept = {self.samples(other) for other in self.steps()}
        for folder in self.path.glob("samples/step-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        return target

    def samples(self, step: int) -> Path:
        """The folder of a checkpoint's sounds and pictures."""
        return self.path / "samples" / self.checkpoint(step).stem

    def load_last(self) -> dict[str, Any]:
        """The content of the last checkpoint that can be read, on the CPU; later ones are in `notes`.

        Raises:
            CheckpointError: there is none, or none that can be read.
            FileAccessError: the system does not open it; what is in it may be in order.
        """
        for step in reversed(self.steps()):
            try:
                return load_checkpoint(self.checkpoint(step))
            except CheckpointError as error:
                self._unreadable[step] = str(error)
        if self._unreadable:
            problem = next(iter(self._unreadable.values()))
            raise CheckpointError(f"{problem}, and there is no other to resume from; start a new run in another folder")
        raise MissingCheckpointError(f"{self.checkpoints}: no checkpoint to resume from; start without --resume")

    def append(self, report: Mapping[str, Any]) -> None:
        """Append a line to the log.

        Raises:
            MelvocError: it cannot be written.
        """
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
        except OSError as error:
            raise MelvocError(f"{self.log}: cannot be written ({error.strerror}); make room and resume") from error

    def cut_log(self, step: int) -> None:
        """Drop what was logged after a step: those steps will be repeated."""
        if not self.log.exists():
            return
        kept = [line for line in self.log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        with replacing(self.log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file into the run's folder: `config.json`, from which it goes on, or `results.json`.

        Raises:
            MelvocError: it cannot be written.
        """
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise MelvocError(f"{self.path / name}: cannot be written ({error.strerror}); make room") from error

    def config(self) -> dict[str, Any]:
        """What `RUN/config.json` has, or where that is damaged or gone, the last checkpoint.

        Raises:
            CheckpointError: there is no run.
        """
        try:
            values = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            values = None
        return values if isinstance(values, dict) else dict(self.load_last()["config"])

    def check_room(self, size: int, count: int) -> None:
        """Check that `count` more checkpoints fit, so that a long run does not fill the disk halfway through.

        Raises:
            MelvocError: they do not fit.
        """
        free = shutil.disk_usage(self.path).free
        if count and free < count * size + _SPARE:
            raise MelvocError(
                f"{self.path}: {free / 1e6:.0f} MB are free, but {count} more checkpoints of about {size / 1e6:.0f} MB "
                "are to be kept; make room, use another disk, or lower keep_checkpoints"
            )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint that `RunFolder.save` wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another kind.
    """
    if not is_file(path):
        raise MissingCheckpointError(f"{path}: no such file; give a checkpoint, RUN/checkpoints/step-N.pt")
    try:
        content = load_torch(path)
    except MelvocError:
        raise
    except Exception as error:  # torch's unpickler raises whatever a damaged pickle leads to
        raise CheckpointError(f"{path}: damaged ({reason(error)})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this melvoc's training")
    return content


def _step_of(line: str) -> float:
    """The step of a log line; a line that a killed process left half-written counts as after the end."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
