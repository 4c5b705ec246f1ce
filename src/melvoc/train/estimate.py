"""What a run takes, measured on a few steps that the run does not notice."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import torch

from melvoc.errors import OptionError
from melvoc.train.config import ResolvedConfig
from melvoc.train.distributed import World
from melvoc.train.material import Material
from melvoc.train.pace import learning_rates
from melvoc.train.state import Stepper, TrainState


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run takes.

    Attributes:
        seconds: from its beginning to its end: its minutes, or its steps at this speed, without validations.
        steps: in all.
        seconds_per_step: of the network alone, without validations and checkpoints, once everything learns: the mean of
            steps that are judged and steps that are not, if both come.
        sound_per_second: seconds of sound trained on per second, of all processes.
        memory: bytes at most, a little more than the run's own: on a GPU what torch has allocated there, on a CPU what
            this process has had resident so far; None where the system does not tell.
        parameters: of the generator.
        discriminator_parameters: of those that judge.
    """

    seconds: float
    steps: int
    seconds_per_step: float
    sound_per_second: float
    memory: int | None
    parameters: int
    discriminator_parameters: int


def estimated(config: ResolvedConfig, material: Material, world: World, *, step: int, tried: int) -> Estimate:
    """Measure steps of a copy with new weights.

    Args:
        config: of the run.
        material: its sounds.
        world: its processes, all of which call this.
        step: steps that the run has made.
        tried: steps to make of each kind, at least 2; the first is not counted.

    Raises:
        OptionError: fewer.
    """
    if type(tried) is not int or tried < 2:
        raise OptionError(f"steps={tried!r}, but it is a whole number of at least 2: the first step is not counted")
    device, size = world.device, config.batch_size
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.enable_grad():
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        state = TrainState.new(config, device)
        stepper = Stepper(state, config, world)

        def timed(kind: int) -> float:
            """Seconds of a step of the same kind as this one."""
            times = list[float]()
            for number in range(tried):
                begun, state.step = time.perf_counter(), kind
                position = (step + number) * size * world.size + world.rank * size
                stepper(material.segments.batch(position, size, device), learning_rates(config, kind, 1000))
                times.append(time.perf_counter() - begun)
            return sum(times[1:]) / (tried - 1)

        judged = _judged_step(config, step)
        seconds, every = timed(judged), config.judge_every
        if every > 1 and stepper.stage == "heard" and config.weights.judges:
            seconds = (seconds + (every - 1) * timed(judged + 1)) / every
        memory = torch.cuda.max_memory_allocated(device) if cuda else _resident()
    steps = int(60 * config.minutes / seconds) if config.minutes else config.steps or 0
    steps = steps if config.steps is None else min(steps, config.steps)
    return Estimate(
        seconds=steps * seconds if config.minutes is None else min(60 * config.minutes, steps * seconds),
        steps=steps,
        seconds_per_step=seconds,
        sound_per_second=size * world.size * config.segment / config.spec.sample_rate / seconds,
        memory=memory,
        parameters=sum(parameter.numel() for parameter in state.average.tensors.values()),
        discriminator_parameters=sum(parameter.numel() for parameter in state.discriminators.parameters()),
    )


def _judged_step(config: ResolvedConfig, step: int) -> int:
    """A step from this one on in which the discriminators judge, if there is one before the run's end."""
    first = max(step, config.mel_only_steps + config.discriminator_warmup)
    first += (config.mel_only_steps - first) % config.judge_every
    return first if config.steps is None or first < config.steps else step


def _resident() -> int | None:
    """Bytes that this process has had in memory at most."""
    with suppress(ImportError):  # of Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
