"""Architectures of other packages: everything that works for melvoc's own works for them."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from networks import pieces, random_mel, randomised
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from training import write_sounds

import melvoc
from melvoc import registry
from melvoc.architecture import Architecture, NetworkConfig
from melvoc.cli import main
from melvoc.errors import CheckpointError, OptionError, PluginError
from melvoc.neural import NeuralVocoder
from melvoc.registry import ARCHITECTURES, architecture, own_architectures
from melvoc.storage.conversion import recognise
from melvoc.train.recipes import trained_architecture

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "melvoc"
PUBLISHED = {"bands": 40, "hop": 128, "width": 16, "rate": 16000, "optimizer": "adam"}


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    """The example package, straight from its source."""
    file = ROOT / "tests" / "architecture_example" / "src" / "melvoc_pulse" / "__init__.py"
    location = importlib.util.spec_from_file_location("melvoc_pulse", file)
    assert location
    assert location.loader
    module = sys.modules["melvoc_pulse"] = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    yield module
    del sys.modules["melvoc_pulse"]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Declares records as entry points."""

    def add(**records: object) -> None:
        class Point(EntryPoint):
            def load(self) -> object:
                found = records[self.name]
                if isinstance(found, Exception):
                    raise found
                return found

        real = registry.entry_points
        points = [Point(name=name, value=f"somewhere:{name}", group=ARCHITECTURES.group) for name in records]
        own = {ARCHITECTURES.group: points}
        monkeypatch.setattr(registry, "entry_points", lambda group: [*real(group=group), *own.get(group, [])])

    return add


@pytest.fixture
def checkpoint(package: ModuleType, tmp_path: Path) -> Path:
    """As published: weight norm, and the configuration beside it."""
    torch.manual_seed(0)
    network = package.PulseNet(package.PulseConfig(width=16))
    for layer in (network.frames, network.pulse):
        weight_norm(layer)
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"generator": network.state_dict()}, folder / "pulse.pt")
    (folder / "pulse.json").write_text(json.dumps(PUBLISHED))
    return folder / "pulse.pt"


def test_it_is_converted_loaded_saved_and_streamed(
    package: ModuleType, install: Any, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(pulse=package.PULSE)
    out = tmp_path / "pulse.safetensors"
    assert main(["convert", str(checkpoint), "--config", str(checkpoint.parent / "pulse.json"), "-o", str(out)]) == 0
    assert "pulse, 4 tensors" in capsys.readouterr().out
    voc = melvoc.load(out, device="cpu")
    assert isinstance(voc, NeuralVocoder)
    assert (voc.architecture, voc.sample_rate) == (package.PULSE, 16000)
    assert melvoc.info(out).architecture == "pulse"
    mel = random_mel(voc, 40, batch=2)
    whole = voc.mel_to_waveform(mel)
    assert whole.shape == (2, 1, 40 * 128)
    torch.testing.assert_close(whole, voc(mel), atol=1e-6, rtol=0)
    assert float(whole.abs().max()) > 1e-3
    plain = melvoc.load(out, device="cpu", engine="torch")
    torch.testing.assert_close(whole, plain.mel_to_waveform(mel), atol=1e-5, rtol=0)
    with voc.stream() as stream:
        joined = torch.cat([*map(stream.push, pieces(mel, [1, 5, 5, 20])), stream.flush()], dim=-1)
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)
    for again in (
        melvoc.from_bytes(melvoc.to_bytes(voc), device="cpu"),
        melvoc.unpack(melvoc.pack(voc), device="cpu"),
    ):
        assert torch.equal(again.mel_to_waveform(mel), whole)
    half = melvoc.load(out, device="cpu", dtype=torch.bfloat16)
    torch.testing.assert_close(half.mel_to_waveform(mel), whole, atol=1e-6, rtol=0)  # both of its layers stay float32


def test_it_is_trained_by_its_recipe(
    package: ModuleType, install: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(pulse=package.PULSE)
    write_sounds(tmp_path / "sounds", count=2)
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = ["train", str(tmp_path / "sounds"), "-o", str(tmp_path / "run"), "--architecture", "pulse"]
    command += ["--spec", str(tmp_path / "spec.json"), "--steps", "1", "--preset", "slim", "--segment", "2048"]
    assert main([*command, "--batch-size", "1", "--device", "cpu"]) == 0, capsys.readouterr().err
    voc = melvoc.load(tmp_path / "run" / "generator.safetensors", device="cpu")
    assert (voc.architecture, voc.spec, voc.config) == (package.PULSE, spec, package.PulseConfig())
    with pytest.raises(
        OptionError,
        match=r"='speecht5hifigan', but melvoc trains hifigan, bigvgan, .*, wavenext, pulse; choose",
    ):
        trained_architecture("speecht5hifigan", None)


def test_without_its_package_a_file_says_so(package: ModuleType, install: Any, tmp_path: Path) -> None:
    network = package.PulseNet(package.PulseConfig())
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    melvoc.save(NeuralVocoder(network, name="p", spec=spec, architecture=package.PULSE), tmp_path / "p.safetensors")
    message = r"p\.safetensors: architecture 'pulse', but the known ones are bigvgan, flow2gan, .* and griffinlim; .*"
    with pytest.raises(CheckpointError, match=message) as caught:
        melvoc.load(tmp_path / "p.safetensors")
    assert caught.value.path == str(tmp_path / "p.safetensors")
    install(pulse=package.PULSE)
    assert melvoc.load(tmp_path / "p.safetensors", device="cpu").name == "p"


def test_a_network_without_a_record_works_and_is_not_saved(package: ModuleType) -> None:
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    voc = NeuralVocoder(package.PulseNet(package.PulseConfig()), name="p", spec=spec)
    assert voc.mel_to_waveform(random_mel(voc, 5)).shape == (1, 1, 640)
    with pytest.raises(CheckpointError, match="'p' is a PulseNet without an architecture's record"):
        melvoc.to_bytes(voc)
    with pytest.raises(OptionError, match="PulseNet does not run in float16 or bfloat16"):
        voc.to(torch.float16)


def test_a_network_without_a_graph_runs_whole_and_says_that_it_does_not_stream() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(NetworkConfig):
        n_mels: int = 4
        hop_length: int = 128

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Config()

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            return mel.mean(1, keepdim=True).repeat_interleave(128, -1).tanh()

    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=4)
    voc = NeuralVocoder(Whole(), name="whole", spec=spec)
    assert not voc.can_stream
    assert voc.mel_to_waveform(random_mel(voc, 300)).shape == (1, 1, 300 * 128)
    with pytest.raises(melvoc.MelvocError, match="whole cannot stream"):
        voc.stream()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ImportError("no module"), r"architecture 'pulse' of .* cannot be imported .*ImportError: no module"),
        (3, r"architecture 'pulse': 'somewhere:pulse' of .* is an int, but the contract is a melvoc\.architecture\."),
    ],
)
def test_a_record_that_is_none_disturbs_only_who_asks_for_it(install: Any, record: object, message: str) -> None:
    install(pulse=record)
    with pytest.raises(PluginError, match=message):
        architecture("pulse")
    assert architecture("vocos").title == "Vocos"
    with pytest.warns(UserWarning, match="it is left out"):
        found = list(registry.all_architectures())
    assert found == list(own_architectures())


