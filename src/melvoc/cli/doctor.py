"""`melvoc doctor`: what is installed, and what melvoc would use here and why."""

from __future__ import annotations

import argparse
import importlib
import platform
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

import torch

from melvoc import __version__
from melvoc.errors import MelvocError
from melvoc.options import pick_device
from melvoc.registry import ARCHITECTURES, OWN, VOCODERS
from melvoc.storage.cache import cache_folder
from melvoc.storage.costs import costs_file, save_costs, tuned_costs

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "librosa",
    "numba",
    "soundfile",
    "safetensors",
    "huggingface_hub",
    "triton",
    "torchaudio",
)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="versions, device, caches, and what would be used and why")
    parser.add_argument("--tune", action="store_true", help="measure the CPU's fast convolutions and keep the result")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what there is, after a measurement if requested."""
    if arguments.tune:
        _tune()
    print(f"melvoc {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in PACKAGES:
        print(f"{name}: {_state(name)}")
    device = pick_device("auto")
    print(f"device: {device}, {torch.get_num_threads()} threads")
    print(f"engine: {_engine(device)}")
    print(f"costs: {_costs()}")
    print(f"cache: {_cache()}")
    if (declared := _declared()) is not None and declared != (__version__, sorted(VOCODERS.own())):
        print("metadata: of another version than the code; install melvoc again")
    for kind in (VOCODERS, ARCHITECTURES):
        for name, claims in sorted(kind.table().items()):
            if others := [claim.distribution for claim in claims if claim.distribution != OWN]:
                print(f"plugin: {kind.kind} {name}, by {', '.join(others)}")
    return 0


def _state(name: str) -> str:
    """The version, and whether it imports: an installed wheel may not fit."""
    try:
        number = version(name)
    except PackageNotFoundError:
        return "not installed"
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{number}, cannot be imported ({' '.join(str(error).split())[:120]}); melvoc does not need it to start"
    return number


def _tune() -> None:
    try:
        from melvoc.nn.engines.cpu.tune import measure
    except Exception as error:
        raise MelvocError(
            f"numba cannot be imported ({error}), so there is nothing to measure; install numba"
        ) from error
    costs = measure()
    print(
        f"measured, {torch.get_num_threads()} threads: {2e-9 / max(costs.multiply, 1e-15):.0f} GFLOP/s of products, "
        f"{1e-9 / max(costs.stream, 1e-15):.0f} GB/s of weights, {costs.element * 1e9:.3f} ns per transform element"
    )
    try:
        save_costs(costs)
    except OSError as error:
        raise MelvocError(f"{costs_file()} cannot be written ({error}); set MELVOC_CACHE to another folder") from error


def _costs() -> str:
    if tuned_costs() is None:
        threads = torch.get_num_threads()
        return (
            f"typical ones ('melvoc doctor --tune' measures this machine's, with {threads} threads, in a few seconds)"
        )
    return f"measured on this machine, {costs_file()}"


def _cache() -> str:
    try:
        cache = cache_folder()
    except MelvocError as error:
        return f"none ({error})"
    files = [path for path in cache.rglob("*.safetensors") if path.is_file()] if cache.is_dir() else []
    return f"{cache}, {len(files)} models, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB"


def _declared() -> tuple[str, list[str]] | None:
    """The version and the vocoders that melvoc's package metadata declare; None where there are none."""
    try:
        found = distribution(OWN)
    except PackageNotFoundError:
        return None
    return found.version, sorted(point.name for point in found.entry_points if point.group == VOCODERS.group)


def _engine(device: torch.device) -> str:
    if device.type == "cuda":
        return "fused Triton kernels, plain torch where they cannot run"
    if device.type != "cpu":
        return f"plain torch, in blocks, on {device.type}"
    try:
        importlib.import_module("melvoc.nn.engines.cpu.engine")  # as the engine itself decides
    except Exception as error:
        return f"plain torch: numba cannot be imported ({' '.join(str(error).split())[:120]})"
    return "fused and transform-domain kernels (numba)"
