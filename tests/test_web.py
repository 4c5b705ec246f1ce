"""The page in docs/web: its mels and its sound are melvoc's, in a browser that a plain static server feeds."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import browser, resize
from torch import Tensor

import melvoc
from melvoc import MelSpec
from melvoc.spectrogram.presets import PRESETS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "web"
SPECS = list({MelSpec.preset(name): name for name in PRESETS})


def node(task: str, **arguments: Any) -> dict[str, Any]:
    """What the page's modules answer in Node.js; the test is skipped without it."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs Node.js: apt-get install nodejs")
    asked = json.dumps({"folder": str(PAGE), "task": task, "arguments": arguments})
    child = [program, str(Path(__file__).with_name("web_child.mjs"))]
    return json.loads(subprocess.run(child, input=asked, capture_output=True, text=True, check=True).stdout)


def covering(wave: Tensor, spec: MelSpec) -> Tensor:
    """`[n_mels, T]` of `[N]`, whose frames cover it."""
    stream = melvoc.MelSpectrogram(spec).stream(cover=True)
    return torch.cat([stream.push(wave[None]), stream.flush()], dim=-1)[0]


def mels(wave: Tensor, specs: list[dict[str, Any]], folder: Path) -> list[Tensor]:
    wave.numpy().tofile(folder / "wave")
    answer = node("mels", wave=str(folder / "wave"), specs=specs)
    assert "error" not in answer, answer
    found = []
    for one in answer["result"]:
        values = np.frombuffer(base64.b64decode(one["values"]), dtype=np.float32)
        found.append(torch.from_numpy(values.copy()).view(one["bands"], one["frames"]))
    return found


@pytest.mark.parametrize("samples", [1, 5000, 12345])
def test_its_mels_are_melvocs_for_every_preset(samples: int, tmp_path: Path) -> None:
    wave = 0.2 * torch.randn(samples, generator=torch.Generator().manual_seed(2))
    wave[samples // 2 :] *= 1e-4  # towards the floor
    for spec, mel in zip(SPECS, mels(wave, [spec.to_dict() for spec in SPECS], tmp_path), strict=True):
        expected = covering(wave, spec)
        assert mel.shape == expected.shape, spec
        assert (mel - expected).abs().max() < 1e-3, spec


def test_its_mel_of_a_recording_is_melvocs(data_dir: Path, tmp_path: Path) -> None:
    wave = recording(data_dir)
    spec = MelSpec.preset("hifigan_22khz_80band_256x")
    (mel,) = mels(wave, [spec.to_dict()], tmp_path)
    assert (mel - covering(wave, spec)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_fft": 1000}, "n_fft=1000, but this page transforms powers of two only"),
        ({"mel_scale": "bark"}, 'this page makes no mels with mel_scale="bark"'),
        ({"power": 3}, "this page makes no mels with power=3"),
        ({"log_floor": None}, "this mel's spec has no number for log_floor"),
    ],
)
def test_specs_that_it_does_not_have_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.zeros(10).numpy().tofile(tmp_path / "wave")
    answer = node("mels", wave=str(tmp_path / "wave"), specs=[SPECS[0].to_dict() | change])
    assert answer == {"error": message}


