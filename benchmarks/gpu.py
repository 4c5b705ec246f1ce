"""melvoc on a GPU: speed, memory, latency and error, against plain torch and the published code.

    python benchmarks/gpu.py                          # all of it, within 8 minutes; needs CUDA
    python benchmarks/gpu.py --parts check,speed      # some of it
    python benchmarks/gpu.py --device cpu --smoke     # the same code with tiny sizes: does it run?
    python benchmarks/gpu.py --device cpu --parts distance --models hifigan_v2 --data FOLDER

Weights are random (speed does not depend on them), but for `distance`, which takes the real HiFi-GAN weights that
--data has, and those BigVGANs that `melvoc download` has put into the cache (nothing is downloaded here). Parts, in the
order in which they run until --minutes are over; what was left out is said:

check       the fused activation against float64, every storage type: largest error
activation  the fused activation alone against plain torch, at the shapes of the 44 kHz model: GB/s
speed       times real time, memory, TFLOP/s: melvoc (float32 with and without TF32, float16, bfloat16), plain torch,
            the published code, and its CUDA kernel where nvcc is found; error against melvoc's plain torch
latency     one 64-frame block of a stream, with and without CUDA graphs, and plain torch; the published code, which has
            no streams, makes the same block by itself
distance    multi-resolution STFT distance of half types to float32, by model and type
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

import melvoc
from melvoc import DownloadError, audio
from melvoc.architectures import bigvgan, hifigan
from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.neural import HALF, float32_tensors
from melvoc.nn.alias_free import AliasFreeSnake
from melvoc.nn.engines.cuda import make_cuda_engine
from melvoc.nn.engines.cuda.launch import load_kernels
from melvoc.nn.graph import Engine, Machine, Node
from melvoc.nn.layers import Conv1d, ConvTranspose1d

RECORDS = {BigVGAN: bigvgan.ARCHITECTURE, HiFiGAN: hifigan.ARCHITECTURE}

PARTS = ("check", "activation", "speed", "latency", "distance")
BLOCK = 2048  # frames, as melvoc cuts long input on CUDA
V2 = {
    "upsample_initial_channel": 1536,
    "activation": "snakebeta",
    "snake_logscale": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}
MODELS: dict[str, tuple[int, BigVGANConfig | HiFiGANConfig]] = {
    "bigvgan_44khz_512x": (
        44100,
        BigVGANConfig(n_mels=128, upsample_rates=(8, 4, 2, 2, 2, 2), upsample_kernel_sizes=(16, 8, 4, 4, 4, 4), **V2),
    ),
    "bigvgan_24khz_256x": (
        24000,
        BigVGANConfig(n_mels=100, upsample_rates=(4, 4, 2, 2, 2, 2), upsample_kernel_sizes=(8, 8, 4, 4, 4, 4), **V2),
    ),
}
TINY = BigVGANConfig(
    n_mels=8, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), **(V2 | {"upsample_initial_channel": 16})
)
REAL = {  # name: folder in --data/weights, file, key in golden/hifigan_real.safetensors
    "hifigan_v2": ("hifigan_ljspeech_v2", "generator_v2", "ljspeech_v2"),
    "hifigan_v1": ("hifigan_universal_v1", "generator_universal.pth.tar", "universal_v1"),
}
CACHED = {  # name: as `melvoc.load` takes it; in `distance` the mel is of SOUND
    "bigvgan_44khz_512x": "bigvgan_v2_44khz_128band_512x",
    "bigvgan_24khz_256x": "bigvgan_v2_24khz_100band_256x",
}
SOUND = Path(__file__).resolve().parents[1] / "docs" / "audio" / "guitar_harmonics.flac"
# dense peak in TFLOP/s, from the vendor's data sheets: float32, TF32, float16 and bfloat16 (tensor cores)
PEAK = {"H100": (67, 494, 989), "H200": (67, 494, 989), "A100": (19.5, 156, 312), "L40S": (91.6, 183, 362)}


@dataclass
class Run:
    """What a run has to know, and what it has found."""

    device: torch.device
    smoke: bool
    deadline: float
    models: list[str]
    data: Path
    results: list[dict[str, object]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def time_is_up(self, what: str) -> bool:
        """Whether nothing more may be started; notes what was not."""
        if time.monotonic() > self.deadline:
            self.left_out.append(what)
            return True
        return False

    def report(self, **values: object) -> None:
        """One line, and one entry of the JSON."""
        self.results.append(values)
        print(
            "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in values.items())
        )
        sys.stdout.flush()


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(call: Callable[[], object], device: torch.device, seconds: float = 1.0) -> tuple[float, float]:
    """Median seconds of a call, after two that warm up (one where it takes long), and the most GB that a call held
    beyond what was there before (weights, and those of other variants)."""

    def once() -> float:
        start = time.perf_counter()
        call()
        synchronize(device)
        return time.perf_counter() - start

    if once() < 2 * seconds:
        once()
    held = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
    times = [once()]
    while sum(times) < seconds and len(times) < 100:
        times.append(once())
    memory = (torch.cuda.max_memory_allocated(device) - held) / 1e9 if device.type == "cuda" else 0.0
    return statistics.median(times), memory


def randomise(network: nn.Module) -> nn.Module:
    """Weights that keep the signal alive through every layer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.2
            if parameter.dim() > 1:
                fan_in = parameter[0].numel() if "ups" not in name else parameter.shape[0] * parameter.shape[2] / 2
                scale = fan_in**-0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network.eval()


