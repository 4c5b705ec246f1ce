"""What `melvoc doctor --tune` keeps, and who uses it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from networks import random_mel, vocoder

import melvoc
from melvoc.cli import main
from melvoc.nn.engines.cpu import tune
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.storage import costs as tuning
from melvoc.storage.cache import cache_folder
from melvoc.storage.costs import costs_file, machine, save_costs, tuned_costs

COSTS = CostModel(multiply=1e-11, stream=2e-11, element=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def costs_of_an_engine() -> CostModel:
    engine = vocoder("bigvgan_v2_tiny").engine()
    assert isinstance(engine, CpuEngine)
    return engine.costs


def test_without_a_file_the_typical_costs_hold(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tuned_costs() is None
    assert costs_of_an_engine() == CostModel()
    assert not cache.exists()
    assert not caplog.records


def test_what_is_saved_is_used(cache: Path) -> None:
    assert save_costs(COSTS) == costs_file() == cache / "cpu-costs.json"
    assert tuned_costs() == COSTS
    assert costs_of_an_engine() == COSTS
    voc = vocoder("bigvgan_v2_tiny")
    assert voc.mel_to_waveform(random_mel(voc, 9)).isfinite().all()
    assert [path.name for path in cache.iterdir()] == ["cpu-costs.json"]  # nothing unfinished beside it


def test_what_other_threads_measured_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """Products are of all threads together: with one of sixteen they would seem to cost sixteen times as much."""
    save_costs(COSTS)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert tuned_costs() is None
    finally:
        torch.set_num_threads(before)
    assert tuned_costs() == COSTS
    assert not caplog.records


def test_a_later_measurement_takes_its_place() -> None:
    save_costs(COSTS)
    save_costs(CostModel())
    assert tuned_costs() == CostModel()


DAMAGED = {
    "nothing": "",
    "cut": '{"machine": "x86',
    "another kind of value": "[]",
    "no costs": "{machine}",
    "a cost that is missing its number": '{machine, "costs": {"multiply": null}}',
    "a negative cost": '{machine, "costs": {"multiply": -1.0}}',
    "not a number": '{machine, "costs": {"multiply": NaN}}',
    "an unknown cost": '{machine, "costs": {"divide": 1.0}}',
    "costs of another kind": '{machine, "costs": [1.0]}',
    "another machine": '{"machine": "abacus", "costs": {}}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning(
    content: str | bytes, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    if isinstance(content, str):
        content = content.replace("{machine", '{"machine": ' + json.dumps(machine())).encode()
    costs_file().write_bytes(content)
    tuning._ignored.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [tuned_costs() for _ in range(3)] == [None] * 3
        assert costs_of_an_engine() == CostModel()
    (record,) = caplog.records
    assert str(costs_file()) in record.getMessage()
    assert "melvoc doctor --tune" in record.getMessage()


def test_no_engine_measures_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "measure", lambda: pytest.fail("a measurement without being asked"))
    voc = vocoder("bigvgan_v2_tiny")
    voc.mel_to_waveform(random_mel(voc, 9))


def test_doctor_measures_when_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tune, "measure", lambda: COSTS)
    assert main(["doctor"]) == 0
    assert "costs: typical ones ('melvoc doctor --tune'" in capsys.readouterr().out
    assert main(["doctor", "--tune"]) == 0
    out = capsys.readouterr().out
    assert "200 GFLOP/s of products, 50 GB/s of weights, 0.000 ns per transform element" in out
    assert f"costs: measured on this machine, {costs_file()}" in out
    assert main(["doctor"]) == 0
    assert f"costs: measured on this machine, {costs_file()}" in capsys.readouterr().out
    assert tuned_costs() == COSTS


def test_doctor_says_where_it_cannot_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tune, "measure", lambda: COSTS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path / "file"))
    assert main(["doctor", "--tune"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert "cpu-costs.json cannot be written" in said
    assert "MELVOC_CACHE" in said


def test_doctor_says_that_numba_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "melvoc.nn.engines.cpu.tune", None)
    assert main(["doctor", "--tune"]) == 2
    assert "nothing to measure; install numba" in capsys.readouterr().err


def test_without_a_home_folder_everything_that_needs_no_cache_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(*arguments: object, **options: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MELVOC_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", nobody)
    assert tuning.tuned_costs() is None
    voc = vocoder("bigvgan_v2_tiny")
    assert voc.mel_to_waveform(random_mel(voc, 5)).shape == (1, 1, 5 * voc.spec.hop_length)
    with pytest.raises(melvoc.MelvocError, match="no home folder for melvoc's cache .*; name one in MELVOC_CACHE"):
        melvoc.load("bigvgan_v2_44khz_128band_512x", local_files_only=True)
    assert main(["doctor"]) == 0
    assert "cache: none (there is no home folder" in capsys.readouterr().out


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MELVOC_CACHE", "~/here")
    assert cache_folder() == tmp_path / "here"
    assert cache_folder("~/there") == tmp_path / "there" / "melvoc"
