"""The GPU engine on a CPU: in pieces and whole, with interpreted kernels, with plain torch, and when kernels fail."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import TINY, golden_network, pieces, randomised
from torch import Tensor

from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cuda import make_cuda_engine
from melvoc.nn.engines.cuda.engine import FusedEngine
from melvoc.nn.engines.cuda.launch import Kernels, load_kernels
from melvoc.nn.graph import Chain, Engine, Machine, Map, Node, Residual, join
from melvoc.nn.layers import Conv1d, ConvTranspose1d

CHANNELS = 4


def nodes() -> dict[str, Node]:
    torch.manual_seed(0)
    act, other = AliasFreeSnake(CHANNELS), AliasFreeSnake(CHANNELS)
    conv, wide = Conv1d(CHANNELS, CHANNELS, 3, dilation=2), Conv1d(CHANNELS, CHANNELS, 7)
    leaky, bare = Conv1d(CHANNELS, CHANNELS, 3, slope=0.1), Conv1d(CHANNELS, CHANNELS, 3, bias=False, slope=0.1)
    return {
        "snake": act,
        "conv": leaky,
        "conv, snake, conv, snake": Chain((conv, act, wide, other)),
        "AMP": Residual(Chain((act, conv, other, wide))),
        "leaky": Residual(Chain((leaky, Conv1d(CHANNELS, CHANNELS, 5, slope=0.1)))),
        "no bias": Residual(Chain((bare, act, bare))),
        "conv then leaky without bias": Chain((conv, bare, wide, conv, leaky)),
        "conv alone in a residual": Residual(Chain((conv,))),
        "residual of a layer": Residual(conv),
        "up": Chain((conv, ConvTranspose1d(CHANNELS, CHANNELS, 4, 2, slope=0.1), act, conv, Map(torch.tanh))),
    }


NODES = nodes()


def run(machine: Machine, parts: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])


@pytest.mark.parametrize("name", NODES)
@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 70), cuts=st.lists(st.integers(0, 70), max_size=8), seed=st.integers(0, 99))
def test_pieces_join_to_the_whole(name: str, length: int, cuts: list[int], seed: int) -> None:
    node = NODES[name]
    x = torch.randn(2, CHANNELS, length, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        whole = node(x)
    joined = run(FusedEngine(Kernels(None)).open(node), pieces(x, cuts))
    torch.testing.assert_close(joined, whole, atol=5e-6, rtol=1e-5, msg=lambda m: f"{name}, cuts {cuts}: {m}")


@pytest.mark.parametrize("name", NODES)
def test_gives_as_much_at_once_as_the_plain_engine(name: str) -> None:
    x = torch.randn(1, CHANNELS, 200)
    with torch.no_grad():
        fused, plain = FusedEngine(Kernels(None)).open(NODES[name]), Engine().open(NODES[name])
        for part in (x[..., :90], x[..., 90:93], x[..., 93:]):
            assert fused(part, False).shape == plain(part, False).shape


@pytest.mark.parametrize("name", NODES)
def test_a_fork_goes_its_own_way_and_leaves_the_original_alone(name: str) -> None:
    node = NODES[name]
    a, b, other = torch.randn(3, 1, CHANNELS, 60).unbind(0)
    with torch.no_grad():
        machine = FusedEngine(Kernels(None)).open(node)
        first = machine(a, False)
        fork = machine.fork()
        forked, joined = join(first, fork(other, True)), join(first, machine(b, True))
        torch.testing.assert_close(forked, node(torch.cat([a, other], -1)), atol=5e-6, rtol=1e-5)
        torch.testing.assert_close(joined, node(torch.cat([a, b], -1)), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["snake", "AMP", "leaky"])
def test_pieces_through_the_kernels(name: str) -> None:
    from interpreted import interpreted_kernels, interpreting

    x = torch.randn(1, CHANNELS, 61, generator=torch.Generator().manual_seed(1))
    kernels = interpreted_kernels()
    for cuts in ([], [1, 2, 9, 10, 11, 40], [4, 5, 16], [11, 11, 61]):
        with interpreting(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            joined = run(FusedEngine(kernels).open(NODES[name]), pieces(x, cuts))
        with torch.no_grad():
            torch.testing.assert_close(joined, NODES[name](x), atol=1e-5, rtol=1e-5)
    assert kernels.module is not None


@pytest.mark.parametrize("name", TINY)
def test_golden_waves(golden_dir: Path, name: str) -> None:
    network, mel, wave = golden_network(golden_dir, name)
    for cuts in ([], [3, 4, mel.shape[-1] - 1]):
        joined = run(make_cuda_engine().open(network.graph), pieces(mel, cuts))
        joined = joined.clamp(-1, 1)[..., : wave.shape[-1]]
        torch.testing.assert_close(joined, wave.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_golden_wave_through_the_kernels(golden_dir: Path) -> None:
    from interpreted import interpreted_kernels, interpreting

    network, mel, _ = golden_network(golden_dir, "bigvgan_resblock2_snake_tiny")
    mel = mel[..., :2]  # an activation takes the interpreter a third of a second
    with interpreting(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        joined = run(FusedEngine(interpreted_kernels()).open(network.graph), [mel])
    with torch.no_grad():
        torch.testing.assert_close(joined, network(mel), atol=1e-5, rtol=0)


def test_hifigan_in_pieces() -> None:
    network = randomised(HiFiGAN(HiFiGANConfig(n_mels=8, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4),
                                               upsample_initial_channel=16)))  # fmt: skip
    mel = torch.randn(2, 8, 40)
    with torch.no_grad():
        torch.testing.assert_close(
            run(FusedEngine(Kernels(None)).open(network.graph), pieces(mel, [7, 30])), network(mel)
        )


class Failing:
    """A kernel module whose kernels do not compile."""

    OUTPUTS = 22

    def __init__(self) -> None:
        self.tries = 0

    def __getattr__(self, name: str) -> Failing:
        return self

    def __getitem__(self, grid: object) -> Failing:
        return self

    def __call__(self, *args: object, **kwargs: object) -> None:
        self.tries += 1
        raise RuntimeError("ptxas fatal")


@pytest.mark.parametrize("name", ["AMP", "leaky"])
def test_kernels_that_fail_give_way_to_torch_with_one_warning(name: str) -> None:
    module = Failing()
    kernels = Kernels(module, devices=("cpu",))  # type: ignore[arg-type]
    x = torch.randn(1, CHANNELS, 50)
    with pytest.warns(
        RuntimeWarning, match=r"failed \(RuntimeError: ptxas fatal\); plain torch runs instead"
    ) as caught:
        joined = run(FusedEngine(kernels).open(NODES[name]), pieces(x, [20]))
    assert (len(caught), module.tries) == (1, 1)
    with torch.no_grad():
        torch.testing.assert_close(joined, NODES[name](x), atol=5e-6, rtol=1e-5)


def test_without_triton_there_is_a_warning_and_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.warns(RuntimeWarning, match="cannot be used .*; plain torch runs instead") as caught:
        kernels = load_kernels()
    assert len(caught) == 1
    assert kernels.module is None
    x = torch.randn(1, CHANNELS, 50)
    with torch.no_grad():
        torch.testing.assert_close(run(FusedEngine(kernels).open(NODES["AMP"]), [x]), NODES["AMP"](x))
