"""What the check of mels that come without a spec notices, and what it wrongly suspects, on real audio.

    python benchmarks/mel_check.py [FOLDER...] [--seconds 3]

For every preset: the true mels of every file (mean of the channels; as it is, and with a peak of 0.95), whole and in
pieces, and of synthetic sounds, must pass. The same mels, spoiled in each of the ways that are listed, should be
noticed by a warning or an error: in one call, and in a stream. "pieces" are cut from a spoiled mel, so that their mean,
deviation, least and largest value are no round numbers any more, as if they had been spoiled by a data set's.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram, SpecError, audio
from melvoc.audio.resampling import resample
from melvoc.spectrogram.check import check_piece, judge
from melvoc.spectrogram.likelihood import Watch
from melvoc.spectrogram.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
PEAK = 0.95


def linear(mel: Tensor, spec: MelSpec) -> Tensor:
    """A mel in its own unit, before the logarithm."""
    if spec.log == "log1p":
        return mel.expm1().clamp(min=0.0)
    return (mel * {"ln": 1.0, "log10": math.log(10), "db": math.log(10) * spec.power / 20}[spec.log]).exp()


def logged(log: str) -> Callable[[Tensor, MelSpec], Tensor]:
    """Takes a mel to another logarithm, with the spec's own floor (1e-10 where it has none)."""

    def change(mel: Tensor, spec: MelSpec) -> Tensor:
        value = linear(mel, spec)
        if log in ("linear", "log1p"):
            return value if log == "linear" else value.log1p()
        value = value.clamp(min=spec.log_floor or 1e-10)
        return value.log() if log == "ln" else value.log10() * (20 / spec.power if log == "db" else 1)

    return change


def scaled(low: float, high: float) -> Callable[[Tensor, MelSpec], Tensor]:
    """Takes the least and the largest value of a mel to these two."""
    return lambda mel, _: low + (high - low) * (mel - mel.min()) / (mel.max() - mel.min()).clamp(min=1e-4)


KINDS: dict[str, Callable[[Tensor, MelSpec], Tensor]] = {
    "normalised per band": lambda mel, _: (mel - mel.mean(-1, True)) / mel.std(-1, keepdim=True).clamp(min=1e-4),
    "normalised": lambda mel, _: (mel - mel.mean()) / mel.std().clamp(min=1e-4),
    "scaled to [0, 1]": scaled(0, 1),
    "scaled to [-1, 1]": scaled(-1, 1),
    "scaled to [-4, 4]": scaled(-4, 4),
    **{log: logged(log) for log in ("ln", "log10", "log1p", "db", "linear")},
}


def noticed(mel: Tensor, spec: MelSpec) -> str | None:
    """What is said about a mel, in one call."""
    try:
        verdict = judge(mel, spec)
    except SpecError as error:
        return str(error)
    return verdict and str(verdict)


def noticed_in_a_stream(mel: Tensor, spec: MelSpec, size: int = 7) -> str | None:
    """What is said about a mel that comes in small pieces."""
    watch = Watch(spec)
    try:
        for piece in mel.split(size, dim=-1):
            check_piece(piece, spec)
            if verdict := watch.push(piece):
                return str(verdict)
    except SpecError as error:
        return str(error)
    verdict = watch.flush()
    return verdict and str(verdict)


