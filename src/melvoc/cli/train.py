"""`melvoc train`: a generator for a folder of sounds, with progress, log and checkpoints."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melvoc.cli.common import read_spec
from melvoc.errors import MelvocError

if TYPE_CHECKING:
    from melvoc.train import Trainer, TrainReport

SHOWN = (
    "mel",
    "stft",
    "feature",
    "adversarial",
    "discriminator",
)  # losses in the progress line, as far as they are there

# Options that are fields of the configuration by the same name; absent ones leave the configuration's default.
FIELDS = (
    ("preset", str, "full (published discriminators) or slim (an eighth of their channels, for a CPU)"),
    ("batch_size", int, "segments a step and process"),
    ("segment", int, "samples a segment, a multiple of the hop length"),
    ("steps", int, "in all, those before a --resume included"),
    ("checkpoint_every", int, "steps"),
    ("validate_every", int, "steps (default: with each checkpoint)"),
    ("keep_checkpoints", int, "the last so many, and the best, stay"),
    ("learning_rate", float, "of both sides"),
    ("ramp_steps", int, "the generator's rate rises over so many steps (default: 1000 after a --warm-start)"),
    ("lr_decay", float, "factor of the learning rate, every --lr-decay-steps"),
    ("lr_decay_steps", int, "default: a pass over the sound, at least 1000"),
    ("mel_only_steps", int, "first so many steps without discriminators"),
    ("discriminator_warmup", int, "then so many with the discriminators alone (default: 500 after a --warm-start)"),
    ("ema_decay", float, "of the running mean that is exported; 0 for none"),
    ("clip_gradients", float, "largest norm of the gradients"),
    ("gain_db", float, "augmentation: quieter by up to so many dB"),
    ("tilt_db", float, "augmentation: spectral tilt of up to so many dB"),
    ("validation_files", int, "held out (default: one in twenty, at least one of four or more)"),
    ("seed", int, "of weights, split, segments and augmentation"),
    ("precision", str, "auto (bfloat16 on CUDA), float32 or bfloat16"),
    ("device", str, "auto (cuda, mps, cpu) or a torch device"),
    ("warm_start", str, "a generator: a melvoc file, a published one beside its config.json, or a run's checkpoint"),
    ("warm_discriminators", str, "a published do_* file, discriminators.pt, or a checkpoint of another run"),
)  # fmt: skip
WEIGHTS = ("adversarial", "feature", "mel", "stft")


def add_parser(commands: Any) -> None:
    """The command."""
    parser = commands.add_parser(
        "train",
        help="a small generator for your own sounds",
        description="Train HiFi-GAN on a folder of WAV, FLAC, OGG and MP3 files, into RUN/generator.safetensors.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("audio_dir", metavar="AUDIO_DIR", help="folder of sounds, searched with its subfolders")
    parser.add_argument("-o", "--output", dest="run_dir", metavar="RUN", required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", default=False, help="go on from the last checkpoint in RUN")
    parser.add_argument("--spec", help="the mel: a preset's name, or a .json of MelSpec fields (default: 44.1 kHz)")
    parser.add_argument("--generator", help="a .json of HiFiGANConfig fields, or a HiFi-GAN config.json (default: V2)")
    parser.add_argument("--mels", dest="mels_dir", metavar="DIR", help="another model's mels, named as the sounds are")
    for name, kind, text in FIELDS:
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=text)
    for name in WEIGHTS:
        parser.add_argument(f"--{name}-weight", type=float, help=f"of the {name} loss")
    parser.add_argument("--no-flip-polarity", dest="flip_polarity", action="store_false", help="augmentation")
    parser.add_argument("--keep-discriminators", action="store_true", help="write RUN/discriminators.pt at the end")
    parser.add_argument("--tensorboard", action="store_true", default=False, help="log to RUN/tensorboard as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train until the steps are made or somebody says stop."""
    try:
        import rich  # noqa: F401
    except ImportError as error:
        raise MelvocError("melvoc train shows its progress with rich; pip install 'melvoc[train]'") from error
    from melvoc.train import Trainer

    config, started = configuration(arguments), time.monotonic()
    with Trainer(config, resume=arguments.resume) as trainer:
        writer = _tensorboard(trainer, config.run_dir) if arguments.tensorboard and trainer.first else None
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


