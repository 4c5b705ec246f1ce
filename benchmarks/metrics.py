"""What each figure of merit says of Griffin-Lim and of networks, and which of them tell the two apart.

    python benchmarks/metrics.py v1.safetensors v2.safetensors --sounds ../shared/audio/ljspeech
    python benchmarks/metrics.py v1.safetensors --sounds ../shared/audio/cc0_44khz --metric onset beating
    python benchmarks/metrics.py v1.safetensors --sounds ../shared/audio/ljspeech --protocol bigvgan

Each sound is mixed to mono, resampled to the networks' rate, cut to --seconds, and made again from the first network's
mel. The rows are means over the sounds that have the figure, and how many those are.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from torch import Tensor

import melvoc
from melvoc.evaluation.protocols import PROTOCOLS, Protocol
from melvoc.metrics import Metric
from melvoc.registry import all_metrics

MUSIC = (
    *("ambi_piano", "ambi_choir", "guit_harmonics", "guit_em9", "loop_amen", "loop_tabla", "loop_breakbeat"),
    *("drum_cymbal_open", "drum_snare_hard", "drum_cowbell", "elec_bell", "perc_bell", "bass_trance_c"),
    *("ambi_dark_woosh", "ambi_glass_rub", "vinyl_hiss"),
)


def main() -> None:
    """Make the sounds, measure them, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="what melvoc.load takes; of one mel")
    parser.add_argument("--sounds", type=Path, nargs="+", help="files, or a folder (of cc0_44khz a choice of 16)")
    parser.add_argument("--iterations", type=int, nargs="*", default=[8, 32, 200], help="of Griffin-Lim")
    parser.add_argument("--metric", nargs="*", help="names; default: all that need no package")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="default")
    parser.add_argument("--seconds", type=float, help="of each sound, from its start; default: all")
    options = parser.parse_args()
    networks = {Path(name).stem: melvoc.load(name) for name in options.networks}
    first = next(iter(networks.values()))
    vocoders = {f"griffinlim {n}": melvoc.load("griffinlim", spec=first.spec, n_iter=n) for n in options.iterations}
    vocoders |= networks
    protocol = PROTOCOLS[options.protocol]
    wanted = options.metric or protocol.metrics
    metrics = [one for one in all_metrics() if (one.name in wanted if wanted else not one.packages)]
    found: dict[tuple[str, str], list[object]] = defaultdict(list)
    for path in files(options.sounds):
        reference = prepared(path, first.sample_rate, options.seconds, protocol)
        print(path.name, flush=True)
        sounds = {"recording": reference} if any(not metric.reference for metric in metrics) else {}
        for name, vocoder in vocoders.items():
            sounds[name] = vocoder.resynthesize(reference, sample_rate=first.sample_rate)[0, 0, : len(reference)]
        for name, sound in sounds.items():
            for metric in metrics:
                if name != "recording" or not metric.reference:
                    measured(metric, protocol, reference, sound, first, found[metric.name, name])
    for (metric_name, name), values in found.items():
        pool = protocol.pool.get(metric_name)
        mean = "-" if not values else f"{pool.figure(values) if pool else statistics.fmean(values):.4g}"  # type: ignore
        print(f"{metric_name:16} {name:16} {mean:>8} of {len(values)}")


def files(places: list[Path]) -> list[Path]:
    """The sounds that are meant."""
    if len(places) > 1 or places[0].is_file():
        return places
    every = sorted(places[0].iterdir())
    return [path for path in every if path.stem in MUSIC] if places[0].name == "cc0_44khz" else every


def prepared(path: Path, rate: int, seconds: float | None, protocol: Protocol) -> Tensor:
    """What the vocoders are given, `[N]`."""
    wave, file_rate = melvoc.audio.read(path)
    mono = melvoc.resample(wave.mean(0), file_rate, rate)[: None if seconds is None else round(seconds * rate)]
    return protocol.prepare(mono[None], rate)[0][0]


def measured(
    metric: Metric,
    protocol: Protocol,
    reference: Tensor,
    sound: Tensor,
    vocoder: melvoc.Vocoder,
    values: list[object],
) -> None:
    """Add the figure of a sound, or the protocol's parts of it; say why where there is none."""
    rate = vocoder.sample_rate
    pair = protocol.listen(reference, sound, rate)
    try:
        if pool := protocol.pool.get(metric.name):
            values.append(pool.parts(*pair, rate))
        else:
            values.append(metric.measure(*pair, rate, frame_rate=rate / vocoder.spec.hop_length))
    except melvoc.MelvocError as error:
        print(f"  {metric.name}: {error}")


if __name__ == "__main__":
    main()