def pieces(mel: Tensor, spec: MelSpec, seconds: float) -> Iterator[Tensor]:
    """Those of a mel that is longer than one."""
    size = int(seconds * spec.sample_rate / spec.hop_length)
    if mel.shape[-1] > size:
        yield from (part for part in mel.split(size, dim=-1) if part.shape[-1] >= size // 2)


def synthetic(rate: int) -> dict[str, Tensor]:
    """Three seconds each of sounds at the edge of what there is."""
    generator, count = torch.Generator().manual_seed(1), 3 * rate
    time = torch.arange(count) / rate
    noise = torch.rand(count, generator=generator) * 2 - 1
    sounds = {"silence": torch.zeros(count), "click": torch.zeros(count).index_fill(0, torch.tensor(rate), 1.0)}
    sounds |= {f"noise {db} dB": noise * 10 ** (-db / 20) for db in (0, 10, 20, 40, 60, 80)}
    sounds |= {f"sine {hz} Hz": (2 * math.pi * hz * time).sin() for hz in (30, 100, 440, 1000, 3333, 7000)}
    sounds |= {f"square {hz} Hz": (2 * math.pi * hz * time).sin().sign() for hz in (55, 220, 440)}
    sounds |= {f"saw {hz} Hz": (hz * time) % 1 * 2 - 1 for hz in (55, 220, 440)}
    sounds["sweep"] = (2 * math.pi * (50 * time + 0.07 * rate * time.square())).sin()
    bins = torch.arange(count // 2 + 1).clamp(min=1)
    for name, slope in (("pink", 0.5), ("brown", 1.0)):
        wave = torch.fft.irfft(torch.fft.rfft(noise) / bins**slope, n=count)
        sounds |= {f"{name} {db} dB": wave / wave.abs().max() * 10 ** (-db / 20) for db in (0, 20, 40)}
    return sounds


def read(folders: list[Path]) -> list[tuple[str, Tensor, int]]:
    """Name, mean of the channels and rate of every file of at least 2400 samples."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in (".wav", ".flac")]
    found = []
    for path in paths:
        wave, rate = audio.read(path)
        if wave.shape[1] >= 2400:
            found.append((path.name, wave.mean(0).clamp(-1, 1), rate))
    return found


def false_alarms(name: str, spec: MelSpec, waves: list[tuple[str, Tensor, int]], seconds: float) -> tuple[int, int]:
    """How many true mels there were and how many were suspected; each of these is printed."""
    make = MelSpectrogram(spec)
    sounds = [(file, wave) for file, wave, _ in waves] + list(synthetic(spec.sample_rate).items())
    alarms = total = 0
    for sound, wave in sounds:
        for peak in (None, PEAK):
            mel = make(wave if peak is None else (wave * (peak / wave.abs().max().clamp(min=1e-9))).clamp(-1, 1))
            for part in (mel, *pieces(mel, spec, seconds), *pieces(mel, spec, 0.7), *pieces(mel, spec, 0.25)):
                for look in (noticed, noticed_in_a_stream):
                    total += 1
                    if said := look(part, spec):
                        alarms += 1
                        print(f"FALSE ALARM: {name}, {sound}, peak {peak}, {part.shape[-1]} frames: {said}")
    return total, alarms


def detected(
    spec: MelSpec, waves: list[tuple[str, Tensor, int]], seconds: float
) -> dict[str, tuple[Counter[str], ...]]:
    """By kind, for all files, those of 1 s or more, and pieces: how many there are, are noticed, and in a stream."""
    make, table = MelSpectrogram(spec), {}
    for kind, spoil in KINDS.items():
        if kind == spec.log:
            continue
        whole, long, cut = Counter[str](), Counter[str](), Counter[str]()
        for _, wave, _ in waves:
            mel = spoil(make((wave * (PEAK / wave.abs().max().clamp(min=1e-9))).clamp(-1, 1)), spec)
            for number, part in enumerate([mel, *pieces(mel, spec, seconds)]):
                found = Counter(all=1, noticed=noticed(part, spec) is not None)
                found["streamed"] += noticed_in_a_stream(part, spec) is not None
                (cut if number else whole).update(found)
                if not number and wave.shape[-1] >= spec.sample_rate:
                    long.update(found)
        table[kind] = (whole, long, cut)
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[ROOT.parent / "shared" / "audio"])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a piece")
    arguments = parser.parse_args()
    waves = read(arguments.folders)
    if not waves:
        parser.error(f"no .wav or .flac of at least 2400 samples in {', '.join(map(str, arguments.folders))}")
    print(f"{len(waves)} files")
    specs: dict[MelSpec, str] = {}
    for name in PRESETS:
        specs.setdefault(MelSpec.preset(name), name)
    print(f"| preset | true mels | false alarms | {' | '.join(KINDS)} |\n|{'---|' * (3 + len(KINDS))}")
    for spec, name in specs.items():
        here = [
            (file, resample(wave[None], rate, spec.sample_rate)[0].clamp(-1, 1), rate) for file, wave, rate in waves
        ]
        total, alarms = false_alarms(name, spec, here, arguments.seconds)
        table = detected(spec, here, arguments.seconds)
        for row, title in enumerate(("all files", "1 s or more", f"pieces of {arguments.seconds:g} s")):
            cells = []
            for kind in KINDS:
                counts = table[kind][row] if kind in table else Counter[str]()
                shares = [100 * counts[what] / max(1, counts["all"]) for what in ("noticed", "streamed")]
                cells.append(f"{shares[0]:.0f} / {shares[1]:.0f}" if kind in table else "")
            print(f"| {name}, {title} | {total} | {alarms} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
