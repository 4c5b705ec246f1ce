"""Real engines run what melvoc.batch has, and the command line runs on a cluster: Ray, datasets, Spark.

One cluster of two workers for all of them, and tiny vocoders: what is tested is rows, not sound.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import VOCODERS, random_mel

import melvoc
from melvoc.batch import Mel, Vocode, write_audio
from melvoc.cli import main
from melvoc.cli.folders import Job
from melvoc.cli.runners import on_ray

pytestmark = pytest.mark.slow
VOC = VOCODERS["vocos_tiny"]
BAD = {
    3: np.full((100, 6), np.nan, np.float32),
    700: np.zeros((100, 0), np.float32),
    1500: np.zeros((9, 4), np.float32),
}
BOUND = 1e-4  # the page's


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    melvoc.save(VOC, file)
    return str(file)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of two processors, as a machine of its own would start it: nothing says how many threads."""
    ray = pytest.importorskip("ray", reason="needs ray[data]")
    pytest.importorskip("ray.data", reason="needs ray[data]")
    terminate = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=200 * 2**20,
        )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    signal.signal(signal.SIGTERM, terminate)  # Ray's own handler, which it leaves, ends the process


def mel_of(number: int) -> np.ndarray:
    return BAD[number] if number in BAD else random_mel(VOC, 3 + number % 10, seed=number)[0].numpy()


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Every row once, its sound as long as its mel, and the bad ones with a sentence."""
    assert sorted(row["id"] for row in rows) == list(range(len(rows)))
    for row in rows:
        number = row["id"]
        assert bool(row["error"]) == (number in BAD), row["error"]
        frames = 0 if number in BAD else 3 + number % 10
        assert len(row["audio"]) == frames * VOC.samples_per_frame


# Ray


def test_two_workers_one_killed_and_shuffled_batches_are_equal(ray: Any, path: str, tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    class Mortal:  # as a user would write it: with state, made in the actor
        def __init__(self) -> None:
            self.vocode = Vocode(path, device="cpu")

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            made = self.vocode(batch)
            if 1000 in batch["id"] and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return made | {"threads": np.full(len(batch["id"]), torch.get_num_threads())}

    numbers, found = list(range(2000)), []
    for seed, size in ((None, 64), (1, 37)):
        if seed is not None:
            random.Random(seed).shuffle(numbers)
        items = [{"id": number, "mel": mel_of(number)} for number in numbers]
        made = ray.data.from_items(items, override_num_blocks=20).map_batches(
            Mortal, batch_size=size, compute=ray.data.ActorPoolStrategy(size=2)
        )
        rows = made.take_all()
        check_rows(rows)
        assert {row["threads"] for row in rows} == {1}, "as many as an actor has processors"
        found.append({row["id"]: row["audio"] for row in rows})
    assert marker.exists()
    for number, audio in found[0].items():
        np.testing.assert_allclose(audio, found[1][number], atol=BOUND, rtol=0)
    for number in (0, 1999):
        expected = VOC.mel_to_waveform(mel_of(number))[0, 0].numpy()
        np.testing.assert_allclose(found[0][number], expected, atol=BOUND, rtol=0)


def test_a_job_goes_on_where_it_was(ray: Any, path: str, tmp_path: Path) -> None:
    """Callables as they are, in tasks: filter, sound to mel, mel to sound, files; only what is missing is made."""
    wave = (0.2 * torch.sin(torch.arange(24000) * 0.05)).numpy()
    items = [{"id": f"s{n % 2}/{n}", "sound": wave[: 6000 + 100 * n]} for n in range(20)]
    files = write_audio(tmp_path / "out")
    files({"id": ["s0/0"], "audio": [np.zeros(9, np.float32)], "audio_rate": [24000]})

    def job() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            ray.data.from_items(items, override_num_blocks=2)
            .filter(files.todo)
            .map_batches(Mel(VOC.spec, rate=24000))
            .map_batches(Vocode(path, device="cpu"))
            .map_batches(files)
            .take_all()
        )
        return rows

    rows = job()
    assert len(rows) == 19
    assert {row["error"] for row in rows} == {""}
    assert all("audio" not in row for row in rows)
    for row in rows:
        assert row["path"] == str(tmp_path / "out" / f"{row['id']}.wav")
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 20
    assert job() == []


# The command line


def put(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"d{number % 2}").mkdir(parents=True, exist_ok=True)
        tone = 0.3 * torch.sin(torch.arange(2400 + number) * 0.01 * number)
        melvoc.audio.write(folder / f"d{number % 2}" / f"{number}.wav", tone.expand(2, -1), 24000)


def test_a_folder_on_a_cluster_is_what_it_is_here(
    ray: Any, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("in"), 20)
    Path("in/broken.wav").write_bytes(b"RIFF")
    Path("in/d0/also.wav").write_bytes(b"RIFF")
    command = ["vocode", "in", "--vocoder", path, "--device", "cpu", "--subtype", "PCM_24"]
    assert main([*command, "-o", "here"]) == 1
    here = capsys.readouterr()
    assert main([*command, "-o", "there", "--ray"]) == 1
    there = capsys.readouterr()
    assert there.out == here.out.replace("here", "there") == "there: 20 made, 2 failed\n"
    assert there.err == here.err
    made = sorted(file.relative_to("here") for file in Path("here").rglob("*.wav"))
    assert sorted(file.relative_to("there") for file in Path("there").rglob("*")) == sorted(
        {*made, *(file.parent for file in made)}
    )
    for file in made:
        assert ("here" / file).read_bytes() == ("there" / file).read_bytes()
    Path("there/d1/1.wav").write_bytes(b"mine")
    assert main([*command, "-o", "there", "--ray"]) == 1
    assert "there: 0 made, 20 skipped (already there; --overwrite makes them anew), 2 failed" in capsys.readouterr().out
    assert Path("there/d1/1.wav").read_bytes() == b"mine"


def test_sigterm_leaves_nothing_half_written_on_a_cluster_either(path: str, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs ray[data]")
    put(tmp_path / "in", 300)
    process = subprocess.Popen(
        [sys.executable, "-m", "melvoc", "vocode", "in", "-o", "out", "--vocoder", path, "--device", "cpu", "--ray"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while process.poll() is None and not list(tmp_path.glob("out/*/[!.]*.wav")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert "melvoc: error: terminated; nothing half-written was left" in err.splitlines(), err  # Ray may say more
    made = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert 0 < len(made) < 300
    for file in made:
        melvoc.audio.read(file)


def test_a_file_that_kills_its_worker_takes_none_with_it(ray: Any, tmp_path: Path) -> None:
    """Neither those that travel with it, nor those that wait for the same worker."""
    folder = tmp_path

    def make() -> Callable[[Job], object]:
        def work(job: Job) -> None:
            if job.source.name == "11":
                os.kill(os.getpid(), signal.SIGKILL)
            job.target.write_text("made")

        return work

    jobs = [Job(Path("in", str(number)), folder / str(number)) for number in range(24)]
    results = list(on_ray(make, "", iter(jobs)))
    assert results == [None] * 23 + ["in/11: its worker died, again and again; is memory short?"]
    assert sorted(int(made.name) for made in folder.iterdir()) == [n for n in range(24) if n != 11]


# datasets


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.parametrize("processes", [None, 2])
@pytest.mark.parametrize("form", [None, "numpy"])
def test_datasets_map_it(datasets: Any, path: str, form: str | None, processes: int | None) -> None:
    numbers = list(range(40))
    rows = [*map(mel_of, numbers[:-1]), BAD[700]]  # bad ones in the first batch and in the last
    given = datasets.Dataset.from_dict({"id": numbers, "mel": [row.tolist() for row in rows]}).with_format(form)
    made = given.map(Vocode(path, device="cpu"), batched=True, batch_size=7, num_proc=processes)
    assert made.column_names == ["id", "mel", "audio", "audio_rate", "error"]
    assert [bool(text) for text in made["error"]] == [n in (3, 39) for n in numbers]
    for row in made.with_format("numpy").select([0, 8, 38]):
        expected = VOC.mel_to_waveform(rows[int(row["id"])])[0, 0].numpy()
        np.testing.assert_allclose(row["audio"], expected, atol=BOUND, rtol=0)


def test_sounds_of_datasets_become_files(datasets: Any, path: str, tmp_path: Path) -> None:
    put(tmp_path / "in", 4)
    melvoc.audio.write(tmp_path / "mono.wav", 0.2 * torch.sin(torch.arange(4000) * 0.1), 16000)
    names = [str(tmp_path / "in/d0/0.wav"), str(tmp_path / "mono.wav")]
    given = datasets.Dataset.from_dict({"id": ["stereo", "mono"], "audio": names})
    given = given.cast_column("audio", datasets.Audio(decode=False))  # paths and bytes; decoding needs torchcodec
    vocode = Vocode(path, device="cpu", sound="audio", audio="copy")
    made = given.map(vocode, batched=True).map(
        write_audio(tmp_path / "out", audio="copy", rate="copy_rate"), batched=True, remove_columns=["copy"]
    )
    assert "a row is one channel" in made["error"][0]
    assert made["path"][:] == ["", str(tmp_path / "out" / "mono.wav")]
    wave, rate = melvoc.audio.read(tmp_path / "out" / "mono.wav")
    assert (wave.shape, rate) == ((1, 6000), 24000)


# Spark


@pytest.mark.skipif(not shutil.which("java"), reason="needs a Java runtime")
def test_spark_maps_it_in_pandas(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = pytest.importorskip("pyspark", reason="needs pyspark")
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    session = pyspark.sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    vocode = Vocode(path, device="cpu")

    def frames(batches: Iterator[Any]) -> Iterator[Any]:
        for frame in batches:
            made = vocode({name: frame[name].to_numpy() for name in frame})
            yield pandas.DataFrame({name: list(made[name]) for name in ("id", "audio", "audio_rate", "error")})

    rows = [mel_of(n) for n in range(40)]
    given = session.createDataFrame(
        [(n, row.tolist()) for n, row in enumerate(rows)], "id long, mel array<array<float>>"
    )
    made = given.mapInPandas(frames, "id long, audio array<float>, audio_rate long, error string").collect()
    session.stop()
    check_rows([row.asDict() for row in made])
    expected = VOC.mel_to_waveform(rows[8])[0, 0].numpy()
    np.testing.assert_allclose(next(row.audio for row in made if row.id == 8), expected, atol=BOUND, rtol=0)