def operations(network: nn.Module, frames: int) -> float:
    """Floating-point operations of the convolutions, a multiplication and an addition being two."""
    total, samples = 0, frames
    for module in network.modules():  # in the order in which they run, but for the branches, which are alike
        if isinstance(module, ConvTranspose1d):
            total += 2 * module.weight.numel() * samples
            samples *= module.rate
    rates = [module.rate for module in network.modules() if isinstance(module, ConvTranspose1d)]
    widths = [module.out_channels for module in network.modules() if isinstance(module, ConvTranspose1d)]
    lengths = {}
    length = frames
    for rate, width in zip(rates, widths, strict=True):
        length *= rate
        lengths[width] = length
    for module in network.modules():
        if isinstance(module, Conv1d):
            total += 2 * module.weight.numel() * lengths.get(module.in_channels, frames)
    return float(total)


def through(engine: Engine, graph: Node, mel: Tensor) -> Tensor:
    """As a vocoder runs a mel: in blocks of a machine, if it is long."""
    machine = engine.open(graph)
    blocks = mel.split(BLOCK, dim=-1)
    pieces = [machine(block, number == len(blocks)) for number, block in enumerate(blocks, 1)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


def published(network: nn.Module, config: BigVGANConfig, kernel: bool) -> nn.Module:
    """The published package's generator with the same weights."""
    import bigvgan
    from bigvgan.env import AttrDict

    values = config.to_dict() | {"num_mels": config.n_mels, "use_cuda_kernel": kernel}
    generator = bigvgan.BigVGAN(AttrDict(values), use_cuda_kernel=kernel)
    generator.remove_weight_norm()
    missing, unexpected = generator.load_state_dict(network.state_dict(), strict=False)
    if unexpected or any("filter" not in name for name in missing):
        raise RuntimeError(f"the published generator has other weights: {missing[:3]}, {unexpected[:3]}")
    return generator.eval()


@torch.inference_mode()
def check(run: Run) -> None:
    """The fused activation against float64."""
    kernels = load_kernels()
    for channels, length in [(1, 1), (3, 5), (24, 704), (24, 1037), (768, 100), (1536, 1), (7, 20000)]:
        layer = AliasFreeSnake(channels)
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5)
        x = torch.randn(2, channels, length)
        layer.to(run.device)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            rounded = x.to(dtype)
            exact = copy.deepcopy(layer).cpu().double()(rounded.double())
            y = kernels.snake(layer, rounded.to(run.device), count=length).cpu().double()
            worst = float(((y - exact).abs() / exact.abs().clamp_min(1.0)).max())
            run.report(part="check", shape=[2, channels, length], dtype=str(dtype), error=worst)
    run.report(part="check", ran="Triton" if kernels.module and run.device.type == "cuda" else "plain torch")


