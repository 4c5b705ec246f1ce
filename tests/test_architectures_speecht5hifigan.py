"""transformers' HiFi-GANs: what `SpeechT5HifiGan` and `FastSpeech2ConformerHifiGan` compute, to the first sample.

`golden/speecht5_tiny` is transformers 5.24.0's own: `golden_of(SpeechT5HifiGan, ...)` below with weight norm,
its wave in float64, and the feature extractor's mel of a second of noise. The live tests compute it anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc.errors import CheckpointError
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build

MEL = "speecht5_16khz_80band_log10"
OTHER = "espnet_style_22khz_80band_log10"
FURTHER = ("input", "wav", "audio", "audio_mel")


def golden() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = load_file(GOLDEN / "speecht5_tiny.safetensors")
    return tensors, json.loads((GOLDEN / "speecht5_tiny.json").read_text())


def stored(folder: Path, change: Any = None, **config: Any) -> Path:
    tensors, values = golden()
    tensors = {key: tensor for key, tensor in tensors.items() if key not in FURTHER}
    torch.save(tensors if change is None else change(tensors), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(values | config))
    return folder


def folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the published files are: without weight norm."""
    result = {}
    for key, tensor in tensors.items():
        if key.endswith("original1"):
            length = tensors[key[:-1] + "0"].double()
            unit = tensor.double() / tensor.double().flatten(1).norm(dim=1).view(-1, 1, 1)
            result[key.replace(".parametrizations.weight.original1", ".weight")] = (unit * length).float()
        elif not key.endswith("original0"):
            result[key] = tensor
    return result


