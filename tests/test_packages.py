"""What is installed is what was meant: the wheels of melvoc, a plugin and an application, in their own environment."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from networks import VOCODERS

import melvoc

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "tests"
PLUGIN = EXAMPLES / "plugin_example"
ARCHITECTURE = EXAMPLES / "architecture_example"
METRIC = EXAMPLES / "metric_example"


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)  # type: ignore
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The five wheels, built without asking the network for a build backend."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, PLUGIN, ARCHITECTURE, METRIC, EXAMPLES / "downstream_example"):
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheels; torch and the like come from the running one, behind them."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    interpreter = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        interpreter,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        *wheels.values(),
    )
    packages = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "heavy.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


def test_the_plugin_is_a_vocoder() -> None:
    """Straight from its source, so that a mistake shows without a build."""
    location = importlib.util.spec_from_file_location("melvoc_organ", PLUGIN / "src" / "melvoc_organ" / "__init__.py")
    assert location
    assert location.loader
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    voc = module.load_organ("organ", device="cpu", dtype=None)
    time = torch.arange(16000) / 16000
    wave = 0.5 * torch.sin(2 * torch.pi * 1000 * time)  # the eighth pipe
    mel = voc.mel(wave, sample_rate=16000)
    out = voc.mel_to_waveform(mel)
    assert out.shape == (1, 1, mel.shape[-1] * 128)
    middle = out[0, 0, 4000:12000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(8000)).abs()
    assert int(spectrum.argmax()) * 2 == 1000
    assert 0.4 < float(middle.abs().max()) < 0.6, "as loud as what was put in"
    with voc.stream() as stream:
        pieces = [stream.push(piece) for piece in mel.split([1, 0, 7, 30, mel.shape[-1] - 38], dim=-1)]
        pieces.append(stream.flush())
    torch.testing.assert_close(torch.cat(pieces, dim=-1), out, atol=1e-5, rtol=0)
    with pytest.raises(melvoc.CheckpointError, match=r"'organ' is a melvoc_organ\.Organ, which melvoc cannot save"):
        melvoc.to_bytes(voc)


def test_the_page_on_plugins_shows_these_packages() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    modules = (PLUGIN / "src" / "melvoc_organ", ARCHITECTURE / "src" / "melvoc_pulse", METRIC / "src" / "melvoc_crest")
    files = [file for module in modules for file in (module / "__init__.py", module.parents[1] / "pyproject.toml")]
    for file in files:
        assert f"\n{file.read_text(encoding='utf-8').strip()}\n```" in page, (
            f"docs/plugins.md shows another {file.relative_to(EXAMPLES)}"
        )


@pytest.mark.slow
def test_melvocs_wheel(wheels: dict[str, Path]) -> None:
    assert wheels["melvoc"].name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheels["melvoc"]) as wheel:
        names = wheel.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8").count("melvoc.loading:load")
        assert wheel.read(entry_points).decode().count("melvoc.loading:load") == declared > 10
    assert "melvoc/py.typed" in names
    for licence in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{licence}") for name in names), licence
    assert {name.split("/")[0].split("-")[0] for name in names} == {"melvoc"}
    assert not [
        name
        for name in names
        if "tests/" in name or "test_" in name or name.endswith((".so", ".pyd", ".flac", ".safetensors"))
    ]


@pytest.mark.slow
def test_the_plugin_loads_by_name(python: Path, tmp_path: Path) -> None:
    code = """
import importlib.metadata, sys
import melvoc, torch
assert melvoc.__file__.startswith(sys.prefix), melvoc.__file__
assert importlib.metadata.version("melvoc") == melvoc.__version__
names = melvoc.list_vocoders()
assert names[0] == "bigvgan_v2_44khz_128band_512x" and names[-1] == "organ", names
assert melvoc.info("organ").distribution == "melvoc-organ 0.3.0"
assert "melvoc_organ" not in sys.modules
voc = melvoc.load("organ", device="cpu", gain=0.5)
assert sys.modules["melvoc_organ"].__file__.startswith(sys.prefix)
wav = voc.mel_to_waveform(voc.mel(torch.rand(24000) - 0.5, sample_rate=24000), sample_rate=24000)
assert wav.shape == (1, 1, 24000) or 0 < 24000 - wav.shape[-1] < 200, wav.shape
try:
    melvoc.load("organ", stops=3)
except melvoc.MelvocError as error:
    assert "organ takes no option 'stops'; it takes gain" in str(error)
