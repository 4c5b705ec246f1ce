"""The command line: what a person types, what comes out, and that a mistake is one line."""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from networks import VOCODERS, random_mel

import melvoc
from melvoc.audio import AudioReader, AudioWriter, to_pcm16
from melvoc.cli import Terminated, interruptible, main
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import ConvTranspose1d
from melvoc.spectrogram.file import read_mel, save_mel

ROOT = Path(__file__).resolve().parents[1]
GUITAR = ROOT / "docs" / "audio" / "guitar_harmonics.flac"
Say = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vocoder that streams, as a file."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    melvoc.save(VOCODERS["bigvgan_v2_tiny"], path)
    return path


def sound(path: Path, *, rate: int, seconds: float, channels: int = 1) -> torch.Tensor:
    """A tone of its own for each channel, as a file."""
    time_axis = torch.arange(round(seconds * rate)) / rate
    wave = torch.stack([0.3 * torch.sin(2 * torch.pi * 220 * (c + 1) * time_axis) for c in range(channels)])
    with AudioWriter(path, sample_rate=rate, channels=channels) as writer:
        writer.write(wave)
    return wave


def shape_of(path: Path) -> tuple[int, int, int]:
    with AudioReader(path) as reader:
        return reader.sample_rate, reader.channels, reader.samples


def read(path: Path) -> torch.Tensor:
    with AudioReader(path) as reader:
        return torch.cat(list(reader.blocks()), dim=-1)


def test_list_has_the_best_first(capsys: Say) -> None:
    assert main(["list", "--names"]) == 0
    names = capsys.readouterr().out.split()
    assert names[0] == "bigvgan_v2_44khz_128band_512x"
    assert names == melvoc.list_vocoders()


