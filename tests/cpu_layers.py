"""Layers of the published configurations, and float64 references, for the tests of the CPU engine."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu.engine import Border, CpuEngine
from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.engines.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.graph import ChainMachine, Machine, Node, children, join
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.registry import pins

HIFIGAN = {  # config_v1.json, config_v2.json and config_v3.json of jik876/hifi-gan
    "V1": HiFiGANConfig(),
    "V2": HiFiGANConfig(upsample_initial_channel=128),
    "V3": HiFiGANConfig(
        upsample_rates=(8, 8, 4),
        upsample_kernel_sizes=(16, 16, 8),
        upsample_initial_channel=256,
        resblock="2",
        resblock_kernel_sizes=(3, 5, 7),
        resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What tells one convolution from another; `rate` of a transposed one, else 0."""

    inputs: int
    outputs: int
    taps: int
    dilation: int
    rate: int
    bias: bool
    slope: float | None

    def __str__(self) -> str:
        kind = f"up {self.rate}" if self.rate else f"dilation {self.dilation}"
        rest = ("" if self.bias else ", no bias") + ("" if self.slope is None else f", slope {self.slope}")
        return f"{self.inputs} to {self.outputs}, {self.taps} taps, {kind}{rest}"

    @property
    def plans(self) -> list[Transform | None]:
        """The direct way, and each transform that fits."""
        taps = -(-self.taps // self.rate) if self.rate else self.taps
        return [None, *(transform for transform in TRANSFORMS if transform.taps == taps)]

    def layer(self) -> Conv1d | ConvTranspose1d:
        """With random weights that keep the signal's size, and a bias as large."""
        layer: Conv1d | ConvTranspose1d
        if self.rate:
            layer = ConvTranspose1d(self.inputs, self.outputs, self.taps, self.rate, slope=self.slope)
        else:
            layer = Conv1d(
                self.inputs, self.outputs, self.taps, dilation=self.dilation, bias=self.bias, slope=self.slope
            )
        fan_in = self.inputs * self.taps / max(1, self.rate)
        with torch.no_grad():
            layer.weight.normal_(0, fan_in**-0.5)
            if layer.bias is not None:
                layer.bias.normal_()
        return layer.requires_grad_(False)


@functools.cache
def networks() -> list[nn.Module]:
    """Every published network, on the meta device."""
    with torch.device("meta"):
        built: list[nn.Module] = [HiFiGAN(config) for config in HIFIGAN.values()]
        built += [record.network(pin.config) for record, pin in pins().values()]
    return built


@functools.cache
def published_shapes() -> dict[Shape, list[int]]:
    """Shapes of all convolutions that the engine runs, and the samples a frame at their inputs."""
    found: dict[Shape, set[int]] = {}
    for network in networks():
        samples = 1
        for layer in layers_in_order(network):
            if isinstance(layer, Conv1d | ConvTranspose1d) and layer.groups == 1:
                up = isinstance(layer, ConvTranspose1d)
                shape = Shape(
                    inputs=layer.in_channels, outputs=layer.out_channels, taps=layer.kernel_size[0],
                    dilation=layer.dilation[0], rate=layer.stride[0] if up else 0, bias=layer.bias is not None,
                    slope=layer.slope,
                )  # fmt: skip
                found.setdefault(shape, set()).add(samples)
                samples *= layer.stride[0] if up else 1
    return {shape: sorted(rates) for shape, rates in found.items()}


def layers_in_order(network: nn.Module) -> list[nn.Module]:
    """As the signal meets them."""
    return layers_of(network.graph) if hasattr(network, "graph") else list(network.modules())


def layers_of(node: Node) -> list[nn.Module]:
    """All layers of an expression."""
    inside = [layer for part in children(node) for layer in layers_of(part)]
    return [node] if isinstance(node, nn.Module) else inside


def published_snakes() -> dict[int, int]:
    """Channels of all snakes, and the samples a frame there (the largest)."""
    found: dict[int, int] = {}
    for network in networks():
        samples = 1
        for layer in layers_in_order(network):
            if isinstance(layer, ConvTranspose1d):
                samples *= layer.stride[0]
            if isinstance(layer, AliasFreeSnake):
                found[len(layer.act.alpha)] = max(samples, found.get(len(layer.act.alpha), 0))
    return found


@dataclass(frozen=True, kw_only=True)
class Only(CostModel):
    """The first of the given ways that fits a convolution; the direct one for the others."""

    transforms: tuple[Transform | None, ...] = ()

    def choose(
        self, taps: int, dilation: int, rate: int, inputs: int, outputs: int, batch: int, rows: int
    ) -> Transform | None:
        return next((way for way in self.transforms if way is not None and way.taps == taps), None)


def engine(*transforms: Transform | None) -> CpuEngine:
    return CpuEngine(costs=Only(transforms=transforms))


def run(machine: Machine, parts: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])


def exact(node: Node) -> Callable[[Tensor], Tensor]:
    """The node in plain torch and float64."""
    twin = copy.deepcopy(node)
    for layer in layers_of(twin):
        layer.double()
    return lambda x: torch.no_grad()(twin)(x.double())


def error(result: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest value."""
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max())


def open_native(node: Node, *transforms: Transform | None) -> Machine:
    """A machine of the fast engine, and nothing else."""
    machine = engine(*transforms).open(node)
    machines = machine.machines if isinstance(machine, ChainMachine) else [machine]
    assert all(isinstance(part, Border) for part in machines), f"{node} runs in plain torch: {machines}"
    return machine
