"""The error of `convert_mel` on real audio: what it makes of one spec's mel, against the mel of the sound itself.

    python benchmarks/convert_mel.py [FOLDER] [--seconds 5]

For each change of the spec, there and back, over the first seconds of every 44.1 kHz clip in the folder (mean of the
channels): mean and 99th percentile of the distance in nepers of amplitude (1 neper is 8.7 dB), over the cells whose mel
is above 1e-5 in bands that both specs have. The floors are so low that they hide nothing. The source has n_fft 2048,
hop 512, 128 slaney bands to 22.05 kHz, magnitudes and ln.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram, audio, convert_mel
from melvoc.spectrogram.conversion import to_nepers

ROOT = Path(__file__).resolve().parents[1]
RATE = 44100
BASE: dict[str, Any] = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 512, "n_mels": 128}
BASE |= {"magnitude_eps": 0, "center": True, "log_floor": 1e-10}
CHANGES: dict[str, dict[str, Any]] = {
    "log10": {"log": "log10"},
    "db": {"log": "db"},
    "log1p": {"log": "log1p", "log_floor": None},
    "norm none": {"norm": None},
    "power 2": {"power": 2, "log_floor": 1e-20},
    "htk": {"mel_scale": "htk"},
    "htk, norm none, power 2, log1p": {"mel_scale": "htk", "norm": None, "power": 2}
    | {"log": "log1p", "log_floor": None},
    "80 bands": {"n_mels": 80},
    "f_max 16 kHz": {"f_max": 16000.0},
    "win_length 1024": {"win_length": 1024},
    "n_fft 1024, 100 bands": {"n_fft": 1024, "n_mels": 100},
    "n_fft 4096": {"n_fft": 4096},
}


def errors(wave: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """The distances of one clip's cells, in nepers of amplitude."""
    given, expected = MelSpectrogram(source)(wave), MelSpectrogram(target)(wave)
    found = convert_mel(given, source=source, target=target)
    a, b = (to_nepers(mel, target) / target.power for mel in (found, expected))
    both = torch.tensor(target.band_edges()[2:]) <= min(source.f_max, target.f_max) + 1
    return (a - b).abs()[(b > math.log(1e-5)) & both[:, None]]


def row(name: str, waves: list[Tensor], source: MelSpec, target: MelSpec) -> str:
    """One line of the table."""
    cells = []
    for one, other in ((source, target), (target, source)):
        found = torch.cat([errors(wave, one, other) for wave in waves]).sort().values
        cells.append(f"{float(found.mean()):.4f} | {float(found[int(0.99 * len(found))]):.4f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "audio" / "cc0_44khz")
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    waves = []
    for path in sorted(arguments.folder.glob("*.flac")):
        wave, rate = audio.read(path)
        if rate == RATE and wave.shape[1] > 4096:
            waves.append(wave.mean(0)[: int(arguments.seconds * rate)].clamp(-1, 1))
    if not waves:
        parser.error(f"no .flac at {RATE} Hz of at least 4096 samples in {arguments.folder}")
    print(f"{len(waves)} clips, {sum(map(len, waves)) / RATE:.0f} s")
    print("| change | there: mean | 99 % | back: mean | 99 % |\n|---|---|---|---|---|")
    source = MelSpec(**BASE)
    for name, change in CHANGES.items():
        print(row(name, waves, source, MelSpec(**(BASE | change))), flush=True)


if __name__ == "__main__":
    main()
