"""Streaming against whole-clip synthesis and against overlapping windows, for the three families, in one run.

    python benchmarks/streaming.py [--seconds 6] [--rounds 3]

The models of benchmarks/cpu.py: real weights for HiFi-GAN where they are, random ones else; float32, all cores torch
has. For each model and piece size: latency (the network's look-ahead, and with the duration of a piece), time to first
sound, wall time of the pieces over that of one call, the largest difference from that call, and the same two for
overlapping windows as projects cut them: pieces with a context of the network's look-ahead on both sides, computed
twice and cut off (and, for the seams, with half that context). Then the error of a bounded look-ahead, the cost per
second of long and short input, and the peak of memory beyond the weights, plain and prepared, each in a process of its
own. Ten minutes of sound, memory alone:

    python benchmarks/streaming.py --memory-only --memory-seconds 600 --ways blocks --models NAME
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from cpu import REAL, build, frame_rate, growth, random_mel, spread, weights_folder
from torch import Tensor

from melvoc.neural import NeuralVocoder

WAYS = ("whole", "blocks", "stream")
MODELS = ("bigvgan_v2_44khz_128band_512x", "hifigan_universal_v1", "hifigan_ljspeech_v2", "vocos_mel_24khz")
ALSO = ("wavenext_mel", "flow2gan_24khz_1step")  # by name only


def streamed(voc: NeuralVocoder, mel: Tensor, size: int) -> tuple[Tensor, float]:
    """The sound, and the seconds until the first of it came."""
    start, first, parts = time.perf_counter(), 0.0, []
    with voc.stream(spec=voc.spec) as stream:  # known, as it is to the call that this is compared with
        for piece in mel.split(size, -1):
            parts.append(stream.push(piece))
            if not first and parts[-1].shape[-1]:
                first = time.perf_counter() - start
        parts.append(stream.flush())
    return torch.cat(parts, -1), first or time.perf_counter() - start


def windows(voc: NeuralVocoder, mel: Tensor, size: int, context: int) -> Tensor:
    """Overlapping windows: each piece with its context, computed whole, the context's sound cut off."""
    hop, frames, parts = voc.spec.hop_length, mel.shape[-1], []
    for start in range(0, frames, size):
        left, right = max(0, start - context), min(frames, start + size + context)
        wave = voc.mel_to_waveform(mel[..., left:right], spec=voc.spec, block_frames=right - left)
        parts.append(wave[..., (start - left) * hop : (min(frames, start + size) - left) * hop])
    return torch.cat(parts, -1)


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _peak(name: str, way: str, frames: int) -> tuple[float, float]:
    voc = build(name)
    mel = random_mel(voc, frames)
    calls: dict[str, Callable[[], object]] = {
        "whole": lambda: voc.mel_to_waveform(mel, spec=voc.spec, block_frames=frames),
        "blocks": lambda: voc.mel_to_waveform(mel, spec=voc.spec),
        "stream": lambda: streamed(voc, mel, 64),
    }
    grown, budget = growth(calls[way]), getattr(voc.engine(), "budget", None)
    prepared = 4e-6 * budget.kept if budget else 0.0
    return grown - prepared, prepared


