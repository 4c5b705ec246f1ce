"""Steps a second: melvoc's trainer against the same recipe written as the published loop does it, alternating.

    python benchmarks/training.py [--architecture hifigan|vocos] [--preset slim] [--batch-size 4] [--segment 8192]
        [--precision auto] [--rounds 7] [--device cpu]

Both train the same small generator (44.1 kHz, hop 512) with the same discriminators and losses on the same batches.
jik876/hifi-gan's loop runs real and generated sound through each discriminator one after the other, both with a graph
in the generator's turn, where the discriminators' gradients are computed and thrown away, and updates with AdamW as
torch makes it. gemelo-ai/vocos' does the same, and makes the sound anew for each of the two turns. They compute in
float32 on a CPU and under bfloat16 autocast on a GPU; melvoc does what `--precision` says, `auto` by default. melvoc's
step also does what the plain loops do not: it clips gradients, guards against NaN and keeps a running mean. A round is
`--steps` steps of each; the ratio is of the rounds' times, its spread the smallest and the largest round. On a CPU that
others use at the same time, `--clock cpu` with one thread measures the work itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # two loops' convolutions are more than its 1024

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melvoc import MelSpec
from melvoc.spectrogram.transform import log_mel
from melvoc.train import Discriminators, TrainConfig
from melvoc.train.config import ResolvedConfig
from melvoc.train.data import Batch, Segments
from melvoc.train.distributed import World
from melvoc.train.ema import TrainableGenerator
from melvoc.train.precision import halved
from melvoc.train.sounds import Sound
from melvoc.train.state import Stepper, TrainState

SPEC = MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128)
Step = Callable[[Batch], object]


def adamw(module: nn.Module, config: ResolvedConfig) -> torch.optim.AdamW:
    """As torch makes it."""
    return torch.optim.AdamW(module.parameters(), config.learning_rate, betas=config.betas)


def judge(part: nn.Module, real: Tensor, generated: Tensor) -> tuple[list, list]:
    """One sound after the other through each discriminator."""
    return part(real), part(generated)


def hifigan_loop(
    generator: TrainableGenerator, discriminators: Discriminators, config: ResolvedConfig, device: torch.device
) -> Step:
    """jik876/hifi-gan's step."""
    for_generator, for_discriminators = adamw(generator, config), adamw(discriminators, config)
    half = device.type == "cuda"

    def against(real: list, generated: list) -> Tensor:
        total = torch.zeros((), device=device)
        for (r, *_), (g, *_) in zip(real, generated, strict=True):
            total = total + (1 - r.float()).square().mean() + g.float().square().mean()
        return total

    def step(batch: Batch) -> None:
        real, target = batch.wave, log_mel(batch.wave[:, 0], SPEC)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            generated = generator(batch.mel)
        made = log_mel(generated[:, 0].float(), SPEC)
        for_discriminators.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            periods = judge(discriminators.mpd, real, generated.detach())
            scales = judge(discriminators.msd, real, generated.detach())
        (against(*periods) + against(*scales)).backward()
        for_discriminators.step()

        for_generator.zero_grad()
        loss = 45 * F.l1_loss(target, made)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            pairs = [judge(part, real, generated) for part in (discriminators.mpd, discriminators.msd)]
        for r, g in pairs:
            for (_, features, _), (score, others, _) in zip(r, g, strict=True):
                loss = loss + (1 - score.float()).square().mean()
                loss = loss + 2 * sum((a - b).abs().mean().float() for a, b in zip(features, others, strict=True))
        loss.backward()
        for_generator.step()
        loss.item()  # the published loop prints it

    return step


def vocos_loop(
    generator: TrainableGenerator, discriminators: Discriminators, config: ResolvedConfig, device: torch.device
) -> Step:
    """gemelo-ai/vocos' step: hinge losses, the mean over each kind's parts, the resolutions' at a tenth."""
    for_generator, for_discriminators = adamw(generator, config), adamw(discriminators, config)
    parts = ((discriminators.mpd, 1.0), (discriminators.mrd, 0.1))
    half = device.type == "cuda"

    def judged(real: Tensor, generated: Tensor) -> list[tuple[tuple[list, list], float]]:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return [(judge(part, real, generated), weight) for part, weight in parts]

    def step(batch: Batch) -> None:
        with torch.no_grad():
            generated = generator(batch.mel)
        loss = torch.zeros((), device=device)
        for (real, fake), weight in judged(batch.wave, generated):
            for (r, *_), (g, *_) in zip(real, fake, strict=True):
                loss = loss + weight / len(real) * ((1 - r).clamp(min=0).mean() + (1 + g).clamp(min=0).mean())
        for_discriminators.zero_grad()
        loss.backward()
        for_discriminators.step()

        generated = generator(batch.mel)
        loss = 45 * F.l1_loss(log_mel(batch.wave[:, 0], SPEC), log_mel(generated[:, 0], SPEC))
        for (real, fake), weight in judged(batch.wave, generated):
            for (_, features, _), (score, others, _) in zip(real, fake, strict=True):
                near = sum((a - b).abs().mean() for a, b in zip(features, others, strict=True))
                loss = loss + weight / len(real) * ((1 - score).clamp(min=0).mean() + near)
        for_generator.zero_grad()
        loss.backward()
        for_generator.step()
        loss.item()

    return step


LOOPS = {"hifigan": hifigan_loop, "vocos": vocos_loop}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=tuple(LOOPS), default="hifigan")
    parser.add_argument("--preset", choices=("full", "slim"), default="slim")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--segment", type=int, default=8192)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--steps", type=int, default=2, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Measure."""
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, size, segment = torch.device(arguments.device), arguments.batch_size, arguments.segment
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    config = TrainConfig(
        audio_dir="sounds", run_dir="run", spec=SPEC, architecture=arguments.architecture, preset=arguments.preset,
        batch_size=size, segment=segment, precision=arguments.precision,
    ).resolved()  # fmt: skip
    stepper = Stepper(TrainState.new(config, device), config, dataclasses.replace(World(), device=device))
    other = TrainState.new(config, device)
    plain = LOOPS[arguments.architecture](other.generator, other.discriminators, config, device)
    noise = 0.1 * torch.randn(441_000, generator=torch.Generator().manual_seed(0))
    segments = Segments([Sound(name="noise", wave=noise)], SPEC, segment=segment, seed=0)

    def run(step: Step) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        for number in range(arguments.steps):
            step(segments.batch(number * size, size, device))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - start) / arguments.steps

    mine, theirs = [], []
    for number in range(-1, arguments.rounds):  # the first round warms up
        pair = run(lambda batch: stepper(batch, (config.learning_rate, config.learning_rate))), run(plain)
        if number >= 0:
            mine.append(pair[0])
            theirs.append(pair[1])
            print(f"round {number}: melvoc {pair[0]:.3f} s, plain {pair[1]:.3f} s, {pair[1] / pair[0]:.2f}", flush=True)
    ratios, sound = [b / a for a, b in zip(mine, theirs, strict=True)], size * segment / SPEC.sample_rate
    print(
        f"{arguments.architecture} {arguments.preset}, batch {size}, segment {segment}, {device}, "
        f"{'bfloat16' if halved(config, device) else 'float32'}, {torch.get_num_threads()} threads, {arguments.clock} "
        f"clock, torch {torch.__version__}: melvoc {1 / statistics.median(mine):.3f} steps/s "
        f"({sound / statistics.median(mine):.2f} s of sound/s), plain {1 / statistics.median(theirs):.3f} steps/s "
        f"({sound / statistics.median(theirs):.2f}), ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
