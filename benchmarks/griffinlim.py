"""Griffin-Lim: melvoc beside torchaudio's InverseMelScale + GriffinLim and librosa's mel_to_audio, in one run.

    python benchmarks/griffinlim.py [CLIP ...] [--rounds 7] [--threads 2] [--torchaudio-path FOLDER]

For each clip (first five seconds, mean of the channels) every contender turns the same magnitude mel into sound in 32
rounds, one after the other, several times over. Printed are the median seconds, the ratio to melvoc's of the same round
(median, least and greatest), and the log-mel L1: the mean of |ln(max(mel, 1e-5))| between the result's mel and the one
given. Torchaudio's native library does not load beside a CPU-only torch; its Python part does once the libraries in its
`lib/` folder are gone: `pip install --no-deps --target FOLDER torchaudio==2.11.0`, `rm FOLDER/torchaudio/lib/*.so`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import melvoc
from melvoc import audio

ROOT = Path(__file__).resolve().parents[1]
CLIPS = [ROOT.parent / "shared" / "audio" / "cc0_44khz" / name for name in ("guit_em9.flac", "loop_garzul.flac")]
SPEC = melvoc.MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128, center=True, magnitude_eps=0)
ITERATIONS, SECONDS = 32, 5
Contender = Callable[[Tensor, int], Tensor]  # linear mel [n_mels, T] and a seed to a wave [N]


def ours(mel: Tensor, seed: int) -> Tensor:
    """Its own defaults, and the rounds that all have."""
    vocoder = melvoc.load("griffinlim", spec=SPEC, n_iter=ITERATIONS, seed=seed)
    return vocoder.mel_to_waveform(mel.clamp(min=SPEC.log_floor).log(), spec=SPEC)[0, 0]


def torchaudios(mel: Tensor, seed: int) -> Tensor:
    """The inversion of the mel by least squares, then Griffin-Lim."""
    from torchaudio.transforms import GriffinLim, InverseMelScale

    torch.manual_seed(seed)
    inverse = InverseMelScale(SPEC.n_bins, SPEC.n_mels, SPEC.sample_rate, norm="slaney", mel_scale="slaney")
    return GriffinLim(SPEC.n_fft, ITERATIONS, hop_length=SPEC.hop_length, power=1.0)(inverse(mel))


def librosas(mel: Tensor, seed: int) -> Tensor:
    """The inversion of the mel by non-negative least squares, then Griffin-Lim."""
    import librosa
    import numpy

    numpy.random.seed(seed)
    wave = librosa.feature.inverse.mel_to_audio(
        mel.numpy(), sr=SPEC.sample_rate, n_fft=SPEC.n_fft, hop_length=SPEC.hop_length, power=1.0, n_iter=ITERATIONS
    )
    return torch.from_numpy(wave)


def available() -> dict[str, Contender]:
    """Those that are installed."""
    contenders: dict[str, Contender] = {"melvoc": ours}
    try:
        import torchaudio.transforms

        print(f"torchaudio {torchaudio.__version__}")
        contenders["torchaudio"] = torchaudios
    except (ImportError, OSError) as error:
        print(f"without torchaudio: {error} (--torchaudio-path names a folder; see the top of this script)")
    try:
        import librosa

        print(f"librosa {librosa.__version__}")
        contenders["librosa"] = librosas
    except ImportError as error:
        print(f"without librosa: {error}")
    return contenders


def linear_mel(wave: Tensor) -> Tensor:
    """The magnitude mel `[n_mels, T]` of a wave, at least the floor."""
    return melvoc.MelSpectrogram(SPEC)(wave.clamp(-1, 1))[0].exp()


def distance(wave: Tensor, mel: Tensor) -> float:
    """Log-mel L1 of the frames that both have."""
    found = linear_mel(wave.float())
    frames = min(found.shape[1], mel.shape[1])
    return float((found[:, :frames].log() - mel[:, :frames].log()).abs().mean())


def compare(clip: Path, contenders: dict[str, Contender], rounds: int) -> None:
    """Print the table of one clip."""
    wave, rate = audio.read(clip)
    if rate != SPEC.sample_rate:
        sys.exit(f"{clip} has {rate} Hz, but this benchmark's mel is of {SPEC.sample_rate} Hz")
    mel = linear_mel(wave.mean(0)[: SECONDS * rate])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    apart: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            result = contender(mel, turn)
            if turn:  # the first round is for what is compiled, planned and cached
                seconds[name].append(time.perf_counter() - begin)
                apart[name].append(distance(result, mel))
    print(f"\n{clip.name}, {mel.shape[1]} frames")
    print("| | seconds | times melvoc's | log-mel L1 |\n|---|---|---|---|")
    for name in contenders:
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds["melvoc"], strict=True))
        print(
            f"| {name} | {statistics.median(seconds[name]):.3f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {statistics.mean(apart[name]):.3f} |"
        )


def main() -> None:
    """Read the options, find the contenders, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=CLIPS, help="44.1 kHz sound files")
    parser.add_argument("--rounds", type=int, default=7, help="after a first one that does not count")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--torchaudio-path", type=Path, help="a folder to import torchaudio from")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.torchaudio_path:
        sys.path.insert(0, str(arguments.torchaudio_path))
    settings = f"{arguments.threads} threads, {arguments.rounds} rounds of {ITERATIONS} iterations"
    print(f"torch {torch.__version__}, {settings}, load before {os.getloadavg()[0]:.1f}")
    contenders = available()
    for clip in arguments.clips:
        compare(clip, contenders, arguments.rounds)


if __name__ == "__main__":
    main()
