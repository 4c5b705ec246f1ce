"""Steps a second: melvoc's trainer against the same recipe written as jik876/hifi-gan's loop does it, alternating.

    python benchmarks/training.py [--preset slim] [--batch-size 4] [--segment 8192] [--rounds 7] [--device cpu]

Both train the same V2 generator (44.1 kHz, hop 512) with the same discriminators and losses on the same batches. The
plain loop runs real and generated sound through each discriminator one after the other, both with a graph in the
generator's turn, where the discriminators' gradients are computed and thrown away, and updates with AdamW as torch
makes it. melvoc's step also does what the plain loop does not: it clips gradients, guards against NaN and keeps a
running mean. A round is `--steps` steps of each; the ratio is of the rounds' times, its spread the smallest and the
largest round. On a CPU that others use at the same time, `--clock cpu` with one thread measures the work itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

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
from melvoc.train.sounds import Sound
from melvoc.train.state import Stepper, TrainState

SPEC = MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128)


def plain_loop(
    generator: TrainableGenerator, discriminators: Discriminators, config: ResolvedConfig, device: torch.device
) -> Callable[[Batch], None]:
    """The published loop's step."""
    for_generator = torch.optim.AdamW(generator.parameters(), config.learning_rate, betas=config.betas)
    for_discriminators = torch.optim.AdamW(discriminators.parameters(), config.learning_rate, betas=config.betas)
    half = device.type == "cuda"

    def judge(part: nn.Module, real: Tensor, generated: Tensor) -> tuple[list, list]:
        """One sound after the other through each discriminator."""
        return part(real), part(generated)

    def against(real: list, generated: list) -> Tensor:
        total = torch.zeros((), device=device)
        for (r, _), (g, _) in zip(real, generated, strict=True):
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
            for (_, features), (score, others) in zip(r, g, strict=True):
                loss = loss + (1 - score.float()).square().mean()
                loss = loss + 2 * sum((a - b).abs().mean().float() for a, b in zip(features, others, strict=True))
        loss.backward()
        for_generator.step()
        loss.item()  # the published loop prints it

    return step


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("full", "slim"), default="slim")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--segment", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=2, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    config = TrainConfig(
        audio_dir="sounds", run_dir="run", spec=SPEC, preset=arguments.preset, batch_size=arguments.batch_size,
        segment=arguments.segment,
    ).resolved()  # fmt: skip
    state = TrainState.new(config, device)
    stepper = Stepper(state, config, dataclasses.replace(World(), device=device))
    other = TrainState.new(config, device)
    plain = plain_loop(other.generator, other.discriminators, config, device)
    noise = 0.1 * torch.randn(441_000, generator=torch.Generator().manual_seed(0))
    segments = Segments([Sound(name="noise", wave=noise)], SPEC, segment=arguments.segment, seed=0)

    def run(step: Callable[[Batch], object], first: int) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        for number in range(first, first + arguments.steps):
            step(segments.batch(number * arguments.batch_size, arguments.batch_size, device))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - start) / arguments.steps

    mine, theirs = [], []
    for number in range(-1, arguments.rounds):  # the first round warms up
        pair = run(lambda batch: stepper(batch, (config.learning_rate, config.learning_rate)), 0), run(plain, 0)
        if number >= 0:
            mine.append(pair[0])
            theirs.append(pair[1])
            print(f"round {number}: melvoc {pair[0]:.3f} s, plain {pair[1]:.3f} s, {pair[1] / pair[0]:.2f}", flush=True)
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    print(
        f"{arguments.preset}, batch {arguments.batch_size}, segment {arguments.segment}, {device}, "
        f"{torch.get_num_threads()} threads, {arguments.clock} clock, torch {torch.__version__}: "
        f"melvoc {1 / statistics.median(mine):.3f} steps/s, plain {1 / statistics.median(theirs):.3f} steps/s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
