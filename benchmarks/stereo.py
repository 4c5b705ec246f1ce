"""What vocoding does to the stereo image: channels independently, or as mid and side.

    python benchmarks/stereo.py VOCODER [VOCODER ...] [--sounds FOLDER] [--seconds 4]

Copy synthesis of the stereo files of a folder (default: ../shared/audio/cc0_44khz; those of at least 1 s whose side is
no more than 40 dB below their mid, their first seconds) at the vocoder's rate, with `fold_channels(mode="lr")` and
`"ms"`. Griffin-Lim takes its default mel. The image is compared with the recording's in 40 mel bands and steps of eight
frames (n_fft 2048, hop 512), from the local powers and the local cross power of left and right:

    level      how far the ratio of left to right is from the recording's, dB, at most 30
    phase      how far the phase between them is, degrees, where the recording's channels are coherent (0.5 or more)
    coherence  the mean of the recording's less that of the copy
    width      how far the power of side to mid is from the recording's, dB
    mel L1     of left and right, nepers: what the mode costs the channels themselves

The first three are means over the cells, weighted by their amplitude; all are means over the files, of those whose side
is more than 10 dB below their mid (narrow), and of the others (wide).
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram
from melvoc.audio import fold_channels, read, unfold_channels
from melvoc.spectrogram.transform import mel_filters

SOUNDS = Path(__file__).resolve().parents[2] / "shared" / "audio" / "cc0_44khz"
N_FFT, HOP, BANDS, STEP = 2048, 512, 40, 8
NARROW = -10.0  # dB of side to mid
COLUMNS = ("level, dB", "phase, degrees", "coherence lost", "width, dB", "mel L1")


def stereo_files(folder: Path, seconds: float) -> Iterator[tuple[Tensor, int]]:
    """`[2, N]` and the rate of each file that has an image."""
    for path in sorted(folder.iterdir()):
        wave, rate = read(path)
        if wave.shape[0] == 2 and wave.shape[1] >= rate and width(wave) > -40:
            yield wave[:, : round(seconds * rate)], rate


def width(wave: Tensor) -> float:
    """The power of the side relative to the mid, dB."""
    mid, side = fold_channels(wave, mode="ms")[:, 0].double().square().mean(-1).tolist()
    return 10 * math.log10((side + 1e-12) / (mid + 1e-12))


def local_powers(wave: Tensor, rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """The powers of left and right and their cross power `[bands, steps]`."""
    spectra = torch.stft(wave.double(), N_FFT, HOP, window=torch.hann_window(N_FFT).double(), return_complex=True)
    bank = mel_filters(MelSpec(sample_rate=rate, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS, norm=None)).double()
    bank = bank.to(spectra.dtype)
    products = spectra[[0, 1, 0]] * spectra[[0, 1, 1]].conj()
    steps = (bank @ products)[..., : spectra.shape[-1] // STEP * STEP].unflatten(-1, (-1, STEP)).sum(-1)
    return steps[0].real + 1e-9, steps[1].real + 1e-9, steps[2]


def image_errors(true: Tensor, copy: Tensor, rate: int) -> list[float]:
    """One number per column, of two sounds `[2, N]`."""
    left, right, cross = local_powers(true, rate)
    left_copy, right_copy, cross_copy = local_powers(copy, rate)
    weights = (left + right).sqrt()
    level = 10 * ((left / right).log10() - (left_copy / right_copy).log10()).abs().clamp(max=3)
    phase = (cross_copy * cross.conj()).angle().abs().rad2deg()
    coherence, coherence_copy = cross.abs() / (left * right).sqrt(), cross_copy.abs() / (left_copy * right_copy).sqrt()
    clear = weights * (coherence >= 0.5)
    mel = MelSpectrogram(MelSpec(sample_rate=rate, n_fft=N_FFT, hop_length=HOP, n_mels=80))
    return [
        float((weights * level).sum() / weights.sum()),
        float((clear * phase).sum() / clear.sum().clamp(min=1e-9)),
        float((weights * (coherence - coherence_copy)).sum() / weights.sum()),
        abs(width(copy) - width(true)),
        float((mel(true) - mel(copy)).abs().mean()),
    ]


def main() -> None:
    """Print one row per vocoder and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocoders", nargs="+", metavar="VOCODER")
    parser.add_argument("--sounds", type=Path, default=SOUNDS)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # resampled, and joined from mid and side, a sound may exceed full scale
    files = list(stereo_files(arguments.sounds, arguments.seconds))
    print(f"{len(files)} files, {sum(wave.shape[1] / rate for wave, rate in files):.0f} s")
    print(f"| vocoder | files | channels | {' | '.join(COLUMNS)} |\n|{'---|' * (3 + len(COLUMNS))}")
    for name in arguments.vocoders:
        vocoder = melvoc.load(name, device="cpu")
        for mode in ("lr", "ms"):
            rows: dict[str, list[list[float]]] = {"narrow": [], "wide": []}
            for wave, rate in files:
                made = vocoder.resynthesize(fold_channels(wave, mode), sample_rate=rate)
                true = melvoc.resample(wave, rate, vocoder.sample_rate)
                errors = image_errors(true, unfold_channels(made, 2, mode)[0], vocoder.sample_rate)
                rows["wide" if width(wave) > NARROW else "narrow"].append(errors)
            for kind, found in rows.items():
                means = " | ".join(f"{statistics.fmean(column):.2f}" for column in zip(*found, strict=True))
                print(f"| {vocoder.name} | {len(found)} {kind} | {mode} | {means} |", flush=True)


if __name__ == "__main__":
    main()
