"""How far around a frame a network looks: as far as is said, and no farther, so that overlapping pieces are exact."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from exported import NETWORKS, SPEC, some_mel, tiny
from networks import randomised

import melvoc
from melvoc.exporting.context import context_frames
from melvoc.nn.framing import Select, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, add
from melvoc.nn.layers import Conv1d
from melvoc.synthesis import Condition
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


class Gated(melvoc.Vocoder):
    """A pitch that only its comparison with 0 lets through, and which is looked at from afar."""

    channels = property(lambda self: 1)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(name="gated", spec=SPEC)
        self.near, self.far = Conv1d(SPEC.n_mels, 16, 3), Conv1d(1, 16, 31)

    @property
    def conditions(self) -> dict[str, Condition]:
        return {"f0": Condition(unit="Hz", low=0.0, high=math.inf)}

    def graph(self) -> Node:
        count = SPEC.n_mels
        voiced = Map(lambda x: torch.where(x > 0, 1.0, 0.0))
        branches = (Chain((Select(0, count), self.near)), Chain((Select(count, count + 1), voiced, self.far)))
        return Chain((Branches(branches, add), Map(torch.tanh), ToSamples(SPEC.hop_length)))


def test_what_a_comparison_lets_through_reaches_as_far() -> None:
    assert context_frames(randomised(Gated())) == (15, 15)


def test_an_exported_file_with_such_a_condition_streams(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    voc = randomised(Gated())
    melvoc.export(voc, tmp_path / "x.onnx")
    again = melvoc.load(tmp_path / "x.onnx")
    assert again.conditions == voc.conditions, "an endless range, too"
    mel, f0 = some_mel(voc, 90), 200 * torch.randn(1, 90).relu()
    wanted = voc.mel_to_waveform(mel, spec=voc.spec, conditions={"f0": f0})
    got = again.mel_to_waveform(mel, spec=voc.spec, conditions={"f0": f0}, block_frames=20)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


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
