"""Runs the code of the docs' pages, as a reader would who has the files that a page speaks of.

A process of its own, since the Hub's client reads HF_ENDPOINT when it is imported. A line of JSON in is one page,
`{"page": ..., "blocks": [{"line", "language", "text"}]}`; a line out lists what failed. Training is cut to one step;
published weights are tiny ones from a local server (PINS, as in hub_child).
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy
import torch
from hub_child import changed
from networks import neural, randomised
from training import GENERATOR, SPEC

import melvoc
from melvoc import cli, registry
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.spectrogram.file import save_mel
from melvoc.train import TrainConfig

TESTS = Path(__file__).resolve().parent
PUBLISHED = "bigvgan_v2_44khz_128band_512x"
HIFIGAN = {
    "resblock": "1", "upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]],
    "num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22050, "fmin": 0, "fmax": 8000,
}  # fmt: skip
NETWORK = {key: HIFIGAN[key] for key in HIFIGAN if key.startswith(("resblock", "upsample", "num_mels"))}
GIVES = {  # what other programs would write to a pipe
    "some-tts": "frames.f32",
    "ffmpeg -i talk.m4a -f wav -": "speech.wav",
    "ssh studio cat take1.flac": "song.flac",
    "curl -L $URL": "generator_v2",
    "curl -L $CONFIG": "config.json",
}
ENTRIES = {
    "melvoc.vocoders": EntryPoint("organ", "melvoc_organ:load_organ", "melvoc.vocoders"),
    "melvoc.architectures": EntryPoint("pulse", "melvoc_pulse:PULSE", "melvoc.architectures"),
}
SMALL = {"spec": SPEC, "generator": GENERATOR, "batch_size": 1, "segment": 4096, "device": "cpu"}


def furnish(folder: Path) -> None:
    """Every file that the pages name."""
    time = torch.arange(68000) / 48000
    wave = 0.2 * torch.sin(2 * torch.pi * 220 * torch.stack([time, 1.5 * time]) * (1 + 0.1 * time))
    sounds = ("speech.wav", "song.flac", "extra.wav", "in.wav", "recordings/monday/a.wav", "recordings/friday/a.wav",
              "sounds/a.wav", "sounds/b.wav", "DIR/a.wav", "DIR/b.wav")  # fmt: skip
    for name in sounds:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        melvoc.audio.write(folder / name, wave, 48000)
    (folder / "in.wav").rename(folder / "IN")
    shutil.copytree(TESTS.parent / "docs" / "audio", folder / "docs" / "audio")
    network = randomised(HiFiGAN(HiFiGANConfig.from_published(HIFIGAN)))
    voc = neural(network, name="hifigan", spec=melvoc.MelSpec.from_config(HIFIGAN))
    melvoc.save(voc, folder / "hifigan.safetensors")
    mel = voc.mel(wave, sample_rate=48000)
    numpy.save(folder / "mel.npy", mel.numpy())
    (folder / "frames.f32").write_bytes(mel[0].T.contiguous().numpy().astype("<f4").tobytes())
    spec = melvoc.MelSpec.preset(PUBLISHED)
    save_mel(folder / "mel.safetensors", melvoc.MelSpectrogram(spec)(wave, sample_rate=48000), spec)
    for page in ("training", "plugins"):  # files that only this page has
        (folder / "only" / page).mkdir(parents=True)
    save_mel(
        folder / "only" / "training" / "mel.safetensors", melvoc.MelSpectrogram(SPEC)(wave, sample_rate=48000), SPEC
    )
    for place in (folder, folder / "folder", folder / "FOLDER"):
        place.mkdir(exist_ok=True)
        torch.save({"generator": network.state_dict()}, place / "generator_v2")
        (place / "config.json").write_text(json.dumps(HIFIGAN))
    for name in ("CHECKPOINT", "g_02500000", "vocoder.pt", "generator_universal.pth.tar"):
        shutil.copy(folder / "generator_v2", folder / name)
    (folder / "network.json").write_text(json.dumps(NETWORK))
    (folder / "small.json").write_text(json.dumps(SPEC.to_dict()))
    (folder / "small_generator.json").write_text(json.dumps(GENERATOR.to_dict()))
    pulse = importlib.import_module("melvoc_pulse")
    config = {"bands": 40, "hop": 128, "width": 16, "rate": 16000}
    torch.save(
        randomised(pulse.PulseNet(pulse.published_config(config))).state_dict(), folder / "only/plugins/pulse.pt"
    )
    (folder / "only/plugins/pulse.json").write_text(json.dumps(config))


def names() -> dict[str, Any]:
    """What a page's Python may take for granted."""
    voc = melvoc.load(PUBLISHED, device="cpu")
    waveform = melvoc.audio.read("speech.wav")[0]
    mel = voc.mel(waveform, sample_rate=48000)
    app = torch.nn.Module()
    app.voc = melvoc.load("hifigan.safetensors")
    return {
        "__name__": "__main__", "melvoc": melvoc, "torch": torch, "voc": voc, "spec": voc.spec, "my_spec": voc.spec,
        "waveform": waveform, "mel": mel, "wave": voc.mel_to_waveform(mel), "mel_pieces": mel.split(30, dim=-1),
        "pieces": waveform.split(20000, dim=-1), "play": [].append, "app": app, "vae": torch.nn.Linear(2, 2),
        "update_progress": lambda *report: None, "cancelled": lambda: True, "show": [].append,
        "window_is_closed": lambda: False,
        "MyVocoder": importlib.import_module("melvoc_organ").Organ,
    }  # fmt: skip