def test_it_reads_an_onnx_files_metadata(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the package that makes ONNX files: pip install onnx")
    from onnx_graphs import metadata, write

    texts = metadata(name="Größe, 音", licence="", provenance={"x": "y" * 300})
    path = Path(write(tmp_path / "x.onnx", texts))
    assert node("metadata", path=str(path)) == {"result": texts}
    content = path.read_bytes()
    for broken in (content[:-7], content[:300], b"RIFF\xff\xff\xff\xff", b"\xff" * 40):
        path.write_bytes(broken)
        assert node("metadata", path=str(path)) == {"error": "this is not an ONNX file, or it is damaged"}


def recording(data_dir: Path) -> Tensor:
    """`[N]` of a sentence, at 22050 Hz."""
    wave, rate = melvoc.audio.read(sentence(data_dir))
    assert rate == 22050
    return wave[0]


def sentence(data_dir: Path) -> Path:
    return min((data_dir / "audio" / "ljspeech").glob("*.wav"))


@pytest.fixture(scope="module")
def vocoder(data_dir: Path) -> melvoc.Vocoder:
    return melvoc.load(data_dir / "weights" / "hifigan_ljspeech_v2", allow_unverified=True, device="cpu")


@pytest.fixture(scope="module")
def site(vocoder: melvoc.Vocoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page on Python's own server, with onnxruntime-web and an exported vocoder."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm: apt-get install npm")
    pytest.importorskip("onnx", reason="needs the package that makes ONNX files: pip install onnx")
    folder = tmp_path_factory.mktemp("web")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ort", "*.onnx"))
    fetched = subprocess.run(["bash", folder / "fetch.sh"], capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"onnxruntime-web could not be fetched from npm: {fetched.stderr.strip()[-200:]}")
    melvoc.export(vocoder, folder / "v2.onnx")
    with served(folder) as address:
        yield address


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page in a folder, on Python's own server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


@pytest.fixture
def clip(data_dir: Path, tmp_path: Path) -> tuple[Path, Tensor]:
    """Two seconds of a sentence, as a 16-bit WAV file, and its samples."""
    melvoc.audio.write(tmp_path / "clip.wav", recording(data_dir)[:44100], 22050)
    return tmp_path / "clip.wav", melvoc.audio.read(tmp_path / "clip.wav")[0][0]


@pytest.mark.slow
def test_a_recording_goes_through_it_in_a_browser(
    site: str, vocoder: melvoc.Vocoder, clip: tuple[Path, Tensor]
) -> None:
    file, wave = clip
    with browser() as driver:
        driver.set_script_timeout(120)
        resize(driver, 390, 844, "dark")
        driver.get(f"{site}?vocoder=v2.onnx")
        wait(driver, "'ready' in document.documentElement.dataset")
        assert "hifigan_ljspeech_v2: 80 bands, 22050 Hz" in text(driver, "vocoder-name")
        assert (mel_in(driver, file, vocoder.spec) - covering(wave, vocoder.spec)).abs().max() < 1e-3
        driver.find_element("id", "sound").send_keys(str(file))
        wait(driver, "!document.getElementById('results').hidden")
        played = {one: samples(driver, f"{one}-audio") for one in ("original", "copy")}
        assert torch.equal(played["original"], wave)
        expected = vocoder.resynthesize(wave, sample_rate=22050)[0, 0]
        assert played["copy"].shape == expected.shape
        assert (played["copy"] - expected).abs().max() < 1e-3
        _check_looks(driver)
        _check_drops_and_refusals(driver, file.read_bytes())
        assert driver.get_log("browser") == []


def _check_looks(driver: Any) -> None:
    for width, scheme in ((1280, "light"), (390, "dark")):
        resize(driver, width, 844, scheme)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(ground.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('canvas')].map(c => [c.width, c.height, c.ariaLabel, new Set("
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, n) => n % 4 == 0)).size])"
    )
    assert [one[1] for one in drawn] == [80, 80]
    assert all(one[3] > 100 and "80 bands from 0 to 8000 Hz" in one[2] for one in drawn), drawn
    reached = []
    for _ in range(4):
        for kind in ("rawKeyDown", "keyUp"):
            driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": "Tab", "windowsVirtualKeyCode": 9})
        reached.append(driver.execute_script("return document.activeElement.id"))
    assert {"vocoder", "sound"} <= set(reached), "both are chosen from the keyboard"


