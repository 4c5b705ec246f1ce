"""The best generator for a few sounds: candidates, equal minutes each, on held-out files of three small sets.

    python benchmarks/small_data.py --sounds ../shared/audio/cc0_44khz --speech ../shared/audio/ljspeech -o bakeoff
    python benchmarks/small_data.py ... --minutes 5 --seeds 0 --sets twenty --candidates glnet vocos
    python benchmarks/small_data.py ... --minutes 5 --sets all --candidates vocos --warm-start twenty.safetensors

Each candidate is trained in a process of its own, by `melvoc train`, for --minutes; nothing else should run. Its files
are held out by name, and so is every file of the same instrument. Then the held-out sounds (5 s, peak 0.95) are made
again from their mels, with 0, 1 and 4 rounds of refinement, and measured beside Griffin-Lim (32 rounds) and, with
--universal, a published network. What is there in OUT is not done again, so that a bake-off can be stopped and go on.

OUT gets runs/SET/CANDIDATE/SEED (the run folders), reports/SET/CANDIDATE/SEED (reports with sound), table.md (mean, and
the range over the seeds), curves.json and, with matplotlib, curves.png (multi-scale mel distance by minute).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import melvoc
from melvoc import MelSpec
from melvoc.registry import all_metrics

ROUNDS = (0, 1, 4)
SECONDS = 5.0
CANDIDATES: Mapping[str, Sequence[str]] = {  # options of `melvoc train`
    "default": (),
    "glnet": ("--architecture", "glnet"),
    "glnet-base": ("--architecture", "glnet", "--size", "base"),
    "vocos": ("--architecture", "vocos"),
    "vocos-plain": ("--architecture", "vocos", "--refined-weight", "0"),
    "wavenext": ("--architecture", "wavenext"),
    "hifigan": ("--architecture", "hifigan"),
    "hifigan-judged": ("--profile", "published", "--architecture", "hifigan", "--preset", "slim"),
    "vocos-judged": ("--profile", "published", "--architecture", "vocos", "--preset", "slim"),
}
FIGURES = ("multi_scale_mel", "zimtohrli", "visqol", "distillmos", "mel_l1", "onset", "beating", "tonal")
HELD_MUSIC = ("ambi_lunar_land", "bd_boom", "drum_bass_soft", "loop_mika", "mehackit_phone4", "perc_swoosh")
TWENTY = (
    *("ambi_choir", "ambi_piano", "bass_dnb_f", "bass_woodsy_c", "bd_808", "bd_haus", "drum_cymbal_open"),
    *("drum_snare_hard", "drum_tom_lo_hard", "elec_bell", "elec_twang", "glitch_perc1", "guit_em9", "loop_amen"),
    *("loop_compus", "loop_tabla", "misc_crow", "perc_bell", "tabla_ghe1", "vinyl_scratch"),
)


@dataclass(frozen=True, kw_only=True)
class Set:
    """Sounds to train on, and sounds to be judged by.

    Attributes:
        name: in tables.
        trained: files.
        held: files.
        spec: the mel.
    """

    name: str
    trained: Sequence[Path]
    held: Sequence[Path]
    spec: MelSpec


def instrument(path: Path) -> str:
    """What a file's sound is of, by its name: `drum_bass_soft` and `drum_bass_hard` are of one instrument."""
    return "_".join(re.sub(r"\d+$", "", part) for part in path.stem.split("_")[:2])


def sets(sounds: Path | None, speech: Path | None) -> list[Set]:
    """The three sets, or those whose sounds are there."""
    found = []
    if sounds:
        files = sorted(sounds.glob("*.flac"))
        held = [path for path in files if path.stem in HELD_MUSIC]
        apart = {instrument(path) for path in held}
        rest, music = [path for path in files if instrument(path) not in apart], MelSpec.preset("griffinlim")
        found.append(Set(name="all", trained=rest, held=held, spec=music))
        found.append(Set(name="twenty", trained=[p for p in rest if p.stem in TWENTY], held=held, spec=music))
    if speech:
        files = sorted(speech.glob("*.wav"))
        spec = MelSpec.preset("hifigan_22khz_80band_256x")
        found.append(Set(name="speech", trained=files[1:-1], held=[files[0], files[-1]], spec=spec))
    return found


def link(folder: Path, files: Iterable[Path]) -> Path:
    """A folder with links to files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder


def excerpts(folder: Path, files: Iterable[Path]) -> Path:
    """A folder with the beginnings of files, at one level."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        wave, rate = melvoc.audio.read(path)
        cut = wave.mean(0, keepdim=True)[:, : int(SECONDS * rate)]
        melvoc.audio.write(folder / f"{path.stem}.wav", 0.95 * cut / cut.abs().max(), rate, subtype="FLOAT")
    return folder


