"""The alias-free activation against the published code's numbers, and the physics it is there for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melvoc.nn.alias_free import AliasFreeSnake, Snake, kaiser_sinc

KINDS = ("snakebeta_log", "snakebeta_lin", "snake_log", "snake_lin")


@pytest.mark.parametrize("length", [1, 2, 5, 11, 64, 1037])
@pytest.mark.parametrize("kind", KINDS)
def test_golden_activations(golden_dir: Path, kind: str, length: int) -> None:
    tensors = load_file(golden_dir / "alias_free_activation.safetensors")
    case = {name: tensors[f"{kind}.{length}.{name}"] for name in ("x", "y", "alpha")}
    layer = AliasFreeSnake(case["alpha"].numel(), kind=kind.split("_")[0], logscale=kind.endswith("log"))
    layer.act.alpha.data.copy_(case["alpha"])
    if layer.act.beta is not None:
        layer.act.beta.data.copy_(tensors[f"{kind}.{length}.beta"])
    bound = max(1e-5, 1e-6 * float(case["y"].abs().max()))
    torch.testing.assert_close(layer(case["x"]), case["y"], atol=bound, rtol=0)


def test_filter_has_unit_gain_and_is_symmetric() -> None:
    response = kaiser_sinc()
    assert float(response.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(response, response.flip(0), atol=1e-15, rtol=0)


def test_a_constant_stays_the_constant_that_snake_makes_of_it() -> None:
    layer, plain = AliasFreeSnake(3), Snake(3)
    x = torch.full((1, 3, 40), 0.7)
    # the published filter's two phases do not have exactly the same sum: a constant comes out within 1 %
    torch.testing.assert_close(layer(x), plain(x), rtol=0.01, atol=0)


def test_fewer_aliases_than_a_plain_snake() -> None:
    n = 4096
    tone = 1.5 * torch.sin(2 * math.pi * 1500 / n * torch.arange(n))[None, None]  # its double, 3000, is above n / 2
    alias = n - 2 * 1500

    def level(layer: torch.nn.Module) -> float:
        spectrum = torch.fft.rfft(layer(tone)[0, 0].detach() * torch.hann_window(n)).abs()
        return float(20 * torch.log10(spectrum[alias - 2 : alias + 3].max()))

    assert level(AliasFreeSnake(1)) < level(Snake(1)) - 9  # in dB; 12 taps do not give more there


def test_gradients_are_right() -> None:
    layer = AliasFreeSnake(2).double()
    x = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
