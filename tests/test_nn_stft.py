"""The inverse STFT against torch's."""

from __future__ import annotations

import pytest
import torch

from melvoc.nn.stft import InverseSTFT


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