def test_list_is_a_table(capsys: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vocos_mel_24khz-0feb3fdd929b.safetensors").touch()
    assert main(["list"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["name", "rate", "bands", "hop", "parameters", "speed", "cached"]
    assert [row[0] for row in rows] == melvoc.list_vocoders()
    table = {row[0]: row[1:] for row in rows}
    assert table["bigvgan_v2_44khz_128band_512x"] == ["44100", "128", "512", "122.2", "M", "slow", "no"]
    assert table["bigvgan_base_24khz_100band"][-2:] == ["medium", "no"]
    assert table["vocos_mel_24khz"] == ["24000", "100", "256", "13.5", "M", "fast", "yes"]
    assert table["griffinlim"] == ["any", "any", "any", "none", "fast", "-"]


def test_the_caches_listed_and_pruned(capsys: Say, tmp_path: Path) -> None:
    models, rest = tmp_path / "melvoc" / "models", tmp_path / "melvoc" / "downloads" / "a--b@0123456789ab"
    whole = models / "vocos_mel_24khz-0feb3fdd929b.safetensors"
    for path, size in ((whole, 3_000_000), (rest / "x.incomplete", 500_000)):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))
    where = ["--cache-dir", str(tmp_path)]
    assert main(["cache", "list", *where]) == 0
    assert re.fullmatch(r" +3\.0 MB  vocos_mel_24khz  .*\n +3\.0 MB  in total\n", capsys.readouterr().out)
    assert main(["cache", "prune", *where]) == 0
    assert re.fullmatch(r" +0\.5 MB  .*a--b@0123456789ab\n +0\.5 MB  freed\n", capsys.readouterr().out)
    assert main(["cache", "prune", *where]) == 0
    assert capsys.readouterr().out.startswith("nothing to free")
    left = [path.name for path in (tmp_path / "melvoc").rglob("*") if path.is_file()]
    assert left == [whole.name]


def test_info(capsys: Say, generator: Path) -> None:
    assert main(["info", "bigvgan_v2_44khz_128band_512x"]) == 0
    out = capsys.readouterr().out
    for part in ("hop_length: 512", "licence: MIT", "confidence: ", "revision: ", "parameters: 122"):
        assert part in out
    assert main(["info", str(generator)]) == 0
    assert "architecture: bigvgan" in capsys.readouterr().out


def test_doctor_says_what_would_be_used_and_why(capsys: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MELVOC_CACHE", str(tmp_path))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for part in (f"melvoc {melvoc.__version__}", f"torch: {version('torch')}", "device: ", "engine: ", str(tmp_path)):
        assert part in out


@pytest.mark.parametrize("missing", ["numba", "llvmlite"])
def test_doctor_names_the_engine_that_is_used_where_numba_cannot_be_imported(missing: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from melvoc.cli import main; sys.exit(main(['doctor']))"
    environment = os.environ | {"MELVOC_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (engine,) = (line for line in done.stdout.splitlines() if line.startswith("engine: "))
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("doctor names the GPU's engine")
    assert re.fullmatch(rf"engine: plain torch: numba cannot be imported \(.*{missing}.*\)", engine)


def test_a_recording_to_a_mel_and_back_is_as_long_as_it_was(tmp_path: Path, capsys: Say) -> None:
    mel, wave = tmp_path / "guitar.safetensors", tmp_path / "guitar.wav"
    assert main(["mel", str(GUITAR), "-o", str(mel)]) == 0
    assert main(["vocode", str(mel), "-o", str(wave)]) == 0
    assert shape_of(wave) == shape_of(GUITAR)
    hint = capsys.readouterr().err.strip()
    assert "\n" not in hint
    assert "--vocoder bigvgan_v2_44khz_128band_512x" in hint


def test_a_mel_file_is_the_mel_of_its_spec(tmp_path: Path) -> None:
    wave = sound(tmp_path / "in.wav", rate=44100, seconds=0.4)
    assert main(["mel", str(tmp_path / "in.wav"), "-o", str(tmp_path / "mel.safetensors")]) == 0
    saved = read_mel(tmp_path / "mel.safetensors")
    assert saved.spec == melvoc.MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128)
    expected = melvoc.MelSpectrogram(saved.spec)(read(tmp_path / "in.wav"))
    torch.testing.assert_close(saved.mel, expected, atol=1e-4, rtol=0)
    assert saved.samples == wave.shape[-1]


def test_a_mel_at_another_rate(tmp_path: Path) -> None:
    sound(tmp_path / "in.wav", rate=48000, seconds=0.4)
    given = ["mel", str(tmp_path / "in.wav"), "-o", str(tmp_path / "mel.safetensors"), "--sample-rate", "44100"]
    assert main(given) == 0
    saved = read_mel(tmp_path / "mel.safetensors")
    assert saved.spec is not None
    assert (saved.spec.sample_rate, saved.samples) == (44100, 17640)


def test_what_resampling_makes_of_full_scale_is_not_warned_about(tmp_path: Path, generator: Path, capsys: Say) -> None:
    """A file whose peak is 1.0 is higher between its samples, and no warning of it is the file's owner's business."""
    square = np.sign(np.sin(2 * np.pi * 997 * np.arange(9000) / 22050)).astype("float32")
    melvoc.audio.write(tmp_path / "in.wav", square, 22050, "FLOAT")
    assert float(melvoc.resample(square, 22050, 44100).abs().max()) > 1.05
    for given in (
        ["mel", str(tmp_path / "in.wav"), "-o", str(tmp_path / "mel.safetensors"), "--sample-rate", "44100"],
        ["vocode", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--vocoder", str(generator)],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert main(given) == 0
        assert "warn" not in capsys.readouterr().err.lower()
    assert melvoc.load_mel(tmp_path / "mel.safetensors")[0].shape == (1, 128, 35)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_a_subtype_keeps_what_the_vocoder_made(tmp_path: Path, generator: Path, subtype: str) -> None:
    voc = melvoc.load(generator, device="cpu")
    mel = random_mel(voc, 40)
    save_mel(tmp_path / "mel.safetensors", mel, voc.spec)
    given = ["vocode", str(tmp_path / "mel.safetensors"), "-o", str(tmp_path / "out.wav"), "--vocoder", str(generator)]
    assert main([*given, "--subtype", subtype]) == 0
    found, _ = soundfile.read(tmp_path / "out.wav", dtype="float64")
    assert soundfile.info(tmp_path / "out.wav").subtype == subtype
    error = np.abs(found - voc.mel_to_waveform(mel)[0, 0].numpy()).max()
    assert error <= (2.0**-16 if subtype == "PCM_16" else 1e-5)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("rate", "channels", "wanted"), [(48000, 2, None), (44100, 1, 48000), (22050, 3, 32000)])
def test_sound_through_a_vocoder_keeps_channels_and_length(
    tmp_path: Path, generator: Path, rate: int, channels: int, wanted: int | None, suffix: str
) -> None:
    source, target = tmp_path / "in.wav", tmp_path / f"out{suffix}"
    sound(source, rate=rate, seconds=0.5, channels=channels)
    extra = [] if wanted is None else ["--sample-rate", str(wanted)]
    assert main(["vocode", str(source), "-o", str(target), "--vocoder", str(generator), *extra]) == 0
    new = wanted or 44100
    assert shape_of(target) == (new, channels, -(-round(0.5 * rate) * new // rate))


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_an_improbable_mel_is_an_error_unless_its_spec_is_named(
    tmp_path: Path, generator: Path, capsys: Say, ending: str
) -> None:
    spec, source, target = melvoc.load(generator, device="cpu").spec, tmp_path / f"mel.{ending}", tmp_path / "out.wav"
    wave, _ = melvoc.audio.read(GUITAR)
    mel = melvoc.MelSpectrogram(spec)(wave[:1], sample_rate=44100)[0]
    melvoc.save_mel(source, (mel - mel.mean()) / mel.std(), spec)
    vocode = ["vocode", str(source), "-o", str(target), "--vocoder", str(generator)]
    assert main(vocode) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "normalised mel" in shown
    assert "name its spec with --spec" in shown
    assert not target.exists()
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    assert main([*vocode, "--spec", str(tmp_path / "spec.json")]) == 0
    melvoc.save_mel(source, mel, spec)
    assert main(vocode) == 0


def test_a_recording_is_not_overwritten_by_its_copy(tmp_path: Path, capsys: Say) -> None:
    path = tmp_path / "only.wav"
    path.write_bytes(GUITAR.read_bytes())
    (tmp_path / "link.wav").symlink_to(path)
    assert main(["vocode", str(path), "-o", str(tmp_path / "link.wav")]) == 2
    assert capsys.readouterr().err.endswith("link.wav: both an input and an output; give another with -o\n")
    assert path.read_bytes() == GUITAR.read_bytes()


@pytest.mark.parametrize("rate", [8000, 96000, 176400, 192000])
def test_any_rate_with_and_without_a_vocoder(tmp_path: Path, generator: Path, rate: int) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    sound(source, rate=rate, seconds=0.2)
    assert main(["vocode", str(source), "-o", str(target)]) == 0
    assert shape_of(target) == (rate, 1, round(0.2 * rate))
    assert main(["vocode", str(source), "-o", str(target), "--vocoder", str(generator)]) == 0
    assert shape_of(target) == (44100, 1, 8820)


def test_blocks_of_a_sound_file(tmp_path: Path, generator: Path, capsys: Say) -> None:
    sound(tmp_path / "in.wav", rate=44100, seconds=0.5)
    vocode = ["vocode", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav")]
    assert main([*vocode, "--vocoder", str(generator)]) == 0
    whole = read(tmp_path / "out.wav")
    assert main([*vocode, "--vocoder", str(generator), "--block-frames", "3"]) == 0
    torch.testing.assert_close(read(tmp_path / "out.wav"), whole, atol=1e-4, rtol=0)
    capsys.readouterr()
    assert main([*vocode, "--block-frames", "3"]) == 2
    assert "block_frames=3, but griffinlim cannot run in blocks; omit it" in capsys.readouterr().err


def test_each_channel_is_vocoded_by_itself(tmp_path: Path, generator: Path) -> None:
    wave = sound(tmp_path / "stereo.wav", rate=44100, seconds=0.4, channels=2)
    vocode = ["--vocoder", str(generator), "-o"]
    assert main(["vocode", str(tmp_path / "stereo.wav"), *vocode, str(tmp_path / "both.wav")]) == 0
    for channel in range(2):
        with AudioWriter(tmp_path / "one.wav", sample_rate=44100, channels=1) as writer:
            writer.write(wave[channel : channel + 1])
        assert main(["vocode", str(tmp_path / "one.wav"), *vocode, str(tmp_path / "one_out.wav")]) == 0
        one, both = read(tmp_path / "one_out.wav")[0], read(tmp_path / "both.wav")[channel]
        torch.testing.assert_close(both, one, atol=1e-4, rtol=0)


def test_disk_to_disk_is_what_one_call_gives(tmp_path: Path, generator: Path) -> None:
    """A whole number of hops, so that nothing is padded; longer than a block of the reader."""
    voc = melvoc.load(generator, engine="torch")
    sound(tmp_path / "in.wav", rate=44100, seconds=512 * 300 / 44100)
    assert main(["vocode", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--vocoder", str(generator)]) == 0
    whole = voc.mel_to_waveform(voc.mel(read(tmp_path / "in.wav"), sample_rate=voc.sample_rate))[:, 0]
    half_a_step = 0.5 / 32768
    torch.testing.assert_close(read(tmp_path / "out.wav"), whole, atol=half_a_step + 2e-5, rtol=0)


@pytest.mark.parametrize("spec", ["json", "preset"])
def test_an_npy_needs_a_spec(tmp_path: Path, spec: str) -> None:
    np.save(tmp_path / "mel.npy", np.full((80, 12), -4, dtype=np.float32))
    chosen = melvoc.MelSpec.preset("hifigan_22khz_80band_256x")
    (tmp_path / "spec.json").write_text(json.dumps(chosen.to_dict()))
    given = str(tmp_path / "spec.json") if spec == "json" else "hifigan_22khz_80band_256x"
    assert main(["vocode", str(tmp_path / "mel.npy"), "--spec", given, "-o", str(tmp_path / "out.wav")]) == 0
    assert shape_of(tmp_path / "out.wav") == (22050, 1, 12 * 256)


REAL = {
    "hifigan_universal_v1/generator_universal.pth.tar": 0.28,
    "hifigan_ljspeech_v2/generator_v2": 0.32,
}


@pytest.mark.parametrize("checkpoint", REAL)
def test_real_speech_through_real_weights(data_dir: Path, tmp_path: Path, checkpoint: str) -> None:
    """`convert` and `vocode`, then the mel of the output against that of the input (published code: 0.272, 0.314)."""
    weights, speech = data_dir / "weights" / checkpoint, data_dir / "audio" / "ljspeech" / "LJ001-0012.wav"
    made, out = tmp_path / "made.safetensors", tmp_path / "out.wav"
    assert main(["convert", str(weights), "--config", str(weights.parent / "config.json"), "-o", str(made)]) == 0
    assert main(["vocode", str(speech), "-o", str(out), "--vocoder", str(made)]) == 0
    assert shape_of(out) == shape_of(speech)
    mel = melvoc.MelSpectrogram(melvoc.info(made).spec)
    assert float((mel(read(out)) - mel(read(speech))).abs().mean()) <= REAL[checkpoint]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "melvoc", *arguments]


def test_raw_frames_through_a_pipe(generator: Path) -> None:
    voc = melvoc.load(generator)
    mel = random_mel(voc, 40)
    frames = mel[0].T.contiguous().numpy().astype("<f4").tobytes()
    done = subprocess.run(
        command("vocode", "-", "--raw", "--vocoder", str(generator)), input=frames, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    got = np.frombuffer(done.stdout, dtype="<i2").astype(np.int32)
    expected = to_pcm16(voc.mel_to_waveform(mel)[0, 0]).numpy().astype(np.int32)
    assert np.abs(got - expected).max() <= 1


def test_raw_frames_that_are_possible_but_improbable(generator: Path, tmp_path: Path) -> None:
    """A normalised mel: its first 256 frames make sound, since nothing can be said of fewer; then it ends."""
    spec = melvoc.load(generator).spec
    mel = torch.randn(400, spec.n_mels, generator=torch.Generator().manual_seed(0))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    done = [
        subprocess.run(
            command("vocode", "-", "--raw", "--vocoder", str(generator), *extra),
            input=mel.numpy().astype("<f4").tobytes(), capture_output=True, check=False,
        )
        for extra in ([], ["--spec", str(tmp_path / "spec.json")], ["--spec", "hifigan_22khz_80band_256x"])
    ]  # fmt: skip
    assert [one.returncode for one in done] == [2, 0, 2]
    said = done[0].stderr.decode()
    assert said.startswith("melvoc: error: standard input: ")
    assert said.endswith("if it is, name its spec with --spec\n")
    assert done[1].stderr == b""
    assert b"--spec is not" in done[2].stderr
    short = mel[:100].numpy().astype("<f4").tobytes()
    given = command("vocode", "-", "--raw", "--vocoder", str(generator))
    once = subprocess.run(given, input=short, capture_output=True, check=False)
    assert once.returncode == 0
    assert once.stderr.decode().startswith("melvoc: warning: standard input: ")


def test_an_npy_is_griffin_lims_where_it_is_named(tmp_path: Path, capsys: Say) -> None:
    spec = melvoc.MelSpec.preset("griffinlim")
    np.save(tmp_path / "a.npy", melvoc.MelSpectrogram(spec)(0.3 * torch.randn(1, 1, 20000))[0].numpy())
    given = ["vocode", str(tmp_path / "a.npy"), "-o", str(tmp_path / "a.wav")]
    assert main(given) == 2
    assert "does not say what its mel is; give --spec or --vocoder" in capsys.readouterr().err
    assert main([*given, "--vocoder", "griffinlim"]) == 0
    assert shape_of(tmp_path / "a.wav")[:2] == (44100, 1)


@pytest.mark.parametrize("arguments", [["mel", "-o", "out.npy"], ["vocode", "-o", "out.wav"]])
def test_a_cut_file_is_used_and_said_to_be_cut_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Say, generator: Path, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "in.flac", rate=44100, seconds=2.0)
    content = (tmp_path / "in.flac").read_bytes()
    (tmp_path / "in.flac").write_bytes(content[: len(content) // 2])
    assert main([*arguments, "in.flac", "--vocoder", str(generator)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("melvoc: warning: in.flac: cut or damaged (")
    assert said.count("\n") == 1
    assert (tmp_path / arguments[-1]).exists()


class Wide(melvoc.Vocoder):
    """Two channels of sound, at twice the mel's rate."""

    channels = property(lambda self: 2)  # type: ignore[assignment]
    samples_per_frame = property(lambda self: 256)  # type: ignore[assignment]
    sample_rate = property(lambda self: 32000)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(name="wide", spec=melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40))
        self.up = ConvTranspose1d(40, 2, 512, 256)

    def graph(self) -> Node:
        return Chain((self.up, Map(torch.tanh)))


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Wide:
    voc = Wide().eval()
    monkeypatch.setattr("melvoc.cli.vocode.load", lambda *arguments, **options: voc)
    return voc


def test_the_length_of_a_saved_mel_is_at_the_mels_rate(tmp_path: Path, wide: Wide) -> None:
    mel = wide.mel(torch.rand(16000) - 0.5, sample_rate=16000)
    save_mel(tmp_path / "mel.safetensors", mel, wide.spec, samples=15990)
    for rate, samples in ((None, 31980), (48000, 47970)):
        extra = [] if rate is None else ["--sample-rate", str(rate)]
        given = ["vocode", str(tmp_path / "mel.safetensors"), "-o", str(tmp_path / "out.wav"), "--vocoder", "wide"]
        assert main([*given, *extra]) == 0
        assert shape_of(tmp_path / "out.wav") == (rate or 32000, 2, samples)


def test_raw_sound_has_every_channel(
    tmp_path: Path, wide: Wide, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    mel = random_mel(wide, 30)
    expected = to_pcm16(wide.mel_to_waveform(mel)[0]).numpy()
    for extra in ([], ["-o", str(tmp_path / "out.wav")]):
        frames = io.BufferedReader(io.BytesIO(mel[0].T.contiguous().numpy().astype("<f4").tobytes()))  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(frames))
        assert main(["vocode", "-", "--raw", "--vocoder", "wide", *extra]) == 0
    piped = np.frombuffer(capsysbinary.readouterr().out, dtype="<i2").reshape(-1, 2)
    filed, _ = soundfile.read(tmp_path / "out.wav", dtype="int16")
    for got in (piped, filed):
        assert np.abs(got.T.astype(int) - expected).max() <= 1, "channels are interleaved"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_raw_sound_that_cannot_be_written_whole_is_an_error(generator: Path) -> None:
    frames = random_mel(melvoc.load(generator), 40)[0].T.contiguous().numpy().astype("<f4").tobytes()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("vocode", "-", "--raw", "--vocoder", str(generator)),
            input=frames, stdout=full, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "melvoc: error: standard output: cannot be written (No space left on device); is there room on the disk?\n"
    )


@pytest.mark.parametrize("extra", [[], ["-o", "out.wav"]])
def test_raw_input_without_a_frame_is_an_error(generator: Path, tmp_path: Path, extra: list[str]) -> None:
    done = subprocess.run(
        command("vocode", "-", "--raw", "--vocoder", str(generator), *extra),
        input=b"", capture_output=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"melvoc: error: standard input: has no frames; give a mel")
    assert not list(tmp_path.iterdir()), "no file without sound"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no shell that closes streams")
def test_a_standard_stream_that_is_closed(tmp_path: Path) -> None:
    def said(shell: str, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {shell}', "sh", *command(*arguments)],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    assert said("2>&-", "list", "--names")[:2] == (0, "\n".join(melvoc.list_vocoders()) + "\n")
    assert said("2>&-", "vocode", "gone.wav", "-o", "out.wav")[0] == 2
    assert said(">&-", "mel", str(GUITAR), "-o", "g.safetensors") == (0, "", "")
    assert (tmp_path / "g.safetensors").is_file(), "that it was made goes unsaid"
    closed = "melvoc: error: standard output: cannot be written (Bad file descriptor); is it closed?\n"
    assert said(">&-", "list", "--names") == (2, "", closed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_list_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it fails at the end
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "melvoc: error: standard output: cannot be written (No space left on device); is there room on the disk?\n"
    )


def test_no_warning_stands_beside_an_error(tmp_path: Path, generator: Path, capsys: Say) -> None:
    """A cut file warns, into a folder; that it cannot be written is the error."""
    sound(tmp_path / "in.flac", rate=44100, seconds=2.0)
    content = (tmp_path / "in.flac").read_bytes()
    (tmp_path / "in.flac").write_bytes(content[: len(content) // 2])
    (tmp_path / "out" / "in.safetensors").mkdir(parents=True)
    given = ["mel", str(tmp_path / "in.flac"), "-o", str(tmp_path / "out"), "--vocoder", str(generator)]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith("melvoc: error: ")
    assert said.count("\n") == 1


def test_raw_sound_comes_before_the_input_ends(generator: Path) -> None:
    voc = melvoc.load(generator)
    frames = random_mel(voc, 200)[0].T.contiguous().numpy().astype("<f4").tobytes()
    with subprocess.Popen(
        command("vocode", "-", "--raw", "--vocoder", str(generator)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(frames)
        process.stdin.flush()
        assert len(process.stdout.read(2 * 512 * 64)) == 2 * 512 * 64, "no sound while the pipe is open"
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_leave_nothing_half_written(
    tmp_path: Path, generator: Path, number: signal.Signals, code: int, word: str
) -> None:
    sound(tmp_path / "long.wav", rate=44100, seconds=600)
    process = subprocess.Popen(
        command("vocode", str(tmp_path / "long.wav"), "-o", str(tmp_path / "out.wav"), "--vocoder", str(generator)),
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(tmp_path.glob("*out*")):
        time.sleep(0.05)  # until it has begun to write, under another name
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert err.strip().splitlines() == [f"melvoc: error: {word}; nothing half-written was left"]
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_that_a_callback_swallows_is_raised_again(
    number: signal.Signals, expected: type[BaseException]
) -> None:
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))

    def work() -> None:
        callback()
        for _ in range(1000):
            time.sleep(0.01)

    with pytest.raises(expected), interruptible():
        work()


def test_an_applications_own_sigterm_handler_stays(capsys: Say) -> None:
    def mine(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        assert main(["list"]) == 0
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert main(["list"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before


def _garbage(folder: Path) -> Path:
    path = folder / "broken.wav"
    path.write_bytes(b"RIFF and then nothing of use")
    return path


def _nothing(folder: Path) -> Path:
    path = folder / "empty.wav"
    with AudioWriter(path, sample_rate=44100, channels=1):
        pass
    return path


def _mel(folder: Path) -> Path:
    path = folder / "mel.npy"
    np.save(path, np.full((80, 12), -4, dtype=np.float32))
    return path


def _not_a_number(folder: Path) -> Path:
    path = folder / "nan.wav"
    soundfile.write(path, np.array([0.1, np.nan] * 9000, dtype=np.float32), 44100, subtype="FLOAT")
    return path


def _odd_mel(folder: Path, mel: object) -> list[str]:
    np.save(folder / "odd.npy", mel)
    preset = "hifigan_22khz_80band_256x"
    return ["vocode", str(folder / "odd.npy"), "-o", f"{folder}/o.wav", "--spec", preset]


MISTAKES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "no command": (lambda _: [], "the following arguments are required: COMMAND"),
    "unknown command": (lambda _: ["sing"], "invalid choice: 'sing'"),
    "no output": (lambda _: ["vocode", str(GUITAR)], "say where to write with -o OUT.wav"),
    "unknown option": (lambda _: ["list", "--loud"], "unrecognized arguments: --loud"),
    "not a number": (lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.wav", "--sample-rate", "CD"], "invalid int value"),
    "rate of 0": (lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.wav", "--sample-rate", "0"], "at least 1 Hz"),
    "missing file": (lambda t: ["vocode", f"{t}/none.wav", "-o", f"{t}/o.wav"], "none.wav"),
    "broken file": (lambda t: ["vocode", str(_garbage(t)), "-o", f"{t}/o.wav"], "broken.wav"),
    "empty file": (lambda t: ["vocode", str(_nothing(t)), "-o", f"{t}/o.wav"], "has no samples"),
    "empty file to mel": (lambda t: ["mel", str(_nothing(t)), "-o", f"{t}/o.npy"], "has no samples"),
    "NaN in a file": (lambda t: ["vocode", str(_not_a_number(t)), "-o", f"{t}/o.wav"], "nan.wav: contains NaN or Inf"),
    "NaN in a file to mel": (
        lambda t: ["mel", str(_not_a_number(t)), "-o", f"{t}/o.npy"],
        "nan.wav: contains NaN or Inf",
    ),
    "NaN in a mel": (lambda t: _odd_mel(t, np.full((80, 9), np.nan, dtype="f4")), "odd.npy: "),
    "other bands": (lambda t: _odd_mel(t, np.full((64, 9), -4, dtype="f4")), "odd.npy: "),
    "one dimension": (lambda t: _odd_mel(t, np.full(80, -4, dtype="f4")), "odd.npy: "),
    "whole numbers": (lambda t: _odd_mel(t, np.full((80, 9), -4)), "odd.npy: "),
    "unknown vocoder": (
        lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.wav", "--vocoder", "bigvgan_v2_44khz"],
        "did you mean 'bigvgan_v2_44khz_128band_512x'",
    ),
    "npy without a spec": (lambda t: ["vocode", str(_mel(t)), "-o", f"{t}/o.wav"], "give --spec or --vocoder"),
    "unknown preset": (lambda t: ["mel", str(GUITAR), "-o", f"{t}/o.npy", "--spec", "hifigan"], "hifigan"),
    "unknown ending": (lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.ogg"], ".ogg"),
    "a rate that is not the spec's": (
        lambda t: [
            "mel",
            str(GUITAR),
            "-o",
            f"{t}/o.npy",
            "--spec",
            "hifigan_22khz_80band_256x",
            "--sample-rate",
            "8000",
        ],
        "this mel is at 22050 Hz",
    ),
    "a rate beyond all": (
        lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.wav", "--sample-rate", "99999999999"],
        "at most 2147483647",
    ),
    "a folder": (
        lambda t: ["vocode", str(t), "-o", f"{t}/o.wav"],
        "a folder, need a folder to write to; give one with -o",
    ),
    "mel ending": (lambda t: ["mel", str(GUITAR), "-o", f"{t}/o.pt"], ".pt"),
    "folder missing": (lambda t: ["vocode", str(GUITAR), "-o", f"{t}/none/o.wav"], "none"),
    "a subtype that FLAC has not": (
        lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.flac", "--subtype", "FLOAT"],
        "FLAC has PCM_16, PCM_24",
    ),
    "a subtype that is none": (lambda t: ["vocode", str(GUITAR), "-o", f"{t}/o.wav", "--subtype", "MP3"], "--subtype"),
    "a subtype of standard output": (
        lambda t: ["vocode", "-", "--raw", "--vocoder", "griffinlim", "--subtype", "FLOAT"],
        "standard output is 16-bit PCM",
    ),
    "no standard input": (lambda t: ["vocode", "-", "-o", f"{t}/o.wav"], "/dev/stdin: neither a file nor a pipe"),
    "raw in blocks": (
        lambda _: ["vocode", "-", "--raw", "--vocoder", "griffinlim", "--block-frames", "8"],
        "--block-frames with --raw",
    ),
    "no rate for a mel": (lambda _: ["mel", str(GUITAR), "-o", "x.npy", "--sample-rate", "0"], "--sample-rate 0: "),
    "no rate for mels": (
        lambda _: ["mel", str(GUITAR.parent), "-o", "mels", "--sample-rate", "0"],
        "--sample-rate 0: a sample rate is",
    ),
    "raw without a vocoder": (lambda _: ["vocode", "-", "--raw"], "--raw --vocoder NAME"),
    "no checkpoint": (
        lambda t: ["convert", f"{t}/g", "--config", f"{t}/c.json", "-o", f"{t}/o.safetensors"],
        "c.json: cannot be read",
    ),
    "not downloaded": (
        lambda t: ["download", "bigvgan_v2_44khz_128band_512x", "--local-files-only", "--cache-dir", str(t / "c")],
        "load it once online",
    ),
    "unverified": (
        lambda t: ["download", "bigvgan_24khz_100band", "--cache-dir", str(t / "c")],
        "pass --allow-unverified, and a full commit as --revision",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(name: str, tmp_path: Path, capsys: Say) -> None:
    arguments, words = MISTAKES[name]
    given = arguments(tmp_path)
    capsys.readouterr()
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("melvoc: error: ")
    assert "\n" not in err.strip()
    assert words in err
    assert not list(tmp_path.glob("o.*")), "something half-written was left"


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    """With everything that a process may say at its end."""
    done = subprocess.run(
        command("vocode", str(_garbage(tmp_path)), "-o", str(tmp_path / "o.wav")),
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MELVOC_DEBUG", "1")
    monkeypatch.setattr("melvoc.information.list_vocoders", lambda: 1 / 0)
    monkeypatch.setattr("melvoc.list_vocoders", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        main(["list"])
    monkeypatch.delenv("MELVOC_DEBUG")
    assert main(["list"]) == 2


def test_advice_is_the_command_lines(tmp_path: Path, capsys: Say) -> None:
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "g_1").write_bytes(b"PK\x03\x04")
    assert main(["vocode", str(GUITAR), "-o", str(tmp_path / "o.wav"), "--vocoder", str(tmp_path / "voice")]) == 2
    said = capsys.readouterr().err
    assert "pass --allow-unverified if you trust it" in said
    assert "=True" not in said


def test_a_saved_mel_is_no_vocoder_and_a_torch_file_no_sound(tmp_path: Path, capsys: Say) -> None:
    spec = melvoc.MelSpec.preset("griffinlim")
    save_mel(tmp_path / "mel.safetensors", torch.full((128, 20), -5.0), spec)
    torch.save(torch.zeros(3), tmp_path / "mel.pt")
    assert main(["info", str(tmp_path / "mel.safetensors")]) == 2
    assert "mel.safetensors: a saved mel, not a vocoder; melvoc.load_mel" in capsys.readouterr().err
    assert main(["vocode", str(tmp_path / "mel.pt"), "-o", str(tmp_path / "o.wav")]) == 2
    assert "mel.pt: neither a mel (.safetensors, .npy) nor a sound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "hint"),
    [
        ("griffinlim", "; for better sound: --vocoder bigvgan_v2_44khz_128band_512x (`melvoc list`)"),
        ("hifigan_22khz_80band_256x", "; for better sound: --vocoder "),
        ("librosa_22khz_128band_db", ""),
    ],
)
def test_the_hint_names_a_vocoder_that_takes_the_mel(tmp_path: Path, capsys: Say, preset: str, hint: str) -> None:
    spec = melvoc.MelSpec.preset(preset)
    mel = melvoc.MelSpectrogram(spec)(0.3 * torch.sin(torch.arange(8000) / 9))
    save_mel(tmp_path / "mel.safetensors", mel, spec)
    assert main(["vocode", str(tmp_path / "mel.safetensors"), "-o", str(tmp_path / "o.wav")]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"melvoc: no --vocoder given: using Griffin-Lim{hint}")
    for name in re.findall(r"better sound: --vocoder (\w+)", said):
        assert melvoc.info(name).spec == spec
    assert said.count("\n") == 1
