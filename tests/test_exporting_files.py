"""`melvoc.export` and `melvoc export`: files that say what they are, or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import SPEC, metadata, run, run_in_pieces, session, some_mel, tiny
from networks import RECORDS
from test_exporting_models import Duet, Whole
from test_parity import REAL

import melvoc
from melvoc import MelvocError, MissingPackageError, OptionError
from melvoc.cli import main
from melvoc.exporting.context import context_frames
from melvoc.options import LoadOptions
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build
from melvoc.synthesis import Condition

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    """The same in both forms; torch.export takes seconds for its first program, so that this one is tried as well."""
    vocoder = tiny("wavenext", licence="MIT", provenance={"repository": "somebody/something"})
    melvoc.export(vocoder, tmp_path / "x.onnx", refine=2)
    check_program(vocoder, tmp_path, frames=(1, 2, 60))
    said = metadata(tmp_path / "x.onnx")
    for field, value in SPEC.to_dict().items():
        assert said[field] == (value if isinstance(value, str) else json.dumps(value)), field
    assert melvoc.MelSpec.from_dict(json.loads(said["melvoc.spec"])) == SPEC
    assert {key: said[f"melvoc.{key}"] for key in ("name", "architecture", "licence", "version", "refine")} == {
        "name": "wavenext", "architecture": "wavenext", "licence": "MIT", "version": melvoc.__version__, "refine": "2",
    }  # fmt: skip
    assert json.loads(said["melvoc.provenance"]) == {"repository": "somebody/something"}
    assert [said[f"melvoc.{key}"] for key in ("sample_rate", "channels", "samples_per_frame")] == ["16000", "1", "16"]
    extra = dict.fromkeys(said, "")
    torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    context = extra.pop("melvoc.context_frames")  # of the network alone
    assert json.loads(context) == list(context_frames(vocoder) or ())
    assert {key: value for key, value in extra.items() if said[key] != value} == {"melvoc.refine": "0"}


def test_conditions_stand_in_the_metadata(tmp_path: Path) -> None:
    melvoc.export(Duet(), tmp_path / "x.onnx")
    said = metadata(tmp_path / "x.onnx")
    assert json.loads(said["melvoc.conditions"]) == {"f0": {"unit": "Hz", "low": 0.0, "high": 500.0, "channels": 1}}
    assert said["melvoc.channels"] == "2"
    assert "melvoc.licence" not in said, "unknown"
    assert [one.name for one in session(tmp_path / "x.onnx").get_inputs()] == ["mel", "f0"]


def test_a_condition_may_not_have_the_name_of_another_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duet = Duet()
    monkeypatch.setattr(Duet, "conditions", property(lambda self: {"last": Condition(unit="", low=0.0, high=1.0)}))
    with pytest.raises(MelvocError, match="has a condition 'last', which is the name of another input or output"):
        melvoc.export(duet, tmp_path / "x.onnx", streaming=True)
    assert not list(tmp_path.iterdir())


def test_a_program_says_its_context_too(tmp_path: Path) -> None:
    voc = tiny("hifigan")
    for file in ("x.onnx", "x.pt2"):
        melvoc.export(voc, tmp_path / file)
    extra = {"melvoc.context_frames": ""}
    torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    assert extra["melvoc.context_frames"] == metadata(tmp_path / "x.onnx")["melvoc.context_frames"]


def test_a_program_leaves_the_vocoder_in_its_own_mode(tmp_path: Path) -> None:
    voc = tiny("hifigan")
    voc.train()
    next(voc.network.children()).eval()  # type: ignore[attr-defined]
    modes = [module.training for module in voc.modules()]
    melvoc.export(voc, tmp_path / "x.pt2")
    assert [module.training for module in voc.modules()] == modes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hifigan", "speecht5", "bigvgan v2", "istftnet", "vocos", "vocos same", "flow2gan 2"])
def test_programs_of_other_architectures(name: str, tmp_path: Path) -> None:
    check_program(tiny(name), tmp_path, frames=(2, 3, 60) if name.startswith("flow2gan") else (1, 2, 60))


def check_program(vocoder: Any, folder: Path, frames: tuple[int, ...]) -> None:
    melvoc.export(vocoder, folder / "x.pt2")
    program = torch.export.load(folder / "x.pt2").module()
    for count, batch in zip(frames, (1, 3, 1), strict=True):
        mel = some_mel(vocoder, count, batch)
        torch.testing.assert_close(program(mel), vocoder.mel_to_waveform(mel, spec=SPEC), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_program_of_plain_torch_and_one_with_conditions(tmp_path: Path) -> None:
    melvoc.export(Whole(), tmp_path / "whole.pt2")
    assert torch.export.load(tmp_path / "whole.pt2").module()(torch.zeros(2, 8, 9)).shape == (2, 1, 144)
    duet = Duet()
    melvoc.export(duet, tmp_path / "duet.pt2")
    mel, f0 = some_mel(duet, 6), torch.rand(1, 1, 6) * 300
    sound = torch.export.load(tmp_path / "duet.pt2").module()(mel, f0)
    wanted = duet.mel_to_waveform(mel, spec=SPEC, conditions={"f0": f0})
    torch.testing.assert_close(sound, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_files_are_in_float32_and_the_vocoder_stays_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    vocoder = tiny("hifigan").to(dtype)
    melvoc.export(vocoder, tmp_path / "x.onnx")
    assert vocoder.dtype == dtype
    mel = some_mel(vocoder, 9)
    wanted = vocoder.mel_to_waveform(mel, spec=SPEC).float()
    tolerance = 1e-5 if dtype == torch.float64 else 3e-2
    torch.testing.assert_close(run(session(tmp_path / "x.onnx"), mel=mel), wanted, atol=tolerance, rtol=0)


def test_the_vocoders_own_refinement_comes_along(tmp_path: Path) -> None:
    melvoc.save(tiny("vocos"), tmp_path / "v.safetensors")
    vocoder = melvoc.load(tmp_path / "v.safetensors", refine=1, device="cpu")
    melvoc.export(vocoder, tmp_path / "x.onnx")
    assert metadata(tmp_path / "x.onnx")["melvoc.refine"] == "1"
    melvoc.export(vocoder, tmp_path / "x.onnx", refine=0)
    assert metadata(tmp_path / "x.onnx")["melvoc.refine"] == "0"


def test_what_is_refused_and_that_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = tiny("vocos")
    for voc, file, options, error, message in (
        (vocoder, "x.tflite", {}, OptionError, r"x\.tflite ends in \.tflite, but a file is \.onnx or \.pt2; rename it"),
        (vocoder, "x.onnx", {"target": "ncnn"}, OptionError, "target='ncnn', but it is one of onnx, sherpa"),
        (vocoder, "x.pt2", {"target": "sherpa"}, OptionError, r"sherpa-onnx reads \.onnx; write one"),
        (vocoder, "x.pt2", {"streaming": True}, OptionError, r"streaming .* is for \.onnx"),
        (vocoder, "x.onnx", {"streaming": "no"}, OptionError, "streaming='no', but it is True or False"),
        (vocoder, "x.onnx", {"refine": -1}, OptionError, "refine=-1"),
        (vocoder, "x.pt2", {"refine": 1}, MelvocError, r"not refine; give refine=0, or write \.onnx"),
        ("vocos", "x.onnx", {}, OptionError, r"vocoder is a str, but export takes a melvoc\.Vocoder"),
        (melvoc.load("griffinlim"), "x.onnx", {}, MelvocError, "Griffin-Lim has no network, but goes over the whole"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            melvoc.export(voc, tmp_path / file, **options)  # type: ignore[arg-type]
    for file in ("missing/x.onnx", "missing/x.pt2"):
        with pytest.raises(MelvocError, match=r"missing/x\..*: cannot be written \(No such file.*the folder exist"):
            melvoc.export(vocoder, tmp_path / file)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"need the package onnx: pip install 'melvoc\[onnx\]'"):
        melvoc.export(vocoder, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocoder = tiny("hifigan")
    source = str(tmp_path / "v.safetensors")
    melvoc.save(vocoder, source)
    mel = some_mel(vocoder, 12)
    for name, options in (
        ("x.onnx", ["--refine", "0"]),
        ("s.onnx", ["--target", "sherpa"]),
        ("p.onnx", ["--streaming"]),
    ):
        assert main(["export", source, "-o", str(tmp_path / name), "--device", "cpu", *options]) == 0
    wanted = vocoder.mel_to_waveform(mel, spec=SPEC)
    for name in ("x.onnx", "s.onnx"):
        torch.testing.assert_close(run(session(tmp_path / name), mel=mel), wanted, atol=2e-5, rtol=0)
    assert torch.cat(run_in_pieces(session(tmp_path / "p.onnx"), [mel]), -1).shape == wanted.shape
    assert main(["export", "griffinlim", "-o", str(tmp_path / "g.onnx")]) == 2
    assert "Griffin-Lim has no network" in capsys.readouterr().err


@pytest.mark.slow
def test_what_torch_export_does_not_understand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In one line, and nothing of its tracing stays behind in what melvoc keeps."""
    vocoder = tiny("glnet", spec=SPEC)
    with pytest.raises(MelvocError, match=r"glnet cannot become a \.pt2: torch\.export says: "):
        melvoc.export(vocoder, tmp_path / "x.pt2")
    assert not capfd.readouterr().err
    mel = vocoder.mel(torch.rand(400) - 0.5, sample_rate=16000)
    assert bool(vocoder.mel_to_waveform(mel, refine=1).isfinite().all())


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_generators(name: str, data_dir: Path, tmp_path: Path) -> None:
    """Universal V1 and LJ V2, on real speech."""
    folder = data_dir / "weights" / REAL[name][0]
    vocoder = build(convert(folder / REAL[name][1], config=folder / "config.json"), LoadOptions(device="cpu"))
    melvoc.export(vocoder, tmp_path / "x.onnx")
    size = 4 * sum(parameter.numel() for parameter in vocoder.parameters())
    assert size < (tmp_path / "x.onnx").stat().st_size < 1.01 * size + 100_000
    wave, rate = melvoc.audio.read(min((data_dir / "audio" / "ljspeech").glob("*.[fw]*")))
    mel = vocoder.mel(wave[:1, : 4 * rate], sample_rate=rate)
    wanted = vocoder.mel_to_waveform(mel)
    torch.testing.assert_close(run(session(tmp_path / "x.onnx"), mel=mel), wanted, atol=1e-4, rtol=0)
    melvoc.export(vocoder, tmp_path / "p.onnx", streaming=True)
    pieces = run_in_pieces(session(tmp_path / "p.onnx"), list(mel.split(16, dim=-1)))
    torch.testing.assert_close(torch.cat(pieces, -1), wanted, atol=1e-4, rtol=0)


def test_every_architecture_is_tried() -> None:
    from exported import NETWORKS

    tried = {RECORDS[type(network())].name for network in NETWORKS.values()}
    assert tried == {record.name for record in RECORDS.values()}, "a new one belongs in tests/exported.py"


def test_an_onnx_file_is_not_exported_again(tmp_path: Path) -> None:
    melvoc.export(tiny("vocos"), tmp_path / "x.onnx")
    for name in ("y.onnx", "y.pt2"):
        with pytest.raises(MelvocError, match="vocos is an ONNX file already; copy it"):
            melvoc.export(melvoc.load(tmp_path / "x.onnx"), tmp_path / name)
