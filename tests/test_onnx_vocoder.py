"""Vocoders in ONNX files: melvoc's exports and other people's, through onnxruntime."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import melvoc
from melvoc import CheckpointError, MelSpec, MelvocError, OptionError, SpecError
from melvoc.errors import MissingPackageError
from melvoc.testing import check_vocoder

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'melvoc[onnx]'")
pytest.importorskip("onnx", reason="needs the package that makes ONNX files: pip install onnx")

from onnx import TensorProto, helper
from onnx_graphs import CONTEXT, SPEC, metadata, network, save, sherpa_vocos, squeezed, transposed, weights, write


def a_mel(rows: int = 2, frames: int = 30, spec: MelSpec = SPEC) -> Tensor:
    wave = 0.1 * torch.randn(rows, spec.samples(frames) + spec.n_fft, generator=torch.Generator().manual_seed(5))
    return melvoc.MelSpectrogram(spec)(wave)[..., :frames]


def same(voc: melvoc.Vocoder, expected: Tensor, mel: Tensor | None = None) -> None:
    wave = voc.mel_to_waveform(a_mel() if mel is None else mel, spec=voc.spec)
    assert wave.shape == expected.shape
    assert (wave - expected).abs().max() < 1e-4
    assert wave.abs().max() > 0.01, "silence would prove nothing"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = metadata(name="mine", licence="MIT", provenance={"from": "a test"}, context_frames=list(CONTEXT))
    return write(tmp_path_factory.mktemp("onnx") / "mine.onnx", texts)


def test_an_export_is_a_vocoder_like_others(exported: str) -> None:
    voc = melvoc.load(exported)
    assert (voc.name, voc.licence, voc.provenance, voc.spec) == ("mine", "MIT", {"from": "a test"}, SPEC)
    assert (voc.device.type, voc.dtype, voc.engine_name) == ("cpu", torch.float32, "onnxruntime")
    same(voc, network(a_mel()))
    check_vocoder(voc)


@pytest.mark.parametrize("frames", [1, 2, 7, 400])
@pytest.mark.parametrize("rows", [1, 3])
def test_its_sound_is_the_networks(exported: str, rows: int, frames: int) -> None:
    same(melvoc.load(exported), network(a_mel(rows, frames)), a_mel(rows, frames))


def test_it_says_about_itself_what_the_file_says(exported: str) -> None:
    known = melvoc.info(exported)
    assert (known.name, known.spec, known.licence, known.origin) == ("mine", SPEC, "MIT", "from: a test")
    assert known.bytes == Path(exported).stat().st_size


def test_pieces_are_the_whole_and_know_their_latency(exported: str) -> None:
    voc, mel = melvoc.load(exported), a_mel(frames=40)
    stream = voc.stream(spec=SPEC)
    assert stream.latency_frames == CONTEXT[1]
    pieces = [stream.push(piece) for piece in mel.split([1, 0, 2, 9, 1, 1, 26], dim=-1)]
    wave = torch.cat([*pieces, stream.flush()], dim=-1)
    assert (wave - network(mel)).abs().max() < 1e-5
    assert (voc.mel_to_waveform(mel, spec=SPEC, block_frames=3) - network(mel)).abs().max() < 1e-5


def test_without_context_it_says_that_it_cannot_stream(tmp_path: Path) -> None:
    voc = melvoc.load(write(tmp_path / "x.onnx", metadata()))
    with pytest.raises(MelvocError, match=r"cannot stream: .* does not say how many frames around one"):
        voc.stream()
    check_vocoder(voc)


def test_the_spec_comes_from_the_file_or_the_caller(exported: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx")
    with pytest.raises(SpecError, match=r"x\.onnx: does not say what its mel is; pass spec="):
        melvoc.load(path)
    same(melvoc.load(path, spec=SPEC), network(a_mel()))
    assert melvoc.load(exported, spec=SPEC).spec == SPEC
    with pytest.raises(SpecError, match=r"spec= is another. f_max: the file has 4000.0, spec= 3000.0. Omit spec="):
        melvoc.load(exported, spec=SPEC.replace(f_max=3000.0))
    with pytest.raises(SpecError, match="is a dict, but it is a melvoc.MelSpec, or the name of a preset"):
        melvoc.load(path, spec={})
    with pytest.raises(SpecError, match="is not a preset"):
        melvoc.load(path, spec="nonsense")


def test_a_preset_names_the_spec(tmp_path: Path) -> None:
    spec = MelSpec.preset("bigvgan_v2_22khz_80band_256x")
    own = weights(n_mels=80, hop=256)
    voc = melvoc.load(
        write(tmp_path / "x.onnx", shape=("b", 80, "t"), tensors=own), spec="bigvgan_v2_22khz_80band_256x"
    )
    assert voc.spec == spec
    same(voc, network(a_mel(spec=spec), own), a_mel(spec=spec))


def drop(*axes: int) -> dict[str, Any]:
    after, constants = squeezed(*axes)
    return {"after": after, "tensors": weights() | constants}


@pytest.mark.parametrize(
    "form",
    [
        {"inputs": ("spectrogram", "waveform")},
        {"shape": ("b", "n", "t")},
        {"shape": (1, 20, "t")},
        {"shape": ("b", "t", 20), "before": transposed()},
        {"shape": (1, None, 20), "before": transposed()},
        drop(1),
        drop(0, 1),
        {"shape": (1, 20, "t")} | drop(0, 1),
    ],
    ids=["names", "nothing said", "batch of 1", "transposed", "transposed, batch of 1", "[B, N]", "[N]", "[N] of 1"],
)  # fmt: skip
def test_other_peoples_graphs(form: dict[str, Any], tmp_path: Path) -> None:
    same(melvoc.load(write(tmp_path / "x.onnx", **form), spec=SPEC), network(a_mel()))


def test_a_graph_without_a_batch(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("Transpose", ["mel"], ["m"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["m", "zero"], ["x"]),
    )
    own = drop(0, 1)
    own["tensors"] |= {"zero": torch.tensor([0])}
    voc = melvoc.load(write(tmp_path / "x.onnx", shape=("t", 20), before=nodes, **own), spec=SPEC)
    same(voc, network(a_mel()))


def test_a_graph_in_half_precision(tmp_path: Path) -> None:
    cast = (helper.make_node("Cast", ["mel"], ["x"], to=TensorProto.FLOAT),)
    voc = melvoc.load(write(tmp_path / "x.onnx", kind=TensorProto.FLOAT16, before=cast), spec=SPEC)
    same(voc, network(a_mel().half().float()))


def test_two_channels(tmp_path: Path) -> None:
    own = weights(channels=2)
    voc = melvoc.load(write(tmp_path / "x.onnx", tensors=own), spec=SPEC)
    assert voc.channels == 2
    same(voc, network(a_mel(), own))


def test_samples_beyond_the_last_frame_are_cut_and_missing_ones_come_from_it_repeated(tmp_path: Path) -> None:
    more = melvoc.load(write(tmp_path / "more.onnx", pads=(32, 31)), spec=SPEC)
    same(more, network(a_mel()))
    less = melvoc.load(write(tmp_path / "less.onnx", pads=(32, 96)), spec=SPEC)
    longer = torch.cat([a_mel(), a_mel()[..., -1:]], dim=-1)
    same(less, network(longer)[..., : SPEC.samples(30)])
    check_vocoder(less)


def test_another_hop_length_than_the_specs_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"makes \[1, 1, 512\] of 8 frames .* a frame is 32 samples") as caught:
        melvoc.load(path, spec=SPEC.replace(hop_length=32))
    assert caught.value.path == path


def test_sound_at_another_rate_than_the_mels(tmp_path: Path) -> None:
    spec = MelSpec(sample_rate=4000, n_fft=256, hop_length=32, n_mels=20)
    voc = melvoc.load(write(tmp_path / "x.onnx", metadata(spec, samples_per_frame=64, sample_rate=8000)))
    assert (voc.sample_rate, voc.samples_per_frame) == (8000, 64)
    same(voc, network(a_mel(spec=spec)), a_mel(spec=spec))
    check_vocoder(voc)


def test_conditions_are_inputs_of_their_own(tmp_path: Path) -> None:
    own = weights() | {"w0": 0.01 * torch.ones(20, 1, 1)}
    nodes = (helper.make_node("Conv", ["f0", "w0"], ["p"]), helper.make_node("Add", ["mel", "p"], ["x"]))
    texts = metadata(
        conditions={"f0": {"unit": "Hz", "low": 0.0, "high": float("inf"), "channels": 1}}, context_frames=[3, 3]
    )
    path = write(tmp_path / "x.onnx", texts, before=nodes, tensors=own)
    import onnx

    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("f0", TensorProto.FLOAT, ("batch", 1, "frames")))
    onnx.save(model, path)
    voc, f0 = melvoc.load(path), 400 * torch.rand(2, 30)
    wave = voc.mel_to_waveform(a_mel(), spec=SPEC, conditions={"f0": f0})
    assert (wave - network(a_mel() + 0.01 * f0[:, None])).abs().max() < 1e-4
    check_vocoder(voc)


@pytest.mark.parametrize("center", ["1", "0"])
def test_sherpas_vocos_is_a_spectrum(center: str, tmp_path: Path) -> None:
    texts = {"model_type": "vocos", "n_fft": "256", "hop_length": "64", "win_length": "256", "center": center}
    path, spectrum = sherpa_vocos(tmp_path / "x.onnx", 129, texts)
    mel = 0.3 * a_mel()
    wave = melvoc.load(path, spec=SPEC).mel_to_waveform(mel, spec=SPEC)
    if center == "1":
        expected = torch.istft(spectrum(mel), 256, 64, window=torch.hann_window(256))
        assert (wave[:, 0, : expected.shape[-1]] - expected.clamp(-1, 1)).abs().max() < 1e-4
    assert wave.shape == (2, 1, SPEC.samples(30))
    assert wave.std() > 0.01


def test_sherpas_vocos_with_another_window_is_refused(tmp_path: Path) -> None:
    path, _ = sherpa_vocos(tmp_path / "x.onnx", 129, {"model_type": "vocos", "window_type": "hamming"})
    with pytest.raises(CheckpointError, match="its inverse transform is not one of a Hann window"):
        melvoc.load(path, spec=SPEC)


DEEP = {
    "shape": ("b", 1, 20, "t"),
    "before": (helper.make_node("Squeeze", ["mel", "one"], ["x"]),),
    "tensors": weights() | {"one": torch.tensor([1])},
}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"shape": ("b", 80, "t")}, r"mel \['b', 80, 't'\] .* but this spec has n_mels=20"),
        ({"shape": (2, 20, "t")}, "a fixed batch"),
        ({"shape": ("b", 20, 100)}, "a fixed number of frames"),
        (DEEP, r"a mel is floating point, \[batch, n_mels, frames\]"),
        ({"outputs": 2}, "its outputs are audio .*, audio1 .* but a vocoder's is one sound"),
    ],
)
def test_what_is_no_vocoder_is_refused(form: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx", **form)
    with pytest.raises(CheckpointError, match=message) as caught:
        melvoc.load(path, spec=SPEC)
    assert caught.value.path == path


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 20, "t"]) for name in ("mel", "noise", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["mel", "noise"], ["y"])], "g", values[:2], values[2:])
    with pytest.raises(CheckpointError, match=r"its inputs are mel .*, noise .* but a vocoder's is one mel"):
        melvoc.load(save(tmp_path / "x.onnx", graph), spec=SPEC)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec", "{"),
        ("spec", {"sample_rate": 8000}),
        ("provenance", "[1]"),
        ("conditions", {"f0": 3}),
        *(("conditions", {"f0": {"unit": "Hz", "low": 0, "high": 500} | wrong}) for wrong in (
            {"unit": 3}, {"low": "0"}, {"high": "inf"}, {"low": 501}, {"low": float("nan")}, {"high": 10**400},
            {"channels": 0}, {"channels": 1.5}, {"channels": 10**10},
        )),
        ("context_frames", "[1]"),
        ("context_frames", [1, -1]),
        ("states", {"tail": {"shape": [1], "kind": "float8", "value": 0}}),
        ("states", {"tail": {"shape": [-1], "kind": "int64", "value": 0}}),
        ("states", {"tail": {"shape": ["batch", 1 << 20, 1 << 20], "kind": "int64", "value": 0}}),
        ("states", [1]),
        ("latency_samples", -1),
        ("samples_per_frame", "0"),
        ("sample_rate", "true"),
    ],
)  # fmt: skip
def test_damaged_metadata_is_named(key: str, value: object, tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx", metadata(**{key: value}))
    with pytest.raises(CheckpointError, match=rf"x\.onnx: melvoc\.{key} in its metadata is ") as caught:
        melvoc.load(path)
    assert caught.value.path == path


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF" + bytes(100)], ids=["empty", "text", "wav"])
def test_a_broken_file(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    for call in (melvoc.load, melvoc.info):
        with pytest.raises(CheckpointError, match=r"x\.onnx: damaged, or no ONNX model") as caught:
            call(str(path))
        assert caught.value.path == str(path)
    assert capfd.readouterr() == ("", ""), "onnxruntime's own log"


def test_a_cut_file_and_a_missing_one(exported: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(Path(exported).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged, or no ONNX model"):
        melvoc.load(path)
    with pytest.raises(FileNotFoundError, match=r"no\.onnx: no such file") as caught:
        melvoc.load("no.onnx")
    assert isinstance(caught.value, CheckpointError)


def test_without_onnxruntime_it_says_how_to_get_it(exported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"ONNX files need onnxruntime .*; pip install 'melvoc\[onnx\]'"):
        melvoc.load(exported)


def test_options(exported: str) -> None:
    assert melvoc.load(exported, device="auto", dtype=torch.float32, memory="low", refine=1).post
    with pytest.raises(OptionError, match=r"takes no option 'n_iter'; it takes spec, engine, memory"):
        melvoc.load(exported, n_iter=3)
    with pytest.raises(OptionError, match="takes no option 'prefix'"):
        melvoc.load(exported, prefix="x.")
    with pytest.raises(OptionError, match="computes in the types of its graph, not in torch.float16"):
        melvoc.load(exported, dtype=torch.float16)
    with pytest.raises(OptionError, match="computes in the types of its graph, not in torch.float64"):
        melvoc.load(exported).double()
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="device='cuda' is not available"):
            melvoc.load(exported, device="cuda")


def test_pickles_and_copies_read_the_file_again(exported: str, tmp_path: Path) -> None:
    path = tmp_path / "moved.onnx"
    path.write_bytes(Path(exported).read_bytes())
    voc = melvoc.load(path)
    data = pickle.dumps(voc)
    same(pickle.loads(data), network(a_mel()))
    path.unlink()
    same(voc, network(a_mel()))
    with pytest.raises(CheckpointError, match="no such file"):
        pickle.loads(data).mel_to_waveform(a_mel(), spec=SPEC)


def test_evaluate_takes_it(exported: str, tmp_path: Path) -> None:
    melvoc.audio.write(tmp_path / "a.wav", 0.1 * torch.randn(8000), 8000)
    found = melvoc.evaluate([tmp_path / "a.wav"], [exported], metrics=["mel_l1"], out=tmp_path / "r")
    assert [row["vocoder"] for row in found.rows] == [exported]
    assert found.rows[0]["mel_l1"] > 0


def test_the_command_line_takes_it_with_the_spec_of_a_foreign_one(tmp_path: Path) -> None:
    melvoc.audio.write(tmp_path / "a.wav", 0.1 * torch.randn(8000), 8000)
    path = write(tmp_path / "x.onnx")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))

    def vocode(*arguments: str) -> Any:
        command = [sys.executable, "-m", "melvoc", "vocode", "a.wav", "-o", "b.wav", "--vocoder", path, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    ended = vocode()
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0].endswith("pass spec= (a melvoc.MelSpec, or the name of a preset)")
    ended = vocode("--spec", "spec.json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert melvoc.audio.read(tmp_path / "b.wav")[0].shape == (1, 8000)
