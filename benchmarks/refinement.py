"""What refinement gains, and what it costs.

    python benchmarks/refinement.py quality VOCODER [FILE ...] [--rounds 0,1,4,16] [--mels true,blurred] [--spec P]
    python benchmarks/refinement.py cost VOCODER [--seconds 1,10] [--times 15]
    python benchmarks/refinement.py memory VOCODER [--minutes 1,60] [--rounds 4]
    python benchmarks/refinement.py picture VOCODER FILE [-o docs/refinement.png]

quality: copy synthesis of files (default: ../shared/audio/ljspeech) at the vocoder's rate, peak 0.95, compared with the
recordings: log-mel L1 to Nyquist (nepers, 80 bands; 128 from 32 kHz up), BigVGAN's multi-scale mel distance, and where
their packages are installed (`pip install pesq zimtohrli visqol-python`) PESQ (wide band, at 16 kHz: speech only),
Zimtohrli's and ViSQOL's MOS (audio mode, at 48 kHz). Means over the files; a dash where there is no package. The mels:
true; blurred (mean of 3 x 3 cells); noisy (normal noise of 0.3 nepers); quantised (steps of half a neper); converted
(from 100 htk bands without a norm in log10, by convert_mel).

cost: the seconds of a round against those of the vocoder, measured in turns; median, least and greatest ratio.

memory: the peak resident size of a child process that streams so many minutes.

picture: the log-mel to Nyquist of the first 3 s, and how far the copies' are from it without rounds, with 1 and with 4.
"""

from __future__ import annotations

import argparse
import importlib
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import melvoc
from melvoc import MelSpec, MelSpectrogram

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "audio" / "ljspeech"
SCALES = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}  # window: bands
Metric = Callable[[Tensor, Tensor, int], float]  # the recording, the copy [N], and their rate