@torch.inference_mode()
def activation(run: Run) -> None:
    """The fused activation alone."""
    kernels = load_kernels()
    config = TINY if run.smoke else MODELS["bigvgan_44khz_512x"][1]
    length = 8 if run.smoke else 512
    for stage, rate in enumerate(config.upsample_rates, 1):
        length *= rate
        layer = AliasFreeSnake(config.width(stage)).to(run.device)
        for dtype in (torch.float32, torch.float16):
            x = torch.randn(1, config.width(stage), length, device=run.device, dtype=dtype)
            fused, _ = measure(lambda: kernels.snake(layer, x, count=length), run.device, 0.0 if run.smoke else 0.2)  # noqa: B023
            plain, _ = measure(lambda: layer(x), run.device, 0.0 if run.smoke else 0.2)  # noqa: B023
            moved = 2 * x.numel() * x.element_size() / 1e9
            run.report(
                part="activation",
                shape=list(x.shape),
                dtype=str(dtype),
                gb_per_s=moved / fused,
                times_torch=plain / fused,
            )


def cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert a network in place, as a vocoder's `to(dtype)` does."""
    kept = float32_tensors(network, RECORDS[type(network)]) if dtype in HALF else set()
    for parameter in network.parameters():
        if id(parameter) not in kept:
            parameter.data = parameter.data.to(dtype)


def published_variants(run: Run, network: nn.Module, config: BigVGANConfig) -> dict[str, Callable[[], nn.Module]]:
    """What makes the published code's generator, and the one with its CUDA kernel where that can be built."""
    found = {"published": lambda: published(network, config, kernel=False).to(run.device)}
    if run.device.type == "cuda" and shutil.which("nvcc"):
        found["published kernel"] = lambda: published(network, config, kernel=True).to(run.device)
    elif (missing := "the published CUDA kernel: no nvcc, or no CUDA") not in run.left_out:
        run.left_out.append(missing)
    return found


def variants(
    run: Run, network: nn.Module, config: BigVGANConfig
) -> list[tuple[str, bool, int, Callable[[], Callable[[Tensor], Tensor]]]]:
    """Name, whether TF32, column of PEAK, and what makes the function from mel to wave."""

    def fused(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        other = copy.deepcopy(network)
        cast(other, dtype)
        engine = make_cuda_engine()
        return lambda mel: through(engine, other.graph, mel)

    found: list[tuple[str, bool, int, Callable[[], Callable[[Tensor], Tensor]]]] = [
        ("torch", True, 1, lambda: network),
        ("melvoc", True, 1, lambda: fused(torch.float32)),
    ]
    return [
        *found,
        *((name, True, 1, make) for name, make in published_variants(run, network, config).items()),
        ("torch, no TF32", False, 0, lambda: network),
        ("melvoc, no TF32", False, 0, lambda: fused(torch.float32)),
        ("melvoc float16", True, 2, lambda: fused(torch.float16)),
        ("melvoc bfloat16", True, 2, lambda: fused(torch.bfloat16)),
    ]


@torch.inference_mode()
def speed(run: Run) -> None:
    """Times real time, memory, share of the peak and error, by model, variant, frames and batch."""
    sizes = ((256, 1), (2048, 1), (16384, 1), (256, 16), (2048, 16), (16384, 16))
    if run.smoke:
        sizes = ((3, 1), (5, 2))
    for name in run.models:
        rate, config = (24000, TINY) if run.smoke else MODELS[name]
        assert isinstance(config, BigVGANConfig)
        network = randomise(BigVGAN(config)).to(run.device)
        for variant, tf32, column, make in variants(run, network, config):
            what = f"speed {name} {variant}"
            if run.time_is_up(what):
                continue
            torch.backends.cudnn.allow_tf32 = tf32
            try:
                call = make()
                for frames, batch in sizes:
                    if not run.time_is_up(f"{what} {frames} x {batch}"):
                        mel = torch.randn(batch, config.n_mels, frames, device=run.device)
                        figures = speed_of(run, call, network, mel, column, config.hop_length / rate)
                        run.report(part="speed", model=name, variant=variant, frames=frames, batch=batch, **figures)
            except Exception as error:
                run.left_out.append(f"{what}: {type(error).__name__}: {error}")
    torch.backends.cudnn.allow_tf32 = True


def speed_of(
    run: Run, call: Callable[[Tensor], Tensor], network: nn.Module, mel: Tensor, column: int, frame_seconds: float
) -> dict[str, object]:
    """The figures of one function at one size."""
    chip = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else ""
    peak = next((values[column] for known, values in PEAK.items() if known in chip), None)
    try:
        error = difference(call, network, mel[:1, :, :256])
        seconds, memory = measure(lambda: call(mel), run.device, 0.0 if run.smoke else 1.0)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"gb": "out of memory"}
    batch, _, frames = mel.shape
    teraflops = operations(network, frames) * batch / seconds / 1e12
    return {
        "times_real_time": batch * frames * frame_seconds / seconds,
        "gb": memory,
        "tflops": teraflops,
        "share_of_peak": teraflops / peak if peak else "unknown chip",
        "max_error": error,
    }


