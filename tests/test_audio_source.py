"""Files as people have them: what libsndfile decodes is read exactly, to the end of the file, whatever its header says.

MP3s are held against libsndfile's own single read, which does not seek; lossless formats against the original.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from melvoc import MelvocError
from melvoc.audio import AudioReader, read
from melvoc.audio.source import Source

RATE = 44100
LOSSLESS = {
    "wav": ("WAV", "PCM_16"), "wavex": ("WAVEX", "PCM_16"), "aif": ("AIFF", "PCM_16"), "flac": ("FLAC", "PCM_16"),
    "w64": ("W64", "PCM_16"), "caf": ("CAF", "PCM_16"), "alac": ("CAF", "ALAC_16"), "au": ("AU", "PCM_16"),
    "rf64": ("RF64", "PCM_16"), "voc": ("VOC", "PCM_16"), "nist": ("NIST", "PCM_16"), "paf": ("PAF", "PCM_16"),
}  # fmt: skip
LOSSY = {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}
SAMPLES = 70_000  # more than one block


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    """`[N, 2]` with a loudness that changes, so that a variable bit rate varies; on the grid of 16 bits."""
    noise = np.random.default_rng(0).standard_normal((SAMPLES, 2)) * np.repeat([[0.01], [0.2]] * 7, SAMPLES // 14, 0)
    return np.asarray((noise.clip(-0.9, 0.9) * 32768).round() / 32768, dtype="float32")


def encoded(wave: np.ndarray, kind: str) -> bytes:
    container, subtype = (LOSSLESS | LOSSY)[kind]
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 48000 if kind == "opus" else RATE, format=container, subtype=subtype)
    return buffer.getvalue()


def quietly(path: Path) -> Tensor:
    """Its sound; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(path)[0]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_read_bit_by_bit(kind: str, wave: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(wave, kind))
    assert np.array_equal(quietly(path).T, wave)


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("block", [1000, 65536])
def test_lossy_formats_are_read_as_one_read_gives_them(kind: str, block: int, wave: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(wave, kind))
    expected = soundfile.read(path, dtype="float32")[0]
    with AudioReader(path) as reader:
        assert reader.samples == SAMPLES
        got = torch.cat(list(reader.blocks(block)), -1)
    assert len(expected) == SAMPLES
    assert np.array_equal(got.T, expected)


@pytest.mark.parametrize("kind", LOSSLESS | LOSSY)
@pytest.mark.parametrize("samples", [1, 100, 1152, 16_000])
def test_a_short_file_is_not_taken_for_a_cut_one(kind: str, samples: int, wave: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(wave[:samples], kind))
    assert quietly(path).shape == (2, samples)


def test_a_block_of_many_channels_is_shorter(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).integers(-9, 9, (12_000, 512)).astype("int16")
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    with AudioReader(tmp_path / "a.wav") as reader:
        blocks = list(reader.blocks())
    assert len(blocks) == 2
    assert np.array_equal(torch.cat(blocks, -1).T * 32768, wave)


# --- MP3


