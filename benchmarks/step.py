"""What a step of `melvoc train` is made of: seconds and shares of its parts.

    python benchmarks/step.py [--architecture glnet] [--profile cpu] [--preset slim] [--steps 20] [--threads 2]

The step is the trainer's own, of a profile's batch, segment and losses at 44.1 kHz, hop 512 and 128 bands, on noise.
Its parts are timed where they are called, and do not count what another takes inside them; "the rest" is drawing the
batch, checks and Python.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

from melvoc import MelSpec
from melvoc.rounded import Rounded
from melvoc.train import TrainConfig
from melvoc.train.data import Segments
from melvoc.train.distributed import World
from melvoc.train.ema import Average
from melvoc.train.sounds import Sound
from melvoc.train.state import Stepper, TrainState

SPEC = MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128)


class Clock:
    """Seconds by part; a part that begins inside another interrupts it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._mark = time.perf_counter()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._mark
        self._mark = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside belongs to this part."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Begin a part."""
        self._turn()
        self._open.append(name)

    def leave(self) -> None:
        """End it."""
        self._turn()
        self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as a part."""

        def run(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return run

    def watch(self, name: str, module: nn.Module) -> None:
        """A module's forward pass as a part."""
        module.register_forward_pre_hook(lambda *_: self.enter(name))
        module.register_forward_hook(lambda *_: self.leave(), always_call=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture")
    parser.add_argument("--profile")
    parser.add_argument("--preset", choices=("full", "slim"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, help="default: torch's")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, clock = torch.device("cpu"), Clock()
    given = {name: getattr(options, name) for name in ("architecture", "profile", "preset")}
    config = TrainConfig(audio_dir="sounds", run_dir="run", spec=SPEC, device="cpu", **given).resolved()
    state = TrainState.new(config, device)
    stepper = Stepper(state, config, dataclasses.replace(World(), device=device))
    clock.watch("network", state.generator)
    clock.watch("discriminators", state.discriminators)
    stepper.heard = [dataclasses.replace(term, loss=clock.timed("losses", term.loss)) for term in stepper.heard]
    stepper.heard_refined = [
        dataclasses.replace(term, loss=clock.timed("losses after a round", term.loss)) for term in stepper.heard_refined
    ]
    noise = 0.1 * torch.randn(441_000, generator=torch.Generator().manual_seed(0))
    segments = Segments([Sound(name="noise", wave=noise)], SPEC, segment=config.segment, seed=0)
    rates = (config.learning_rate, config.learning_rate)
    with (
        mock.patch.object(stepper, "_refined", clock.timed("a round of refinement", stepper._refined)),
        mock.patch.object(stepper, "_update", clock.timed("clipping and AdamW", stepper._update)),
        mock.patch.object(Rounded, "__call__", clock.timed("Griffin-Lim's rounds", Rounded.__call__)),
        mock.patch.object(Average, "update", clock.timed("running mean", Average.update)),
        mock.patch.object(torch.Tensor, "backward", clock.timed("backward", torch.Tensor.backward)),
    ):
        for number in range(-3, options.steps):
            if number == 0:
                clock.seconds.clear()
            with clock.part("the rest"):
                stepper(segments.batch((number + 3) * config.batch_size, config.batch_size, device), rates)
    whole = sum(clock.seconds.values())
    print(
        f"{config.architecture}, profile {config.profile}, batch {config.batch_size}, segment {config.segment}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}: {whole / options.steps:.3f} s a step, "
        f"{options.steps * config.batch_size * config.segment / SPEC.sample_rate / whole:.1f} s of sound/s"
    )
    print("| part | seconds | share |\n|---|---|---|")
    for name, seconds in sorted(clock.seconds.items(), key=lambda entry: -entry[1]):
        print(f"| {name} | {seconds / options.steps:.4f} | {seconds / whole:.0%} |")


if __name__ == "__main__":
    main()
