"""Functions inside a `Map` or a join become ONNX nodes by what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from exported import run, session
from torch import Tensor, nn
from torch.nn import functional as F

from melvoc.errors import MelvocError
from melvoc.exporting.functions import lower_function
from melvoc.exporting.graph import Builder, Signal

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def lowered(function: Callable[[Any], Tensor], channels: int = 4) -> tuple[Any, int]:
    builder = Builder()
    value = lower_function(builder, function, Signal("x", channels))
    output = {"y": (value.name, "float32", ["b", value.channels, "n"])}
    return session(builder.finish({"x": ("float32", ["b", channels, "n"])}, output, {})), value.channels


def halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.cat([first.sigmoid() * second, second - first], dim=1)


def parts(x: Tensor) -> Tensor:
    a, b = torch.split(x, [1, 3], dim=1)
    return torch.maximum(a, b[:, 1:]) + torch.minimum(a, b[:, :2])


def in_place(x: Tensor) -> Tensor:
    y = x * 2.0
    y.add_(1.0)
    y += x
    return y.div_(3)


FUNCTIONS: dict[str, Callable[[Any], Tensor]] = {
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "prelu": nn.PReLU(4, init=0.1),
    "relu": torch.relu,
    "one bound": lambda x: x.clamp(min=0.2),
    "other bound": lambda x: torch.clip(x, max=0.2),
    "reflected": lambda x: 1.0 / (2.0 - x.tanh()),
    "reflected by a tensor": lambda x: torch.tensor(2.0) - x,
    "scaled": lambda x: torch.sub(x, x.cos(), alpha=0.5),
    "power": lambda x: x.abs() ** 1.5,
    "expm1": lambda x: torch.expm1(x * 1e-4) * 1e4,
    "expm1 of anything": lambda x: torch.expm1(x * 60.0).clamp(max=50.0),
    "reflected and scaled": lambda x: torch.rsub(x, 3.0, alpha=2),
    "where": lambda x: torch.where(x > 0.1, x, -1.0),
    "over channels": lambda x: x * (x.square().mean(dim=1, keepdim=True) + 1e-3).rsqrt(),
    "linear": lambda x: F.linear(x.transpose(1, 2), torch.eye(4)[:3], torch.ones(3)).transpose(1, 2),
    "layer norm": lambda x: F.layer_norm(x.transpose(1, 2), (4,)).transpose(1, 2),
    "halves": halves,
    "parts": parts,
    "in place": in_place,
    "thirds": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "added axis": lambda x: (x[:, None] * torch.ones(1, 2, 1, 1)).sum(dim=1),
    "constant": lambda x: x + torch.linspace(0, 1, 4).exp()[:, None],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_value_is_torchs(name: str) -> None:
    runtime, channels = lowered(FUNCTIONS[name])
    for frames in (1, 9):
        x = torch.randn(2, 4, frames)
        with torch.no_grad():
            wanted = FUNCTIONS[name](x.clone())
        assert wanted.shape[1] == channels
        torch.testing.assert_close(run(runtime, x=x), wanted, atol=2e-6, rtol=2e-6)


def test_neighbouring_transposes_vanish() -> None:
    builder = Builder()
    x = builder.transpose("x", 0, 2, 1)
    assert builder.transpose(x, 0, 2, 1) == "x"
    assert builder.transpose(builder.transpose("x", 2, 0, 1), 2, 0, 1) != "x"


def test_an_operation_without_a_form_is_named() -> None:
    with pytest.raises(MelvocError, match=r"torch's cumsum, for which melvoc has no form in ONNX; use one of abs, add"):
        lowered(lambda x: x.cumsum(-1))


def test_what_it_cannot_follow_is_refused() -> None:
    def writes(x: Tensor) -> Tensor:
        y = x * 1.0
        y[:, :2].mul_(2.0)
        return y

    with pytest.raises(MelvocError, match=r"writes into a part of a tensor \(mul_\); return a new one"):
        lowered(writes)

    def writes_beside(x: Tensor) -> Tensor:
        y = x.clone()
        y.transpose(1, 2).mul_(2.0)
        return y

    with pytest.raises(MelvocError, match=r"writes into a part of a tensor \(mul_\); return a new one"):
        lowered(writes_beside)
    with pytest.raises(MelvocError, match="clamp with arguments that have no form in ONNX here"):
        lowered(lambda x: torch.clamp(x, min=x - 1.0))
    with pytest.raises(MelvocError, match=r"makes torch\.int64 of its input, but here everything is float32; keep it"):
        lowered(lambda x: x.to(torch.int64) * 1.0)
    with pytest.raises(MelvocError, match="softplus with arguments that have no form in ONNX here"):
        lowered(lambda x: F.softplus(x, beta=2.0))
    with pytest.raises(MelvocError, match="indexes by 0, but only slices have a form in ONNX here; slice"):
        lowered(lambda x: x[:, 0])
