"""Many short mels: a plain loop, plain processes, Ray's workers and the command line, with the memory of a worker.

    python benchmarks/bulk.py hifigan_v2.safetensors hifigan_v1.safetensors

For each melvoc file, rows of 0.5 to 3 s: seconds of sound per second, from each process' first row to its last (after a
call that compiles and prepares; what a worker waits for counts), added over processes, as the median of the rounds
(smallest to largest), which take turns. Then what one of two plain processes holds. Without ray, its rows are left
out.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch

import melvoc
from melvoc.batch import Vocode
from melvoc.batch.vocode import loaded
from melvoc.cli import build_parser
from melvoc.cli.folders import make_plan
from melvoc.cli.runners import in_threads, one_by_one
from melvoc.cli.vocode import FORMATS, _worker

FAST = 20  # times real time
FEW, MANY = (80, 8), (300, 32)  # seconds of sound in a round, and rows in a batch: of a vocoder below FAST, of another
Columns = dict[str, Any]
Span = tuple[float, float, float]  # start, end, seconds of sound


Batches = list[list[np.ndarray]]


def batches_of(path: str) -> Batches:
    """Mels of noise that comes and goes, as many as a round takes."""
    voc = melvoc.load(path, device="cpu")
    generator = np.random.default_rng(0)
    voc.prepare()
    start = time.perf_counter()
    voc.mel_to_waveform(torch.full((voc.spec.n_mels, 200), -5.0), spec=voc.spec)
    speed = voc.spec.samples(200) / voc.sample_rate / (time.perf_counter() - start)
    wanted, size = FEW if speed < FAST else MANY
    rows, total = [], 0.0
    while total < wanted:
        seconds = generator.uniform(0.5, 3.0)
        samples = round(seconds * voc.spec.sample_rate)
        wave = generator.normal(0, 0.1, samples) * np.abs(np.sin(np.arange(samples) * 6 / voc.spec.sample_rate))
        rows.append(voc.mel(wave.astype(np.float32), sample_rate=voc.spec.sample_rate)[0].numpy())
        total += seconds
    return [rows[place : place + size] for place in range(0, len(rows), size)]


class Timed:
    """Vocode that notes when each batch begins and ends; its first call is not counted."""

    def __init__(self, path: str) -> None:
        self.vocode, self.voc = Vocode(path, device="cpu"), loaded(path, "cpu")
        self.vocode({"mel": [np.full((self.voc.spec.n_mels, frames), -5.0) for frames in (50, 50, 120, 250)]})

    def __call__(self, batch: Columns) -> Columns:
        """When, how much sound, and by whom."""
        start = time.perf_counter()
        made = self.vocode(batch)
        assert not any(made["error"])
        sound = sum(len(audio) for audio in made["audio"]) / self.voc.sample_rate
        return {"span": np.array([[start, time.perf_counter(), sound]]), "process": np.array([os.getpid()])}


def rate(spans: list[Span]) -> float:
    """Seconds of sound per second of one process."""
    return sum(span[2] for span in spans) / (max(span[1] for span in spans) - min(span[0] for span in spans))


def memory(path: str) -> dict[str, float]:
    """What this process holds, in MB, and how much of it is the mapped file."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    found = {line.split()[0][:-1]: int(line.split()[1]) / 1e3 for line in rollup.splitlines() if line.endswith(" kB")}
    result = {"rss": found["Rss"], "pss": found["Pss"], "private": found["Private_Clean"] + found["Private_Dirty"]}
    result |= {"mapped": 0.0, "mapped share": 0.0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(os.path.realpath(path))
        elif inside and line.startswith(("Rss:", "Pss:")):
            result["mapped" if line.startswith("Rss") else "mapped share"] += int(line.split()[1]) / 1e3
    return result


def plain(path: str, batches: Batches, barrier: Barrier, answers: Any) -> None:
    """One plain process on one thread."""
    torch.set_num_threads(1)
    importlib.import_module("melvoc.nn.engines.cpu.engine")  # with numba, which is not part of the weights
    before = memory(path)
    for weight in loaded(path, "cpu").parameters():
        weight.sum()  # every page of the file is here
    after_loading = memory(path)
    timed = Timed(path)
    barrier.wait()
    spans = [tuple(timed({"mel": batch})["span"][0]) for batch in batches]
    barrier.wait()
    held = memory(path)
    barrier.wait()
    answers.put((spans, before, after_loading, held))


def processes(path: str, batches: Batches, count: int) -> tuple[float, list[Any]]:
    """Plain processes that share the batches: the rate, and what each held."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    started = [
        context.Process(target=plain, args=(path, batches[number::count], barrier, answers)) for number in range(count)
    ]
    for process in started:
        process.start()
    found = [answers.get() for _ in started]
    for process in started:
        process.join()
    return sum(rate(answer[0]) for answer in found), [answer[1:] for answer in found]


def workers(path: str, batches: Batches, count: int) -> float:
    """Ray's actors."""
    import ray.data

    rows = [{"mel": row} for batch in batches for row in batch]
    made = ray.data.from_items(rows, override_num_blocks=len(batches)).map_batches(
        Timed, fn_constructor_args=(path,), batch_size=None, compute=ray.data.ActorPoolStrategy(size=count)
    )
    spans: dict[int, list[Any]] = {}
    for row in made.take_all():
        spans.setdefault(int(row["process"]), []).append(tuple(row["span"]))
    return sum(rate(own) for own in spans.values())


def loop(path: str, rows: list[np.ndarray], threads: int) -> float:
    """`mel_to_waveform`, row by row."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    voc = melvoc.load(path, device="cpu")
    voc.prepare()
    start = time.perf_counter()
    sound = sum(voc.mel_to_waveform(row).shape[-1] for row in rows) / voc.sample_rate
    spent = time.perf_counter() - start
    torch.set_num_threads(before)
    return sound / spent


def command(path: str, rows: list[np.ndarray], threads: int | None) -> float:
    """What `melvoc vocode FOLDER -o OUT` does once it is loaded: one file after the other, or one per thread."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        for number, row in enumerate(rows):
            np.save(Path(folder) / "in" / f"{number}.npy", row)
        words = ["vocode", f"{folder}/in", "-o", f"{folder}/out", "--vocoder", path, "--subtype", "PCM_16"]
        plan = make_plan([f"{folder}/in"], f"{folder}/out", (".npy",), f".{FORMATS[0]}")
        work = _worker(build_parser().parse_args(words))
        list(one_by_one(work, iter(plan.jobs[:3])))  # compiles and prepares
        start = time.perf_counter()
        problems = list(in_threads(work, threads, iter(plan.jobs)) if threads else one_by_one(work, iter(plan.jobs)))
        spent = time.perf_counter() - start
        assert not any(problems), next(filter(None, problems))
        voc = melvoc.load(path, device="cpu")
        return sum(voc.spec.samples(row.shape[-1]) for row in rows) / voc.spec.sample_rate / spent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="melvoc files")
    parser.add_argument("--rounds", type=int, default=1, help="2 take about 6 minutes for two vocoders")
    arguments = parser.parse_args()
    with_ray = importlib.util.find_spec("ray") is not None
    if with_ray:
        import ray
        import ray.data

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    for model in arguments.models:
        measure(str(Path(model).resolve()), arguments.rounds, with_ray)


