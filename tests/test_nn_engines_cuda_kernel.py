"""The GPU kernels, under Triton's interpreter: the same numbers as the published code's and as plain torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from interpreted import interpreted_kernels, interpreting
from safetensors.torch import load_file
from torch.nn import functional as F

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cuda.launch import Kernels

KINDS = ("snakebeta_log", "snakebeta_lin", "snake_log", "snake_lin")
# all that the nine published BigVGAN configurations and the tiny golden ones have
CHANNELS = (1536, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 8)
# half a unit in the last place; a whole one for bfloat16, where the interpreter cuts (the compiled kernel rounds)
ROUNDING = {torch.float32: 1e-5, torch.float16: 0.51 * 2**-10, torch.bfloat16: 1.01 * 2**-7}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return interpreted_kernels()


@pytest.fixture(autouse=True)
def no_fallback(kernels: Kernels) -> Iterator[None]:
    """A kernel that fails falls back to torch with a warning, and the numbers would be right all the same."""
    with interpreting(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield
    assert kernels.module is not None


def snake(channels: int, seed: int = 0) -> AliasFreeSnake:
    layer = AliasFreeSnake(channels)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return layer


@pytest.mark.parametrize("length", [1, 2, 5, 11, 64, 1037])
@pytest.mark.parametrize("kind", KINDS)
def test_golden_activations(kernels: Kernels, golden_dir: Path, kind: str, length: int) -> None:
    tensors = load_file(golden_dir / "alias_free_activation.safetensors")
    case = {name: tensors[f"{kind}.{length}.{name}"] for name in ("x", "y", "alpha")}
    layer = AliasFreeSnake(case["alpha"].numel(), kind=kind.split("_")[0], logscale=kind.endswith("log"))
    layer.act.alpha.data.copy_(case["alpha"])
    if layer.act.beta is not None:
        layer.act.beta.data.copy_(tensors[f"{kind}.{length}.beta"])
    bound = max(1e-5, 1e-6 * float(case["y"].abs().max()))
    torch.testing.assert_close(kernels.snake(layer, case["x"], count=length), case["y"], atol=bound, rtol=0)


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_channel_count(kernels: Kernels, rng: torch.Generator, channels: int) -> None:
    layer = snake(channels)
    x = torch.randn(2 if channels < 512 else 1, channels, 9, generator=rng)
    torch.testing.assert_close(kernels.snake(layer, x, count=9), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [21, 22, 23, 32 * 22 - 1, 32 * 22 + 1, 1500])
def test_lengths_around_a_program_of_the_size_in_use(rng: torch.Generator, length: int) -> None:
    layer, x = snake(1), torch.randn(1, 1, length, generator=rng)
    y = interpreted_kernels(lanes=32).snake(layer, x, count=length)
    torch.testing.assert_close(y, layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_storage_types_are_rounded_once(kernels: Kernels, rng: torch.Generator, dtype: torch.dtype) -> None:
    layer, x = snake(3), torch.randn(2, 3, 70, generator=rng).to(dtype)
    y = kernels.snake(layer, x, count=70)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), layer(x.float()), atol=1e-5, rtol=ROUNDING[dtype])


def test_large_arguments_of_the_sine(kernels: Kernels) -> None:
    layer = AliasFreeSnake(1, kind="snake")
    layer.act.alpha.data.fill_(3.0)  # a frequency of 20
    x = torch.linspace(-50, 50, 900)[None, None]  # up to 1000 radians, where one float32 step is 6e-5
    y = kernels.snake(layer, x, count=900)
    torch.testing.assert_close(y, layer.double()(x.double()).float(), atol=5e-5, rtol=0)


def test_what_is_not_a_number_stays_near(kernels: Kernels, rng: torch.Generator) -> None:
    x = torch.randn(1, 2, 100, generator=rng)
    x[0, 1, 50] = torch.nan
    y = kernels.snake(snake(2), x, count=100)
    assert y[0, 1, 45:56].isnan().all()
    assert int(y.isnan().sum()) == 11


@pytest.mark.parametrize("held", [1, 4, 5, 11, 40])
def test_context_and_bias(kernels: Kernels, rng: torch.Generator, held: int) -> None:
    layer, bias = snake(3), torch.randn(3, generator=rng)
    signal = torch.randn(2, 3, 90, generator=rng)
    whole = layer(signal + bias[:, None])
    y = kernels.snake(layer, signal[..., held:], context=signal[..., :held], bias=bias, first=5, count=85)
    torch.testing.assert_close(y, whole[..., 5:], atol=1e-5, rtol=1e-5)


def test_views_are_read_where_they_are(kernels: Kernels, rng: torch.Generator) -> None:
    layer = snake(4)
    base = torch.randn(2, 4, 60, generator=rng)
    for x in (
        base[..., 7:50],
        base[:, :, ::2],
        base.transpose(1, 2)[:, :4].contiguous().transpose(1, 2)[:, :4],
        base[1:],
    ):
        torch.testing.assert_close(kernels.snake(layer, x, count=x.shape[-1]), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 100, 1024, 2100])
def test_bias_with_residual_or_leaky_relu(
    kernels: Kernels, rng: torch.Generator, length: int, dtype: torch.dtype
) -> None:
    y, skip = torch.randn(2, 2, 3, length + 5, generator=rng).to(dtype)
    y, skip, bias = y[..., 5:].contiguous(), skip[..., 5:], torch.randn(3, generator=rng)
    exact = y.float() + bias[:, None]
    bound = {"atol": 1e-5, "rtol": ROUNDING[dtype]}
    summed = kernels.finish(y.clone(), bias, skip=skip)
    torch.testing.assert_close(summed.float(), exact + skip.float(), **bound)
    torch.testing.assert_close(kernels.finish(y.clone(), bias, slope=0.1).float(), F.leaky_relu(exact, 0.1), **bound)
    torch.testing.assert_close(kernels.finish(y.clone(), bias).float(), exact, **bound)


def test_a_float64_signal_and_one_that_wants_a_gradient_run_in_torch(kernels: Kernels, rng: torch.Generator) -> None:
    layer = snake(2).double()
    x = torch.randn(1, 2, 30, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(kernels.snake(layer, x, count=30), layer(x), atol=1e-12, rtol=0)
    with torch.enable_grad():
        x = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: kernels.snake(layer, x, count=9), (x,))
        narrow = snake(2)
        x = torch.randn(1, 2, 9, requires_grad=True)
        assert kernels.snake(narrow, x, count=9).requires_grad


def test_parameters_that_change_are_seen(kernels: Kernels, rng: torch.Generator) -> None:
    layer, x = snake(2), torch.randn(1, 2, 40, generator=rng)
    before = kernels.snake(layer, x, count=40)
    layer.act.alpha.add_(1.0)
    after = kernels.snake(layer, x, count=40)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, layer(x), atol=1e-5, rtol=1e-5)
