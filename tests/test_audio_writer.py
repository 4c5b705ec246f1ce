"""What is written: nothing wraps, a subtype keeps its bits, a WAV may grow beyond its header, and files are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melvoc import MelvocError, SpecError
from melvoc.audio import SUBTYPES, AudioWriter, read, to_pcm16, write
from melvoc.errors import OptionError


def wave_of(channels: int, samples: int) -> Tensor:
    return torch.rand(channels, samples, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_pcm_clips_and_never_wraps(values: list[float]) -> None:
    wave = torch.tensor(values)
    pcm = to_pcm16(wave).double()
    nearest = (wave.double() * 32768).clamp(-32768, 32767)
    assert (pcm - nearest).abs().max() <= 0.5


def test_pcm_of_full_scale() -> None:
    assert to_pcm16(torch.tensor([1.0, -1.0, 2.0, -2.0, 0.99999, 0.0])).tolist() == [
        32767, -32768, 32767, -32768, 32767, 0,
    ]  # fmt: skip
    assert to_pcm16(torch.tensor([[1.0]], dtype=torch.float64)).dtype == torch.int16
    assert to_pcm16(torch.tensor([0.5], dtype=torch.float16)).tolist() == [16384]
    assert to_pcm16(torch.tensor([0.5, -1.0]).numpy()).tolist() == [16384, -32768]


def test_pcm_refuses_what_has_no_level() -> None:
    with pytest.raises(SpecError, match=r"torch.int16, but PCM is made from floats in \[-1, 1\]"):
        to_pcm16(torch.zeros(3, dtype=torch.int16))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(SpecError, match="NaN or Inf"):
            to_pcm16(torch.tensor([0.0, bad]))


# --- subtypes and sizes


@pytest.mark.parametrize(
    ("ending", "subtype", "bits"),
    [
        (".wav", "PCM_16", 16),
        (".wav", "PCM_24", 24),
        (".wav", "PCM_32", 32),
        (".wav", "FLOAT", 24),
        (".flac", "PCM_16", 16),
        (".flac", "PCM_24", 24),
    ],
)
def test_a_subtype_keeps_what_it_has_bits_for(ending: str, subtype: str, bits: int, tmp_path: Path) -> None:
    path, wave = tmp_path / f"a{ending}", wave_of(2, 3000).double()
    write(path, wave, 44100, subtype)
    assert soundfile.info(path).subtype == subtype
    found = torch.from_numpy(soundfile.read(path, dtype="float64")[0].T)
    assert (found - wave).abs().max() <= 0.5**bits * 1.001
    write(tmp_path / f"b{ending}", read(path)[0], 44100, subtype)
    assert torch.equal(read(path)[0], read(tmp_path / f"b{ending}")[0]), "read and written again it is the same"


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_only_floats_go_beyond_full_scale(subtype: str, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", torch.tensor([1.5, -1.5, 1.0, -1.0, 0.25]), 44100, subtype=subtype)
    found = read(tmp_path / "a.wav")[0][0]
    if subtype == "FLOAT":
        assert found.tolist() == [1.5, -1.5, 1.0, -1.0, 0.25]
    else:
        torch.testing.assert_close(found, torch.tensor([1.0, -1.0, 1.0, -1.0, 0.25]), rtol=0, atol=2**-15)


@pytest.mark.parametrize(("ending", "subtype"), [(".flac", "FLOAT"), (".flac", "PCM_32"), (".wav", "VORBIS")])
def test_a_subtype_that_a_format_does_not_have(ending: str, subtype: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=rf"a\{ending}: subtype='{subtype}', but (FLAC|WAV) has PCM_16, PCM_24"):
        write(tmp_path / f"a{ending}", wave_of(1, 10), 44100, subtype)
    with pytest.raises(SpecError, match="NaN or Inf"):
        write(tmp_path / "a.wav", torch.tensor([float("nan")]), 44100, "FLOAT")
    assert left_in(tmp_path) == []


def test_a_batch_of_one_as_a_vocoder_gives_it(tmp_path: Path) -> None:
    wave = wave_of(2, 90)
    for same in (wave[None], wave):
        write(tmp_path / "a.wav", same, 8000, "FLOAT")
        assert torch.equal(read(tmp_path / "a.wav")[0], wave)


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("blocks", [[3000], [999, 1, 1000, 1000], [2999, 1]])
def test_a_wav_that_outgrows_its_header_becomes_an_rf64(
    subtype: str, blocks: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = {"PCM_16": 2, "PCM_24": 3}.get(subtype, 4)
    monkeypatch.setattr("melvoc.audio.writer.RIFF_LIMIT", 2 * width * 1000)
    for name, count in (("within.wav", 1000), ("beyond.wav", 3000)):
        wave = wave_of(2, count)
        with AudioWriter(tmp_path / name, sample_rate=44100, channels=2, subtype=subtype) as writer:
            for part in wave.split(blocks if count == 3000 else [count], -1):
                writer.write(part)
        info = soundfile.info(tmp_path / name)
        assert (info.format, info.subtype) == ("WAV" if count == 1000 else "RF64", subtype)
        assert (read(tmp_path / name)[0] - wave).abs().max() <= 2**-16
    assert left_in(tmp_path) == ["beyond.wav", "within.wav"]


FULL = """
import resource, signal, sys
import torch
import melvoc
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
wave = torch.rand(1, 60000, generator=torch.Generator().manual_seed(0)) - 0.5
try:
    with melvoc.audio.AudioWriter(sys.argv[1], sample_rate=44100, channels=1) as writer:
        for part in wave.split(7000, -1):
            writer.write(part)
