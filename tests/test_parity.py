"""The same weights and mel give the published code's sound: real checkpoints, and the PyPI package `bigvgan` live."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from networks import neural, randomised
from safetensors.torch import load_file

from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build

REAL = {
    "universal_v1": ("hifigan_universal_v1", "generator_universal.pth.tar"),
    "ljspeech_v2": ("hifigan_ljspeech_v2", "generator_v2"),
}


@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("name", REAL)
def test_real_hifigan_checkpoints(data_dir: Path, name: str, engine: str) -> None:
    folder, file = REAL[name]
    voc = build(
        convert(data_dir / "weights" / folder / file, config=data_dir / "weights" / folder / "config.json"),
        LoadOptions(device="cpu", engine=engine),  # type: ignore[arg-type]
    )
    golden = load_file(data_dir / "golden" / "hifigan_real.safetensors")
    mel, wave = golden[f"{name}.mel"], golden[f"{name}.wav"]
    got = voc.mel_to_waveform(mel)
    torch.testing.assert_close(got.reshape(wave.shape), wave, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "engine", "dtype", "most"),
    [
        ("bigvgan_v2_44khz_128band_512x", "auto", torch.float32, 1e-4),
        ("bigvgan_v2_44khz_128band_512x", "torch", torch.float64, 5e-5),
        ("bigvgan_base_24khz_100band", "auto", torch.float32, 1e-4),
        ("bigvgan_base_24khz_100band", "torch", torch.float32, 1e-4),
        ("bigvgan_base_24khz_100band", "torch", torch.float64, 5e-5),
    ],
)
def test_live_against_the_published_package(name: str, engine: str, dtype: torch.dtype, most: float) -> None:
    """Random full-size weights, the peer's in its own layout with weight norm, ours folded from them.

    The peer computes in float64: in the 512x network with these weights torch's float32 errs by 1.2e-4 itself, and the
    rounding of the peer's filters alone makes 3e-5.
    """
    peer_module = pytest.importorskip(
        "bigvgan", reason="needs the peer: pip install --no-deps bigvgan==2.4.1 matplotlib"
    )
    values = json.loads((Path(__file__).parent / "golden" / "hub_configs" / f"{name}.json").read_text())
    config = BigVGANConfig.from_published(values)
    ours = randomised(BigVGAN(config))
    peer = peer_module.BigVGAN(peer_module.AttrDict(values))
    peer.remove_weight_norm()
    missing, unexpected = peer.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected
    assert all(key.endswith("filter") for key in missing), missing
    spec = MelSpec.from_config(values)
    mel = 2 * torch.randn(1, spec.n_mels, 24, generator=torch.Generator().manual_seed(1)) - 4
    with torch.inference_mode():
        expected = peer.eval().double()(mel.double())
    assert float(expected.std()) > 1e-3, "a silent network proves nothing"
    voc = neural(ours, name=name, spec=spec, engine=engine).to(dtype=dtype)
    got = voc.mel_to_waveform(mel.to(dtype))
    torch.testing.assert_close(got.double(), expected.clamp(-1, 1), atol=most, rtol=0)
