"""WaveNeXt: what the published code computes, and its files as they are published."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GOLDEN, pieces
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc.architectures.wavenext import ARCHITECTURE, WaveNeXt, WaveNeXtConfig
from melvoc.errors import CheckpointError
from melvoc.neural import NeuralVocoder
from melvoc.nn.engines.cpu.engine import Border, CpuEngine
from melvoc.nn.graph import ChainMachine
from melvoc.options import LoadOptions
from melvoc.registry import pins
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build

FEATURES = {
    "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
    "init_args": {"sample_rate": 22050, "n_fft": 1024, "hop_length": 16, "n_mels": 20, "padding": "same", "f_min": 0}
    | {"f_max": 8000, "norm": "slaney", "mel_scale": "slaney", "clip_val": "1e-5"},
}
SPEC = MelSpec(sample_rate=22050, n_fft=1024, hop_length=16, n_mels=20, f_max=8000.0, magnitude_eps=0.0)


def golden() -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Any]]:
    """The published tensors, a mel, its wave `[B, 1, N]`, and the configuration."""
    tensors = load_file(GOLDEN / "wavenext_tiny.safetensors")
    mel, wave = tensors.pop("mel"), tensors.pop("wav")
    return tensors, mel, wave[:, None], json.loads((GOLDEN / "wavenext_tiny.json").read_text())


def vocoder(engine: Any = "auto") -> NeuralVocoder:
    tensors, _, _, config = golden()
    network = WaveNeXt(WaveNeXtConfig.from_published(config))
    network.load_state_dict(tensors)
    return NeuralVocoder(network.eval(), name="w", spec=SPEC, architecture=ARCHITECTURE, engine=engine)


VOCODERS = {engine: vocoder(engine) for engine in ("auto", "torch")}
MEL, WAVE = golden()[1:3]
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.mark.parametrize("engine", VOCODERS)
def test_the_published_wave(engine: str) -> None:
    torch.testing.assert_close(VOCODERS[engine].mel_to_waveform(MEL, spec=SPEC), WAVE, **CLOSE)


@pytest.mark.parametrize("engine", VOCODERS)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 37), max_size=6))
def test_streams_are_exact(engine: str, cuts: list[int]) -> None:
    with VOCODERS[engine].stream(spec=SPEC) as stream:
        joined = torch.cat([*map(stream.push, pieces(MEL, cuts)), stream.flush()], dim=-1)
    torch.testing.assert_close(joined, WAVE, **CLOSE)


def test_it_keeps_every_promise() -> None:
    melvoc.testing.check_vocoder(VOCODERS["auto"])


def test_rows_of_other_lengths() -> None:
    voc = VOCODERS["auto"]
    wave = voc.mel_to_waveform(MEL, spec=SPEC, lengths=[37, 20])
    torch.testing.assert_close(wave[:1], WAVE[:1], **CLOSE)
    torch.testing.assert_close(wave[1:, :, :320], voc.mel_to_waveform(MEL[1:, :, :20], spec=SPEC), **CLOSE)
    assert not wave[1, :, 320:].any()


def test_the_kernels_of_vocos_serve_it() -> None:
    machine = CpuEngine().open(VOCODERS["auto"].graph())
    assert isinstance(machine, ChainMachine)
    backbone, _ = machine.machines  # and what lays the frames out as samples
    assert isinstance(backbone, Border)
    assert (backbone.taken, backbone.channels) == (20, 16)


def stored(folder: Path, change: Any = None, *, below: bool = True) -> Path:
    """A published folder: the parts of the configuration below `model.init_args`, or at the top."""
    tensors, _, _, config = golden()
    config["feature_extractor"] = json.loads(json.dumps(FEATURES))
    if change is not None:
        change(config)
    values = {"seed_everything": 4444, "model": {"class_path": "vocos.experiment.VocosExp", "init_args": config}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values if below else config))
    filters = {"feature_extractor.mel_spec.spectrogram.window": torch.ones(64)}
    torch.save(tensors | filters, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("below", [True, False])
def test_published_folders(below: bool, tmp_path: Path) -> None:
    checkpoint = convert(stored(tmp_path, below=below))
    assert (checkpoint.architecture, checkpoint.spec) == ("wavenext", SPEC)
    voc = build(checkpoint, LoadOptions(device="cpu"))
    melvoc.save(voc, tmp_path / "w.safetensors")
    again = melvoc.load(tmp_path / "w.safetensors", device="cpu")
    torch.testing.assert_close(again.mel_to_waveform(MEL, spec=SPEC), WAVE, **CLOSE)


def test_the_pin_is_the_published_configuration() -> None:
    """configs/wavenext.yaml of the published code; the file's sha256 is not known (FIELD_PINS.md, A6.3)."""
    record, pin = pins()["wavenext_mel"]
    backbone = {"input_channels": 80, "dim": 512, "intermediate_dim": 1536, "num_layers": 8}
    head = {"class_path": "vocos.heads.WaveNextHead", "init_args": {"dim": 512, "n_fft": 1024, "hop_length": 256}}
    features = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80, "f_min": 0, "f_max": 8000}
    features |= {"norm": "slaney", "mel_scale": "slaney", "clip_val": 1e-5, "padding": "same"}
    head["init_args"]["padding"] = "same"
    values = {"backbone": backbone, "head": head, "feature_extractor": features}
    (layout,) = record.layouts
    assert layout.recognises(values)
    assert (layout.config(values), layout.spec(values)) == (pin.config, pin.spec)
    assert not pin.sure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["head"]["init_args"].update(bins=3), "not WaveNeXt's: head has 'bins', which .* does not take"),
        (lambda c: c["backbone"]["init_args"].pop("dim"), "not WaveNeXt's: the config has no 'dim', which WaveNeXt"),
        (lambda c: c["head"]["init_args"].update(dim=3), "head dim=3, but the backbone's is 24"),
        (lambda c: c["feature_extractor"]["init_args"].update(clip_val="low"), "log_floor='low'"),
        (lambda c: c["feature_extractor"]["init_args"].update(padding="center"), "feature padding='center', but the"),
        (lambda c: c["backbone"].update(class_path="os.system"), "backbone is a os.system, but melvoc only reads Wave"),
    ],
)
def test_what_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(stored(tmp_path, change))
    assert not re.search("\n", str(caught.value))