except melvoc.MelvocError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="the limit of a file's size is POSIX's")
@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_a_file_that_does_not_fit_is_an_error_and_not_there(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"

    def written(most: int) -> str:
        done = subprocess.run([sys.executable, "-c", FULL, str(path), str(most)], capture_output=True, check=False)
        assert (done.returncode != 0) == bool(done.stderr)
        return done.stderr.decode()

    assert not written(1 << 30)
    size = path.stat().st_size
    path.unlink()
    for most in (size // 2, size - 1):  # a FLAC's last block is only written when it is closed
        assert f"a{ending}: cannot be written" in written(most)
        assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_folder_in_the_files_place_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(MelvocError, match=rf"{name}: a folder; give the path of a file to write$"):
        AudioWriter(tmp_path / name, sample_rate=44100, channels=1)
    assert left_in(tmp_path) == [name]


def test_a_folder_that_appears_meanwhile_is_our_error(tmp_path: Path) -> None:
    writer = AudioWriter(tmp_path / "a.wav", sample_rate=44100, channels=1)
    with pytest.raises(MelvocError, match=r"a\.wav: cannot be written \([\w ]+\); is there room"), writer:
        (tmp_path / "a.wav").mkdir()
    assert left_in(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("rate", [2**40, 0, -1, 2**31, 2**200])
def test_a_rate_that_no_file_has(rate: int, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"a\.wav: WAV cannot hold 1 channels at .* Hz, but 1 to 1024 channels at 1 to"
    ):
        write(tmp_path / "a.wav", wave_of(1, 10), rate)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("name", "channels", "most"), [("a.flac", 9, 8), ("a.wav", 0, 1024), ("a.wav", 1025, 1024)])
def test_channels_that_a_format_does_not_have(name: str, channels: int, most: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=rf"{name}: .* cannot hold {channels} channels .*, but 1 to {most} channels"):
        write(tmp_path / name, torch.zeros(channels, 10), 44100)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_a_wave_with_a_gradient_and_one_of_numpys(subtype: str, tmp_path: Path) -> None:
    wave = wave_of(2, 90)
    write(tmp_path / "plain.wav", wave, 44100, subtype)
    for name, same in (("grad", wave.clone().requires_grad_()), ("numpy", wave.numpy())):
        write(tmp_path / f"{name}.wav", same, 44100, subtype)
        assert torch.equal(read(tmp_path / f"{name}.wav")[0], read(tmp_path / "plain.wav")[0])
