"""The speed of every vocoder that melvoc knows, as rows for the table of docs/vocoders.md.

    python benchmarks/vocoders.py [--seconds 2] [--rounds 3] [--models NAME ...]

Published sizes with random weights, one of each; speed does not depend on the weights. A figure is the median over the
rounds of how many seconds of sound are made in a second, on the CPU with torch's threads, after calls that compile,
prepare and record. Griffin-Lim makes 32 iterations.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from cpu import build, random_mel, randomised

import melvoc
from melvoc.neural import NeuralVocoder
from melvoc.registry import architecture
from melvoc.vocoder import Vocoder

WARM = 4  # calls, of which the third records what repeats
HIFIGAN = {"HiFi-GAN V1": 512, "HiFi-GAN V2": 128}
PUBLISHED = (
    "bigvgan_v2_44khz_128band_512x", "bigvgan_v2_44khz_128band_256x", "bigvgan_v2_24khz_100band_256x",
    "bigvgan_base_24khz_100band", "flow2gan_24khz_1step", "flow2gan_24khz_2step", "flow2gan_24khz_4step",
    "flow2gan_44khz_128band_512x_1step", "flow2gan_44khz_128band_512x_2step", "flow2gan_44khz_128band_512x_4step",
    "vocos_mel_24khz", "vocos_mel_hifigan_compat_44100khz", "wavenext_mel",
)  # fmt: skip
MODELS = (*PUBLISHED, *HIFIGAN, "iSTFTNet V1", "GLNet", "griffinlim")


def vocoder(name: str) -> Vocoder:
    """One row's."""
    if name == "griffinlim":
        return melvoc.load(name, n_iter=32)
    if name in PUBLISHED:
        return build(name)
    if name == "GLNet":
        record = architecture("glnet")
        config = record.config()
        return NeuralVocoder(randomised(record.network(config)), name=name, spec=config.spec, architecture=record)
    record = architecture("istftnet" if name.startswith("iSTFT") else "hifigan")
    config = record.config.from_dict({"upsample_initial_channel": HIFIGAN.get(name, 512)})
    spec = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")
    return NeuralVocoder(randomised(record.network(config)), name=name, spec=spec, architecture=record)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of sound a call")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.seconds:g} s of sound\n")
    print("| vocoder | times real time |\n|---|---|")
    for name in options.models:
        voc = vocoder(name)
        frames = round(options.seconds * voc.spec.sample_rate / voc.spec.hop_length)
        mel = random_mel(voc, frames)
        rates = []
        for _ in range(WARM + options.rounds):
            start = time.perf_counter()
            wave = voc.mel_to_waveform(mel, spec=voc.spec)
            rates.append(wave.shape[-1] / voc.sample_rate / (time.perf_counter() - start))
        print(f"| `{name}` | {statistics.median(rates[WARM:]):.3g} |", flush=True)


if __name__ == "__main__":
    main()
