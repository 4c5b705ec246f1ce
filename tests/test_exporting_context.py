"""How far around a frame a network looks: as far as is said, and no farther, so that overlapping pieces are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import NETWORKS, some_mel, tiny

import melvoc
from melvoc.exporting.context import context_frames
from melvoc.testing import check_vocoder

PLACED = [name for name in NETWORKS if not name.startswith(("flow2gan", "glnet"))]  # that draw no noise


@pytest.mark.parametrize("name", PLACED)
def test_a_frame_reaches_as_far_as_is_said(name: str) -> None:
    voc, place, frames = tiny(name), 100, 200
    found = context_frames(voc)
    assert found is not None
    before, after = found
    mel = some_mel(voc, frames)
    changed = mel.clone()
    changed[..., place] += 1.0
    with torch.no_grad():
        apart = (voc.graph()(mel) - voc.graph()(changed))[0, 0].view(frames, -1).abs().amax(1)
    touched = apart.nonzero()[:, 0]
    assert place - after <= int(touched.min())
    assert int(touched.max()) <= place + before
    assert int(touched.max()) - int(touched.min()) + 2 >= (before + after) // 2, "it is no wild overestimate"


def test_noise_has_a_place() -> None:
    assert context_frames(tiny("flow2gan 1")) is None
    assert context_frames(tiny("glnet")) is None


@pytest.mark.parametrize("name", PLACED)
def test_an_exported_file_streams(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    voc = tiny(name)
    melvoc.export(voc, tmp_path / "x.onnx")
    again, mel = melvoc.load(tmp_path / "x.onnx"), some_mel(voc, 150, batch=2)
    stream = again.stream(spec=voc.spec)
    pieces = [stream.push(piece) for piece in mel.split([1, 3, 60, 0, 1, 1, 84], dim=-1)]
    wave, expected = torch.cat([*pieces, stream.flush()], dim=-1), voc.mel_to_waveform(mel, spec=voc.spec)
    assert stream.latency_frames == voc.stream().latency_frames
    assert (wave - expected).abs().max() < 1e-4
    check_vocoder(again)


def test_a_file_for_sherpa_gives_the_same_sound(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for name in ("hifigan", "vocos"):
        voc = tiny(name)
        melvoc.export(voc, tmp_path / "x.onnx", target="sherpa")
        mel = some_mel(voc, 30, batch=2)
        wave = melvoc.load(tmp_path / "x.onnx").mel_to_waveform(mel, spec=voc.spec)
        assert (wave - voc.mel_to_waveform(mel, spec=voc.spec)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["hifigan", "vocos"])
def test_the_step_of_a_stream_is_a_vocoder_too(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    voc = tiny(name)
    melvoc.export(voc, tmp_path / "x.onnx", streaming=True)
    again, mel = melvoc.load(tmp_path / "x.onnx"), some_mel(voc, 60, batch=2)
    assert again.stream().latency_samples == voc.stream().latency_samples
    wave = again.mel_to_waveform(mel, spec=voc.spec, block_frames=7)
    assert (wave - voc.mel_to_waveform(mel, spec=voc.spec)).abs().max() < 1e-4
    check_vocoder(again)