def without_info(mp3: bytes) -> bytes:
    """The same stream without its first frame, which says how many follow; mono, 128 kbit/s."""
    assert mp3[:3] == b"\xff\xfb\x90"
    assert mp3[21:25] in (b"Xing", b"Info")
    return mp3[144 * 128_000 // RATE + (mp3[2] >> 1 & 1) :]


def test_an_mp3_without_an_info_frame_is_read_to_its_end(wave: np.ndarray, tmp_path: Path) -> None:
    """Its number of samples would be a guess from the first frame's bit rate: too many, or too few."""
    whole = encoded(wave[:, 0], "mp3")
    (tmp_path / "whole.mp3").write_bytes(whole)
    (tmp_path / "bare.mp3").write_bytes(without_info(whole))
    expected = quietly(tmp_path / "whole.mp3")[0]
    with AudioReader(tmp_path / "bare.mp3") as reader:
        assert reader.samples is None
    got = quietly(tmp_path / "bare.mp3")[0]
    assert len(got) % 1152 == 0
    assert len(got) == 1152 * math.ceil((SAMPLES + 1105) / 1152), "no stale samples, and none missing"
    torch.testing.assert_close(
        got[1105 : 1105 + SAMPLES], expected, rtol=0, atol=0
    )  # the encoder's and decoder's delay


@pytest.mark.parametrize("frames", [10**8, 2**32 - 1])
def test_a_forged_frame_count_ends(frames: int, wave: np.ndarray, tmp_path: Path) -> None:
    content = bytearray(encoded(wave[:, 0], "mp3"))
    content[29:33] = frames.to_bytes(4, "big")
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.warns(UserWarning, match=r"a\.mp3: cut or damaged \(\d+ samples of \d+\)"):
        assert SAMPLES <= read(tmp_path / "a.mp3")[0].shape[1] <= SAMPLES + 2304


def test_a_tag_behind_an_mp3_is_no_sound(wave: np.ndarray, tmp_path: Path) -> None:
    whole = encoded(wave[:, 0], "mp3")
    for name, content in (("bare", without_info(whole)), ("info", whole)):
        (tmp_path / "plain.mp3").write_bytes(content)
        (tmp_path / f"{name}.mp3").write_bytes(content + b"TAG" + b"title".ljust(125, b"\0"))
        assert torch.equal(quietly(tmp_path / f"{name}.mp3"), quietly(tmp_path / "plain.mp3"))


# --- sizes that a header leaves open


def sized(wav: bytes, riff: int, data: int) -> bytes:
    place = wav.index(b"data") + 4
    return wav[:4] + riff.to_bytes(4, "little") + wav[8:place] + data.to_bytes(4, "little") + wav[place + 4 :]


@pytest.mark.parametrize(
    ("riff", "data"),
    [(0, 0), (36, 0), (8, 0), (2**32 - 1, 0), (2**32 - 1, 2**32 - 1), (0x7FFFF024, 0x7FFFF000), (0x8000_0024, 2**31)],
)
def test_a_wav_from_a_pipe_has_its_samples(riff: int, data: int, wave: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sized(encoded(wave, "wav"), riff, data))
    assert np.array_equal(quietly(tmp_path / "a.wav").T, wave)


def test_an_empty_wav_stays_empty(wave: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(wave[:0], "wav"))
    with pytest.raises(MelvocError, match=r"a\.wav: has no samples"):
        read(tmp_path / "a.wav")
    empty_with_more = sized(encoded(wave[:100], "wav"), 36 + 400, 0)  # its RIFF is whole: what follows is no sound
    (tmp_path / "b.wav").write_bytes(empty_with_more)
    with pytest.raises(MelvocError, match=r"b\.wav: has no samples"):
        read(tmp_path / "b.wav")


def test_a_caf_whose_size_is_open(wave: np.ndarray, tmp_path: Path) -> None:
    content = encoded(wave, "caf")
    place = content.index(b"data") + 4
    (tmp_path / "a.caf").write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
    assert np.array_equal(quietly(tmp_path / "a.caf").T, wave)


def test_a_flac_of_unknown_length(wave: np.ndarray, tmp_path: Path) -> None:
    content = bytearray(encoded(wave, "flac"))
    content[21] &= 0xF0  # STREAMINFO's 36 bits for the number of samples
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    with AudioReader(tmp_path / "a.flac") as reader:
        assert reader.samples is None
    assert np.array_equal(quietly(tmp_path / "a.flac").T, wave)


# --- what is cut


@pytest.mark.parametrize("kind", ["wav", "aif", "flac", "w64", "caf", "au", "rf64", "voc", "ogg", "opus", "mp3"])
def test_what_is_cut_says_so_once_and_is_used_as_far_as_it_goes(kind: str, wave: np.ndarray, tmp_path: Path) -> None:
    content, path = encoded(np.tile(wave, (3, 1)), kind), tmp_path / f"a.{kind}"  # an Ogg page may be a second long
    path.write_bytes(content)
    whole = quietly(path)
    path.write_bytes(content[: len(content) * 6 // 10 + 1])
    with pytest.warns(UserWarning, match=rf"a\.{kind}: cut or damaged \(.*\); used as far as it goes: ") as caught:
        got = read(path)[0]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    count = got.shape[1]
    assert SAMPLES < count < 2.1 * SAMPLES
    held = count - 2304 if kind in LOSSY else count  # a codec's last frame wants the one after it
    assert torch.equal(got[:, :held], whole[:, :held])
    assert got.isfinite().all()


def test_the_end_of_a_block_does_not_hide_a_cut(wave: np.ndarray, tmp_path: Path) -> None:
    content = encoded(wave, "flac")
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    told: list[str] = []
    lengths = set()
    for block in (1, 999, 4096, 65536):
        with AudioReader(tmp_path / "a.flac", note=told.append) as reader:
            lengths.add(sum(part.shape[1] for part in reader.blocks(block)))
    assert len(lengths) == 1
    assert len(set(told)) == 1
    assert len(told) == 4


@pytest.mark.parametrize("name", ["notes.au", "notes.snd", "notes.vox", "notes.raw", "notes.gsm", "notes.wav"])
def test_a_text_is_no_sound_whatever_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("not a sound\n" * 1000)
    with pytest.raises(MelvocError, match=r"notes\.\w+: cannot be read as sound \(.+\); use WAV"):
        read(tmp_path / name)


@pytest.mark.parametrize("first", [0, 100_000])  # while it is opened, and while it is read
def test_a_disk_that_fails_is_named(
    first: int, wave: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(wave, "wav"))
    readinto: Callable[[Source, memoryview], int] = Source.readinto

    class Failing(io.FileIO):
        def readinto(self, into: memoryview) -> int:  # type: ignore[override]
            raise OSError(5, "Input/output error")

    def fails(source: Source, into: memoryview) -> int:
        if source.position > first:
            source.file = Failing(tmp_path / "a.wav")  # type: ignore[assignment]
        return readinto(source, into)

    monkeypatch.setattr(Source, "readinto", fails)
    with pytest.raises(OSError, match=r"a\.wav: cannot be opened or read \(Input/output error\)"):
        read(tmp_path / "a.wav")


def test_a_picture_before_an_mp3_is_no_sound(wave: np.ndarray, tmp_path: Path) -> None:
    whole, size = encoded(wave[:, 0], "mp3"), 200_000
    tag = b"ID3\x04\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"\xff\xfb\x90" * 9
    for name, content in (("bare", without_info(whole)), ("info", whole)):
        (tmp_path / "plain.mp3").write_bytes(content)
        (tmp_path / f"{name}.mp3").write_bytes(tag.ljust(size + 10, b"\0") + content)
        assert torch.equal(quietly(tmp_path / f"{name}.mp3"), quietly(tmp_path / "plain.mp3"))


def test_what_a_signal_handler_raises_while_bytes_are_read_ends_the_reading(wave: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(np.tile(wave, (10, 1)), "wav"))

    class Interrupted(io.BytesIO):
        def readinto(self, into: object) -> int:
            raise KeyboardInterrupt

    with AudioReader(tmp_path / "a.wav") as reader:
        reader._source.file = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            reader.read()


@pytest.mark.parametrize("length", range(1, 24))
def test_an_mp3_that_ends_in_its_first_frame_is_no_sound(length: int, tmp_path: Path) -> None:
    """However few bytes stand behind the mark of an Info frame."""
    (tmp_path / "a.mp3").write_bytes((b"\xff\xfb\x90\0Info\0\0\0\3" + bytes(20))[:length])
    with pytest.raises(MelvocError, match=r"a\.mp3: (cannot be read as sound|has no samples)"):
        read(tmp_path / "a.mp3")
