"""Processes: one that is killed in the middle, and two that train together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training import GENERATORS, SPEC, one_thread, tiny_config, write_sounds  # noqa: F401 - one_thread is used by being here

from melvoc.train import Trainer

pytestmark = pytest.mark.slow

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from training import GENERATORS, one_thread, tiny_config  # noqa: F401 - one_thread is used by being here
from melvoc.train import Trainer
with Trainer(tiny_config(Path({folder!r}), generator=GENERATORS[{name!r}], **{changes!r})) as trainer:
    for report in trainer:
        pass
"""


def script(folder: Path, name: str, **changes: Any) -> str:
    return CHILD.format(tests=str(Path(__file__).parent), folder=str(folder), name=name, changes=changes)


def losses(folder: Path) -> dict[int, dict[str, float]]:
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    return {entry["step"]: entry["losses"] for entry in map(json.loads, lines)}


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize(
    ("name", "moment"),
    [("hifigan", "while writing"), *[(name, "between") for name in GENERATORS]],
)
def test_killed_with_sigkill_a_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, name: str, moment: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_sounds(folder / "sounds", count=4)
    child = subprocess.Popen(
        [sys.executable, "-c", script(killed, name, segment=2048, steps=100000, checkpoint_every=3)]
    )
    log, checkpoints = killed / "run" / "log.jsonl", killed / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if moment == "between" and log.exists() and log.read_text().count("\n") >= 5:
            break
        if moment == "while writing" and list(checkpoints.glob(".step-00000006.*")):
            break
        time.sleep(0.0005 if moment == "while writing" else 0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=30) == -signal.SIGKILL

    changes = {"generator": GENERATORS[name], "segment": 2048, "steps": 100000}
    trainer = Trainer(tiny_config(killed, checkpoint_every=3, **changes), resume=True)
    done = trainer.step
    assert done >= 3
    assert not list(checkpoints.glob(".step-*"))
    last = done + 3
    for report in trainer:
        if report.step == last:
            break
    for report in Trainer(tiny_config(whole, checkpoint_every=100000, **changes)):
        if report.step == last:
            break
    resumed = losses(killed)
    assert list(resumed) == list(range(1, last + 1))
    assert resumed == losses(whole)


def run_in_two_processes(child: Path) -> None:
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d",
         "--rdzv-endpoint=localhost:0", str(child)],
        capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-3000:]


@pytest.mark.parametrize("name", GENERATORS)
def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path: Path, name: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write_sounds(folder / "sounds", count=4)
    (tmp_path / "child.py").write_text(script(two, name, segment=2048, batch_size=2, steps=4))
    run_in_two_processes(tmp_path / "child.py")
    list(Trainer(tiny_config(one, generator=GENERATORS[name], segment=2048, batch_size=4, steps=4)))
    mine, theirs = losses(one), losses(two)
    assert list(theirs) == [1, 2, 3, 4]  # one process writes the log
    for step, expected in mine.items():
        assert theirs[step] == pytest.approx(expected, rel=2e-4, abs=1e-5), step
    assert (two / "run" / "generator.safetensors").exists()


TICKING = """
import types
import melvoc.train.pace, melvoc.train.trainer
def tick(count=[0.0]):
    count[0] += 1.0
    return count[0]
melvoc.train.pace.time = melvoc.train.trainer.time = types.SimpleNamespace(monotonic=tick)
"""
ENDING = """
Path({folder!r}, f"ended-{{trainer._world.rank}}").write_text(f"{{trainer.step}} {{trainer.finished}}")
"""


def test_two_processes_spend_their_minutes_to_the_same_step(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=5)
    changes = {"steps": None, "checkpoint_every": None, "minutes": 3, "batch_size": 1}
    child = TICKING + script(tmp_path, "hifigan", **changes) + ENDING.format(folder=str(tmp_path))
    (tmp_path / "child.py").write_text(child)
    run_in_two_processes(tmp_path / "child.py")
    steps = losses(tmp_path)
    assert list(steps) == list(range(1, len(steps) + 1))
    assert len(steps) > 5
    for rank in (0, 1):
        assert (tmp_path / f"ended-{rank}").read_text() == f"{len(steps)} True"
    assert (tmp_path / "run" / "results.json").exists()


DYING = """
import os, sys
from melvoc.cli import main
from melvoc.train import Trainer
step = Trainer._one_step
def dying(self):
    if os.environ["RANK"] == "1" and self.step == 2:
        os._exit(9)
    return step(self)
Trainer._one_step = dying
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_that_dies_ends_the_others_with_one_line(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", count=4)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    arguments = ["train", str(tmp_path / "sounds"), "-o", str(tmp_path / "run"), "--spec", str(tmp_path / "spec.json")]
    arguments += ["--preset", "slim", "--segment", "1024", "--batch-size", "1", "--device", "cpu", "--steps", "50"]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", DYING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    (_, said), _ = (child.communicate(timeout=120) for child in children)
    assert [child.returncode for child in children] == [2, 9]
    assert said.startswith("melvoc: error: process 0 of 2 stops, since another one has ended"), said
    assert said.count("\n") == 1, said
