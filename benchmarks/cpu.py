"""melvoc on a CPU against every peer that is installed, alternating, in one process.

    python benchmarks/cpu.py [--rounds 5] [--seconds 1 2 10] [--models NAME ...] [--compile] [--export]

For each model and length: the peers run one after the other, round after round, and each figure is a ratio to melvoc's
time in the same round (median, smallest and largest), the error against the plain network in float64, the peak of
memory beyond the weights, and the time to load. BigVGANs have random weights of the published shapes (speed does not
depend on them; snakes and signal are kept at a natural size), HiFi-GANs the real checkpoints of `../shared` where that
folder stands (or MELVOC_TEST_DATA names it), else random ones.

Peers: `bigvgan`: the PyPI package; elsewhere `torch`: the same layers written plainly in torch, weight norm removed,
the whole mel in one call, which is what the published code of HiFi-GAN computes; `torch.compile` (--compile: minutes of
compiling); `onnxruntime` and `openvino` (--export) on the plain network's export. Griffin-Lim has
benchmarks/griffinlim.py.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import melvoc
from melvoc.architectures.bigvgan import BigVGAN
from melvoc.neural import NeuralVocoder
from melvoc.options import LoadOptions
from melvoc.registry import pins
from melvoc.storage.conversion import convert
from melvoc.storage.vocoder_file import build as assemble

Run = Callable[[Tensor], Tensor]
REAL = {
    "hifigan_universal_v1": "hifigan_universal_v1/generator_universal.pth.tar",
    "hifigan_ljspeech_v2": "hifigan_ljspeech_v2/generator_v2",
}
TURN = 0.2  # seconds that a peer's turn lasts at least
RANDOM = ("bigvgan_v2_44khz_128band_512x", "bigvgan_base_24khz_100band", "vocos_mel_24khz")
TARGETS = {"bigvgan_v2_44khz_128band_512x": "bigvgan", "hifigan_universal_v1": "torch", "hifigan_ljspeech_v2": "torch"}


def weights_folder() -> Path:
    """The real checkpoints, where they are."""
    root = os.environ.get("MELVOC_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared"
    return Path(root) / "weights"


def build(name: str) -> NeuralVocoder:
    """A published shape with random weights, or a real checkpoint."""
    if name in REAL:
        path = weights_folder() / REAL[name]
        return assemble(convert(path, config=path.parent / "config.json"), LoadOptions(device="cpu"))
    record, pin = pins()[name]
    network = randomised(record.network(pin.config))
    return NeuralVocoder(network, name=name, spec=pin.spec, architecture=record)


def randomised(network: nn.Module) -> nn.Module:
    """Random weights that keep the signal alive and the wave below 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel() if "ups" not in name else parameter.shape[0] * parameter.shape[2] / 2
                gain = 0.1 if name.startswith("conv_post") else 1.0
                parameter.normal_(0, gain * fan_in**-0.5, generator=generator)
            else:
                parameter.normal_(0, 0.2, generator=generator)
    return network.eval()


def plain(voc: NeuralVocoder) -> Run:
    """The network as it is written, in torch."""
    network = voc.network
    return lambda mel: network(mel)


def package(voc: NeuralVocoder) -> Run:
    """The PyPI package with the same weights, as its README has it."""
    import bigvgan

    settings = {key: _json(value) for key, value in voc.network.config.to_dict().items()}
    names = {"n_mels": "num_mels"}
    values = {names.get(key, key): value for key, value in settings.items()}
    peer = bigvgan.BigVGAN(bigvgan.AttrDict(values | {"use_cuda_kernel": False}))
    peer.remove_weight_norm()
    _, unexpected = peer.load_state_dict(voc.network.state_dict(), strict=False)
    assert not unexpected, unexpected
    return peer.eval()


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def compiled(peer: Run) -> Run:
    """`torch.compile` of a peer, the published code where there is a package of it."""
    return torch.compile(peer, dynamic=False)


