"""The CPU engine inside a vocoder: weights that change, low memory, gradients, other types, odd mels."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
import torch
from cpu_layers import engine, error, exact, run
from networks import TINY, neural, random_mel, randomised, vocoder
from torch import Tensor, nn

import melvoc
from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.neural import NeuralVocoder
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cpu import _say_once, amx, make_cpu_engine
from melvoc.nn.engines.cpu.engine import CpuEngine
from melvoc.nn.engines.cpu.weights import Weights
from melvoc.nn.framing import Select
from melvoc.nn.graph import Branches, Chain, Engine, Mean, Node, Residual, add
from melvoc.nn.layers import Conv1d, ConvTranspose1d

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = 1e-5  # of a wave in [-1, 1]


def plain(voc: NeuralVocoder, mel: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(voc).double()(mel.double()).clamp(-1, 1)


def close(voc: NeuralVocoder, mel: Tensor) -> None:
    torch.testing.assert_close(voc.mel_to_waveform(mel).double(), plain(voc, mel), atol=1e-4, rtol=0)


def load(voc: NeuralVocoder) -> None:
    voc.load_state_dict({name: tensor * 0.9 for name, tensor in voc.state_dict().items()})


def assign(voc: NeuralVocoder) -> None:
    voc.load_state_dict({name: tensor * 0.9 for name, tensor in voc.state_dict().items()}, assign=True)


def step(voc: NeuralVocoder) -> None:
    optimizer = torch.optim.AdamW(voc.requires_grad_(True).parameters(), lr=0.005)
    voc(random_mel(voc, 3)).square().mean().backward()
    optimizer.step()
    voc.requires_grad_(False)


def fused_step(voc: NeuralVocoder) -> None:
    """Which writes weights without counting that."""
    optimizer = torch.optim.AdamW(voc.requires_grad_(True).parameters(), lr=0.005, fused=True)
    voc(random_mel(voc, 3)).square().mean().backward()
    optimizer.step()
    voc.requires_grad_(False)


def write(voc: NeuralVocoder) -> None:
    with torch.no_grad():
        for parameter in voc.parameters():
            parameter.mul_(0.9)


def replace(voc: NeuralVocoder) -> None:
    for parameter in voc.parameters():
        parameter.data = parameter.data * 0.9


def replace_twice(voc: NeuralVocoder) -> None:
    """The second time new weights may lie where the first ones were."""
    replace(voc)
    replace(voc)


def to_float64_and_back(voc: NeuralVocoder) -> None:
    voc.double()
    with torch.no_grad():
        for parameter in voc.parameters():
            parameter.mul_(0.9)
    voc.float()


def network_to_float64_and_back(voc: NeuralVocoder) -> None:
    voc.network.double()
    write(voc)
    voc.network.float()


def only_the_biases(voc: NeuralVocoder) -> None:
    with torch.no_grad():
        for parameter in voc.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1)


def other_layers(voc: NeuralVocoder) -> None:
    voc.network = randomised(type(voc.network)(voc.network.config), seed=5).requires_grad_(False)


CHANGES = (
    load, assign, step, fused_step, write, replace, replace_twice, to_float64_and_back, network_to_float64_and_back,
    only_the_biases, other_layers,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["bigvgan_v2_tiny", "bigvgan_resblock2_snake_tiny"])
def test_changed_weights_are_used(name: str, change: Callable[[NeuralVocoder], None]) -> None:
    voc = vocoder(name)
    mel = random_mel(voc, 12)
    before = voc.mel_to_waveform(mel)
    for _ in range(3):
        change(voc)
        close(voc, mel)
    assert (voc.mel_to_waveform(mel) - before).abs().max() > 100 * EXACT


def test_each_layer_of_a_chain_is_watched() -> None:
    snake, conv, up = AliasFreeSnake(8), Conv1d(8, 8, 7), ConvTranspose1d(8, 8, 4, 2)
    node = Chain((Residual(Chain((snake, conv))), up))
    for layer in (snake, conv, up):
        layer.requires_grad_(False)
    opener, x = engine(), torch.randn(1, 8, 40)
    for parameter in [*snake.parameters(), *conv.parameters(), *up.parameters()]:
        parameter.add_(0.3)
        assert error(run(opener.open(node), [x]), exact(node)(x)) < 3e-6


def test_what_was_made_of_old_weights_is_let_go() -> None:
    voc = vocoder("bigvgan_v2_tiny")
    mel = random_mel(voc, 12)
    voc.mel_to_waveform(mel)
    cpu = voc.engine()
    assert isinstance(cpu, CpuEngine)
    plain_floats, kept = cpu.budget.plain, cpu.budget.kept
    old = [weakref.ref(weights) for weights in cpu.budget.known()]
    assert plain_floats == sum(p.numel() for p in voc.parameters() if p.dim() > 1)
    for change in (load, other_layers, assign):
        change(voc)
        voc.mel_to_waveform(mel)
        gc.collect()
        assert voc.engine() is cpu
        assert (cpu.budget.plain, cpu.budget.kept) == (plain_floats, kept)
        assert not any(weights() for weights in old)
        old = [weakref.ref(weights) for weights in cpu.budget.known()]


def test_an_engine_that_is_gone_leaves_nothing() -> None:
    """The network stays, as after `voc.to(...)`, and with it the chains that the engine knew."""
    voc = vocoder("bigvgan_v2_tiny")
    for _ in range(2):
        voc.mel_to_waveform(random_mel(voc, 3))
        cpu = voc.engine()
        assert isinstance(cpu, CpuEngine)
        gone = [weakref.ref(cpu), *map(weakref.ref, cpu.budget.known())]
        del cpu
        voc.to("cpu")
        gc.collect()
        assert not any(reference() for reference in gone)


def test_a_vocoder_that_is_gone_leaves_nothing() -> None:
    voc = vocoder("bigvgan_v2_tiny")
    voc.mel_to_waveform(random_mel(voc, 3))
    weights = [weakref.ref(weights) for weights in voc.engine().budget.known()]
    layers = [weakref.ref(layer) for layer in voc.modules()]
    del voc
    gc.collect()
    assert not any(reference() for reference in [*weights, *layers])


@pytest.mark.parametrize("layout", ["transposed", "expanded", "strided"])
def test_weights_in_any_layout(layout: str) -> None:
    conv, up = Conv1d(16, 16, 7), ConvTranspose1d(16, 16, 4, 2)
    for layer in (conv, up):
        weight = layer.weight.detach()
        layer.weight = nn.Parameter(
            {
                "transposed": weight.permute(2, 1, 0).contiguous().permute(2, 1, 0),
                "expanded": weight[:1].expand_as(weight),
                "strided": torch.stack([weight, weight], dim=-1)[..., 0],
            }[layout],
            requires_grad=False,
        )
        layer.requires_grad_(False)
        x = torch.randn(1, 16, 50)
        assert error(run(engine().open(layer), [x]), exact(layer)(x)) < 3e-6


def test_weight_norm_on_a_layer_is_followed() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(Conv1d(8, 8, 3)).requires_grad_(False)
    opener, x = engine(), torch.randn(1, 8, 40)
    for _ in range(2):
        with torch.no_grad():
            expected = layer(x).double()
        assert error(run(opener.open(layer), [x]), expected) < 3e-6
        layer.parametrizations.weight.original0.mul_(2)


def low_and_default() -> dict[str, tuple[NeuralVocoder, NeuralVocoder]]:
    bigvgan = BigVGANConfig(
        n_mels=100, upsample_rates=(4, 4, 2, 2, 2, 2), upsample_kernel_sizes=(8, 8, 4, 4, 4, 4),
        upsample_initial_channel=384, use_tanh_at_final=False, use_bias_at_final=False,
    )  # fmt: skip
    found = {}
    for name, network, preset in (
        ("bigvgan_v2_24khz_100band_256x", BigVGAN(bigvgan), "bigvgan_v2_24khz_100band_256x"),
        ("hifigan V2", HiFiGAN(HiFiGANConfig(upsample_initial_channel=128)), "hifigan_22khz_80band_256x"),
    ):
        made = randomised(network).requires_grad_(False)
        found[name] = tuple(
            neural(made, name=name, spec=melvoc.MelSpec.preset(preset), memory=memory) for memory in ("low", "auto")
        )
    return found


LOW = low_and_default()


@pytest.mark.parametrize("name", LOW)
def test_low_memory_stays_under_1_3_times_the_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "available", lambda: False)  # its arithmetic is another, and low memory never has it
    low, default = LOW[name]
    mel = random_mel(low, 100)
    result, expected = low.mel_to_waveform(mel), default.mel_to_waveform(mel)
    torch.testing.assert_close(result, expected, atol=EXACT, rtol=0)
    torch.testing.assert_close(
        low.mel_to_waveform(mel[..., :3]), default.mel_to_waveform(mel[..., :3]), atol=1e-5, rtol=0
    )
    plain_floats = sum(p.numel() for p in low.parameters())
    cpu = low.engine()
    held = cpu.budget.kept + cpu.workspace.weights.size
    assert plain_floats + held < 1.3 * plain_floats
    assert default.engine().budget.kept > plain_floats


def test_gradients_flow_through_the_network() -> None:
    voc = vocoder("bigvgan_v2_tiny").requires_grad_(True)
    mel = random_mel(voc, 6).requires_grad_(True)
    voc(mel).square().mean().backward()
    assert mel.grad is not None
    assert mel.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in voc.parameters())


@pytest.mark.parametrize("what", ["the mel", "the weights", "both"])
def test_machines_keep_gradients_where_they_are_asked_for(what: str) -> None:
    node = Chain((Conv1d(8, 8, 3), Residual(Chain((AliasFreeSnake(8), Conv1d(8, 8, 3, dilation=2))))))
    layers = [node.nodes[0], *node.nodes[1].nodes[1].nodes]
    for layer in layers:
        layer.requires_grad_(what != "the mel")
    x = torch.randn(1, 8, 30, requires_grad=what != "the weights")
    machine = engine().open(node)
    result = torch.cat([machine(x[..., :11], False), machine(x[..., 11:], True)], dim=-1)
    result.square().mean().backward()
    if what != "the mel":
        assert all(p.grad is not None for layer in layers for p in layer.parameters())
    if what != "the weights":
        machine_grad, x.grad = x.grad, None
        node(x).square().mean().backward()
        torch.testing.assert_close(machine_grad, x.grad)


def test_weights_that_want_gradients_run_fast_without_them() -> None:
    voc = vocoder("bigvgan_v2_tiny").requires_grad_(True)
    mel = random_mel(voc, 6)
    wave = voc.mel_to_waveform(mel)
    assert not wave.requires_grad
    torch.testing.assert_close(wave, voc(mel).detach().clamp(-1, 1), atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_a_float64_vocoder_is_exact(name: str) -> None:
    voc = vocoder(name).double()
    mel = random_mel(voc, 9)
    wave = voc.mel_to_waveform(mel)
    assert wave.dtype == torch.float64
    assert type(voc.engine()) is Engine
    torch.testing.assert_close(wave, plain(voc, mel), atol=1e-12, rtol=0)


def test_mels_in_any_layout() -> None:
    voc = vocoder("bigvgan_v2_tiny")
    mel = random_mel(voc, 30, batch=2)
    expected = voc.mel_to_waveform(mel)
    layouts = {
        "time first": mel.transpose(1, 2).contiguous().transpose(1, 2),
        "every second frame": mel.repeat_interleave(2, dim=-1)[..., ::2],
        "every second band": mel.repeat_interleave(2, dim=1)[:, ::2],
        "batch last": mel.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "backwards and back": mel.flip(-1).flip(-1),
        "float64": mel.double(),
    }
    for name, other in layouts.items():
        torch.testing.assert_close(voc.mel_to_waveform(other), expected, atol=1e-6, rtol=0, msg=name)
    one = voc.mel_to_waveform(mel[:1])
    torch.testing.assert_close(voc.mel_to_waveform(mel[:1].expand(3, -1, -1)), one.expand(3, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_torchs_defaults_change_nothing(dtype: torch.dtype) -> None:
    """Memory that kernels write is theirs: a default type of half the size would make it too small."""
    voc = vocoder("bigvgan_v2_tiny")
    mel = random_mel(voc, 30)
    expected = voc.mel_to_waveform(mel)
    fresh = vocoder("bigvgan_v2_tiny")
    torch.set_default_dtype(dtype)
    try:
        got = fresh.mel_to_waveform(mel)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_a_preparation_that_was_interrupted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    voc = vocoder("bigvgan_v2_tiny")
    mel = random_mel(voc, 30)
    with monkeypatch.context() as patch:
        patch.setattr(Weights, "_make", interrupt)
        with pytest.raises(KeyboardInterrupt):
            voc.mel_to_waveform(mel)
    close(voc, mel)
    known = voc.engine().budget.known()  # type: ignore[attr-defined]
    assert all(group is not None for weights in known for group in weights._kept.values())
    assert voc.engine().budget.kept == sum(  # type: ignore[attr-defined]
        group.tensor.numel() for weights in known for group in weights._kept.values()
    )


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_mean_of_branches_with_other_channels() -> None:
    node = randomised(nn.ModuleList([Conv1d(8, 20, 3), Conv1d(8, 20, 5)]))
    mean, x = Mean(tuple(node)), torch.randn(1, 8, 50)
    with torch.inference_mode():
        torch.testing.assert_close(engine().open(mean)(x, True), mean(x), atol=1e-5, rtol=0)


ODD: dict[str, Callable[[], Node]] = {
    "one channel added to each": lambda: Residual(Chain((Conv1d(1, 8, 3),))),
    "each added to one channel": lambda: Residual(Chain((Conv1d(8, 1, 3),))),
    "others added": lambda: Residual(Chain((Conv1d(8, 64, 3),))),
    "others taken": lambda: Chain((Conv1d(8, 8, 3), Conv1d(64, 8, 3))),
    "others joined": lambda: Mean((Conv1d(8, 8, 3), Conv1d(8, 16, 3))),
    "more than are selected": lambda: Branches((Chain(()), Chain((Select(0, 4), Conv1d(4, 4, 3)))), add),
}


@pytest.mark.parametrize("name", ODD)
def test_channels_that_do_not_match_are_what_they_are_to_torch(name: str) -> None:
    """Kernels would add the wrong ones, or read what lies behind."""
    node = ODD[name]()
    x = torch.randn(1, 1 if "to each" in name else 8, 50)
    with torch.inference_mode():
        try:
            expected = node(x)
        except RuntimeError:
            with pytest.raises((RuntimeError, ValueError)):
                engine().open(node)(x, True)
        else:
            torch.testing.assert_close(engine().open(node)(x, True), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.1, 1.0, 1.5])
@pytest.mark.parametrize("kind", [Conv1d, ConvTranspose1d])
def test_any_slope_is_that_of_a_leaky_relu(slope: float, kind: type) -> None:
    layer = kind(8, 8, 3, slope=slope) if kind is Conv1d else kind(8, 8, 4, 2, slope=slope)
    x = torch.randn(1, 8, 50)
    with torch.inference_mode():
        torch.testing.assert_close(engine().open(layer)(x, True), layer(x), atol=1e-5, rtol=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_while_another_thread_compiles_computes() -> None:
    code = (
        "import os, threading, time, torch\n"
        "from numba.core.compiler_lock import global_compiler_lock\n"
        "from melvoc.nn.engines.cpu.engine import CpuEngine\n"
        "from melvoc.nn.layers import Conv1d\n"
        "torch.set_num_threads(1)\n"
        "held, over = threading.Event(), threading.Event()\n"
        "def compiling():\n"
        "    with global_compiler_lock:\n"
        "        held.set(); over.wait(60)\n"
        "thread = threading.Thread(target=compiling); thread.start(); held.wait()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    with torch.inference_mode():\n"
        "        CpuEngine().open(Conv1d(8, 8, 3))(torch.randn(1, 8, 50), True)\n"
        "    os._exit(0)\n"
        "for _ in range(450):\n"
        "    done, status = os.waitpid(pid, os.WNOHANG)\n"
        "    if done: break\n"
        "    time.sleep(0.1)\n"
        "else:\n"
        "    os.kill(pid, 9); status = 'it waits'\n"
        "over.set(); thread.join(); print(status)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr


def test_a_numba_that_does_not_start_is_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """llvmlite's shared library that is missing is an OSError."""

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "melvoc.nn.engines.cpu.engine":
                raise OSError("Could not find/load shared object file: libllvmlite.so")

    _say_once.cache_clear()
    monkeypatch.delitem(sys.modules, "melvoc.nn.engines.cpu.engine")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert type(make_cpu_engine()) is Engine
    assert "libllvmlite.so); synthesis on the CPU uses plain torch" in caplog.text


def test_pieces_that_do_not_fit_the_signal_are_refused() -> None:
    layer = randomised(nn.ModuleList([Conv1d(16, 8, 3)]))[0]
    with torch.inference_mode():
        with pytest.raises(ValueError, match="has 8 channels, but the layer takes 16"):
            engine().open(layer)(torch.randn(1, 8, 9), False)
        for other in (torch.randn(2, 16, 9), torch.randn(1, 8, 9), torch.randn(1, 16, 9).half()):
            machine = engine().open(layer)
            machine(torch.randn(1, 16, 9), False)
            with pytest.raises(ValueError, match="but the signal .1, 16, torch.float32"):
                machine(other, False)


def test_a_part_of_the_engine_that_is_missing_is_not_taken_for_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "melvoc.nn.engines.cpu.engine", None)
    with pytest.raises(ImportError, match="melvoc.nn.engines.cpu.engine"):
        make_cpu_engine()
