"""`melvoc train`: a generator for a folder of sounds, with progress, log and checkpoints."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melvoc.cli import tell
from melvoc.cli.common import bars, read_spec
from melvoc.cli.options import add_fields, attributes, given, pairs
from melvoc.errors import MelvocError

if TYPE_CHECKING:
    from melvoc.train import TrainConfig, Trainer, TrainReport

# Losses in the progress line, if in use.
SHOWN = ("mel", "stft", "multi_scale_mel", "feature", "adversarial", "discriminator")
# Fields of the configuration that are not options of the same name.
ELSEWHERE = {"audio_dir", "run_dir", "mels_dir", "spec", "generator", "discriminators", "weights", "betas"}


def add_parser(commands: Any) -> None:
    """Add the command; its options are added when it is chosen, because they need melvoc.train."""
    parser = commands.add_parser("train", help="a small generator for your own sounds")
    parser.later = add_options
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options."""
    from melvoc.train import LossWeights, TrainConfig

    parser.description = "Train a generator on a folder of sound files; the result is RUN/generator.safetensors."
    texts, weights = attributes(TrainConfig), attributes(LossWeights)
    later: dict[str, Any] = {"default": argparse.SUPPRESS}
    folder = texts["audio_dir"].partition(".")[0]
    parser.add_argument("audio_dir", metavar="AUDIO_DIR", nargs="?", **later, help=f"{folder}; --resume knows its own")
    parser.add_argument("-o", "--output", dest="run_dir", metavar="RUN", required=True, help=texts["run_dir"])
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in RUN, with RUN's options"
    )
    parser.add_argument("--spec", **later, help=f"{texts['spec']}; a preset's name, or a .json of MelSpec fields")
    parser.add_argument("--generator", **later, help=f"{texts['generator']}; a .json of its fields, or a published one")
    text = f"{texts['discriminators']}; for example mpd=1,cqt=0.5"
    parser.add_argument("--discriminators", metavar="NAME=WEIGHT,...", **later, help=text)
    parser.add_argument("--mels", dest="mels_dir", metavar="DIR", **later, help=texts["mels_dir"])
    add_fields(parser, TrainConfig, [entry.name for entry in fields(TrainConfig) if entry.name not in ELSEWHERE])
    for entry in fields(LossWeights):
        text = f"weight of a loss: {weights[entry.name]} (default: the architecture's)"
        parser.add_argument(f"--{entry.name.replace('_', '-')}-weight", type=float, **later, help=text)
    parser.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")


def run(arguments: argparse.Namespace) -> int:
    """Train until all steps are made or a signal stops the run."""
    try:
        import rich  # noqa: F401
    except ImportError as error:
        raise MelvocError("melvoc train shows its progress with rich; pip install 'melvoc[train]'") from error
    from melvoc.train import Trainer

    started = time.monotonic()
    with bars() as progress:
        if arguments.resume:
            trainer = Trainer.resume(progress=progress, **_options(arguments))
        else:
            trainer = Trainer(configuration(arguments), progress=progress)
    trainer.progress = None
    with trainer:
        writer = _tensorboard(trainer, arguments.run_dir) if arguments.tensorboard and trainer.first else None
        if trainer.first:
            _introduce(trainer)
        with _stopping(trainer), _shown(trainer) as show:
            for report in trainer:
                show(report)
                if writer is not None:
                    _log(writer, report)
        if writer is not None:
            writer.close()
        return _conclude(trainer, time.monotonic() - started)