def _check_drops_and_refusals(driver: Any, sound: bytes) -> None:
    drop(driver, {"noise.wav": b"no sound at all"})
    wait(driver, "document.getElementById('status').className == 'wrong'")
    assert text(driver, "status").startswith("noise.wav: ")
    drop(driver, {"broken.onnx": b"no graph at all"})
    wait(driver, "document.getElementById('status').textContent.startsWith('broken.onnx')")
    assert text(driver, "status") == "broken.onnx: this is not an ONNX file, or it is damaged"
    drop(driver, {"spectrum.onnx": spectral()})
    wait(driver, "document.getElementById('status').textContent.startsWith('spectrum.onnx: ')")
    assert text(driver, "status").endswith("gives mag, x, y, not a sound; export it without --target sherpa")
    driver.execute_script("document.getElementById('results').hidden = true")
    drop(driver, {"again.wav": sound, "again.onnx": fetched(driver, "v2.onnx")})
    wait(driver, "!document.getElementById('results').hidden")
    wait(driver, "document.getElementById('status').textContent.startsWith('2.0 s of sound in ')")


def spectral() -> bytes:
    """A Vocos whose inverse STFT is left to sherpa-onnx."""
    from exported import tiny

    from melvoc.exporting.models import onnx_model

    return onnx_model(tiny("vocos"), (), sherpa=True)


@pytest.mark.slow
def test_without_onnxruntime_web_or_the_file_the_page_says_so(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the package that makes ONNX files: pip install onnx")
    shutil.copytree(PAGE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ort", "*.onnx"))
    (tmp_path / "x.onnx").write_bytes(spectral())
    with served(tmp_path) as site, browser() as driver:
        for file, message in (
            ("x.onnx", "x.onnx: onnxruntime-web is not beside this page; docs/web/fetch.sh puts it there"),
            ("none.onnx", "none.onnx: the server says 404"),
            ("http://localhost:1/x.onnx", "http://localhost:1/x.onnx: "),
        ):
            driver.get(f"{site}?vocoder={file}")
            wait(driver, "'ready' in document.documentElement.dataset")
            assert text(driver, "status").startswith(message)
            assert driver.execute_script("return document.getElementById('status').className") == "wrong"


def drop(driver: Any, files: dict[str, bytes]) -> None:
    """Drop files on the page."""
    given = {name: base64.b64encode(content).decode() for name, content in files.items()}
    driver.execute_script(
        "const transfer = new DataTransfer(); for (const [name, data] of Object.entries(arguments[0]))"
        " transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name));"
        " dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, cancelable: true}));",
        given,
    )


def wait(driver: Any, condition: str) -> None:
    """Wait until a condition holds, looked at whenever the page changes."""
    held = driver.execute_async_script(
        f"const done = arguments[0], held = () => {condition}; if (held()) return done(true);"
        "new MutationObserver((_, o) => held() && (o.disconnect(), done(true)))"
        ".observe(document.documentElement, {attributes: true, childList: true, subtree: true});"
    )
    assert held, condition


def text(driver: Any, name: str) -> str:
    return str(driver.execute_script("return document.getElementById(arguments[0]).textContent", name))


def fetched(driver: Any, address: str) -> bytes:
    """What the page gets from an address."""
    data = driver.execute_async_script(
        "const done = arguments[1]; fetch(arguments[0]).then(r => r.blob()).then(b => {"
        " const r = new FileReader(); r.onload = () => done(r.result.split(',')[1]); r.readAsDataURL(b); });",
        address,
    )
    return base64.b64decode(data)


def mel_in(driver: Any, file: Path, spec: MelSpec) -> Tensor:
    """`[n_mels, T]` of a sound file, decoded and analysed by the page's modules."""
    values, bands, frames = driver.execute_async_script(
        "const [data, spec, done] = arguments, bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));"
        "Promise.all([import('./sound.mjs'), import('./mel.mjs')]).then(async ([{decode}, {melOf}]) => {"
        " const {wave} = await decode(bytes.buffer, spec.sample_rate), mel = melOf(wave, spec);"
        " done([[...mel.values], mel.bands, mel.frames]); });",
        base64.b64encode(file.read_bytes()).decode(),
        spec.to_dict(),
    )
    return torch.tensor(values).view(bands, frames)


def samples(driver: Any, player: str) -> Tensor:
    """What a player of the page plays."""
    address = driver.execute_script("return document.getElementById(arguments[0]).src", player)
    pcm = np.frombuffer(fetched(driver, address)[44:], dtype="<i2")
    return torch.from_numpy(pcm.astype(np.float32) / 32768)
