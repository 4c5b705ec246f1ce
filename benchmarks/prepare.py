"""The first call beside later ones, after `voc.prepare()` and without it, each in a process of its own.

    python benchmarks/prepare.py ../shared/weights/hifigan_universal_v1.safetensors --compile

For each model: the seconds that `prepare` takes, the first and the later calls for sounds of several lengths, and their
ratio. `--compile` gives each process an empty kernel cache, as on a machine where melvoc has just been installed. A
model is a melvoc file, or the name of a published one, whose network then gets random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

LATER = 5  # calls whose median is the time of a later call


def measure(model: str, seconds: float, prepared: bool) -> dict[str, float]:
    """In this process: what `prepare` and the calls take."""
    import melvoc

    if model in melvoc.list_vocoders():
        import cpu

        voc = cpu.build(model)
    else:
        voc = melvoc.load(model, device="cpu")
    frames = max(1, round(seconds * voc.spec.sample_rate / voc.spec.hop_length))
    mel = torch.randn(1, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 5
    times = {}
    if prepared:
        start = time.perf_counter()
        voc.prepare()
        times["prepare"] = time.perf_counter() - start
    calls = []
    for _ in range(1 + LATER):
        start = time.perf_counter()
        voc.mel_to_waveform(mel, spec=voc.spec)
        calls.append(time.perf_counter() - start)
    return times | {"first": calls[0], "second": calls[1], "later": statistics.median(calls[1:])}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0, 3.0])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(**json.loads(arguments.child))))
        return
    print("| model | s of sound | prepare, s | first call, s | later, s | first / later | the same without prepare |")
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        for seconds in arguments.seconds:
            row = [_median(model, seconds, prepared, arguments) for prepared in (True, False)]
            ratios = [f"{one['first / later']:.2f}" for one in row]
            name = Path(model).name
            print(
                f"| {name} | {seconds:g} | {row[0]['prepare']:.2f} | {row[0]['first']:.3f} | {row[0]['later']:.3f} | "
                f"{ratios[0]} | {ratios[1]} |"
            )


def _median(model: str, seconds: float, prepared: bool, arguments: argparse.Namespace) -> dict[str, float]:
    """The medians over the rounds, of fresh processes."""
    rounds = []
    for _ in range(arguments.rounds):
        child = json.dumps({"model": model, "seconds": seconds, "prepared": prepared})
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | ({"NUMBA_CACHE_DIR": folder} if arguments.compile else {})
            command = [sys.executable, __file__, "-", "--child", child]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        times = json.loads(done.stdout)
        rounds.append(times | {"first / later": times["first"] / times["later"]})
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


if __name__ == "__main__":
    main()