def peak(name: str, way: str, frames: int) -> tuple[float, float]:
    """MB above what the loaded model and its prepared weights take, and MB of those; in a fresh process (Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, way, frames))  # type: ignore[no-any-return]


def row(voc: NeuralVocoder, mel: Tensor, size: int, rounds: int) -> list[str]:
    """One line of the table."""
    with voc.stream() as stream:
        context, latency = stream.latency_frames, stream.latency_samples / voc.sample_rate
    whole = voc.mel_to_waveform(mel, spec=voc.spec)
    stream_ratios, window_ratios, firsts = [], [], []
    for _ in range(rounds):  # alternating, so that a busy moment hits all three
        once = seconds(lambda: voc.mel_to_waveform(mel, spec=voc.spec))
        start = time.perf_counter()
        joined, first = streamed(voc, mel, size)
        stream_ratios.append((time.perf_counter() - start) / once)
        window_ratios.append(seconds(lambda: windows(voc, mel, size, context)) / once)
        firsts.append(first)
    difference = float((joined - whole).abs().max())
    seams = float((windows(voc, mel, size, context // 2) - whole).abs().max())
    piece = size * voc.spec.hop_length / voc.sample_rate
    return [
        voc.name, str(size), f"{1e3 * latency:.0f}", f"{1e3 * (latency + piece):.0f}",
        f"{1e3 * statistics.median(firsts):.0f}", spread(stream_ratios), spread(window_ratios),
        f"{difference:.1e}", f"{seams:.1e}",
    ]  # fmt: skip


def lookahead_errors(voc: NeuralVocoder, mel: Tensor) -> list[list[str]]:
    """The error of a bounded look-ahead: maximum and RMS over the RMS of the sound, in dB."""
    whole = voc.mel_to_waveform(mel, spec=voc.spec)
    lines = []
    with voc.stream() as stream:
        exact = stream.latency_frames
    for frames in sorted({0, 1, 2, 4, 8, exact}):
        if frames > exact:
            continue
        with voc.stream(lookahead_frames=frames) as stream:
            got = torch.cat([*[stream.push(piece) for piece in mel.split(16, -1)], stream.flush()], -1)
        error = got - whole
        level = 20 * torch.log10(error.square().mean().sqrt() / whole.square().mean().sqrt())
        lines.append([voc.name, str(frames), f"{float(error.abs().max()):.1e}", f"{float(level):.1f}"])
    return lines


def costs(voc: NeuralVocoder, lengths: list[float], rounds: int) -> list[str]:
    """Seconds a second of sound for each length, alternating, and the last over the first."""
    mels = [random_mel(voc, round(length * voc.sample_rate / voc.spec.hop_length)) for length in lengths]
    taken: list[list[float]] = [[] for _ in lengths]
    for _ in range(rounds):
        for mel, length, values in zip(mels, lengths, taken, strict=True):
            repeats = max(1, round(lengths[-1] / length / 4))  # as long a look at the short one
            start = time.perf_counter()
            for _ in range(repeats):
                voc.mel_to_waveform(mel, spec=voc.spec)
            values.append((time.perf_counter() - start) / repeats / length)
    ratios = [last / first for first, last in zip(taken[0], taken[-1], strict=True)]
    return [voc.name, *[f"{statistics.median(values):.3f}" for values in taken], spread(ratios)]


def show(cells: list[str]) -> None:
    """Print a line of a Markdown table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def table(header: list[str], rows: Sequence[list[str]] = ()) -> None:
    """Print as Markdown."""
    for line in [header, ["---"] * len(header), *rows]:
        show(line)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of sound a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pieces", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=[*MODELS, *ALSO])
    parser.add_argument("--cost-seconds", type=float, nargs=2, default=[2.0, 60.0])
    parser.add_argument("--memory-seconds", type=float, nargs="+", default=[2.0, 20.0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="whose memory")
    parser.add_argument("--memory-only", action="store_true")
    options = parser.parse_args()
    models = [name for name in options.models if name not in REAL or (weights_folder() / REAL[name]).is_file()]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.seconds} s, {options.rounds} rounds\n"
    )
    if not options.memory_only:
        speed(models, options)
    table(["model", "way", "prepared weights (MB)", *[f"beyond all weights, {s:g} s" for s in options.memory_seconds]])
    for name in models:
        for way in options.ways:
            counts = [round(s * frame_rate(name)) for s in options.memory_seconds]
            peaks = [peak(name, way, frames) for frames in counts]
            show([name, way, f"{peaks[-1][1]:.0f}", *[f"{beyond:.0f}" for beyond, _ in peaks]])


def speed(models: list[str], options: argparse.Namespace) -> None:
    """All tables but that of memory: each model's rows as they come, then the others."""
    bounded, cost = [], []
    table(
        ["model", "piece (frames)", "look-ahead (ms)", "with the piece (ms)", "first sound after (ms of computing)",
         "time / one call", "overlapping windows: time / one call", "max. difference", "windows with half the context"],
    )  # fmt: skip
    for name in models:
        voc = build(name)
        mel = random_mel(voc, int(options.seconds * voc.sample_rate / voc.spec.hop_length))
        for _ in range(4):  # compile, prepare and record
            voc.mel_to_waveform(mel, spec=voc.spec)
        for size in options.pieces:
            show(row(voc, mel, size, options.rounds))
        bounded += lookahead_errors(voc, mel)
        cost.append(costs(voc, options.cost_seconds, options.rounds))
    print()
    table(["model", "look-ahead (frames)", "largest error", "error over sound (dB)"], bounded)
    print()
    short, long = options.cost_seconds
    table(["model", f"s of computing a second, {short:g} s", f"{long:g} s", "ratio"], cost)
    print(flush=True)


if __name__ == "__main__":
    main()
