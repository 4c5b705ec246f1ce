"""Where the time of a synthesis goes, and whether the plan of each layer is the best one.

    python benchmarks/profile_layers.py [--model NAME] [--frames 192] [--rounds 5] [--no-plans] [--tune]

The first table is a synthesis by kind of work, with the GFLOP/s of the products; the second the same by stage (output
channels). The third has, for each shape of layer and a block of the model's size, what the cost model chose and the
seconds of every way, the least of several rounds that alternate; between runs the caches are filled with something
else, as the rest of a network does. The engine is watched from outside: it has no hooks, and costs nothing more for it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cpu import REAL, build
from torch import Tensor

from melvoc.neural import NeuralVocoder
from melvoc.nn import graph, stft, window
from melvoc.nn.engines.cpu import amx, conv, framewise, gemm, matrix, rows, snake, tanh, tiles, weights
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cpu.memory import Workspace
from melvoc.nn.engines.cpu.plan import CostModel
from melvoc.nn.engines.cpu.threads import TEAM
from melvoc.nn.engines.cpu.transform import TRANSFORMS, Transform
from melvoc.nn.engines.cpu.tune import Only, measure
from melvoc.nn.engines.cpu.vector import LANES
from melvoc.nn.engines.cpu.weights import Budget
from melvoc.nn.layers import Conv1d, ConvTranspose1d

MODEL = "bigvgan_v2_44khz_128band_512x"
KINDS = {
    tiles.tiles_to_slots: "tiles in",
    tiles.slots_to_rows: "slots out",
    tiles.convolve_tiles: "transforms in cache (tiles, products and slots)",
    matrix.split_rows: "rows in three parts",
    framewise.depthwise: "depthwise convolutions",
    framewise.normalise: "normalisations",
    framewise.bias_normalise: "normalisations",
    snake.snake: "snake",
    rows.pass_over: "passes",
    rows.fill: "windows (context, leaky ReLU)",
    tanh.tanh: "borders",
    rows.gather: "borders",
    rows.scatter: "borders",
}
BETWEEN = (snake.snake, rows.pass_over, rows.fill, framewise.depthwise, framewise.normalise, framewise.bias_normalise)
PREPARATION, PLAIN, REST = "weight preparation", "plain torch", "Python and small copies"


class Profile:
    """Seconds and multiply-adds by kind and stage."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.products: dict[tuple[str, str], float] = defaultdict(float)
        self.kind: str | None = None  # of what is going on, where the kernel does not say
        self.stage: str | None = None

    @contextmanager
    def within(self, kind: str | None, stage: str | None) -> Iterator[None]:
        """What the kernels inside are about; what is known already stays."""
        before = self.kind, self.stage
        self.kind, self.stage = self.kind or kind, self.stage or stage
        try:
            yield
        finally:
            self.kind, self.stage = before

    def kernel(self, function: Any, arguments: Any, seconds: float) -> None:
        """One kernel has run."""
        kind = self.kind if self.kind == PREPARATION else KINDS.get(function) or self.kind or "other"
        between = function in BETWEEN
        stage = self.stage or (str(arguments.blocks * LANES) if between else "ends")
        self.seconds[kind, stage] += seconds
        if kind != PREPARATION:
            self.products[kind, stage] += multiply_adds(function, arguments)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Kernels, and the parts of the engine that call them, report here."""
        run = TEAM.run

        def timed(function: Any, jobs: int, arguments: Any, **more: Any) -> None:
            start = time.perf_counter()
            run(function, jobs, arguments, **more)
            self.kernel(function, arguments, time.perf_counter() - start)

        def plain(original: Any) -> Any:
            def call(machine: Any, *arguments: Any) -> Any:
                start = time.perf_counter()
                result = original(machine, *arguments)
                self.seconds[PLAIN, "ends"] += time.perf_counter() - start
                return result

            return call

        def inside(original: Any, kind: str | None, stage: Callable[[Any], str]) -> Any:
            def call(owner: Any, *arguments: Any) -> Any:
                with self.within(kind, stage(owner)):
                    return original(owner, *arguments)

            return call

        def of_convolution(owner: Any) -> str:
            return str(owner.weights.outputs * LANES)

        convolution, known = conv.Convolution, weights.Weights
        originals = [
            (TEAM, "run", timed),
            (convolution, "_split", inside(convolution._split, "products on the matrix unit", of_convolution)),
            (convolution, "_direct", inside(convolution._direct, "direct products", of_convolution)),
            (convolution, "_transformed", inside(convolution._transformed, "transform products", of_convolution)),
            (known, "_make", preparing(self, known._make)),
            (weights.SplitWeights, "packed", preparing(self, weights.SplitWeights.packed)),
            (window.Window, "__call__", plain(window.Window.__call__)),
            (stft.InverseSTFTMachine, "__call__", plain(stft.InverseSTFTMachine.__call__)),
            (graph.MapMachine, "__call__", plain(graph.MapMachine.__call__)),
        ]
        before = [(owner, name, vars(owner).get(name)) for owner, name, _ in originals]
        for owner, name, wrapper in originals:
            setattr(owner, name, wrapper)
        try:
            yield
        finally:
            for owner, name, original in before:
                if original is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)


def preparing(profile: Profile, original: Any) -> Any:
    """Weights that are made inside a convolution are a kind of their own."""

    def call(owner: Any, *arguments: Any) -> Any:
        before, profile.kind = profile.kind, PREPARATION
        try:
            return original(owner, *arguments)
        finally:
            profile.kind = before

    return call


def multiply_adds(function: Any, given: Any) -> float:
    """Of a kernel with products."""
    if function is gemm.multiply:
        return float(given.slots * given.rows * given.panels * given.width * LANES * given.chunks * LANES)
    if function is matrix.multiply_tiles:
        return float(given.total * given.panels * amx.PANEL * given.chunks * amx.CHUNK)
    if function is tiles.convolve_tiles:
        products = given.batch * given.dilation * given.per_phase * given.products
        return float(products * given.in_blocks * given.width * given.panels * LANES * LANES)
    return 0.0


def profiled(voc: NeuralVocoder, mel: Tensor, rounds: int) -> tuple[Profile, float, Profile]:
    """The fastest of several syntheses, its seconds, and the first one, which prepares the weights."""
    first = Profile()
    with first.watching():
        voc.mel_to_waveform(mel, spec=voc.spec)
    best, least = first, float("inf")
    for _ in range(rounds):
        profile = Profile()
        with profile.watching():
            start = time.perf_counter()
            voc.mel_to_waveform(mel, spec=voc.spec)
            seconds = time.perf_counter() - start
        if seconds < least:
            best, least = profile, seconds
    best.seconds[REST, "ends"] = least - sum(best.seconds.values())
    return best, least, first


def show(profile: Profile, total: float, place: int, title: str) -> None:
    """One table: by kind (place 0) or by stage (place 1)."""
    seconds: dict[str, float] = defaultdict(float)
    products: dict[str, float] = defaultdict(float)
    for key, value in profile.seconds.items():
        seconds[key[place]] += value
        products[key[place]] += profile.products[key]
    print(f"| {title} | ms | share | GFLOP | GFLOP/s |\n| :-- | --: | --: | --: | --: |")
    for name, value in sorted(seconds.items(), key=lambda entry: -entry[1]):
        flops = 2 * products[name]
        rate = f"{flops / 1e9:.1f} | {flops / value / 1e9:.0f}" if flops else " | "
        print(f"| {name} | {value * 1e3:.1f} | {value / total:.0%} | {rate} |")
    print()


def shapes_of(voc: NeuralVocoder) -> list[tuple[Conv1d | ConvTranspose1d, int, int]]:
    """A layer of each shape, its input rows in a block, and how many there are of it."""
    found: dict[Any, list[Any]] = {}
    for layer in voc.network.modules():
        if isinstance(layer, Conv1d | ConvTranspose1d) and layer.groups == 1:
            key = (type(layer), layer.weight.shape, layer.dilation, layer.stride)
            found.setdefault(key, [layer, 0])[1] += 1
    rates = {voc.network.conv_pre.out_channels: 1}
    samples = 1
    for up in (layer for layer in voc.network.ups.modules() if isinstance(layer, ConvTranspose1d)):
        samples *= up.rate
        rates[up.out_channels] = samples
    frames = voc.block_frames
    return [
        (layer, frames * (1 if layer is voc.network.conv_pre else rates[layer.in_channels]), count)
        for layer, count in found.values()
    ]


def compare(layer: Conv1d | ConvTranspose1d, count: int, rounds: int) -> dict[Transform | None, float]:
    """Seconds of each way for so many rows of input."""
    budget, workspace = Budget(limited=False), Workspace()
    taps = layer.taps if isinstance(layer, ConvTranspose1d) else layer.kernel_size[0]
    ways: list[Transform | None] = [None, *(transform for transform in TRANSFORMS if transform.taps == taps)]
    made = {way: conv.Convolution(layer, Only(way=way), budget) for way in ways}
    one = made[None]
    window = torch.randn(1, one.weights.inputs, count + one.span, LANES)
    out = torch.empty(1, one.weights.outputs, count * one.weights.rate, LANES)
    elsewhere = torch.zeros(2**24)  # 64 MB
    taken: dict[Transform | None, float] = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 1):
        for way, convolution in made.items():
            elsewhere.add_(1.0)
            window.mul_(1.0)  # the last layer's output is what caches do hold
            start = time.perf_counter()
            convolution.run(window, out, None, workspace)
            if number:
                taken[way] = min(taken[way], time.perf_counter() - start)
    return taken


def name_of(way: Transform | None) -> str:
    """Short."""
    return "direct" if way is None else f"{type(way).__name__} {way.size}"


def plans(voc: NeuralVocoder, costs: CostModel, rounds: int) -> None:
    """The third table, and what better choices would save."""
    print(f"Blocks of {voc.block_frames} frames, {costs}\n")
    print("| layer | rows | how many | chosen | ms, every way | lost |\n| :-- | --: | --: | :-- | :-- | --: |")
    lost = whole = 0.0
    for layer, count, number in shapes_of(voc):
        taken = compare(layer, count, rounds)
        one = conv.Convolution(layer, costs, Budget(limited=False))
        outputs = one.weights.outputs * one.weights.rate
        rate, inputs = one.weights.rate, one.weights.inputs
        chosen = costs.choose(one.weights.taps, one.dilation, rate, inputs, outputs, 1, count)
        loss = taken[chosen] - min(taken.values())
        lost, whole = lost + number * loss, whole + number * taken[chosen]
        every = ", ".join(f"{name_of(way)} {seconds * 1e3:.2f}" for way, seconds in taken.items())
        kind = f"up {layer.rate}" if isinstance(layer, ConvTranspose1d) else f"dilation {one.dilation}"
        shape = f"{layer.in_channels} to {layer.out_channels}, {layer.kernel_size[0]} taps, {kind}"
        share = f"{loss / taken[chosen]:.0%}" if loss else ""
        print(f"| {shape} | {count} | {number} | {name_of(chosen)} | {every} | {share} |", flush=True)
    print(f"\nThe layers of a block take {whole * 1e3:.0f} ms; the best of all choices would save {lost * 1e3:.1f} ms.")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help=f"a published name, or {', '.join(REAL)}")
    parser.add_argument("--frames", type=int, default=192, help="of the synthesis")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-plans", action="store_true", help="without the third table")
    parser.add_argument("--tune", action="store_true", help="measure this machine first, and plan with the result")
    options = parser.parse_args()
    voc = build(options.model)
    if options.tune:
        voc._engine = CpuEngine(costs=measure())
    costs = voc.engine().costs
    mel = 2 * torch.randn(1, voc.spec.n_mels, options.frames, generator=torch.Generator().manual_seed(0)) - 4
    profile, total, first = profiled(voc, mel, options.rounds)
    samples = voc.spec.samples(options.frames) / voc.sample_rate
    print(f"{options.model}, {options.frames} frames ({samples:.2f} s of sound), {torch.get_num_threads()} threads")
    prepared = sum(value for (kind, _), value in first.seconds.items() if kind == PREPARATION)
    print(f"{total:.3f} s, and {prepared:.3f} s more for preparing the weights in the first call\n")
    show(profile, total, 0, "kind")
    show(profile, total, 1, "stage (output channels)")
    if not options.no_plans:
        plans(voc, costs, options.rounds)


if __name__ == "__main__":
    main()