def configuration(arguments: argparse.Namespace) -> TrainConfig:
    """The `TrainConfig` of the arguments; what was not given keeps its default."""
    from melvoc.train import TrainConfig

    values = _options(arguments)
    if "audio_dir" not in values:
        raise MelvocError("AUDIO_DIR is missing; name a folder of sound files (--resume alone knows that of its run)")
    return TrainConfig(**values)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of the configuration that were given."""
    from melvoc.train import LossWeights, TrainConfig

    values, words = given(arguments, TrainConfig), vars(arguments)
    if "spec" in values:
        values["spec"] = read_spec(values["spec"])
    if "generator" in values:
        values["generator"] = _read_generator(values["generator"], values.get("architecture"))
    if "discriminators" in values:
        values["discriminators"] = pairs(values["discriminators"], float, "mpd=1,cqt=0.5")
    if "=" in values.get("preset", ""):
        values["preset"] = pairs(values["preset"], str, "mpd=slim,cqt=full")
    names = [entry.name for entry in fields(LossWeights)]
    weights = {name: words[f"{name}_weight"] for name in names if f"{name}_weight" in words}
    return values | ({"weights": LossWeights(**weights)} if weights else {})


def _read_generator(path: str, architecture: str | None) -> Any:
    """A generator's configuration: from its own fields, or from a published file of its architecture."""
    from melvoc.storage.configuration import read_config
    from melvoc.train.recipes import trained

    records, values = [record for record, _ in trained(architecture)], read_config(path)
    for record in records:
        if set(values) <= {entry.name for entry in fields(record.config)}:
            return record.config.from_dict(values)
        for layout in record.layouts:
            if layout.recognises(values):
                return layout.config(values)
    return records[0].config.from_dict(values)  # says what is wrong with it


def _introduce(trainer: Trainer) -> None:
    for entry in trainer.skipped:
        tell(f"skipped {entry.name}: {entry.reason}")
    for note in trainer.notes:
        tell(f"note: {note}")
    tell(f"training on {len(trainer.files)} files, {trainer.seconds_of_sound:.1f} s; held out: {len(trainer.held_out)}")
    config = trainer.config
    ends = {"steps": config.steps, "minutes": config.minutes}
    listed = " or ".join(f"{number:g} {unit}" for unit, number in ends.items() if number is not None)
    tell(f"{config.architecture}, profile {config.profile}, {listed} in all")
    if trainer.resumed_from is not None:
        tell(f"resumed at step {trainer.resumed_from}")


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the loop after the current step; a second Ctrl-C ends it at once."""

    def stop(number: int, frame: object) -> None:
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(trainer: Trainer) -> Iterator[Any]:
    """A function that shows a report: a progress bar on a terminal, else a line per checkpoint."""
    if not trainer.first:
        yield lambda report: None
        return
    if not sys.stderr.isatty():
        yield lambda report: tell(_line(report)) if report.checkpoint or report.validation else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=trainer.config.steps, completed=trainer.step, losses="", speed="")

        def show(report: TrainReport) -> None:
            speed = f"{report.sound_per_second:.1f} s of sound/s, {_clock(report.eta)} left"
            bar.update(task, completed=report.step, total=report.steps, losses=_losses(report, most=2), speed=speed)
            if report.validation:
                bar.console.print(_line(report))

        def going_on(stage: str, done: int, total: int) -> None:
            bar.update(task, speed="" if done == total else f"{stage} {done}/{total}")

        trainer.progress = going_on
        yield show


def _line(report: TrainReport) -> str:
    parts = [f"step {report.step}", _losses(report), f"{report.seconds:.2f} s"]
    if report.validation:
        parts.append("held out: " + " ".join(f"{name} {value:.4f}" for name, value in report.validation.items()))
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _losses(report: TrainReport, most: int = len(SHOWN)) -> str:
    return " ".join([f"{name} {report.smoothed[name]:.3f}" for name in SHOWN if name in report.smoothed][:most])


def _conclude(trainer: Trainer, seconds: float) -> int:
    if not trainer.finished:
        path = trainer.save()
        if trainer.first:
            tell(f"stopped at step {trainer.step}, saved in {path}; continue with --resume")
        return 130
    if trainer.first:
        step = "" if trainer.exported == trainer.step else f"step {trainer.exported} of "
        tell(f"{Path(trainer.config.run_dir) / 'generator.safetensors'}: {step}{trainer.step} steps, {seconds:.0f} s")
        if trainer.comparison is not None:
            tell(trainer.comparison.words)
    return 0


def _tensorboard(trainer: Trainer, run_dir: Any) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MelvocError("--tensorboard needs tensorboard; pip install 'melvoc[tensorboard]'") from error
    return SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=trainer.step + 1)


def _log(writer: Any, report: TrainReport) -> None:
    for name, value in report.losses.items():
        writer.add_scalar(f"loss/{name}", value, report.step)
    for name, value in (report.validation or {}).items():
        writer.add_scalar(f"held out/{name}", value, report.step)
    writer.add_scalar("learning rate", report.learning_rate, report.step)
