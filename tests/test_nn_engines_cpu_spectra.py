"""Polar form and overlap-add: as torch's, at any length, to the ends of the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melvoc.nn.engines.cpu import make_cpu_engine
from melvoc.nn.engines.cpu.spectra import CHUNK, MOST_SAMPLES, InverseTransforms, PolarMachine
from melvoc.nn.graph import Map
from melvoc.nn.stft import STFT, InverseSTFT, InverseSTFTMachine, LogPolar


def opened(function: LogPolar) -> PolarMachine:
    machine = make_cpu_engine("auto", None).open(Map(function))
    assert isinstance(machine, PolarMachine)
    return machine


def given_values(*shape: int, seed: int = 0) -> Tensor:
    """Log-magnitudes from -12 to 6, phases of many turns."""
    generator = torch.Generator().manual_seed(seed)
    magnitude, phase = torch.rand(2, *shape, generator=generator)
    return torch.cat([magnitude * 18 - 12, (phase - 0.5) * 400], dim=1)


# Polar form


@pytest.mark.parametrize("function", [LogPolar(), LogPolar(100.0), LogPolar(sine=True)], ids=repr)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (2, 9, 7), (3, 513, 5), (1, 1, CHUNK), (2, 1, CHUNK + 1)])
def test_it_is_the_polar_form(function: LogPolar, shape: tuple[int, ...]) -> None:
    x = given_values(*shape)
    expected = function(x.double())
    sizes = torch.cat([expected.chunk(2, dim=1)[0].hypot(expected.chunk(2, dim=1)[1])] * 2, dim=1)
    error = (opened(function)(x, True).double() - expected).abs() / sizes
    assert error.max() < 4e-7, "of the magnitude"


def test_magnitudes_over_the_whole_range() -> None:
    x = torch.cat([torch.linspace(-110, 92, 400_001), torch.zeros(400_001)])[None, :, None]
    real = opened(LogPolar())(x, True)[0, :400_001, 0]
    expected = x[0, :400_001, 0].double().exp()
    normal = (expected > 1.2e-38) & (expected < 3.4e38)
    assert ((real.double() - expected) / expected)[normal].abs().max() < 2e-7
    torch.testing.assert_close(real[~normal].double(), expected.float()[~normal].double(), atol=1.5e-45, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e9, 1e12])
def test_phases_of_any_size(scale: float) -> None:
    phase = torch.linspace(-1, 1, 100_001) * scale
    real, imaginary = opened(LogPolar())(torch.cat([0 * phase, phase])[None, :, None], True)[0, :, 0].chunk(2)
    assert (real.double() - phase.double().cos()).abs().max() < 1.5e-7
    assert (imaginary.double() - phase.double().sin()).abs().max() < 1.5e-7


def test_a_phase_that_is_no_angle_any_more_is_one_all_the_same() -> None:
    x = torch.tensor([[0.0], [3e38]])[None]
    assert math.isclose(float(opened(LogPolar())(x, True).norm()), 1.0, abs_tol=1e-6)


@pytest.mark.parametrize("function", [LogPolar(), LogPolar(100.0), LogPolar(sine=True)], ids=repr)
def test_infinities_and_nan_are_torchs(function: LogPolar) -> None:
    values = [math.nan, math.inf, -math.inf, 0.0, 1.0]
    pairs = torch.cartesian_prod(torch.tensor(values), torch.tensor(values))
    x = pairs.T.flatten()[None, :, None]
    torch.testing.assert_close(opened(function)(x, True), function(x), atol=3e-7, rtol=3e-7, equal_nan=True)


def test_a_piece_without_frames_and_one_with_steps() -> None:
    assert opened(LogPolar())(torch.zeros(1, 6, 0), False).shape == (1, 6, 0)
    x = given_values(1, 5, 9).transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(opened(LogPolar())(x, True), LogPolar()(x), atol=1e-4, rtol=1e-6)


def test_a_polar_form_that_the_kernel_does_not_take_goes_to_torch() -> None:
    x = given_values(1, 5, 9).double()
    assert torch.equal(opened(LogPolar())(x, True), LogPolar()(x))
    x = given_values(1, 5, 9).requires_grad_()
    opened(LogPolar())(x, True).sum().backward()
    assert x.grad is not None


# Overlap-add


def spectra(layer: InverseSTFT, batch: int, frames: int) -> Tensor:
    return torch.randn(batch, layer.n_fft + 2, frames, generator=torch.Generator().manual_seed(frames))


@settings(deadline=None)
@given(
    half=st.integers(2, 40),
    share=st.floats(0.05, 1.0),
    frames=st.integers(1, 40),
    batch=st.integers(1, 3),
)
def test_its_sums_are_those_of_the_layer(half: int, share: float, frames: int, batch: int) -> None:
    """Of any hop: one that eight does not divide, nor the frame."""
    layer = InverseSTFT(2 * half, max(1, int(half * share)))
    x = spectra(layer, batch, frames)
    sums = InverseTransforms(layer).sums(x)
    torch.testing.assert_close(sums, layer.overlap_add(layer.frames(x)), atol=2e-6, rtol=0)


def test_a_few_frames_of_very_many_hops() -> None:
    """What they take does not grow with the hops that have no frame."""
    layer = InverseSTFT(2**19, 1)
    x = spectra(layer, 1, 3)
    torch.testing.assert_close(InverseTransforms(layer).sums(x), layer.overlap_add(layer.frames(x)), atol=2e-6, rtol=0)


@pytest.mark.parametrize("frames", [1, MOST_SAMPLES // 256, MOST_SAMPLES // 256 + 1])
def test_long_and_short_signals_are_the_layers(frames: int) -> None:
    layer = InverseSTFT(256, 64)
    x = spectra(layer, 2, frames)
    machine = make_cpu_engine("auto", None).open(layer)
    torch.testing.assert_close(machine(x, True), layer(x), atol=2e-6, rtol=0)


def test_a_spectrum_with_steps() -> None:
    layer = InverseSTFT(64, 16)
    x = spectra(layer, 2, 9).transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(InverseTransforms(layer).sums(x), layer.overlap_add(layer.frames(x)), atol=2e-6, rtol=0)
    part = spectra(layer, 2, 30)[:, :, 5:9]
    torch.testing.assert_close(
        InverseTransforms(layer).sums(part), layer.overlap_add(layer.frames(part)), atol=2e-6, rtol=0
    )


def test_it_undoes_an_stft() -> None:
    wave = torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(1))
    back = InverseTransforms(InverseSTFT(512, 128, trim=True))(STFT(512, 128)(wave), True)
    torch.testing.assert_close(back, wave, atol=1e-5, rtol=0)


def test_a_spectrum_that_the_kernels_do_not_take_goes_to_torch() -> None:
    layer = InverseSTFT(64, 16)
    x = spectra(layer, 1, 9)
    wide = InverseSTFT(64, 16).double()
    assert torch.equal(InverseTransforms(wide)(x.double(), True), InverseSTFTMachine(wide)(x.double(), True))
    x.requires_grad_()
    InverseTransforms(layer)(x, True).sum().backward()
    assert x.grad is not None