def exported(voc: NeuralVocoder, frames: int, runtime: str) -> Run:
    """The plain network through ONNX, in the given runtime."""
    path = str(Path(tempfile.mkdtemp()) / "model.onnx")
    mel = torch.zeros(1, voc.spec.n_mels, frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(voc.network, (mel,), path, dynamo=True, external_data=True, verbose=False)
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0].name
        return lambda x: torch.from_numpy(session.run(None, {entry: x.numpy()})[0])
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda x: torch.from_numpy(model([x.numpy()])[0].copy())


def peers(voc: NeuralVocoder, frames: int, options: argparse.Namespace) -> dict[str, Run]:
    """melvoc first, then who is there."""
    found: dict[str, Run] = {"melvoc": lambda mel: voc.mel_to_waveform(mel, spec=voc.spec)}
    if isinstance(voc.network, BigVGAN):  # the one whose prepared weights are large
        low = NeuralVocoder(voc.network, name=voc.name, spec=voc.spec, memory="low")
        found["melvoc, memory low"] = lambda mel: low.mel_to_waveform(mel, spec=low.spec)
    published = isinstance(voc.network, BigVGAN) and importlib.util.find_spec("bigvgan") is not None
    found["bigvgan" if published else "torch"] = package(voc) if published else plain(voc)
    if options.compile:
        found["torch.compile"] = compiled(found["bigvgan" if published else "torch"])
    for runtime in ("onnxruntime", "openvino") if options.export else ():
        if importlib.util.find_spec(runtime):
            found[runtime] = exported(voc, frames, runtime)
    return found


@dataclass(frozen=True)
class Row:
    """What was measured of one peer."""

    seconds: list[float]
    error: float | None