def older(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    for new, old in names.items():
        tensors = {key.replace(new, old): tensor for key, tensor in tensors.items()}
    return tensors


WRITTEN = {
    "newer weight norm": lambda tensors: tensors,
    "older weight norm": older,
    "folded": folded,
    "inside another model": lambda tensors: (
        {f"vocoder.{key}": value for key, value in folded(tensors).items()} | {"model.encoder.weight": torch.ones(1)}
    ),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_the_published_wave_to_both_ends(written: str, engine: Any, tmp_path: Path) -> None:
    checkpoint = convert(stored(tmp_path, WRITTEN[written]))
    assert (checkpoint.architecture, checkpoint.spec) == ("speecht5hifigan", MelSpec.preset(MEL))
    voc = build(checkpoint, LoadOptions(device="cpu", engine=engine))
    tensors, _ = golden()
    torch.testing.assert_close(voc.mel_to_waveform(tensors["input"]), tensors["wav"], atol=1e-6, rtol=0)
    with voc.stream() as stream:
        joined = torch.cat(
            [stream.push(tensors["input"][..., :4]), stream.push(tensors["input"][..., 4:]), stream.flush()], -1
        )
    torch.testing.assert_close(joined, tensors["wav"], atol=1e-6, rtol=0)


def test_the_feature_extractors_mel() -> None:
    tensors, _ = golden()
    got = melvoc.MelSpectrogram(MelSpec.preset(MEL))(tensors["audio"])
    torch.testing.assert_close(got[0], tensors["audio_mel"], atol=2e-6, rtol=0)


def test_files_half_types_and_the_mean_that_stays_exact(tmp_path: Path) -> None:
    voc = build(convert(stored(tmp_path)), LoadOptions(device="cpu"))
    melvoc.save(voc, tmp_path / "a.safetensors")
    tensors, _ = golden()
    assert torch.equal(
        melvoc.load(tmp_path / "a.safetensors", device="cpu").mel_to_waveform(tensors["input"]),
        voc.mel_to_waveform(tensors["input"]),
    )
    half = melvoc.load(tmp_path / "a.safetensors", device="cpu", dtype=torch.bfloat16)
    assert half.state_dict()["network.center.mean"].dtype == torch.float32
    torch.testing.assert_close(half.mel_to_waveform(tensors["input"]), tensors["wav"], atol=0.02, rtol=0)


def test_a_normalisation_that_is_not_used(tmp_path: Path) -> None:
    checkpoint = convert(stored(tmp_path, folded, normalize_before=False))
    assert not bool(checkpoint.tensors["center.mean"].any())
    tensors = folded({key: value for key, value in golden()[0].items() if key not in FURTHER})
    assert torch.equal(checkpoint.tensors["conv_pre.weight"], tensors["conv_pre.weight"])


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"sampling_rate": 22050}, None, "does not say it, and only SpeechT5's vocoder is known; pass its .*--spec"),
        ({"sampling_rate": None}, None, "only SpeechT5's vocoder is known"),
        ({"leaky_relu_slope": 0.2}, None, "leaky_relu_slope=0.2, but melvoc only reads 0.1"),
        ({"upsample_rates": None}, None, "has no 'upsample_rates', which SpeechT5HiFiGANConfig needs"),
        (
            {},
            lambda tensors: {key: tensors[key] for key in tensors if key != "scale"},
            "pytorch_model.bin: its scale has shape None",
        ),
        ({}, lambda tensors: tensors | {"scale": torch.ones(3)}, r"its scale has shape \[3\], but it is a number for"),
        ({}, lambda tensors: tensors | {"scale": torch.zeros(80)}, "contains NaN or Inf"),
        ({}, lambda tensors: {key: tensors[key] for key in tensors if key != "mean"}, r"lacks center\.mean"),
    ],
)
def test_what_is_refused(config: dict[str, Any], change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(stored(tmp_path, change, **config))


# Live, where transformers is installed


def golden_of(kind: str, **config: Any) -> tuple[Any, Tensor, Tensor]:
    """One of transformers' vocoders with random weights, a mel and its wave in float64."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{kind}Config")(upsample_initial_channel=16, **config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7 * (parameter[0].numel() if parameter.dim() > 1 else 30) ** -0.5)
        model.mean.normal_(-2, 1)
        model.scale.uniform_(0.3, 2)
        mel = torch.randn(2, 80, 9) - 2
        wave = model.eval().double()(mel.double().transpose(1, 2)).float()[:, None]
    return model.float(), mel, wave


@pytest.mark.parametrize("kind", ["SpeechT5HifiGan", "FastSpeech2ConformerHifiGan"])
@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("normalize_before", [False, True])
def test_what_transformers_computes(kind: str, weight_norm: bool, normalize_before: bool, tmp_path: Path) -> None:
    model, mel, wave = golden_of(kind, normalize_before=normalize_before)
    if weight_norm:
        model.apply_weight_norm()
    model.save_pretrained(tmp_path)
    spec = MelSpec.preset(MEL if kind.startswith("SpeechT5") else OTHER)
    checkpoint = convert(tmp_path, spec=None if kind.startswith("SpeechT5") else spec)
    got = build(checkpoint, LoadOptions(device="cpu")).mel_to_waveform(mel, spec=spec)
    torch.testing.assert_close(got, wave, atol=1e-6, rtol=0)


def test_what_transformers_extracts() -> None:
    transformers = pytest.importorskip("transformers")
    audio = golden()[0]["audio"].numpy()
    theirs = transformers.SpeechT5FeatureExtractor()(audio_target=audio, sampling_rate=16000, return_tensors="pt")
    got = melvoc.MelSpectrogram(MelSpec.preset(MEL))(torch.from_numpy(audio))
    torch.testing.assert_close(got[0].T, theirs["input_values"][0], atol=2e-6, rtol=0)


def write_golden() -> None:
    """`python tests/test_architectures_speecht5hifigan.py`: the golden file anew."""
    import transformers
    from safetensors.torch import save_file

    model, mel, wave = golden_of("SpeechT5HifiGan")
    model.apply_weight_norm()
    audio = 0.1 * torch.randn(16000)
    extracted = transformers.SpeechT5FeatureExtractor()._extract_mel_features(audio.numpy()).T
    further = {"input": mel, "wav": wave, "audio": audio, "audio_mel": torch.from_numpy(extracted).float().contiguous()}
    values = {key: value for key, value in model.config.to_dict().items() if value is not None}
    (GOLDEN / "speecht5_tiny.json").write_text(json.dumps(values, indent=1) + "\n")
    save_file(dict(model.state_dict()) | further, GOLDEN / "speecht5_tiny.safetensors")


if __name__ == "__main__":
    sys.exit(write_golden())