def mel_l1(true: Tensor, copy: Tensor, rate: int) -> float:
    """The log-mel L1."""
    size, bands = (2048, 128) if rate >= 32000 else (1024, 80)
    mel = MelSpectrogram(MelSpec(sample_rate=rate, n_fft=size, hop_length=size // 4, n_mels=bands))
    return float((mel(true) - mel(copy)).abs().mean())


def multi_scale_mel(true: Tensor, copy: Tensor, rate: int) -> float:
    """BigVGAN-v2's loss: the sum over windows of the mean difference of log10 mels, floor 1e-5."""
    import librosa

    total = 0.0
    for window, bands in SCALES.items():
        with warnings.catch_warnings():  # some bands of the widest bank have no bin: so it is published
            warnings.simplefilter("ignore")
            bank = torch.from_numpy(librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands, fmin=0, fmax=rate / 2))
        hann = torch.hann_window(window)
        mels = [
            (bank @ torch.stft(x, window, window // 4, window=hann, return_complex=True).abs()).clamp(min=1e-5).log10()
            for x in (true, copy)
        ]
        total += float((mels[0] - mels[1]).abs().mean())
    return total


def pesq(true: Tensor, copy: Tensor, rate: int) -> float:
    """PESQ, wide band."""
    module = importlib.import_module("pesq")
    return float(module.pesq(16000, *(melvoc.resample(x, rate, 16000).numpy() for x in (true, copy)), "wb"))


def zimtohrli(true: Tensor, copy: Tensor, rate: int) -> float:
    """Zimtohrli's MOS."""
    module = importlib.import_module("zimtohrli")
    return float(module.mos_from_signals(*(melvoc.resample(x, rate, 48000).numpy() for x in (true, copy))))


def visqol(true: Tensor, copy: Tensor, rate: int) -> float:
    """ViSQOL's MOS."""
    judge = importlib.import_module("visqol").VisqolApi()
    judge.create(mode="audio")
    arrays = [melvoc.resample(x, rate, 48000).double().numpy() for x in (true, copy)]
    return float(judge.measure_from_arrays(*arrays, 48000).moslqo)


METRICS: dict[str, Metric] = {
    "mel L1": mel_l1,
    "multi-scale mel": multi_scale_mel,
    "PESQ": pesq,
    "Zimtohrli": zimtohrli,
    "ViSQOL": visqol,
}


def spoilt(kind: str, vocoder: melvoc.Vocoder, wave: Tensor) -> Tensor:
    """The mel of a wave `[N]`, as it is or as a decoder may give it."""
    spec = vocoder.spec
    if kind == "converted":
        changes = {"n_mels": 100, "mel_scale": "htk", "norm": None, "log": "log10", "log_floor": None}
        source = MelSpec(**spec.to_dict() | changes)
        return melvoc.convert_mel(MelSpectrogram(source)(wave), source=source, target=spec)
    mel = vocoder.mel(wave, sample_rate=spec.sample_rate)
    if kind == "blurred":
        return F.avg_pool2d(F.pad(mel[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]
    if kind == "noisy":
        noise = torch.randn(mel.shape, generator=torch.Generator().manual_seed(0))
        return (mel + 0.3 * noise).clamp(min=math.log(spec.log_floor))
    return (2 * mel).round() / 2 if kind == "quantised" else mel


def clips(files: list[str], rate: int, seconds: float) -> list[Tensor]:
    """The beginnings of sound files, mixed to mono, with a peak of 0.95; at least 1 s, which ViSQOL needs."""
    waves = []
    for path in files or sorted(map(str, SPEECH.glob("*.wav"))):
        wave, own = melvoc.audio.read(path)
        wave = melvoc.resample(wave.mean(0), own, rate)[: round(seconds * rate)]
        waves.append(F.pad(wave, (0, max(0, rate - len(wave)))) / wave.abs().max() * 0.95)
    if not waves:
        raise SystemExit(f"no files: name some, or put the shared folder at {SPEECH}")
    return waves


def quality(arguments: argparse.Namespace) -> None:
    """Print a table for each kind of mel."""
    own = {"spec": MelSpec.preset(arguments.spec)} if arguments.spec else {}
    vocoder = melvoc.load(arguments.vocoder, **own)
    rate = vocoder.sample_rate
    waves = clips(arguments.files, rate, float(arguments.seconds or 6))
    names = [name for name in METRICS if not arguments.metrics or name in arguments.metrics.split(",")]
    print(f"| mel | rounds | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for kind in arguments.mels.split(","):
        mels = [spoilt(kind, vocoder, wave) for wave in waves]
        for rounds in map(int, (arguments.rounds or "0,1,2,4,16").split(",")):
            copies = [_refined(vocoder, mel, rounds, arguments.textbook) for mel in mels]
            figures = [_mean(METRICS[name], waves, copies, rate) for name in names]
            print(f"| {kind} | {rounds} | {' | '.join(figures)} |", flush=True)


def _refined(vocoder: melvoc.Vocoder, mel: Tensor, rounds: int, textbook: bool) -> Tensor:
    if not textbook or not rounds:
        return vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=rounds)[0, 0]
    from melvoc.post.refine import Rounds

    wave = vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=0)
    return Rounds(vocoder.spec, rounds, momentum=0.99)(mel, wave, True)[0, 0].clamp(-1, 1)


def _mean(metric: Metric, waves: list[Tensor], copies: list[Tensor], rate: int) -> str:
    values = []
    for wave, copy in zip(waves, copies, strict=True):
        size = min(len(wave), len(copy))
        try:
            values.append(metric(wave[:size], copy[:size], rate))
        except ImportError:
            return "-"
    return f"{statistics.mean(values):.3f}"


def cost(arguments: argparse.Namespace) -> None:
    """Print what one round costs beside the vocoder itself."""
    from melvoc.post import Sound
    from melvoc.post.refine import Refine

    vocoder = melvoc.load(arguments.vocoder)
    room = Sound(
        spec=vocoder.spec,
        channels=vocoder.channels,
        samples_per_frame=vocoder.samples_per_frame,
        sample_rate=vocoder.sample_rate,
    )
    print(f"{torch.get_num_threads()} threads")
    print("| seconds | the vocoder | one round | of the vocoder's time |\n|---|---|---|---|")
    for seconds in map(float, (arguments.seconds or "1,10").split(",")):
        mel = torch.randn(1, vocoder.spec.n_mels, round(seconds * vocoder.sample_rate / vocoder.spec.hop_length)) - 5
        wave = vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=0)
        made, refined = [], []
        with torch.inference_mode():
            for _ in range(arguments.times):
                made.append(_seconds(lambda: vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=0)))  # noqa: B023
                refined.append(_seconds(lambda: Refine(1).open(room)(mel, wave, True)))  # noqa: B023
        ratios = sorted(one / other for one, other in zip(refined, made, strict=True))
        print(
            f"| {seconds:g} | {statistics.median(made) * 1e3:.1f} ms | {statistics.median(refined) * 1e3:.1f} ms | "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) |"
        )


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(arguments: argparse.Namespace) -> None:
    """Print the peak resident size for each length, each in a process of its own."""
    if arguments.child:
        _stream(arguments.vocoder, float(arguments.minutes), int(arguments.rounds or 4))
        return
    for minutes in arguments.minutes.split(","):
        options = ["--minutes", minutes, "--rounds", arguments.rounds or "4", "--child"]
        command = [sys.executable, __file__, "memory", arguments.vocoder, *options]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def _stream(name: str, minutes: float, rounds: int) -> None:
    vocoder = melvoc.load(name)
    spec, given = vocoder.spec, 0
    frames = round(minutes * 60 * spec.sample_rate / spec.hop_length)
    with vocoder.stream(refine=rounds, spec=spec) as stream:
        for begin in range(0, frames, 128):
            given += stream.push(torch.randn(1, spec.n_mels, min(128, frames - begin)) - 5).shape[-1]
        given += stream.flush().shape[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{given / spec.sample_rate / 60:.1f} minutes, {rounds} rounds: peak {peak:.0f} MB")


def picture(arguments: argparse.Namespace) -> None:
    """Draw the mel and the differences."""
    import matplotlib.pyplot as plt
    from PIL import Image

    vocoder = melvoc.load(arguments.vocoder)
    rate = vocoder.sample_rate
    (wave,) = clips(arguments.files, rate, 3.0)
    mel = vocoder.mel(wave, sample_rate=rate)
    measure = MelSpectrogram(MelSpec(sample_rate=rate, n_fft=1024, hop_length=256, n_mels=80))
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), sharey=True, layout="constrained")
    end = wave.shape[-1] / rate
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, end, 0, 80)}
    axes[0].imshow(measure(wave)[0], cmap="magma", **style)
    axes[0].set(title="the recording", ylabel="mel band")
    for axis, rounds in zip(axes[1:], (0, 1, 4), strict=True):
        copy = vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=rounds)[0, 0]
        size = min(len(wave), len(copy))
        gap = (measure(copy[:size]) - measure(wave[:size]))[0]
        image = axis.imshow(gap, cmap="RdBu_r", vmin=-2, vmax=2, **style)
        title = f"refine={rounds}" if rounds else "the network"
        axis.set(title=f"{title}: off by {float(gap.abs().mean()):.2f}", xlabel="seconds")
    figure.colorbar(image, ax=axes, label="nepers")
    figure.savefig(arguments.output, dpi=100)
    Image.open(arguments.output).convert("RGB").quantize(48).save(arguments.output, optimize=True)


def main() -> None:
    """Measure one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "cost", "memory", "picture"))
    parser.add_argument("vocoder")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rounds")
    parser.add_argument("--mels", default="true,blurred,noisy,quantised,converted")
    parser.add_argument("--textbook", action="store_true", help="full corrections, one step in each round")
    parser.add_argument("--metrics", help="some of the columns, with commas")
    parser.add_argument("--spec", help="a preset's name, for Griffin-Lim")
    parser.add_argument("--seconds")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--minutes", default="1,60")
    parser.add_argument("-o", "--output", default="docs/refinement.png")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    {"quality": quality, "cost": cost, "memory": memory, "picture": picture}[arguments.what](arguments)


if __name__ == "__main__":
    main()
