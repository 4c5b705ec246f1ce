"""Sound files: what is decoded is what is read, and what is written is read back; errors name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import melvoc
from melvoc import MelvocError, OptionError, SpecError
from melvoc.audio import (
    AudioReader,
    AudioWriter,
    fold_channels,
    read,
    unfold_channels,
    write,
)


def wave_of(channels: int, samples: int) -> Tensor:
    return torch.rand(channels, samples, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050, 44056, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_files_of_any_rate_and_channels(ending: str, sample_rate: int, channels: int, tmp_path: Path) -> None:
    wave, path = wave_of(channels, 1000), tmp_path / f"sound{ending}"
    write(path, wave, sample_rate)
    found, rate = read(path)
    assert rate == sample_rate
    assert found.dtype == torch.float32
    assert found.shape == (channels, 1000)
    assert (found - wave).abs().max() <= 0.5 / 32768 + 1e-7
    assert soundfile.info(path).subtype == "PCM_16"
    assert left_in(tmp_path) == [path.name]


def test_mono_without_a_channel_axis(tmp_path: Path) -> None:
    write(str(tmp_path / "a.wav"), wave_of(1, 90)[0], 8000)
    assert read(str(tmp_path / "a.wav"))[0].shape == (1, 90)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_wav_of_any_depth_is_read(subtype: str, tmp_path: Path) -> None:
    wave = wave_of(2, 500)
    soundfile.write(tmp_path / "a.wav", wave.T.numpy(), 44100, subtype=subtype)
    assert (read(tmp_path / "a.wav")[0] - wave).abs().max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def test_16_bits_read_and_written_are_the_same_16_bits(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="PCM_16")
    write(tmp_path / "b.wav", *read(tmp_path / "a.wav"))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], samples)


# --- channels


def test_channels_fold_into_the_batch_and_back() -> None:
    wave = torch.arange(2 * 3 * 5.0).reshape(2, 3, 5)
    folded = fold_channels(wave)
    assert folded.shape == (6, 1, 5)
    assert torch.equal(folded[4, 0], wave[1, 1])
    assert torch.equal(unfold_channels(folded, 3), wave)


def test_channels_of_other_shapes_are_refused() -> None:
    for shape in ((5,), (1, 1, 3, 5)):
        with pytest.raises(SpecError, match=r"shape \[.*5\], but fold_channels takes \[C, N\] or \[B, C, N\]"):
            fold_channels(torch.zeros(shape))
    with pytest.raises(SpecError, match="the wave is a list, but it is a torch.Tensor or a NumPy array"):
        fold_channels([[0.0]])  # type: ignore[arg-type]
    for wave, channels in ((torch.zeros(5, 1, 9), 2), (torch.zeros(4, 2, 9), 2), (torch.zeros(4, 9), 2)):
        with pytest.raises(SpecError, match=f"with {channels} channels it is"):
            unfold_channels(wave, channels)
    with pytest.raises(SpecError, match="with 0 channels"):
        unfold_channels(torch.zeros(4, 1, 9), 0)
    with pytest.raises(SpecError, match="mode='ms' with 3 channels, but mid and side are made of two"):
        fold_channels(torch.zeros(3, 9), mode="ms")
    with pytest.raises(SpecError, match="mode='ms' with 3 channels"):
        unfold_channels(torch.zeros(3, 1, 9), 3, mode="ms")
    with pytest.raises(OptionError, match=r"mode='mid', but channels are folded as they are \('lr'\) or"):
        fold_channels(torch.zeros(2, 9), mode="mid")  # type: ignore[arg-type]


def test_mid_and_side_are_a_mean_and_half_a_difference() -> None:
    wave = wave_of(6, 50).reshape(3, 2, 50)
    folded = fold_channels(wave, mode="ms")
    assert folded.shape == (6, 1, 50)
    torch.testing.assert_close(folded[2, 0], (wave[1, 0] + wave[1, 1]) / 2)
    torch.testing.assert_close(folded[3, 0], (wave[1, 0] - wave[1, 1]) / 2)
    assert folded.abs().max() <= 1
    torch.testing.assert_close(unfold_channels(folded, 2, mode="ms"), wave)
    middle = fold_channels(wave[0, :1].expand(2, 50), mode="ms")
    assert torch.equal(middle, torch.stack([wave[0, :1], torch.zeros(1, 50)]))


def test_what_is_read_fits_a_vocoder_and_what_that_makes_fits_a_file(tmp_path: Path) -> None:
    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
    voc = melvoc.load("griffinlim", spec=spec, n_iter=1)
    write(tmp_path / "a.wav", wave_of(2, 8000), 16000)
    wave, rate = read(tmp_path / "a.wav")
    assert fold_channels(wave).shape == (2, 1, 8000)
    assert torch.equal(fold_channels(wave), fold_channels(wave[None]))
    assert torch.equal(fold_channels(wave.numpy()), fold_channels(wave))
    made = [
        voc.mel_to_waveform(voc.mel(wave, sample_rate=rate)),
        voc.mel_to_waveform(voc.mel(fold_channels(wave), sample_rate=rate)),
        unfold_channels(voc.resynthesize(fold_channels(wave), sample_rate=rate), 2),
        voc.mel_to_waveform(voc.mel(wave[0], sample_rate=rate), length=8000),
        voc.mel_to_waveform(voc.mel(wave[0].numpy(), sample_rate=rate)).numpy(),
    ]
    for sound, channels, samples in zip(made, (2, 2, 2, 1, 1), (7936, 7936, 8000, 8000, 7936), strict=True):
        write(tmp_path / "b.wav", sound, voc.sample_rate)
        assert read(tmp_path / "b.wav")[0].shape == (channels, samples)


# --- block by block


@pytest.mark.parametrize("ending", [".wav", ".flac"])
@pytest.mark.parametrize("block", [1, 7, 333, 1000, 5000])
def test_blocks_join_to_the_whole(ending: str, block: int, tmp_path: Path) -> None:
    wave, path = wave_of(2, 1000), tmp_path / f"a{ending}"
    write(path, wave, 22050)
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels, reader.samples) == (22050, 2, 1000)
        blocks = list(reader.blocks(block))
    assert {part.shape[1] for part in blocks[:-1]} <= {block}
    assert torch.equal(torch.cat(blocks, -1), read(path)[0])


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_a_file_grows_block_by_block(ending: str, tmp_path: Path) -> None:
    wave, path = wave_of(2, 1000), tmp_path / f"a{ending}"
    with AudioWriter(path, sample_rate=44100, channels=2) as writer:
        for part in wave.split([300, 0, 1, 699], -1):
            writer.write(part)
        assert not path.exists()
    write(tmp_path / f"b{ending}", wave, 44100)
    assert torch.equal(read(path)[0], read(tmp_path / f"b{ending}")[0])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_an_error_leaves_nothing_half_written(error: type[BaseException], before: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    if before is not None:
        path.write_bytes(before)

    def interrupted() -> None:
        with AudioWriter(path, sample_rate=44100, channels=1) as writer:
            writer.write(wave_of(1, 500))
            raise error

    with pytest.raises(error):
        interrupted()
    assert left_in(tmp_path) == ([] if before is None else ["a.wav"])
    assert before is None or path.read_bytes() == before


def test_a_wave_with_nan_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="NaN or Inf"):
        write(tmp_path / "a.wav", torch.full((1, 9), float("nan")), 44100)
    assert left_in(tmp_path) == []


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, wave_of(1, 100), 8000)
    write(path, wave_of(1, 200), 16000)
    assert soundfile.info(path).frames == 200
    assert path.stat().st_mode & 0o044  # not for one user only, as temporary files are


# --- errors


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=r"none\.wav: no such file"):
        read(tmp_path / "none.wav")
    with pytest.raises(MelvocError, match="a folder; give the path of a sound file"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no sound at all" * 100, b"RIFF\x00\x00\x00\x00WAVE", b"fLaC"])
def test_a_file_that_is_no_sound(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(MelvocError, match=r"bad\.wav: (cannot be read as sound|has no samples|damaged)"):
        read(path)


def test_a_damaged_flac(tmp_path: Path) -> None:
    """Damaged in the middle; one that is cut is used as far as it goes, as other formats are."""
    path = tmp_path / "bad.flac"
    write(path, wave_of(2, 100_000), 44100)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(MelvocError, match=r"bad\.flac: damaged after \d+ samples \(.*flac.*\); repair it"):
        read(path)


def test_a_file_without_samples(tmp_path: Path) -> None:
    write(tmp_path / "empty.wav", torch.zeros(1, 0), 44100)
    with pytest.raises(MelvocError, match=r"empty\.wav: has no samples"):
        read(tmp_path / "empty.wav")


@pytest.mark.parametrize("name", ["a.mp3", "a.txt", "a", "a.wav.bak"])
def test_only_wav_and_flac_are_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match="cannot write .*use .wav or .flac"):
        write(tmp_path / name, wave_of(1, 10), 44100)
    assert left_in(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=r"a\.wav: cannot be written .*does the folder exist"):
        write(tmp_path / "none" / "a.wav", wave_of(1, 10), 44100)


@pytest.mark.parametrize(("name", "channels", "rate"), [("a.flac", 9, 44100), ("a.wav", 1, 0), ("a.flac", 1, 10**7)])
def test_what_a_format_cannot_hold(name: str, channels: int, rate: int, tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match=f"cannot hold {channels} channels at {rate} Hz"):
        write(tmp_path / name, wave_of(channels, 10), rate)
    assert left_in(tmp_path) == []


def test_a_wave_of_another_shape(tmp_path: Path) -> None:
    for shape in ((2, 3, 10), (1, 1, 1, 10), ()):
        with pytest.raises(SpecError, match=r"a\.wav: the wave has shape .*, but a file holds \[N\], \[C, N\], "):
            write(tmp_path / "a.wav", torch.zeros(shape), 44100)
    writer = AudioWriter(tmp_path / "a.wav", sample_rate=44100, channels=2)
    with pytest.raises(SpecError, match=r"\[3, 10\].*2 channels"), writer:
        writer.write(torch.zeros(3, 10))
    assert left_in(tmp_path) == []
