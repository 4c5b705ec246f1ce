"""Imports go one way, and `import melvoc` stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "melvoc"

# From the ground up: a module, or a package with all that is in it but for what stands elsewhere in the table. Modules
# of one row never import each other, a package's own do.
LAYERS: list[list[str]] = [
    ["errors", "host"],
    ["progress"],
    ["spectrogram.bands", "spectrogram.keys", "spectrogram.limits", "spectrogram.presets", "arrays"],
    ["spectrogram.fields"],
    ["storage.atomic", "storage.cache", "storage.pipes", "storage.foreign", "audio.folder"],
    ["spectrogram.spec", "storage.reading", "audio.source", "audio.writer", "storage.lock"],
    ["nn", "audio.files", "options", "recipe"],
    ["audio.resampling"],
    ["spectrogram.transform"],
    ["spectrogram.traits"],
    ["spectrogram.likelihood"],
    ["spectrogram.check", "storage.costs", "architecture", "post"],
    ["audio", "spectrogram.conversion", "spectrogram.file", "spectrogram.identification", "metrics"],
    ["spectrogram.projection"],
    ["post.refine"],
    ["synthesis", "plot", "rounded"],
    ["architectures"],
    ["streaming"],
    ["vocoder"],
    ["griffinlim", "neural", "registry", "onnx", "factory"],
    ["storage.configuration", "storage.container", "storage.weights"],
    ["storage.pair", "storage.vocoder_file", "storage.inventory"],
    ["storage.conversion", "storage.client"],
    ["storage.hub"],
    ["loading"],
    ["information"],
    ["train", "testing", "evaluation", "exporting", "batch"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def place(dotted: str) -> str:
    """The entry of the table that a module, or a name in it, belongs to."""
    parts = dotted.split(".")
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in RANK), "")


def modules() -> list[tuple[str, Path]]:
    found = [
        (".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted(SOURCE.rglob("*.py"))
    ]
    return [entry for entry in found if entry[0] != "__init__"]


def imported(path: Path) -> set[str]:
    """melvoc's modules that a file imports when it runs, as dotted names without `melvoc.`: not those that only its
    annotations name."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("melvoc.") for name in names if name.startswith("melvoc.")}


@pytest.mark.parametrize(("dotted", "path"), modules(), ids=lambda value: str(value))
def test_imports_go_one_way(dotted: str, path: Path) -> None:
    own, names = place(dotted), imported(path)
    assert own or not names, f"{dotted} has no place in the order of layers: give it one in tests/test_imports.py"
    for name in names - {"__version__"}:
        other = place(name)
        assert other, f"{dotted} imports {name}, which has no place in the order of layers"
        allowed = other == own or RANK[other] < RANK[own]
        assert allowed, f"{dotted} imports {name}, which stands above or beside it"


def test_nn_knows_torch_and_of_melvoc_only_the_errors() -> None:
    for dotted, path in modules():
        if place(dotted) == "nn":
            others = {name for name in imported(path) if place(name) not in ("nn", "errors")}
            assert not others, f"{dotted} imports {others}"


def test_only_the_command_line_imports_training() -> None:
    users = {place(dotted) for dotted, path in modules() for name in imported(path) if place(name) == "train"}
    assert users <= {"train", "cli"}


def in_a_fresh_interpreter(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_melvoc_loads_nothing_heavy_nor_optional() -> None:
    code = (
        "import torch, sys, json; before = set(sys.modules); import melvoc; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = set(json.loads(in_a_fresh_interpreter(code)))
    heavy = "librosa numba scipy soundfile torchaudio huggingface_hub triton auraloss rich tensorboard yaml tqdm"
    heavy_here = {name for name in loaded if name.split(".")[0] in heavy.split()}
    assert not heavy_here
    late = (
        "melvoc.train",
        "melvoc.testing",
        "melvoc.cli",
        "melvoc.storage.hub",
        "melvoc.storage.conversion",
        "melvoc.storage.weights",
        "melvoc.nn.engines.cpu",
        "melvoc.nn.engines.cuda",
    )
    assert not {name for name in loaded if name.startswith(late)}


def test_melvoc_starts_where_torchaudio_does_not() -> None:
    code = (
        "import sys; sys.modules['torchaudio'] = None\n"  # what a wheel without its native libraries comes to
        "import melvoc, torch\n"
        "spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)\n"
        "voc = melvoc.load('griffinlim', spec=spec, n_iter=2)\n"
        "mel = voc.mel(torch.rand(24000) - 0.5, sample_rate=24000)\n"
        "print(tuple(voc.mel_to_waveform(mel, sample_rate=24000).shape))"
    )
    assert in_a_fresh_interpreter(code).strip() == "(1, 1, 24000)"