def test_a_layout_that_fails_is_none(package: ModuleType, install: Any) -> None:
    """Another package's mistake is not in the way of who converts something else."""
    layout = package.PULSE.layouts[0]
    rash = dataclasses.replace(layout, recognises=lambda values: values["model_type"] == "pulse")
    install(pulse=dataclasses.replace(package.PULSE, layouts=(rash,)))
    with pytest.raises(CheckpointError, match="the configuration of x is none of"):
        recognise({"hop": 3}, "x")
    with pytest.raises(OptionError, match=r"files has '\(', which is no regular expression"):
        dataclasses.replace(layout, files=(("(", "config.json"),))


def test_types_that_are_not_kept_as_text() -> None:
    """A package need not begin with `from __future__ import annotations`."""
    fields = [("n_mels", int), ("rates", tuple[int, ...]), ("kind", Literal["a", "b"]), ("hop_length", int, 4)]
    config = dataclasses.make_dataclass("Config", fields, bases=(NetworkConfig,), frozen=True, kw_only=True)
    made = config(n_mels=40, rates=[2, 3], kind="a")
    assert (made.n_mels, made.rates, made.kind) == (40, (2, 3), "a")
    with pytest.raises(OptionError, match="n_mels='x', but it is a whole number"):
        config(n_mels="x", rates=[2], kind="a")


def test_a_record_of_another_name(package: ModuleType, install: Any) -> None:
    install(beat=package.PULSE)
    with pytest.raises(PluginError, match="'beat': .* has the name 'pulse'"):
        architecture("beat")


def test_pins_of_a_package(package: ModuleType, install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    pin = melvoc.architecture.Pin(
        name="pulse_16khz", repo="me/pulse", filename="pulse.pt", revision="0" * 40, bytes=1, sha256="0" * 64,
        config=package.PulseConfig(width=16), spec=spec, parameters=1,
    )  # fmt: skip
    record = dataclasses.replace(package.PULSE, pins=(pin,))
    install(pulse=record)
    point = EntryPoint(name="pulse_16khz", value="somewhere:PULSE", group="melvoc.vocoders")
    monkeypatch.setattr(EntryPoint, "load", lambda self: record)
    real = registry.entry_points
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [*real(group=group), *([point] if group == point.group else [])]
    )
    network = randomised(package.PulseNet(pin.config))
    file = tmp_path / "melvoc" / "models" / f"pulse_16khz-{'0' * 12}.safetensors"
    file.parent.mkdir(parents=True)
    melvoc.save(NeuralVocoder(network, name="pulse_16khz", spec=spec, architecture=record), file)
    voc = melvoc.load("pulse_16khz", cache_dir=tmp_path, device="cpu")
    assert voc.name == "pulse_16khz"
    assert "pulse_16khz" in melvoc.list_vocoders()


# The house


def test_each_architecture_is_spelled_out_in_its_own_file_only() -> None:
    """In code, docstrings and comments aside, the names occur only where architectures are, among the presets, in the
    table of what melvoc does not read, where papers of those names define a figure or a protocol, and in
    sherpa-onnx's words."""
    names = re.compile("|".join(record.name for record in own_architectures()), re.IGNORECASE)
    for path in SOURCE.rglob("*.py"):
        if path.parent.name in ("architectures", "metrics") or path.name in (
            "presets.py",
            "foreign.py",
            "protocols.py",
            "sherpa.py",
        ):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                docstring = body[0].value
                if isinstance(docstring, ast.Constant) and isinstance(docstring.value, str):
                    docstring.value = ""
        found = names.search(ast.unparse(tree))
        assert not found, f"{path.relative_to(SOURCE)} names {found and found[0]}"


@pytest.mark.parametrize("record", own_architectures(), ids=lambda record: record.name)
def test_every_record_is_whole(record: Architecture) -> None:
    assert record.layouts or record.recipe, "neither published nor trained"
    assert all(layout.files for layout in record.layouts)
    assert record.title.lower().replace("-", "") == record.name
