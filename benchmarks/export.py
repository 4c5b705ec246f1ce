"""Exported graphs in ONNX Runtime beside melvoc's own engine and plain torch, alternating, in one process.

    python benchmarks/export.py [--rounds 5] [--seconds 1 10] [--threads 2] [--models NAME ...]

For each model and length: milliseconds of each (median of the rounds), and how many times longer than melvoc's engine
ONNX Runtime and plain torch take in the same round (median); the difference of the graph's sound from melvoc's; the
file's size. HiFi-GANs have the real weights where `../shared` has them; the others random ones of the published size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from cpu import build

import melvoc

MODELS = ("hifigan_universal_v1", "hifigan_ljspeech_v2", "vocos_mel_24khz", "wavenext_mel", "flow2gan_24khz_1step")


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime on as many threads as torch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options)


def clock(call: Callable[[], object]) -> float:
    """Milliseconds of a call, the least of three: after a rest, in which the threads of the others stop waiting busily,
    and a call that brings the weights back into the caches."""
    time.sleep(0.2)
    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


@torch.inference_mode()
def measure(voc: melvoc.Vocoder, runtime: onnxruntime.InferenceSession, seconds: float, rounds: int) -> str:
    """The cells of a row: times, ratios and the difference."""
    frames = max(1, round(seconds * voc.spec.sample_rate / voc.spec.hop_length))
    noise = torch.randn(1, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(0))
    mel = voc.spec.clamp(noise - 5)
    feed = {"mel": mel.numpy()}
    calls: tuple[Callable[[], object], ...] = (
        lambda: voc.mel_to_waveform(mel, spec=voc.spec),
        lambda: runtime.run(None, feed),
        lambda: voc(mel),
    )
    for call in calls:
        call()
    times = [[clock(call) for call in calls] for _ in range(rounds)]
    own, other, plain = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [statistics.median(row[number] / row[0] for row in times) for number in (1, 2)]
    error = (torch.from_numpy(runtime.run(None, feed)[0]) - voc.mel_to_waveform(mel, spec=voc.spec)).abs().max()
    cells = [f"{seconds:g} s", f"{own:.0f}", f"{other:.0f} ({ratios[0]:.2f})", f"{plain:.0f} ({ratios[1]:.2f})"]
    return " | ".join([*cells, f"{float(error):.0e}"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {arguments.threads} threads\n")
    print("| model | file | sound | melvoc, ms | ONNX Runtime, ms | plain torch, ms | difference |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            voc, path = build(name), Path(folder, f"{name}.onnx")
            melvoc.export(voc, path)
            runtime = session(path, arguments.threads)
            for seconds in arguments.seconds:
                cells = measure(voc, runtime, seconds, arguments.rounds)
                print(f"| {name} | {path.stat().st_size / 1e6:.1f} MB | {cells} |", flush=True)


if __name__ == "__main__":
    main()
