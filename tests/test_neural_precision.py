"""What a half type touches, and what it never does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from networks import VOCODERS, pieces, random_mel, vocoder

import melvoc
from melvoc.architectures.istftnet import ISTFTNet, ISTFTNetConfig
from melvoc.neural import HALF, NeuralVocoder, automatic_dtype, float32_tensors
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.launch import Kernels
from melvoc.nn.graph import join
from melvoc.registry import architecture, own_architectures

NAME = "bigvgan_resblock2_snake_tiny"


def test_a_half_type_is_never_chosen_unmeasured() -> None:
    for record in own_architectures():
        for device in ("cpu", "cuda", "mps"):
            assert automatic_dtype(record, torch.device(device)) == torch.float32


@pytest.mark.parametrize("dtype", HALF)
def test_a_half_vocoder_keeps_its_ends_and_snakes(dtype: torch.dtype) -> None:
    exact = VOCODERS[NAME]
    voc = vocoder(NAME).to(dtype)
    assert (voc.dtype, voc.mel_dtype) == (dtype, torch.float32)
    kept = float32_tensors(voc.network, voc.architecture)
    for (key, parameter), before in zip(voc.network.named_parameters(), exact.network.parameters(), strict=True):
        assert parameter.dtype == (torch.float32 if id(parameter) in kept else dtype), key
        if id(parameter) in kept:
            assert torch.equal(parameter, before), f"{key} was rounded on the way"
    mel = random_mel(exact, 12)
    wave = voc.mel_to_waveform(mel)
    assert wave.dtype == torch.float32
    bound = 30 * float(torch.finfo(dtype).eps) * float(exact.mel_to_waveform(mel).abs().max())
    torch.testing.assert_close(wave, exact.mel_to_waveform(mel), atol=bound, rtol=0)


@pytest.mark.parametrize("dtype", HALF)
def test_the_window_of_an_inverse_stft_is_a_constant_and_stays(dtype: torch.dtype) -> None:
    """It is no weight: rounded to bfloat16, it alone cost 51 dB."""
    spec = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")
    config = ISTFTNetConfig(upsample_initial_channel=16)
    voc = NeuralVocoder(ISTFTNet(config), name="tiny", spec=spec, architecture=architecture("istftnet"))
    exact = voc.network.istft.window.clone()
    assert torch.equal(voc.to(dtype).network.istft.window, exact)
    assert voc.dtype == dtype
    assert torch.equal(voc.to(torch.float32).network.istft.window, exact)


@pytest.mark.parametrize("dtype", HALF)
def test_half_streams_through_the_kernels_engine_too(dtype: torch.dtype) -> None:
    voc = vocoder(NAME).to(dtype)
    mel = random_mel(voc, 12)
    machine = FusedEngine(Kernels(None)).open(voc.graph())
    parts = pieces(mel, [3, 4])
    with torch.inference_mode():
        joined = join(*[machine(part, part is parts[-1]) for part in parts])
        whole = voc(mel)
    scale = float(whole.abs().max())
    torch.testing.assert_close(joined, whole, atol=8 * float(torch.finfo(dtype).eps) * scale, rtol=0)


def test_a_half_vocoder_is_saved_and_loaded_as_float32(tmp_path: Path) -> None:
    voc = vocoder(NAME).to(torch.bfloat16)
    melvoc.save(voc, tmp_path / "half.safetensors")
    assert melvoc.load(tmp_path / "half.safetensors").dtype == torch.float32
    again = melvoc.load(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    for key, value in voc.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key


def test_float64_is_whole_and_vocos_has_no_half_form() -> None:
    voc = copy.deepcopy(VOCODERS[NAME]).to(torch.float64)
    assert {parameter.dtype for parameter in voc.parameters()} == {torch.float64}
    assert voc.mel_dtype == torch.float64
    with pytest.raises(melvoc.MelvocError, match="Vocos does not run in float16 or bfloat16 .*; omit dtype"):
        vocoder("vocos_tiny").to(torch.float16)