def run_python(text: str, namespace: dict[str, Any]) -> None:
    """Execute a block; one that ends in a comment `# SomeError: ...` raises that. Its tests are called."""
    expected = re.search(r"^# (\w+Error): ", text, re.MULTILINE)
    before = set(namespace)
    try:
        with patch("melvoc.train.TrainConfig", functools.partial(TrainConfig, **SMALL)):
            exec(compile(textwrap.dedent(text), "<docs>", "exec", dont_inherit=True), namespace)
    except Exception as error:
        if not expected or type(error).__name__ != expected[1]:
            raise
        return
    if expected:
        raise AssertionError(f"no {expected[1]} was raised")
    for name in set(namespace) - before:
        if name.startswith("test_"):
            namespace[name]()


def run_shell(text: str) -> None:
    """Run the commands of melvoc in a block; what other programs would give to them comes through real pipes."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for command in line.partition("  #")[0].strip().split(" && "):
            stages = command.split(" | ")
            for number, stage in enumerate(stages):
                if stage.startswith("melvoc "):
                    source = GIVES[stages[number - 1]] if number else None
                    run_melvoc(stage, source)


def run_melvoc(command: str, source: str | None) -> None:
    """One command of melvoc's, with a file's content on its standard input."""
    with ExitStack() as stack:

        def piped(match: re.Match[str]) -> str:
            return f"/dev/fd/{stack.enter_context(pipe(GIVES[match[1]]))}"

        words = shlex.split(re.sub(r"<\(([^)]*)\)", piped, command))[1:]
        words = [PUBLISHED if word == "NAME" else word for word in words]
        if words[0] == "train":
            words = shortened(words)
        if source is not None:
            stack.enter_context(standard_input(source))
        said = stack.enter_context(redirect_stderr(StringIO()))
        code = cli.main(words)
    assert code == 0, f"`{command}` ended with {code}: {said.getvalue()}"


def shortened(words: list[str]) -> list[str]:
    """`melvoc train` with options that make it a matter of a second."""
    run = words[words.index("-o") + 1]
    if "--resume" not in words:
        shutil.rmtree(run, ignore_errors=True)
    tiny = [] if "--warm-start" in words else ["--spec", "small.json"]
    tiny += ["--generator", "small_generator.json"] if tiny and "--architecture" not in words else []
    steps = "2" if "--resume" in words else "1"
    sizes = ["--preset", "slim", "--batch-size", "1", "--segment", "2048", "--device", "cpu", "--steps", steps]
    return [*words, *tiny, *sizes]


@contextmanager
def pipe(source: str) -> Iterator[int]:
    """A pipe that gives a file's content: the end to read from."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as end, Path(source).open("rb") as file:
            shutil.copyfileobj(file, end)

    feeder = threading.Thread(target=feed)
    feeder.start()
    yield read
    os.close(read)
    feeder.join()


@contextmanager
def standard_input(source: str) -> Iterator[None]:
    """A file's content as standard input, through a pipe."""
    old, before = os.dup(0), sys.stdin
    with pipe(source) as read:
        os.dup2(read, 0)
        sys.stdin = os.fdopen(os.dup(0))
        yield
        sys.stdin.close()
        os.dup2(old, 0)
        sys.stdin = before
    os.close(old)


def run_page(page: str, blocks: list[dict[str, Any]], template: Path) -> list[str]:
    """What failed, in the order of the page."""
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        os.chdir(folder)
        if (own := Path("only") / Path(page).stem).is_dir():
            shutil.copytree(own, folder, dirs_exist_ok=True)
        namespace = names() if any(block["language"] == "python" for block in blocks) else {}
        for block in blocks:
            shutil.rmtree("run", ignore_errors=True)
            try:
                run_python(block["text"], namespace) if block["language"] == "python" else run_shell(block["text"])
            except BaseException:
                failures.append(f"{page}:{block['line']}: {traceback.format_exc()}")
        os.chdir(template)
    return failures


def main() -> None:
    """Answer until there are no more pages."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the pages print
    torch.set_num_threads(1)
    sys.path += [str(TESTS / f"{kind}_example" / "src") for kind in ("plugin", "architecture")]
    table, real = changed(), registry.entry_points
    registry.pins = lambda: table
    registry.entry_points = lambda group: [*real(group=group), *filter(None, [ENTRIES.get(group)])]
    tune = importlib.import_module("melvoc.nn.engines.cpu.tune")
    tune.measure = importlib.import_module("melvoc.nn.engines.cpu.plan").CostModel
    with tempfile.TemporaryDirectory() as template:
        furnish(Path(template))
        for line in sys.stdin:
            answers.write(json.dumps(run_page(**json.loads(line), template=Path(template))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