def measure(path: str, rounds: int, with_ray: bool) -> None:
    """The tables of one vocoder."""
    batches, cores, held = batches_of(path), torch.get_num_threads(), []
    rows = [row for batch in batches for row in batch]
    runs: dict[str, Callable[[], float]] = {
        f"a loop over `mel_to_waveform`, {cores} threads": lambda: loop(path, rows, cores),
        "the same, one thread": lambda: loop(path, rows, 1),
        "one plain process with `Vocode`, one thread": lambda: processes(path, batches, 1)[0],
        "two of them": lambda: _two(path, batches, held),
        "Ray, one worker": lambda: workers(path, batches, 1),
        "Ray, two workers": lambda: workers(path, batches, 2),
        f"`melvoc vocode`, one file after the other, {cores} threads": lambda: command(path, rows, None),
        f"`melvoc vocode` as it is, {cores} files at a time": lambda: command(path, rows, cores),
    }
    if not with_ray:
        runs = {name: run for name, run in runs.items() if not name.startswith("Ray")}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    print(f"\n{Path(path).name}: {len(rows)} rows\n\n| how | seconds of sound per second |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {_shown(values, 1)} |")
    if with_ray:
        pairs = zip(found["Ray, two workers"], found["two of them"], strict=True)
        print(f"\ntwo workers / two processes: {_shown([one / other for one, other in pairs], 2)}")
    _print_memory(path, held)


def _shown(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _two(path: str, batches: Batches, held: list[Any]) -> float:
    """Two processes; what they held replaces what others did."""
    speed, held[:] = processes(path, batches, 2)
    return speed


def _print_memory(path: str, held: list[Any]) -> None:
    (before, weights, after), *_ = held
    print(
        f"\none of two processes, MB (the file has {Path(path).stat().st_size / 1e6:.0f})\n\n| what | MB |\n|---|---|"
    )
    print(f"| Python, torch, numba, melvoc | {before['rss']:.0f}, of which {before['private']:.0f} private |")
    print(f"| weights, mapped and read | {weights['mapped']:.0f}, this worker's share {weights['mapped share']:.0f} |")
    own = after["private"] - weights["private"]
    print(f"| private after the rows, beyond that: prepared weights, kernels, signals | {own:.0f} |")
    print(f"| all | {after['rss']:.0f}, this worker's share (PSS) {after['pss']:.0f} |")
    print(f"| of that, weights still mapped | {after['mapped']:.0f}, this worker's share {after['mapped share']:.0f} |")


if __name__ == "__main__":
    main()
