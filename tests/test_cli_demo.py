"""`melvoc demo`: sounds of its own, and a page with what vocoders make of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import VOCODERS

import melvoc
from melvoc.cli import main
from melvoc.cli.demo import RATE, SOUNDS, levelled


@pytest.mark.parametrize("name", SOUNDS)
def test_its_sounds_are_always_the_same_and_whole(name: str) -> None:
    wave = levelled(SOUNDS[name]())
    assert wave.shape == (3 * RATE,)
    assert wave.abs().max() == pytest.approx(0.7)
    assert wave[-1] == 0
    assert torch.equal(wave, levelled(SOUNDS[name]()))
    mel = melvoc.MelSpectrogram(melvoc.MelSpec.preset("griffinlim"))(wave)
    assert mel.amax() > 0, "it is loud"


def test_a_page_with_each_sound_and_vocoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    melvoc.save(VOCODERS["vocos_tiny"], tmp_path / "tiny.safetensors")
    given = ["demo", "-o", str(tmp_path / "out"), "--vocoder", "griffinlim", str(tmp_path / "tiny.safetensors")]
    assert main([*given, "--refine", "0", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'report.html'}: open it in a browser\n"
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [Path(row["file"]).stem for row in rows[::4]] == ["chord", "drums", "vowel"]
    assert len(rows) == 12
    assert sorted(path.name for path in (tmp_path / "out" / "sounds").iterdir()) == [f"{name}.wav" for name in SOUNDS]
    assert main(given) == 2
    assert "has a report already" in capsys.readouterr().err


def test_without_a_download_it_is_griffin_lim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{Path('melvoc-demo', 'report.html')}: open it in a browser",
        f"Griffin-Lim alone; for better sound: --vocoder {melvoc.list_vocoders()[0]} (`melvoc list`)",
    ]


def test_what_loads_with_a_further_option_alone_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was accepted without verification is in the cache, but no plain load takes it."""
    monkeypatch.setattr(melvoc, "info", lambda name, cache_dir: SimpleNamespace(cached="24khz" in name), raising=False)
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(["demo", "-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "own")]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["vocoder"] for row in rows} == {"griffinlim"}