def difference(call: Callable[[Tensor], Tensor], network: nn.Module, mel: Tensor) -> float:
    """Largest difference to plain torch without TF32."""
    before = torch.backends.cudnn.allow_tf32
    wave = call(mel).float()
    torch.backends.cudnn.allow_tf32 = False
    exact = network(mel)
    torch.backends.cudnn.allow_tf32 = before
    return float((wave - exact).abs().max())


def latency(run: Run) -> None:
    """Milliseconds from a 64-frame block to its samples, in a stream that has been running for a while."""
    frames = 6 if run.smoke else 64
    for name in run.models:
        rate, config = (24000, TINY) if run.smoke else MODELS[name]
        assert isinstance(config, BigVGANConfig)
        network = randomise(BigVGAN(config)).to(run.device)
        engines: dict[str, Callable[[], Engine]] = {
            "torch": Engine,
            "melvoc, no graphs": lambda: make_cuda_engine(graphs=False),
            "melvoc": make_cuda_engine,
        }
        ways: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
            variant: lambda make=make: streamed(make().open(network.graph))  # type: ignore[misc] # noqa: B023
            for variant, make in engines.items()
        }
        for variant, make_way in (ways | published_variants(run, network, config)).items():
            if run.time_is_up(what := f"latency {name} {variant}"):
                continue
            try:
                with torch.inference_mode():
                    times = block_times(make_way(), config, frames, run)
            except Exception as error:
                run.left_out.append(f"{what}: {type(error).__name__}: {error}")
                continue
            audio = frames * config.hop_length / rate
            run.report(
                part="latency",
                model=name,
                variant=variant,
                frames=frames,
                milliseconds=1e3 * statistics.median(times),
                worst=1e3 * max(times),
                times_real_time=audio / statistics.median(times),
            )


def streamed(machine: Machine) -> Callable[[Tensor], Tensor]:
    """The next block of an endless stream."""
    return lambda mel: machine(mel, False)


def block_times(call: Callable[[Tensor], Tensor], config: BigVGANConfig, frames: int, run: Run) -> list[float]:
    """Seconds a block, after ten that warm up."""
    times = []
    for _ in range(12 if run.smoke else 60):
        mel = torch.randn(1, config.n_mels, frames, device=run.device)
        synchronize(run.device)
        start = time.perf_counter()
        call(mel).cpu()
        times.append(time.perf_counter() - start)
    return times[10:]


