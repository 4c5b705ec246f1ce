"""Two checkouts of melvoc, alternating on one machine: synthesis, streams, loading and import.

    python benchmarks/compare.py --old ../melvoc-before [--rounds 5] [--models NAME ...]

Each round runs the old and the new checkout, each in a process of its own, with the same files of random weights. The
table has the median time of each and the ratio old / new of the medians, with the smallest and the largest ratio of a
round: above 1 the new one is faster. Both must give the same sound to 1e-5 of its peak. Python's byte code is cached,
as it is for an installed package, and an uncounted round fills that cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = ("bigvgan_v2_44khz_128band_512x", "hifigan_v1", "hifigan_v2", "vocos_mel_24khz")
PIECE = 16  # frames

CHILD = """
import sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import melvoc
figures = {"import (torch apart)": time.perf_counter() - middle}
import json
path, big = sys.argv[1], sys.argv[2] == "big"
start = time.perf_counter()
voc = melvoc.load(path, device="cpu")
figures["load"] = time.perf_counter() - start
def mel(frames):
    noise = torch.randn(1, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(frames))
    return 2 * noise - 4
def best(function, times):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        found.append(time.perf_counter() - start)
    return min(found), result
voc.mel_to_waveform(mel(20), spec=voc.spec)
rate = voc.sample_rate / voc.spec.hop_length
for seconds, times in ((1, 3 if big else 10), (10, 1 if big else 4)):
    long = mel(round(seconds * rate))
    figures[f"{seconds} s"], wave = best(lambda: voc.mel_to_waveform(long, spec=voc.spec), times)
pieces = mel(PIECE * (18 if big else 60)).split(PIECE, dim=-1)
def streamed():
    with voc.stream() as stream:
        for piece in pieces[:6]:
            stream.push(piece)
        start = time.perf_counter()
        for piece in pieces[6:]:
            stream.push(piece)
        return (time.perf_counter() - start) / len(pieces[6:])
figures["stream, 16 frames"] = min(streamed() for _ in range(2 if big else 4))
torch.save(wave[..., : 44100].clone(), sys.argv[3])
print(json.dumps(figures))
""".replace("PIECE", str(PIECE))


def write_models(folder: Path, names: list[str]) -> None:
    """Melvoc files (format 1, which every version reads) with random weights of the published sizes."""
    from cpu import randomised

    import melvoc
    from melvoc.neural import NeuralVocoder
    from melvoc.registry import architecture, pins

    record = architecture("hifigan")
    spec = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")
    small = {"hifigan_v1": 512, "hifigan_v2": 128}
    for name in names:
        if name in small:
            kind, mel, config = record, spec, record.config.from_dict({"upsample_initial_channel": small[name]})
        else:
            kind, pin = pins()[name]
            mel, config = pin.spec, pin.config
        voc = NeuralVocoder(randomised(kind.network(config)), name=name, spec=mel, architecture=kind)
        melvoc.save(voc, folder / f"{name}.safetensors")


def measure(checkout: Path, model: Path, wave: Path) -> dict[str, float]:
    """One process of one checkout."""
    size = "big" if model.stat().st_size > 2e8 else "small"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTHONPYCACHEPREFIX": str(wave.parent)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", CHILD, str(model), size, str(wave)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="another checkout of melvoc")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    import torch

    sides = {"old": options.old.resolve(), "new": Path(__file__).resolve().parents[1]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, options.models)
        print("| | old | new | old / new (smallest to largest round) |\n|---|---|---|---|")
        for side in sides:
            measure(sides[side], folder / f"{options.models[-1]}.safetensors", folder / f"{side}.pt")
        for name in options.models:
            rounds: list[dict[str, dict[str, float]]] = []
            for number in range(options.rounds):
                order = list(sides) if number % 2 == 0 else list(sides)[::-1]
                model = folder / f"{name}.safetensors"
                rounds.append({side: measure(sides[side], model, folder / f"{side}.pt") for side in order})
            waves = [torch.load(folder / f"{side}.pt") for side in sides]
            error = float((waves[0] - waves[1]).abs().max() / waves[0].abs().max())
            assert error < 1e-5, f"{name}: the sound differs by {error:.1e} of its peak"
            for case in rounds[0]["old"]:
                old, new = ([one[side][case] for one in rounds] for side in sides)
                ratios = [one["old"][case] / one["new"][case] for one in rounds]
                medians = statistics.median(old), statistics.median(new)
                print(
                    f"| {name}, {case} | {1e3 * medians[0]:.4g} ms | {1e3 * medians[1]:.4g} ms | "
                    f"{medians[0] / medians[1]:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
