"""Does training learn? A few seconds of audio, until the generator's mel is nearer than Griffin-Lim's, or time is up.

    python benchmarks/overfit.py [--audio FILE] [--seconds 2] [--minutes 120] [--threads 1] [-o OUT]

The generator (V2, `slim` preset) sees the whole clip as one segment in every step, with the mel loss alone (unless
`--mel-only-steps` lets the discriminators in). Every `--every` steps its running mean vocodes the clip, and the log-mel
L1 of the result is compared with that of melvoc's own Griffin-Lim after 32 iterations, which goes on correcting its
magnitudes to have the mel, and with librosa's (inverse of the filter bank, then 32 iterations), which does not. It ends
below melvoc's or when time is up, and says which. Minutes are those of a processor: beside other work it takes longer.
OUT gets curve.json, original.wav, griffinlim.wav, librosa.wav,
generator.wav, generator.safetensors and overfit.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, audio
from melvoc.train import LossWeights, TrainConfig, Trainer

CLIP = Path(__file__).resolve().parents[1] / "docs" / "audio" / "guitar_harmonics.flac"


def librosa_griffin_lim(mel: Tensor, spec: MelSpec, samples: int) -> Tensor:
    """`[n_mels, T]` to `[N]` the usual way: non-negative least squares, then 32 iterations with random phases."""
    import librosa

    wave = librosa.feature.inverse.mel_to_audio(
        mel.exp().numpy(), sr=spec.sample_rate, n_fft=spec.n_fft, hop_length=spec.hop_length, power=1.0, n_iter=32,
        center=False,
    )  # fmt: skip
    return torch.from_numpy(wave)[spec.pad : spec.pad + samples].clamp(-1, 1)


def picture(path: Path, sounds: dict[str, Tensor], curve: list[dict[str, float]], lines: dict[str, float]) -> None:
    """The curve, and the mel of each sound."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 1 + len(sounds), figsize=(3.2 * (1 + len(sounds)), 3.2), layout="constrained")
    axes[0].plot([point["minutes"] for point in curve], [point["mel_l1"] for point in curve], color="black")
    for (name, value), style in zip(lines.items(), ("--", ":"), strict=False):
        axes[0].axhline(value, linestyle=style, color="tab:red", label=f"{name} {value:.3f}")
    axes[0].set(xlabel="minutes", ylabel="log-mel L1", yscale="log", title="generator")
    axes[0].legend()
    for axis, (name, mel) in zip(axes[1:], sounds.items(), strict=True):
        axis.imshow(mel.numpy(), origin="lower", aspect="auto", vmin=-11.5, vmax=1.5, cmap="magma")
        axis.set(title=name, xlabel="frame", ylabel="mel band")
    figure.savefig(path, dpi=70)


def main() -> None:
    """Train, watch, stop, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, default=CLIP)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--decay-steps", type=int, default=350, help="the learning rate falls by 5%% every so many")
    parser.add_argument("--mel-only-steps", type=int, default=1_000_000)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/overfit"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    wave, rate = audio.read(arguments.audio)
    spec = MelSpec(sample_rate=rate, n_fft=2048, hop_length=512, n_mels=128)
    samples = int(min(wave.shape[-1], arguments.seconds * rate)) // spec.hop_length * spec.hop_length
    wave = wave.mean(0)[:samples]
    analysis = MelSpectrogram(spec)
    target = analysis(wave)[0]

    def distance(other: Tensor) -> float:
        return float((analysis(other)[0] - target).abs().mean())

    plain = melvoc.load("griffinlim", spec=spec, n_iter=32, device="cpu").mel_to_waveform(target, spec=spec)[0, 0]
    usual = librosa_griffin_lim(target, spec, samples)
    bars = {"Griffin-Lim 32": distance(plain), "librosa's": distance(usual)}
    print(f"{arguments.audio.name}, {samples / rate:.2f} s at {rate} Hz; log-mel L1: {bars}", flush=True)

    out = arguments.output
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    curve: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        audio.write(Path(folder) / "clip.wav", wave, rate)
        config = TrainConfig(
            audio_dir=folder, run_dir=out / "run", spec=spec, preset="slim", batch_size=1, segment=samples,
            steps=10**9, checkpoint_every=10**9, learning_rate=arguments.learning_rate, lr_decay=0.95,
            lr_decay_steps=arguments.decay_steps, weights=LossWeights(mel=45.0),
            mel_only_steps=arguments.mel_only_steps, ema_decay=0.99,
            gain_db=0.0, flip_polarity=False, tilt_db=0.0, validation_files=0, device="cpu",
        )  # fmt: skip
        trainer, start, passed = Trainer(config), time.process_time(), set()
        for report in trainer:
            minutes = (time.process_time() - start) / 60 / arguments.threads
            if report.step % arguments.every and minutes < arguments.minutes:
                continue
            with torch.no_grad():
                made = trainer.vocoder().network(target[None])[0, 0]
            curve.append({"step": report.step, "minutes": round(minutes, 3), "mel_l1": distance(made)})
            print(f"step {report.step}, {minutes:.1f} min: {curve[-1]['mel_l1']:.4f}", flush=True)
            for name, bar in bars.items():
                if curve[-1]["mel_l1"] < bar and name not in passed:
                    passed.add(name)
                    print(f"below {name} ({bar:.4f}) after {minutes:.1f} min, {report.step} steps", flush=True)
            if "Griffin-Lim 32" in passed or minutes >= arguments.minutes:
                break
        trainer.export()
    verdict = "below Griffin-Lim's" if "Griffin-Lim 32" in passed else "not below Griffin-Lim's when time was up"
    print(f"{verdict}: {curve[-1]}", flush=True)

    shutil.copy(out / "run" / "generator.safetensors", out / "generator.safetensors")
    shutil.rmtree(out / "run")
    vocoder = melvoc.load(out / "generator.safetensors", device="cpu")
    made = vocoder.mel_to_waveform(target, spec=spec)[0, 0]
    sounds = {"original": wave, "griffinlim": plain, "librosa": usual, "generator": made}
    for name, sound in sounds.items():
        audio.write(out / f"{name}.wav", sound, rate)
    result = {"clip": arguments.audio.name, "samples": samples, "bars": bars, "verdict": verdict, "curve": curve}
    (out / "curve.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture(out / "overfit.png", {name: analysis(sound)[0] for name, sound in sounds.items()}, curve, bars)


if __name__ == "__main__":
    main()
