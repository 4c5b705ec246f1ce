"""Powers are those of torch's own transform, and so are their gradients."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melvoc.nn import powers as sums
from melvoc.nn.powers import overlap_add, powers


@given(st.sampled_from([8, 12, 16]), st.integers(1, 8), st.integers(2, 16), st.integers(16, 40), st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_powers_and_their_gradient_are_torchs(n_fft: int, hop: int, size: int, samples: int, batch: int) -> None:
    size = min(size, n_fft)
    rng = torch.Generator().manual_seed(samples)
    wave = torch.randn(batch, samples, generator=rng, dtype=torch.float64).requires_grad_()
    window = torch.rand(size, generator=rng, dtype=torch.float64)
    expected = torch.fft.rfft(wave.unfold(-1, size, hop) * window, n_fft).abs().square()
    found = powers(wave, window, n_fft=n_fft, hop_length=hop)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    gradients = [torch.autograd.grad((weights * x).sum(), wave)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    wave = torch.randn(1, 16).requires_grad_()
    (first,) = torch.autograd.grad(powers(wave, torch.ones(8), n_fft=8, hop_length=4).sum(), wave, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 7), st.sampled_from([2, 4096]))
@settings(max_examples=60, deadline=None)
def test_frames_are_added_up_where_they_are(count: int, size: int, hop: int, many: int) -> None:
    """Also where so many overlap that `fold` adds them."""
    frames = torch.randn(2, count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(2, (count - 1) * hop + size, dtype=torch.float64)
    for number in range(count):
        expected[:, number * hop : number * hop + size] += frames[:, number]
    with mock.patch.object(sums, "MANY", many):
        torch.testing.assert_close(overlap_add(frames, hop), expected)
