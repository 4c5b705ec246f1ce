"""The STFT and its inverse against torch's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import neural, pieces, random_mel, randomised

import melvoc
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.nn.graph import Engine, join
from melvoc.nn.stft import STFT, InverseSTFT
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import mel_filters


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (16, 8), (12, 5)])
def test_it_is_torchs_but_for_the_end(n_fft: int, hop: int) -> None:
    frames = 9
    spectrum = torch.randn(2, n_fft // 2 + 1, frames, dtype=torch.complex64)
    window = torch.hann_window(n_fft)
    expected = torch.istft(spectrum, n_fft, hop, window=window, center=True)
    got = InverseSTFT(n_fft, hop)(torch.cat([spectrum.real, spectrum.imag], dim=1))
    assert got.shape == (2, 1, frames * hop)
    torch.testing.assert_close(got[:, 0, : expected.shape[-1]], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 512), (1024, 400), (12, 5), (16, 8)])
def test_the_end_of_wide_hops_fades_out(n_fft: int, hop: int) -> None:
    """Where only the last frame is left, its window falls to nothing, and so would what the sums are divided by."""
    layer, frames = InverseSTFT(n_fft, hop), 5
    spectrum = torch.randn(1, n_fft + 2, frames, generator=torch.Generator().manual_seed(n_fft))
    last = layer.frames(spectrum)[0, -1, n_fft // 2 :][:hop]
    weights = layer.window.square()[n_fft // 2 :][:hop].clamp(min=0.25)
    got = layer(spectrum)[0, 0]
    torch.testing.assert_close(got[-hop:][2 * hop - n_fft :], (last / weights)[2 * hop - n_fft :])
    assert got[-hop:].abs().max() < 3 * got[:-hop].abs().max()


def test_the_end_of_narrow_hops_is_divided_by_the_window_alone() -> None:
    layer = InverseSTFT(1024, 256)
    spectrum = torch.randn(1, 1026, 5, generator=torch.Generator().manual_seed(1))
    last, window = layer.frames(spectrum)[0, -1, 512:768], layer.window[512:768]
    torch.testing.assert_close(layer(spectrum)[0, 0, -1:], (last / window.square())[-1:])


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


def test_only_a_centred_inverse_is_trimmed() -> None:
    with pytest.raises(ValueError, match="trim=True with center=False, .*; omit trim"):
        InverseSTFT(16, 8, center=False, trim=True)


@pytest.mark.parametrize(("n_fft", "hop", "frames"), [(16, 4, 9), (16, 8, 5), (12, 6, 7), (1024, 256, 6)])
def test_the_stft_is_torchs_and_is_undone(n_fft: int, hop: int, frames: int) -> None:
    wave = torch.randn(2, 1, frames * hop, generator=torch.Generator().manual_seed(n_fft))
    theirs = torch.stft(wave[:, 0], n_fft, hop, window=torch.hann_window(n_fft), center=True, return_complex=True)
    spectrum = STFT(n_fft, hop)(wave)
    torch.testing.assert_close(spectrum, torch.cat([theirs.real, theirs.imag], 1), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(InverseSTFT(n_fft, hop, trim=True)(spectrum), wave, atol=1e-5, rtol=0)


def test_the_stft_of_a_mels_own_frames() -> None:
    """Not centred, as a HiFi-GAN mel: one frame per hop."""
    spec = MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=4)
    wave = torch.randn(1, 1, 160)
    magnitudes = torch.stack(STFT(64, 16, center=False)(wave).chunk(2, 1)).square().sum(0).add(1e-9).sqrt()
    mel = melvoc.MelSpectrogram(spec)(wave)
    ours = (mel_filters(spec) @ magnitudes[0]).clamp(min=1e-5).log()
    torch.testing.assert_close(ours[None], mel, atol=1e-4, rtol=1e-4)


TRANSFORMS = {
    f"{type(layer).__name__} {name}": layer
    for name, layer in {
        "16/4": STFT(16, 4),
        "16/8": STFT(16, 8),
        "16/4 on its hop": STFT(16, 4, center=False),
        "8/3, zeros": STFT(8, 3, mode="zeros"),
        "16/4 trimmed": InverseSTFT(16, 4, trim=True),
        "16/8 trimmed": InverseSTFT(16, 8, trim=True),
        "16/7, whose end fades out": InverseSTFT(16, 7),
    }.items()
}


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 20), cuts=st.lists(st.integers(0, 90), max_size=8))
def test_transforms_in_pieces(name: str, frames: int, cuts: list[int]) -> None:
    layer = TRANSFORMS[name]
    forward = isinstance(layer, STFT)
    shape = (2, 1, frames * layer.hop_length) if forward else (2, layer.n_fft + 2, frames)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(frames))
    machine, parts = Engine().open(layer), pieces(x, cuts)
    joined = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
    whole = layer(x)
    assert joined.shape[-1] == whole.shape[-1]
    if whole.numel():
        torch.testing.assert_close(joined, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_delay_of_transforms_is_what_is_missing(name: str) -> None:
    layer = TRANSFORMS[name]
    x = torch.randn((1, 1, 24) if isinstance(layer, STFT) else (1, layer.n_fft + 2, 24))
    assert layer(x).shape[-1] - Engine().open(layer)(x, False).shape[-1] == layer.delay(0)