def measure(runs: dict[str, Run], mel: Tensor, expected: Tensor | None, rounds: int) -> dict[str, Row]:
    """Seconds a round, the peers alternating; the first round compiles and fills caches, and is not counted.

    A peer whose calls are short makes so many in its turn, after one that does not count: in that, the threads of the
    peer before may still be waiting for work, and the caches are full of its signals.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    errors: dict[str, float | None] = {}
    latest = dict.fromkeys(runs, math.inf)
    for number in range(rounds + 1):
        for name, run in runs.items():
            calls = max(1, math.ceil(TURN / latest[name]))
            with torch.inference_mode():
                if calls > 1:
                    run(mel)
                start = time.perf_counter()
                for _ in range(calls):
                    wave = run(mel)
                latest[name] = seconds = (time.perf_counter() - start) / calls
                for _ in range(0 if number else min(4, int(TURN / seconds))):  # until what repeats is recorded
                    run(mel)
            if number:
                taken[name].append(seconds)
            elif expected is not None:
                errors[name] = float((wave.reshape(-1)[: expected.numel()].clamp(-1, 1) - expected).abs().max())
    return {name: Row(taken[name], errors.get(name)) for name in runs}


def reference(voc: NeuralVocoder, mel: Tensor) -> Tensor:
    """The plain network in float64, limited to [-1, 1], as one long row."""
    with torch.inference_mode():
        wave: Tensor = copy.deepcopy(voc.network).double()(mel.double())
        return wave.clamp(-1, 1).float().reshape(-1)


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _peak(name: str, way: str, frames: int, memory: str) -> float:
    voc = build(name)
    voc.memory = memory  # type: ignore[assignment]
    run = {"melvoc": lambda mel: voc.mel_to_waveform(mel, spec=voc.spec), "torch": plain(voc)}.get(way)
    run = run or package(voc)
    mel = random_mel(voc, frames)
    with torch.inference_mode():
        return growth(lambda: run(mel))


def growth(call: Callable[[], object]) -> float:
    """MB that this process takes during a call, at most, beyond what it had before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far; a child has its parent's
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def status(field: str) -> float:
    """MB, of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def _load(path: str) -> tuple[float, float, float]:
    """Seconds to load, MB that the process grows by, and MB after one synthesis."""
    import melvoc.nn.engines.cpu.engine
    import melvoc.storage.vocoder_file

    warm = torch.zeros(1)
    del warm
    before, start = status("VmRSS"), time.perf_counter()
    voc = melvoc.load(path, device="cpu")
    seconds, loaded = time.perf_counter() - start, status("VmRSS") - before
    voc.mel_to_waveform(random_mel(voc, 96), spec=voc.spec)
    return seconds, loaded, status("VmRSS") - before


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def random_mel(voc: NeuralVocoder, frames: int) -> Tensor:
    """A mel like speech or music in level."""
    return 2 * torch.randn(1, voc.spec.n_mels, frames, generator=torch.Generator().manual_seed(1)) - 4


def speed(name: str, options: argparse.Namespace) -> list[list[str]]:
    """Rows of the table of one model."""
    voc, rows = build(name), []
    for seconds in options.seconds:
        frames = round(seconds * voc.sample_rate / voc.spec.hop_length)
        mel = random_mel(voc, frames)
        expected = reference(voc, mel) if seconds <= options.exact_seconds else None
        got = measure(peers(voc, frames, options), mel, expected, options.rounds)
        ours = got["melvoc"].seconds
        for peer, row in got.items():
            ratios = [theirs / mine for theirs, mine in zip(row.seconds, ours, strict=True)]
            rate = [voc.spec.samples(frames) / voc.sample_rate / value for value in row.seconds]
            error = "" if row.error is None else f"{row.error:.1e}"
            rows.append([name, f"{seconds:g}", peer, f"{statistics.median(row.seconds):.3f}", spread(rate),
                         "1" if peer == "melvoc" else spread(ratios), error])  # fmt: skip
            show(rows[-1:])
    return rows


def show(rows: list[list[str]]) -> None:
    """Print rows of a Markdown table."""
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def head(*titles: str) -> None:
    """The head of a table."""
    show([list(titles), ["---"] * len(titles)])


def loading(name: str) -> list[str]:
    """How a model loads from a melvoc file, the disk's cache warm."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.safetensors")
        melvoc.save(build(name), path)
        size = Path(path).stat().st_size / 1e6
        tries = [apart(_load, path) for _ in range(3)]
    seconds, loaded, used = (statistics.median(values) for values in zip(*tries, strict=True))
    return [name, f"{size:.0f}", f"{seconds:.2f}", f"{loaded:.0f}", f"{used:.0f}"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 2.0, 10.0], help="of sound a call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exact-seconds", type=float, default=1.0, help="float64 reference up to this length")
    parser.add_argument("--models", nargs="+", default=[*TARGETS, *(name for name in RANDOM if name not in TARGETS)])
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--export", action="store_true", help="ONNX Runtime and OpenVINO as well")
    parser.add_argument("--no-memory", action="store_true", help="speed only")
    options = parser.parse_args()
    models = [name for name in options.models if name not in REAL or (weights_folder() / REAL[name]).is_file()]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds\n")
    head("model", "s of sound", "who", "s a call", "times real time", "time / melvoc's", "error against float64")
    for name in models:
        speed(name, options)
    if options.no_memory:
        return
    print()
    head("model", "who", *[f"peak beyond the model, {seconds:g} s (MB)" for seconds in options.seconds])
    for name in models:
        for way in ("melvoc", "melvoc, memory low", "torch"):  # torch: the whole mel in one call
            memory = "low" if way.endswith("low") else "auto"
            counts = [round(s * frame_rate(name)) for s in options.seconds]
            show([[name, way, *[f"{apart(_peak, name, way.split(',')[0], n, memory):.0f}" for n in counts]]])
    print()
    head("model", "file (MB)", "load (s)", "memory, loaded (MB)", "memory, after a call (MB)")
    for name in models:
        show([loading(name)])


def frame_rate(name: str) -> float:
    """Frames a second."""
    spec = build(name).spec
    return spec.sample_rate / spec.hop_length


if __name__ == "__main__":
    main()