def train(run: Path, chosen: Set, folder: Path, options: Sequence[str], minutes: float, seed: int) -> Path:
    """A trained generator, new or from before."""
    result = run / "generator.safetensors"
    if not result.exists():
        spec = run.parent / "spec.json"
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(json.dumps(chosen.spec.to_dict()))
        command = [sys.executable, "-m", "melvoc", "train", str(folder), "-o", str(run), "--spec", str(spec)]
        command += ["--minutes", str(minutes), "--seed", str(seed), *options]
        begun = any(run.glob("checkpoints/step-*.pt"))
        done = subprocess.run([*command, *(("--resume",) if begun else ())], check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return result


def judge(report: Path, held: Path, vocoders: Mapping[str, object], rounds: Sequence[int]) -> list[dict[str, object]]:
    """The rows of an evaluation, new or from before."""
    stored = report / "results.json"
    if not stored.exists():
        installed = {metric.name for metric in all_metrics()}
        names = [name for name in FIGURES if name in installed]
        melvoc.evaluate(held, dict(vocoders), refine=rounds, out=report, metrics=names, overwrite=True)
    found = json.loads(stored.read_text())
    if found["failed"]:
        raise SystemExit(f"{stored}: {found['failed'][0]['error']}; remove {report}, and measure again")
    rows: list[dict[str, object]] = found["rows"]
    return rows


def means(rows: Iterable[Mapping[str, object]]) -> dict[tuple[str, int], dict[str, float]]:
    """The mean of each figure over the files, by vocoder and rounds."""
    collected: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name in FIGURES:
            if isinstance(value := row.get(name), int | float):
                collected[str(row["vocoder"]), int(str(row["refine"]))][name].append(float(value))
    return {key: {name: statistics.mean(values) for name, values in of.items()} for key, of in collected.items()}


def table(found: Mapping[tuple[str, str, int], list[dict[str, float]]]) -> str:
    """Mean, and range over the seeds, as Markdown."""
    lines = [f"| set | vocoder | rounds | seeds | {' | '.join(FIGURES)} |", "|---" * (4 + len(FIGURES)) + "|"]
    for (chosen, name, rounds), runs in found.items():
        cells = []
        for figure in FIGURES:
            values = [run[figure] for run in runs if figure in run]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
        lines.append(f"| {chosen} | {name} | {rounds} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def curve(run: Path) -> list[tuple[float, float]]:
    """Minutes, and the multi-scale mel distance of the trainer's own held-out files."""
    reports = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(one["spent"] / 60, one["validation"]["multi_scale_mel"]) for one in reports if one.get("validation")]


def picture(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """The curves, one axis per set."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({key.split("/")[0] for key in curves})
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.5), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for key, points in curves.items():
            if key.startswith(f"{name}/"):
                axis.plot(*zip(*points, strict=True), label=key.partition("/")[2])
        axis.set(title=name, xlabel="minutes", ylabel="multi-scale mel distance")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Train and measure whatever is not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, help="cc0_44khz")
    parser.add_argument("--speech", type=Path, help="clips of LJ Speech")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=["all", "twenty", "speech"])
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=["glnet", "vocos", "wavenext"])
    parser.add_argument("--warm-start", type=Path, help="a generator that the candidate, a single one, begins with")
    parser.add_argument("--universal", type=Path, help="a published network to stand beside them")
    options = parser.parse_args()
    if options.warm_start and len(options.candidates) != 1:
        parser.error("--warm-start is a generator of one architecture; name its candidate with --candidates")
    begin = ("--warm-start", str(options.warm_start)) if options.warm_start else ()
    out, found = options.output, dict[tuple[str, str, int], list[dict[str, float]]]()
    curves: dict[str, list[tuple[float, float]]] = {}

    def keep(chosen: Set, rows: Iterable[Mapping[str, object]]) -> None:
        for (name, rounds), figures in means(rows).items():
            found.setdefault((chosen.name, name, rounds), []).append(figures)

    for chosen in [one for one in sets(options.sounds, options.speech) if one.name in options.sets]:
        folder = link(out / "sets" / chosen.name / "trained", chosen.trained)
        held = excerpts(out / "sets" / chosen.name / "held", chosen.held)
        beside: dict[str, object] = {"Griffin-Lim 32": melvoc.load("griffinlim", spec=chosen.spec, n_iter=32)}
        keep(chosen, judge(out / "reports" / chosen.name / "griffinlim", held, beside, (0,)))
        if options.universal:
            published: dict[str, object] = {options.universal.stem: options.universal}
            keep(chosen, judge(out / "reports" / chosen.name / options.universal.stem, held, published, ROUNDS))
        for candidate in options.candidates:
            for seed in options.seeds:
                run = out / "runs" / chosen.name / candidate / str(seed)
                result = train(run, chosen, folder, (*CANDIDATES[candidate], *begin), options.minutes, seed)
                report = out / "reports" / chosen.name / candidate / str(seed)
                keep(chosen, judge(report, held, {candidate: result}, ROUNDS))
                curves[f"{chosen.name}/{candidate}/{seed}"] = curve(run)
                (out / "table.md").write_text(table(found))
                (out / "curves.json").write_text(json.dumps(curves))
    picture(out / "curves.png", curves)
    print(table(found))


if __name__ == "__main__":
    main()