def configuration(arguments: argparse.Namespace) -> Any:
    """The `TrainConfig` of the arguments: what was not given is left to its defaults."""
    from melvoc.train import LossWeights, TrainConfig

    given = vars(arguments)
    values = {name: given[name] for name, _, _ in FIELDS if name in given}
    for name in ("audio_dir", "run_dir", "mels_dir", "flip_polarity", "keep_discriminators"):
        if name in given:
            values[name] = given[name]
    if "spec" in given:
        values["spec"] = read_spec(given["spec"])
    if "generator" in given:
        values["generator"] = _read_generator(given["generator"], given.get("architecture"))
    weights = {name: given[f"{name}_weight"] for name in WEIGHTS if f"{name}_weight" in given}
    return TrainConfig(**values, weights=LossWeights(**weights))


def _read_generator(path: str, architecture: str | None) -> Any:
    from melvoc.architectures.hifigan import HiFiGANConfig
    from melvoc.storage.conversion import read_config

    values = read_config(path)
    return HiFiGANConfig.from_published(values) if "num_mels" in values else HiFiGANConfig.from_dict(values)


def _introduce(trainer: Trainer) -> None:
    for entry in trainer.skipped:
        print(f"skipped {entry.name}: {entry.reason}")
    print(
        f"training on {len(trainer.files)} files, {trainer.seconds_of_sound:.1f} s; held out: {len(trainer.held_out)}"
    )
    if trainer.resumed_from is not None:
        print(f"resumed at step {trainer.resumed_from}, on the way to {trainer.config.steps}")


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the loop after the present step; a second Ctrl-C ends it at once."""

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
    """A function that shows a report: a bar on a terminal, else a line a checkpoint."""
    if not trainer.first:
        yield lambda report: None
        return
    if not sys.stderr.isatty():
        yield lambda report: print(_line(report)) if report.checkpoint or report.validation else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task("training", total=trainer.config.steps, completed=trainer.step, losses="", speed="")

        def show(report: TrainReport) -> None:
            speed = f"{1 / report.seconds:.2f} steps/s"
            bar.update(task, completed=report.step, losses=_losses(report, most=2), speed=speed)
            if report.validation:
                bar.console.print(_line(report))

        yield show


def _line(report: TrainReport) -> str:
    parts = [f"step {report.step}", _losses(report), f"{report.seconds:.2f} s"]
    if report.validation:
        parts.append("held out: " + " ".join(f"{name} {value:.4f}" for name, value in report.validation.items()))
    return "  ".join(parts)


def _losses(report: TrainReport, most: int = len(SHOWN)) -> str:
    return " ".join([f"{name} {report.losses[name]:.3f}" for name in SHOWN if name in report.losses][:most])


def _conclude(trainer: Trainer, seconds: float) -> int:
    if trainer.step < trainer.config.steps:
        path = trainer.save()
        if trainer.first:
            print(f"stopped at step {trainer.step}, saved in {path}; go on with --resume")
        return 130
    if trainer.first:
        print(f"{Path(trainer.config.run_dir) / 'generator.safetensors'}: step {trainer.step}, {seconds:.0f} s")
    return 0


def _tensorboard(trainer: Trainer, run_dir: Any) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MelvocError("--tensorboard needs tensorboard; pip install 'melvoc[tensorboard]'") from error
    return SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=trainer.step)


def _log(writer: Any, report: TrainReport) -> None:
    for name, value in report.losses.items():
        writer.add_scalar(f"loss/{name}", value, report.step)
    for name, value in (report.validation or {}).items():
        writer.add_scalar(f"held out/{name}", value, report.step)
    writer.add_scalar("learning rate", report.learning_rate, report.step)