else:
    raise AssertionError
try:
    melvoc.pack(voc)
except melvoc.CheckpointError as error:
    assert "melvoc_organ.Organ" in str(error)
else:
    raise AssertionError
print("done")
"""
    assert run(python, "-c", code, cwd=tmp_path).strip() == "done"


@pytest.mark.slow
def test_a_packages_metric_stands_among_melvocs_own(python: Path, tmp_path: Path) -> None:
    code = """
import sys
import torch
from melvoc.registry import all_metrics
last = list(all_metrics())[-1]
assert last.name == "crest", last.name
assert sys.modules["melvoc_crest"].__file__.startswith(sys.prefix)
print(round(last.function(torch.ones(1000), torch.sin(torch.arange(1000) * 0.1), 16000), 1))
"""
    assert run(python, "-c", code, cwd=tmp_path).strip() == "3.0"


@pytest.mark.slow
def test_a_packages_architecture_is_as_good_as_melvocs_own(python: Path, tmp_path: Path) -> None:
    code = """
import json, sys
import melvoc, torch
from melvoc.cli import main
assert "melvoc_pulse" not in sys.modules
import melvoc_pulse
network = melvoc_pulse.PulseNet(melvoc_pulse.PulseConfig())
torch.save(network.state_dict(), "pulse.pt")
with open("pulse.json", "w") as file:
    json.dump({"bands": 40, "hop": 128, "width": 64, "rate": 16000}, file)
assert main(["convert", "pulse.pt", "--config", "pulse.json", "-o", "pulse.safetensors"]) == 0
voc = melvoc.load("pulse.safetensors", device="cpu")
mel = torch.randn(1, 40, 30) - 4
torch.testing.assert_close(voc.mel_to_waveform(mel), network(mel).detach(), atol=1e-5, rtol=0)
again = melvoc.from_bytes(melvoc.to_bytes(voc), device="cpu")
with again.stream() as stream:
    joined = torch.cat([stream.push(mel[..., :7]), stream.push(mel[..., 7:]), stream.flush()], -1)
torch.testing.assert_close(joined, voc.mel_to_waveform(mel), atol=1e-5, rtol=0)
print("done")
"""
    assert run(python, "-c", code, cwd=tmp_path).strip().endswith("done")


@pytest.mark.slow
def test_the_application_embeds_a_generator(python: Path, tmp_path: Path) -> None:
    melvoc.save(VOCODERS["bigvgan_v2_tiny"], tmp_path / "generator.safetensors")
    script = python.parent / "distill-standin"
    out = run(script, tmp_path / "generator.safetensors", tmp_path / "model.pt", cwd=tmp_path)
    assert out.strip() == "44100 Hz inside, 48000 Hz outside"


@pytest.mark.slow
def test_melvoc_works_where_torchaudio_does_not_import(python: Path, tmp_path: Path) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')")
    code = """
import sys
sys.path.insert(0, ".")
try:
    import torchaudio
except OSError:
    pass
else:
    raise AssertionError
import melvoc, torch
voc = melvoc.load("griffinlim", n_iter=1, device="cpu")
print(tuple(voc.mel_to_waveform(voc.mel(torch.rand(48000) - 0.5, sample_rate=48000)).shape))
"""
    assert run(python, "-c", code, cwd=tmp_path).strip() == "(1, 1, 44032)"


def test_melvoc_works_from_an_archive_and_without_metadata(tmp_path: Path) -> None:
    """Vendored, zipped or frozen: its own names are its code's."""
    with zipfile.ZipFile(tmp_path / "melvoc.zip", "w") as archive:
        for path in sorted((ROOT / "src").rglob("*.py")):
            archive.write(path, path.relative_to(ROOT / "src"))
    code = """
import importlib.metadata, sys
importlib.metadata.entry_points = lambda **options: ()
sys.path[:] = ["melvoc.zip"] + [path for path in sys.path if not path.endswith("src")]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
import melvoc, torch
assert "melvoc.zip" in melvoc.__file__, melvoc.__file__
names = melvoc.list_vocoders()
assert names[0] == "bigvgan_v2_44khz_128band_512x" and names[-1] == "griffinlim", names
voc = melvoc.load("griffinlim", n_iter=1, device="cpu")
again = melvoc.from_bytes(melvoc.to_bytes(voc), device="cpu")
assert again.mel_to_waveform(torch.full((128, 3), -4.0)).shape[-1] == 1536
print("done")
"""
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip() == "done"
