"""What only a GPU can show: the compiled kernels' numbers, real CUDA graphs. Skipped without one."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from networks import TINY, golden_network
from safetensors.torch import load_file

from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cuda import make_cuda_engine
from melvoc.nn.engines.cuda.launch import load_kernels
from melvoc.nn.graph import join

ROOT = Path(__file__).resolve().parents[1]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def exactly() -> Iterator[None]:
    """No TF32, and no fallback that would hide a kernel that fails."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", RuntimeWarning)
        yield
    torch.backends.cudnn.allow_tf32 = allowed


class TestOnAGPU:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("length", [1, 2, 5, 11, 64, 1037])
    @pytest.mark.parametrize("kind", ["snakebeta_log", "snakebeta_lin", "snake_log", "snake_lin"])
    @pytest.mark.usefixtures("exactly")
    def test_golden_activations(self, golden_dir: Path, kind: str, length: int) -> None:
        tensors = load_file(golden_dir / "alias_free_activation.safetensors")
        case = {name: tensors[f"{kind}.{length}.{name}"] for name in ("x", "y", "alpha")}
        layer = AliasFreeSnake(case["alpha"].numel(), kind=kind.split("_")[0], logscale=kind.endswith("log"))
        layer.act.alpha.data.copy_(case["alpha"])
        if layer.act.beta is not None:
            layer.act.beta.data.copy_(tensors[f"{kind}.{length}.beta"])
        bound = max(1e-5, 1e-6 * float(case["y"].abs().max()))
        y = load_kernels().snake(layer.cuda(), case["x"].cuda(), count=length)
        torch.testing.assert_close(y.cpu(), case["y"], atol=bound, rtol=0)

    @pytest.mark.parametrize("channels", [1536, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 8, 3, 1])
    @pytest.mark.parametrize("length", [1, 21, 22, 23, 703, 705])
    @pytest.mark.usefixtures("exactly")
    def test_every_channel_count_and_lengths_around_a_program(self, channels: int, length: int) -> None:
        layer, x = AliasFreeSnake(channels), torch.randn(2, channels, length)
        y = load_kernels().snake(copy.deepcopy(layer).cuda(), x.cuda(), count=length)
        torch.testing.assert_close(y.cpu(), layer(x), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.usefixtures("exactly")
    def test_storage_types_are_rounded_once(self, dtype: torch.dtype) -> None:
        layer, x = AliasFreeSnake(96), torch.randn(2, 96, 3001).to(dtype)
        exact = layer.double()(x.double())
        y = load_kernels().snake(layer.float().cuda(), x.cuda(), count=3001).cpu().double()
        torch.testing.assert_close(y, exact, atol=1e-5, rtol=max(1e-6, 0.51 * torch.finfo(dtype).eps))

    @pytest.mark.parametrize("frames", [None, 7, 24])
    @pytest.mark.parametrize("name", TINY)
    @pytest.mark.usefixtures("exactly")
    def test_golden_waves_whole_in_pieces_and_as_a_graph(self, golden_dir: Path, name: str, frames: int | None) -> None:
        network, mel, _ = golden_network(golden_dir, name)
        mel = mel.repeat(1, 1, -(-400 // mel.shape[-1]))
        exact = network(mel)
        machine = make_cuda_engine().open(network.cuda().graph)
        parts = mel.cuda().split(frames or mel.shape[-1], dim=-1)
        wave = join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)])
        torch.testing.assert_close(wave.cpu(), exact, atol=2e-5, rtol=0)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_cpu_with_tiny_sizes_and_says_what_it_left_out(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--smoke"]
    more = ["--models", "bigvgan_44khz_512x", "--data", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "MELVOC_CACHE": str(tmp_path)}
    subprocess.run([*command, *more], check=True, capture_output=True, timeout=600, env=offline)
    written = json.loads((tmp_path / "figures.json").read_text())
    found = {(line.get("part"), line.get("variant")) for line in written["results"]}
    for variant in ("torch", "melvoc", "melvoc, no TF32", "melvoc float16", "melvoc bfloat16"):
        assert ("speed", variant) in found
    for variant in ("torch", "melvoc, no graphs", "melvoc"):
        assert ("latency", variant) in found
    left_out = written["not_measured"]
    for variant in ("published", "published kernel"):  # measured, or the reason why not
        assert ("latency", variant) in found or any("published" in line for line in left_out)
    assert any(line.startswith("distance bigvgan_44khz_512x: ") for line in left_out)
    sizes = {"times_real_time", "gb", "tflops", "share_of_peak", "max_error"}
    assert all(sizes <= line.keys() for line in written["results"] if line.get("part") == "speed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_the_benchmark_says_that_there_is_no_gpu() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 3
    assert result.stderr.splitlines()[-1].startswith("no CUDA device: nothing was measured")
