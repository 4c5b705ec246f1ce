"""The inverse STFT against torch's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from networks import neural, pieces, random_mel, randomised

import melvoc
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.nn.stft import InverseSTFT
from melvoc.spectrogram.spec import MelSpec


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (16, 8), (12, 5)])
def test_it_is_torchs_but_for_the_end(n_fft: int, hop: int) -> None:
    frames = 9
    spectrum = torch.randn(2, n_fft // 2 + 1, frames, dtype=torch.complex64)
    window = torch.hann_window(n_fft)
    expected = torch.istft(spectrum, n_fft, hop, window=window, center=True)
    got = InverseSTFT(n_fft, hop)(torch.cat([spectrum.real, spectrum.imag], dim=1))
    assert got.shape == (2, 1, frames * hop)
    torch.testing.assert_close(got[:, 0, : expected.shape[-1]], expected, atol=1e-5, rtol=0)


def test_it_undoes_the_stft() -> None:
    wave = torch.randn(1, 64 * 20)
    window = torch.hann_window(256)
    spectrum = torch.stft(wave, 256, 64, window=window, center=True, return_complex=True)
    back = InverseSTFT(256, 64)(torch.cat([spectrum.real, spectrum.imag], dim=1))
    torch.testing.assert_close(back[:, 0, : wave.shape[-1]], wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop_length"), [(16, 4), (16, 8), (30, 7), (1024, 256)])
def test_frames_on_the_middle_of_their_hops(n_fft: int, hop_length: int) -> None:
    """Vocos' padding "same", frame by frame in float64: the ends of the first and the last window are cut off."""
    layer, frames = InverseSTFT(n_fft, hop_length, center=False), 9
    spectrum = torch.randn(1, 2 * (n_fft // 2 + 1), frames, generator=torch.Generator().manual_seed(0))
    real, imaginary = spectrum.double().chunk(2, dim=1)
    signal, weight = torch.zeros(2, (frames - 1) * hop_length + n_fft, dtype=torch.float64)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    for t, frame in enumerate(torch.fft.irfft(torch.complex(real, imaginary), n=n_fft, dim=1)[0].T):
        signal[t * hop_length :][:n_fft] += window * frame
        weight[t * hop_length :][:n_fft] += window**2
    begin = (n_fft - hop_length) // 2
    expected = (signal / weight)[begin:][: frames * hop_length]
    torch.testing.assert_close(layer(spectrum)[0, 0], expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_vocos_with_padding_same_streams_what_it_computes(engine: Any) -> None:
    config = VocosConfig(n_mels=80, dim=16, intermediate_dim=24, num_layers=2, n_fft=64, hop_length=16, padding="same")
    spec = MelSpec(sample_rate=16000, n_fft=1024, hop_length=16, n_mels=80)
    voc = neural(randomised(Vocos(config)), name="same", spec=spec, engine=engine)
    mel = random_mel(voc, 30)
    whole = voc.mel_to_waveform(mel)
    assert whole.shape == (1, 1, 480)
    torch.testing.assert_close(whole, voc(mel).clamp(-1, 1), atol=1e-5, rtol=0)
    with voc.stream() as stream:
        joined = torch.cat([*map(stream.push, pieces(mel, [1, 2, 9, 9])), stream.flush()], dim=-1)
    torch.testing.assert_close(joined, whole, atol=1e-5, rtol=0)
    centred = dataclasses.replace(config, padding="center")
    other = neural(Vocos(centred), name="centred", spec=spec)
    other.load_state_dict(voc.state_dict())
    assert not torch.allclose(other.mel_to_waveform(mel), whole, atol=1e-3)
    assert melvoc.from_bytes(melvoc.to_bytes(voc), device="cpu").config == config