@torch.inference_mode()
def distance(run: Run) -> None:
    """Multi-resolution STFT distance to the float32 output, with real weights."""
    for name in [*REAL, *CACHED]:
        wanted = not run.models or name in run.models
        if not wanted or run.time_is_up(f"distance {name}"):
            continue
        try:
            network, mel = real_network(run.data, *REAL[name]) if name in REAL else cached_network(CACHED[name])
        except (OSError, DownloadError) as error:
            run.left_out.append(f"distance {name}: {error}")
            continue
        if run.smoke:
            mel = mel[..., 60:76]
        network, mel = network.to(run.device), mel.to(run.device)
        exact = through(make_cuda_engine(), network.graph, mel).double().cpu()
        for dtype in (torch.float16, torch.bfloat16):
            half = copy.deepcopy(network)
            cast(half, dtype)
            wave = through(make_cuda_engine(), half.graph, mel).double().cpu()
            convergence, log_magnitude = stft_distance(wave, exact)
            noise = 10 * torch.log10(exact.square().sum() / (wave - exact).square().sum())
            run.report(
                part="distance",
                model=name,
                dtype=str(dtype),
                spectral_convergence=convergence,
                log_magnitude=log_magnitude,
                snr_db=float(noise),
            )


def real_network(data: Path, folder: str, file: str, key: str) -> tuple[nn.Module, Tensor]:
    """A published HiFi-GAN and the mel `[1, 80, T]` of real speech that goes with it."""
    from safetensors.torch import load_file

    config = json.loads((data / "weights" / folder / "config.json").read_text())
    tensors = torch.load(data / "weights" / folder / file, map_location="cpu", weights_only=True)["generator"]
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith("weight_g"):
            direction = tensors[name[:-1] + "v"]
            weights[name[:-2]] = tensor * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1)
        elif not name.endswith("weight_v"):
            weights[name] = tensor
    network = HiFiGAN(HiFiGANConfig.from_published(config)).eval()
    network.load_state_dict(weights, strict=True)
    mel = load_file(data / "golden" / "hifigan_real.safetensors")[f"{key}.mel"]
    return network, mel if mel.dim() == 3 else mel[None]


def cached_network(name: str) -> tuple[nn.Module, Tensor]:
    """A published vocoder that was downloaded before, and the mel `[1, n_mels, T]` of a real sound."""
    vocoder = melvoc.load(name, device="cpu", dtype=torch.float32, local_files_only=True)
    wave, rate = audio.read(SOUND)
    mel = vocoder.mel(wave.mean(0, keepdim=True), sample_rate=rate)
    return vocoder.network, mel  # type: ignore[return-value]


def stft_distance(wave: Tensor, exact: Tensor) -> tuple[float, float]:
    """Spectral convergence and mean log-magnitude difference (natural log), means over three resolutions.

    Yamamoto et al. 2020 (Parallel WaveGAN), equations 3 and 4; magnitudes below 1e-5 count as 1e-5.
    """
    convergence = log_magnitude = 0.0
    for size in (512, 1024, 2048):
        window = torch.hann_window(size, dtype=wave.dtype)
        a, b = (
            torch.stft(signal.flatten(), size, size // 4, window=window, return_complex=True).abs().clamp_min(1e-5)
            for signal in (wave, exact)
        )
        convergence += float((a - b).norm() / b.norm()) / 3
        log_magnitude += float((a.log() - b.log()).abs().mean()) / 3
    return convergence, log_magnitude


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--models", default="", help=f"comma-separated, of {', '.join([*MODELS, *REAL])}")
    parser.add_argument("--minutes", type=float, default=7.5, help="start nothing after so many")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, which measure nothing")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    parts, models = arguments.parts.split(","), [name for name in arguments.models.split(",") if name]
    for known, given in ((PARTS, parts), ([*MODELS, *REAL], models)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    if arguments.smoke:
        torch.set_num_threads(1)  # such small layers only wait for each other
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured (--device cpu --smoke tries the code itself)", file=sys.stderr)
        return 3
    run = Run(
        device=device,
        smoke=arguments.smoke,
        deadline=time.monotonic() + 60 * arguments.minutes,
        models=models,
        data=arguments.data,
    )
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    run.report(chip=chip, torch=torch.__version__, smoke=arguments.smoke)
    warnings.simplefilter("default")
    for part in parts:
        if not run.time_is_up(part):
            if part in ("speed", "latency"):
                run.models = [name for name in models or MODELS if name in MODELS]
            else:
                run.models = models
            {"check": check, "activation": activation, "speed": speed, "latency": latency, "distance": distance}[part](
                run
            )
    for line in run.left_out:
        print(f"not measured: {line}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": run.results, "not_measured": run.left_out}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
