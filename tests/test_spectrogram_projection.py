"""The two projections: spectra that have a mel, and spectra that a signal has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from melvoc import MelSpec, MelSpectrogram
from melvoc.nn.powers import overlap_add
from melvoc.spectrogram.conversion import Care
from melvoc.spectrogram.projection import Projection, projection, squares
from melvoc.spectrogram.transform import constants

SPEC = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40, f_max=6000)
CPU = torch.device("cpu")


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mel_of(powers: Tensor, spec: MelSpec) -> Tensor:
    _, filters = constants(spec, CPU, torch.float64)
    seen = powers + spec.magnitude_eps
    return (seen if spec.power == 2 else seen.sqrt()) @ filters.T


def synthesised(arithmetic: Projection, spectra: Tensor) -> Tensor:
    frames = spectra.shape[-2]
    wave = arithmetic.overlap_add(spectra) / arithmetic.weights(frames).maximum(arithmetic.weakest)
    return wave[..., SPEC.pad :][..., : SPEC.samples(frames)]


@pytest.fixture
def arithmetic() -> Projection:
    return projection(SPEC, CPU, torch.float64)


@pytest.mark.parametrize(("size", "hop"), [(8, 4), (8, 3), (8, 8), (5, 2)])
def test_overlap_add_is_the_sum_of_shifted_frames(size: int, hop: int) -> None:
    frames = noise(2, 6, size)
    expected = torch.zeros(2, 5 * hop + size, dtype=torch.float64)
    for number in range(6):
        expected[:, number * hop : number * hop + size] += frames[:, number]
    torch.testing.assert_close(overlap_add(frames, hop), expected)


def test_a_signals_own_spectra_give_it_back(arithmetic: Projection) -> None:
    wave = noise(1, 2, 20 * 128)
    after = SPEC.n_fft - SPEC.hop_length - SPEC.pad
    spectra = arithmetic.analyse(torch.nn.functional.pad(wave, (SPEC.pad, after)))
    assert spectra.shape == (1, 2, 20, 257)
    torch.testing.assert_close(synthesised(arithmetic, spectra), wave, atol=1e-6, rtol=0)  # its window is a float32's


def test_what_is_synthesised_is_the_signal_with_the_nearest_spectra(arithmetic: Projection) -> None:
    """Griffin and Lim 1984, eq. 6: any other signal is farther away."""
    spectra = torch.complex(noise(1, 1, 12, 257), noise(1, 1, 12, 257).flip(-1))
    spectra[..., [0, 256]] = spectra[..., [0, 256]].real + 0j  # of a real signal
    after = SPEC.n_fft - SPEC.hop_length - SPEC.pad
    weights = torch.full((257,), 2.0, dtype=torch.float64).index_fill(0, torch.tensor([0, 256]), 1.0)

    def distance(wave: Tensor) -> float:
        padded = torch.nn.functional.pad(wave, (SPEC.pad, after))
        return float(((arithmetic.analyse(padded) - spectra).abs().square() * weights).sum())

    wave = synthesised(arithmetic, spectra)
    inside = torch.zeros_like(wave)
    inside[..., 512:-512] = noise(1, 1, 512)
    assert all(distance(wave + step * inside) > distance(wave) for step in (-0.1, -0.001, 0.001, 0.1))


@pytest.mark.parametrize("changes", [{}, {"power": 2.0}, {"magnitude_eps": 0.0}, {"norm": None, "mel_scale": "htk"}])
def test_a_correction_brings_the_mel_closer_and_leaves_the_rest(changes: dict[str, object]) -> None:
    spec = MelSpec(**SPEC.to_dict() | changes)
    arithmetic = projection(spec, CPU, torch.float64)
    powers, wanted = squares(torch.complex(noise(1, 1, 30, 257), noise(1, 1, 30, 257).flip(0)))[:, :1], noise(30, 257)
    target = mel_of(wanted.square()[None], spec)

    def gap(factors: Tensor | float) -> float:
        return float((mel_of((powers * factors)[:, 0], spec).log() - target.log()).abs().mean())

    once, twice = (arithmetic.correct(powers, target, steps=steps) for steps in (1, 2))
    assert gap(twice) < gap(once) < 0.5 * gap(1.0)
    careful = arithmetic.correct(powers, target, care=Care(softness=0.5, most=4.0))
    assert gap(once) < gap(careful) < gap(1.0)
    uncovered = constants(spec, CPU, torch.float64)[1].sum(0) == 0
    assert uncovered.sum() > 50
    torch.testing.assert_close(once[..., uncovered], torch.ones_like(once[..., uncovered]))


def test_a_targets_floor_is_silence_and_its_height_is_bounded(arithmetic: Projection) -> None:
    mel = MelSpectrogram(SPEC)(torch.zeros(4096, dtype=torch.float64))
    assert float(arithmetic.target(mel).max()) == 0.0
    assert torch.isfinite(arithmetic.target(torch.full_like(mel, 1e4))).all()
    assert arithmetic.target(mel).shape == (1, mel.shape[-1], 40)
