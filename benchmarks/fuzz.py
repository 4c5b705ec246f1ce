"""Inputs as no writer makes them, for every reader, in child processes with limits of time and memory.

    python benchmarks/fuzz.py [--count 2000] [--first 0] [--processes 1] [--seconds 10] [--gigabytes 2]

Prints every input that ended in anything but a melvoc error or a sane result, and a table. The inputs are those of
tests/mutations.py: the same seed is the same input everywhere. A crash, or an input that takes longer or more memory
than the limits, ends only its child; the next seed goes on in a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PER_CHILD = 500  # seeds, so that no child grows old
ROOM = 6 << 30  # bytes of addresses beyond those of a child that has loaded everything


def child(first: int, end: int) -> None:
    """Run seeds; a line of JSON for each, before and after."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from mutations import attempt

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        attempt(0, Path(folder))  # loads what is loaded late, which is none of the inputs' doing
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + ROOM, -1))
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for seed in range(first, end):
        print(json.dumps({"start": seed}), file=say)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, began = peak(), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            outcome = attempt(seed, Path(folder))
        found = vars(outcome) | {"right": outcome.right, "seed": seed, "seconds": time.perf_counter() - began}
        print(json.dumps(found | {"gigabytes": peak(), "before": before}), file=say)


def peak() -> float:
    """The largest resident memory of this process, in GB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def results(first: int, end: int, limit: float) -> Iterator[dict[str, Any]]:
    """What became of each seed, across as many children as it takes."""
    while first < end:
        stop = min(end, first + PER_CHILD)
        command = [sys.executable, __file__, "--child", str(first), str(stop)]
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert running.stdout
        waiting = selectors.DefaultSelector()
        waiting.register(running.stdout, selectors.EVENT_READ)
        current, verdict = None, ""
        while True:
            if current is not None and not waiting.select(limit):
                running.kill()
                verdict = f"over {limit:.0f} s"
            line = json.loads(running.stdout.readline() or "null")
            if line is None:
                break
            if "start" in line:
                current = line["start"]
            else:
                yield line
                first, current = line["seed"] + 1, None
        code = running.wait()
        if current is None and first < stop:
            raise RuntimeError(f"a child ended with {code} between inputs")
        if current is not None:
            died = {"seed": current, "right": False, "formed": False, "reader": "?", "change": "?", "message": ""}
            yield died | {"verdict": verdict or f"ended with {code}", "seconds": limit, "gigabytes": 0.0}
            first = current + 1


def table(found: list[dict[str, Any]]) -> str:
    """One row per reader, and the sum."""
    readers = sorted({one["reader"] for one in found})
    lines = ["| reader | inputs | well-formed but for one field | refused | used | wrong | slowest | most memory |"]
    lines.append("|" + "---|" * 8)
    for name in [*readers, "all"]:
        rows = [one for one in found if name in ("all", one["reader"])]
        verdicts = Counter(one["verdict"] if one["right"] else "wrong" for one in rows)
        counts = [
            len(rows),
            sum(one["formed"] for one in rows),
            *(verdicts[key] for key in ("refused", "used", "wrong")),
        ]
        slowest, most = max(one["seconds"] for one in rows), max(one["gigabytes"] for one in rows)
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {slowest:.1f} s | {most:.2f} GB |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return 0
    found: list[dict[str, Any]] = []

    def run(first: int, end: int) -> None:
        for one in results(first, end, options.seconds):
            one["right"] &= one["gigabytes"] <= options.gigabytes and one["seconds"] <= options.seconds
            found.append(one)
            if not one["right"]:
                print(json.dumps(one), flush=True)

    size = -(-options.count // options.processes)
    starts = range(options.first, options.first + options.count, size)
    threads = [threading.Thread(target=run, args=(at, min(at + size, options.first + options.count))) for at in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(table(found))
    return 0 if all(one["right"] for one in found) and len(found) == options.count else 1


if __name__ == "__main__":
    sys.exit(main())
