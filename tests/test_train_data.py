"""Sounds that are found, checked and cut: what is drawn depends on seed and position, and mels fit their sound."""

from __future__ import annotations

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training import SPEC, noise, write_sounds

from melvoc import MelSpec, MelSpectrogram, MelvocError, SpecError, audio
from melvoc.spectrogram.file import save_mel
from melvoc.train.augment import augment
from melvoc.train.data import Segments, fingerprint, split
from melvoc.train.sounds import Skipped, Sound, distinct, find_sounds, gather, read_sounds, spec_of_mels
from melvoc.train.usable import clipped_share, usable

SOUNDS = [Sound(name=f"{n}.wav", wave=noise(3000 + 700 * n, seed=n)) for n in range(4)]
SHIFTED = MelSpec(sample_rate=16000, n_fft=256, hop_length=50, n_mels=20, win_length=200, center=True)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_batch_depends_on_seed_and_position_alone(position: int, size: int, seed: int) -> None:
    def segments() -> Segments:
        return Segments(SOUNDS, SPEC, segment=1024, seed=seed, gain_db=6, flip_polarity=True, tilt_db=3)

    first = segments()
    first.batch(position // 2, 3)  # what was drawn before leaves no trace
    whole = first.batch(position, size)
    rows = [segments().batch(position + row, 1) for row in range(size)]
    torch.testing.assert_close(whole.wave, torch.cat([row.wave for row in rows]), rtol=0, atol=0)
    torch.testing.assert_close(whole.mel, torch.cat([row.mel for row in rows]))
    assert whole.wave.shape == (size, 1, 1024)
    assert whole.mel.shape == (size, 20, 16)


@pytest.mark.parametrize("spec", [SPEC, SHIFTED], ids=["center=False", "center=True"])
def test_a_segments_mel_is_the_one_that_the_whole_file_has_there(spec: MelSpec) -> None:
    wave, size = noise(5000), 20 * spec.hop_length
    segments = Segments([Sound(name="a", wave=wave)], spec, segment=size, seed=3)
    for position in range(8):
        batch = segments.batch(position, 1)
        places = wave.unfold(0, size, 1)
        start = int((places == batch.wave[0, 0]).all(-1).nonzero()[0])
        # from a start that is a whole number of frames before, the file's own frames are the segment's
        shift, frame = start % spec.hop_length, start // spec.hop_length
        whole = MelSpectrogram(spec)(wave[shift:])[0, :, frame : frame + 20]
        inner = slice(3, -3)  # nearer to the file's start and end, where it is shifted, the padding differs
        torch.testing.assert_close(batch.mel[0][:, inner], whole[:, inner], rtol=1e-4, atol=1e-4)


def test_a_file_as_long_as_a_segment_has_its_own_mel_padding_included() -> None:
    wave = noise(1024)
    batch = Segments([Sound(name="a", wave=wave)], SPEC, segment=1024, seed=0).batch(0, 1)
    torch.testing.assert_close(batch.mel, MelSpectrogram(SPEC)(wave))


def test_short_files_are_padded_with_zeros() -> None:
    wave = noise(300)
    batch = Segments([Sound(name="a", wave=wave)], SPEC, segment=1024, seed=0).batch(5, 1)
    assert torch.equal(batch.wave[0, 0, :300], wave)
    assert not batch.wave[0, 0, 300:].any()


def test_a_pass_hears_every_file_in_proportion() -> None:
    segments = Segments(SOUNDS, SPEC, segment=1024, seed=1)
    places = sum(max(1, round(len(sound.wave) / 1024)) for sound in SOUNDS)
    assert segments.segments_a_pass == places
    for turn in (0, 1):
        files = [segments._places[int(place)] for place in segments._order(turn)]
        assert sorted(files) == segments._places


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("segments", [1, 1.01, 2, 3, 4.5])
def test_starts_and_ends_are_heard_as_often_as_what_is_between(segments: float, paired: bool) -> None:
    """The attack of a short sound is its first sample."""
    size = 1024
    count = round(segments * size / 64) * 64
    wave = torch.arange(1, count + 1) / (2 * count)
    mel = torch.zeros(20, count // 64) if paired else None
    drawn = Segments([Sound(name="a", wave=wave, mel=mel)], SPEC, segment=size, seed=0)
    heard = torch.zeros(count)
    passes = 200
    for position in range(passes * drawn.segments_a_pass):
        start = round(float(drawn.batch(position, 1).wave[0, 0, 0]) * 2 * count) - 1
        heard[start : start + size] += 1 / passes
    middle = float(heard[count // 3 : -count // 3].mean()) if segments >= 3 else 0.5
    for part in (heard[:50], heard[-50:], heard):
        assert float(part.mean()) > 0.7 * middle
    assert float(heard.max()) < 2.2 * max(1.0, middle)
    assert 0.8 < float(heard.mean()) < 1.3, "in each pass about once"


def test_a_sound_under_two_names_is_one(tmp_path: Path) -> None:
    """Else what is held out might be trained on under the other."""
    write_sounds(tmp_path, count=4)
    (tmp_path / "copies").mkdir()
    for number in range(4):
        (tmp_path / "copies" / f"{number}.wav").write_bytes((tmp_path / f"{number}.wav").read_bytes())
    wave, rate = audio.read(tmp_path / "0.wav")
    audio.write(tmp_path / "again.flac", wave, rate)
    sounds = [entry for entry in read_sounds(find_sounds(tmp_path), SPEC) if isinstance(entry, Sound)]
    kept, others = distinct(sounds)
    assert [sound.name for sound in kept] == [f"{number}.wav" for number in range(4)]
    reasons = {entry.name: entry.reason for entry in others}
    assert reasons == {"again.flac": "the same sound as 0.wav"} | {
        f"copies/{number}.wav": f"the same sound as {number}.wav" for number in range(4)
    }
    mels = [Sound(name=name, wave=noise(900), mel=torch.full((20, 9), level)) for name, level in (("a", -4), ("b", -5))]
    assert distinct(mels)[0] == mels, "mels of two models are two things to learn"


@pytest.mark.parametrize("peak", [1.0, 1.4])
def test_a_float_file_beyond_full_scale_is_scaled_and_never_cut(peak: float) -> None:
    wave, notes = peak * torch.sin(torch.arange(16000) / 30)[None], list[str]()
    made = usable(wave, 16000, 16000, notes, keep_clipped=False, paired=False)
    assert isinstance(made, Tensor)
    torch.testing.assert_close(made, wave[0] / max(1.0, float(wave.abs().max())))
    assert notes == ([] if peak == 1.0 else ["reaches 1.4, but samples are in [-1, 1]; divided by its peak"])
    refused = usable(wave, 16000, 16000, [], keep_clipped=False, paired=True)
    assert isinstance(refused, Tensor) if peak == 1.0 else str(refused).startswith("reaches 1.4, but samples are in")


@given(st.integers(0, 2**31), st.floats(0, 24), st.floats(0, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_augmentation_never_clips_nor_moves_a_tone(seed: int, gain: float, tilt: float, flip: bool) -> None:
    tone = 0.99 * torch.sin(2 * math.pi * 1000 * torch.arange(1600) / 16000)
    changed = augment(tone, torch.Generator().manual_seed(seed), gain_db=gain, flip_polarity=flip, tilt_db=tilt)
    assert changed.abs().max() <= 0.9901
    assert changed.abs().max() >= 0.99 * 10 ** (-(gain + tilt) / 20) * 0.9
    spectrum = torch.fft.rfft(changed[1:] * torch.hann_window(1599)).abs()
    assert abs(int(spectrum.argmax()) - 100) <= 1


def test_no_augmentation_is_the_sound_itself() -> None:
    wave = noise(500)
    same = augment(wave, torch.Generator().manual_seed(1), gain_db=0, flip_polarity=False, tilt_db=0)
    assert torch.equal(same, wave)


def test_the_split_is_by_file_and_steady() -> None:
    train, held = split(SOUNDS, held_out=None, seed=0)
    assert (len(train), len(held)) == (3, 1)
    assert split(list(reversed(SOUNDS)), held_out=None, seed=0)[1] == held
    assert split(SOUNDS[:3], held_out=None, seed=0)[1] == []
    assert {split(SOUNDS, held_out=1, seed=seed)[1][0].name for seed in range(20)} > {held[0].name}
    with pytest.raises(SpecError, match=r"validation_files=4, but there are 4 usable files.*take at most 3"):
        split(SOUNDS, held_out=4, seed=0)


def test_the_fingerprint_sees_names_lengths_samples_and_mels() -> None:
    other = [Sound(name="0.wav", wave=SOUNDS[0].wave + 0.01), *SOUNDS[1:]]
    assert fingerprint(SOUNDS) == fingerprint(list(SOUNDS))
    assert len({fingerprint(SOUNDS), fingerprint(SOUNDS[:3]), fingerprint(other)}) == 3
    paired = [Sound(name="0.wav", wave=SOUNDS[0].wave, mel=torch.full((20, 9), level)) for level in (-4.0, -4.1)]
    assert len({fingerprint(SOUNDS[:1]), *(fingerprint([sound]) for sound in paired)}) == 3


def read(folder: Path, mels: Path | None = None, spec: MelSpec = SPEC) -> dict[str, Sound | Skipped]:
    return {entry.name: entry for entry in read_sounds(find_sounds(folder), spec, mels=mels)}


def test_any_rate_channels_and_format_become_mono_at_the_specs_rate(tmp_path: Path) -> None:
    for name, rate, channels in (
        ("a.wav", 8000, 1),
        ("b.flac", 44100, 2),
        ("c.ogg", 22050, 2),
        ("sub/d.mp3", 32000, 1),
    ):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        tone = 0.3 * numpy.sin(2 * numpy.pi * 440 * numpy.arange(rate) / rate)
        soundfile.write(target, numpy.stack([tone] * channels, 1), rate)
    found = read(tmp_path)
    assert list(found) == ["a.wav", "b.flac", "c.ogg", "sub/d.mp3"]
    for sound in found.values():
        assert isinstance(sound, Sound)
        assert len(sound.wave) == pytest.approx(16000, abs=2500)  # an mp3 has some padding
        spectrum = torch.fft.rfft(sound.wave[2000:14000]).abs()
        assert int(spectrum.argmax()) * 16000 / 12000 == pytest.approx(440, abs=2)


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    audio.write(tmp_path / "good.wav", noise(9000), 16000)
    audio.write(tmp_path / "silent.wav", torch.zeros(9000), 16000)
    soundfile.write(tmp_path / "offset.wav", numpy.full(9000, 0.5), 16000)
    audio.write(tmp_path / "clipped.wav", (noise(9000) * 20).clamp(-1, 1), 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / ".hidden.wav").write_bytes(b"")
    bad = noise(9000).numpy()
    bad[7] = numpy.nan
    soundfile.write(tmp_path / "nan.wav", bad, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", 3 * noise(9000).numpy(), 16000, subtype="FLOAT")
    found = read(tmp_path)
    reasons = {name: entry.reason for name, entry in found.items() if isinstance(entry, Skipped)}
    assert set(found) - set(reasons) == {"good.wav"}
    assert reasons["silent.wav"].startswith("silence")
    assert reasons["offset.wav"].startswith("silence")
    assert reasons["clipped.wav"].startswith("clipped")
    assert "cannot be read as sound" in reasons["broken.wav"]
    assert "NaN or Inf" in reasons["nan.wav"]
    assert "divide it by its peak" in reasons["loud.wav"]
    assert set(reasons) == {"silent.wav", "offset.wav", "clipped.wav", "broken.wav", "empty.wav", "nan.wav", "loud.wav"}


def written(path: Path, container: str, subtype: str, rate: int = 16000) -> None:
    soundfile.write(path, noise(16000).numpy(), rate, format=container, subtype=subtype)


def test_every_format_is_used(tmp_path: Path) -> None:
    kinds = {
        "a.AIF": ("AIFF", "PCM_16"), "a.aiff": ("AIFF", "PCM_24"), "a.opus": ("OGG", "OPUS"),
        "a.oga": ("OGG", "VORBIS"),
        "a.w64": ("W64", "PCM_16"), "a.caf": ("CAF", "ALAC_16"), "a.au": ("AU", "PCM_16"), "a.rf64": ("RF64", "FLOAT"),
        "a.mp3": ("MP3", "MPEG_LAYER_III"), "a.wav": ("WAVEX", "PCM_16"), "a.voc": ("VOC", "PCM_16"),
        "a.snd": ("AU", "ULAW"), "a.sph": ("NIST", "PCM_16"), "a.flac": ("FLAC", "PCM_24"), "a.svx": ("SVX", "PCM_16"),
    }  # fmt: skip
    for name, (container, subtype) in kinds.items():
        written(tmp_path / name, container, subtype)
    found = read(tmp_path)
    assert set(found) == set(kinds)
    for name, sound in found.items():
        assert isinstance(sound, Sound), f"{name}: {sound}"
        assert sound.note is None
        assert len(sound.wave) == 16000


def test_linked_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    root, other = tmp_path / "sounds", tmp_path / "elsewhere"
    write_sounds(root / "b", count=1)
    write_sounds(other / "deep", count=2)
    (root / "a").symlink_to(other)
    (other / "deep" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "b" / "1.wav").symlink_to(other / "deep" / "1.wav")
    save_mel(other / "0.safetensors", torch.zeros(1, 20, 9), SHIFTED)
    assert spec_of_mels(root) == SHIFTED
    (root / "b" / "gone.wav").symlink_to(tmp_path / "none.wav")
    _, sounds, skipped = find_sounds(root)
    names = [sound.name for sound in sounds]
    assert names == ["a/deep/0.wav", "a/deep/1.wav", "b/0.wav", "b/1.wav"]
    assert [(entry.name, entry.reason) for entry in skipped] == [
        ("b/gone.wav", "cannot be read (No such file or directory)"),
        ("a/0.safetensors", "not a sound file that is read"),
    ]


def test_what_is_no_sound_is_named_with_the_way_out(tmp_path: Path) -> None:
    write_sounds(tmp_path, count=1)
    for name in ("my song.M4A", "b.m4a", "c.mp4", "d.aac", "e.wma", "notes.txt", "more.txt", "README", ".hidden.m4a"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.wav")
    skipped = find_sounds(tmp_path).others
    reasons = {entry.name: entry.reason for entry in skipped}
    assert set(reasons) == {
        "b.m4a and 1 more .m4a", "c.mp4", "d.aac", "e.wma", "more.txt and 1 more .txt", "README", "pipe.wav",
    }  # fmt: skip
    assert reasons["b.m4a and 1 more .m4a"] == "not read in this format; convert it: ffmpeg -i b.m4a b.wav"
    assert reasons["README"] == "not a sound file that is read"
    assert reasons["pipe.wav"] == "neither a file nor a folder"
    (tmp_path / "0.wav").unlink()
    with pytest.raises(MelvocError, match=r"has no \.wav, .* \(pipe.wav: neither .*ffmpeg -i"):
        find_sounds(tmp_path)
    (tmp_path / "b.m4a").unlink()
    reasons = {entry.name: entry.reason for entry in find_sounds(write_sounds(tmp_path, count=1)).others}
    assert reasons["my song.M4A"].endswith("ffmpeg -i 'my song.M4A' 'my song.wav'")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_skipped(tmp_path: Path) -> None:
    write_sounds(tmp_path, count=1)
    (tmp_path / "0.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    write_sounds(tmp_path, count=1)
    _, sounds, skipped = find_sounds(tmp_path)
    assert [sound.name for sound in sounds] == ["0.wav"]
    assert [(entry.name, entry.reason) for entry in skipped] == [("caf\ufffd.wav", "its name is not UTF-8; rename it")]
    skipped[0].name.encode()


def test_the_sounds_of_runs_are_none(tmp_path: Path) -> None:
    """`melvoc train . -o run` would learn from its own samples when it goes on."""
    write_sounds(tmp_path, count=2)
    for run in ("run", "old/run"):
        write_sounds(tmp_path / run / "samples" / "step-00000001", count=1)
        (tmp_path / run / "checkpoints").mkdir()
        (tmp_path / run / "config.json").write_text("{}")
    _, sounds, skipped = find_sounds(tmp_path)
    assert [sound.name for sound in sounds] == ["0.wav", "1.wav"]
    made = [entry for entry in skipped if entry.reason == "the folder of a run, whose sounds are made"]
    assert [entry.name for entry in made] == ["old/run", "run"]
    assert len(find_sounds(tmp_path / "run").sounds) == 1, "a folder that is named is looked into"


def test_the_mix_is_what_is_checked(tmp_path: Path) -> None:
    wave = noise(16000).numpy()
    high = numpy.hanning(48000) * numpy.sin(2 * numpy.pi * 15000 * numpy.arange(48000) / 48000)
    soundfile.write(tmp_path / "anti-phase.wav", numpy.stack([wave, -wave], 1), 16000)
    soundfile.write(tmp_path / "too high.wav", high, 48000)
    soundfile.write(tmp_path / "half.wav", numpy.stack([wave, 0 * wave], 1), 16000)
    found = read(tmp_path)
    for name in ("anti-phase.wav", "too high.wav"):
        entry = found[name]
        assert isinstance(entry, Skipped)
        assert entry.reason.startswith("silence once it is mixed to one channel at 16000 Hz")
    sound = found["half.wav"]
    assert isinstance(sound, Sound)
    torch.testing.assert_close(sound.wave, torch.from_numpy(wave) / 2, atol=1e-4, rtol=0)


def test_a_cut_file_is_used_as_far_as_it_goes_and_noted(tmp_path: Path) -> None:
    write_sounds(tmp_path, count=1)
    content = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_bytes(content[:8044])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound = read(tmp_path)["0.wav"]
    assert isinstance(sound, Sound)
    assert len(sound.wave) == 4000
    assert sound.note == "cut or damaged (its end is missing); used as far as it goes: 0.25 s"


def test_the_padding_of_what_is_drawn() -> None:
    hits = [Sound(name=f"{n}", wave=noise(300)) for n in range(3)]
    segments = Segments([*hits, Sound(name="long", wave=noise(1600))], SPEC, segment=1024, seed=0)
    assert segments.padding == pytest.approx(3 * 724 / (5 * 1024))
    assert segments.notes == ()
    assert Segments(hits, SPEC, segment=1024, seed=0).notes[0].startswith("71% of each batch is padding: 3 of 3 files")
    assert Segments(SOUNDS, SPEC, segment=1024, seed=0).padding == 0


@pytest.mark.parametrize("damage", ["archive", "header", "empty", "text", "objects", "transposed"])
def test_a_bad_mel_is_one_skipped_file(damage: str, tmp_path: Path) -> None:
    sounds, mels = write_sounds(tmp_path / "sounds", count=2), tmp_path / "mels"
    mels.mkdir()
    for name in ("0", "1"):
        numpy.save(mels / f"{name}.npy", MelSpectrogram(SPEC)(audio.read(sounds / f"{name}.wav")[0])[0].numpy())
    bad = mels / "0.npy"
    if damage == "archive":
        numpy.savez(mels / "x.npz", mel=numpy.load(bad))
        (mels / "x.npz").rename(bad)
    elif damage == "header":
        bad.write_bytes(bad.read_bytes().replace(b"'shape'", b"'shqpe'"))
    elif damage == "objects":
        numpy.save(bad, numpy.array([{}], dtype=object), allow_pickle=True)
    elif damage == "transposed":
        numpy.save(bad, numpy.load(bad).T)
    else:
        bad.write_bytes(b"" if damage == "empty" else b"no array" * 99)
    found = read(sounds, mels)
    assert isinstance(found["1.wav"], Sound)
    assert isinstance(found["0.wav"], Skipped)
    assert found["0.wav"].reason.startswith("its mel ")


def test_a_full_scale_sine_is_not_clipped_but_a_cut_one_is() -> None:
    tone = torch.sin(2 * math.pi * 100 * torch.arange(16000) / 16000)
    assert clipped_share(tone) < 0.005
    assert clipped_share(0.5 * tone.sign()) == 0  # a square wave is not clipped
    assert clipped_share((1.5 * tone).clamp(-1, 1)) > 0.4
    assert clipped_share(torch.ones(2)) == 0


def test_folders_without_enough_sound_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MelvocError, match="no such folder"):
        find_sounds(tmp_path / "none")
    with pytest.raises(MelvocError, match=r"has no .wav, .flac, .ogg, .mp3 files"):
        find_sounds(tmp_path)
    write_sounds(tmp_path, count=3, samples=1600)
    (tmp_path / "x.wav").write_bytes(b"?")
    with pytest.raises(MelvocError, match=r"3 of 4 files can be used, 0.39 s .* at least 0.5 s; add files \(x.wav: "):
        gather(read_sounds(find_sounds(tmp_path), SPEC), tmp_path, SPEC)


def test_paired_mels_are_checked_and_cut_where_the_sound_is(tmp_path: Path) -> None:
    sounds, mels = write_sounds(tmp_path / "sounds", count=4), tmp_path / "mels"
    mels.mkdir()
    for name in ("0", "1", "2"):
        wave, _ = audio.read(sounds / f"{name}.wav")
        mel = MelSpectrogram(SPEC)(wave[0])
        mel = mel[..., :-9] if name == "2" else mel
        if name == "1":
            numpy.save(mels / "1.npy", mel[0].numpy())
        else:
            save_mel(mels / f"{name}.safetensors", mel, SPEC)
    found = read(sounds, mels)
    assert isinstance(found["2.wav"], Skipped)
    assert "its mel has" in found["2.wav"].reason
    assert isinstance(found["3.wav"], Skipped)
    assert "has no mel" in found["3.wav"].reason
    kept = [entry for entry in found.values() if isinstance(entry, Sound)]
    batch = Segments(kept, SPEC, segment=1024, seed=0, gain_db=6, flip_polarity=True, tilt_db=3).batch(0, 6)
    own = MelSpectrogram(SPEC)(batch.wave)
    torch.testing.assert_close(batch.mel[..., 3:-3], own[..., 3:-3], rtol=1e-3, atol=1e-3)
    assert spec_of_mels(mels) == SPEC


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        (lambda mel: mel, None),
        (lambda mel: torch.nn.functional.avg_pool1d(mel[None], 5, 1, 2)[0] + 0.2 * torch.randn_like(mel), None),
        (lambda mel: mel / math.log(10), "log10"),
        (lambda mel: torch.full_like(mel, 300.0), "0.00, +30"),
        (lambda mel: (mel - mel.mean()) / mel.std(), "normalised"),
        (lambda mel: mel.exp(), "slope"),
        (lambda mel: mel.flip(-1), "slope"),
    ],
)
def test_a_bare_mel_is_compared_with_its_sounds_own(change: Any, looks: str | None, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "mels").mkdir()
    time = torch.arange(32000) / 16000
    wave = noise(32000) * (-6 * (time % 0.5)).exp() * (time < 1.7)
    audio.write(tmp_path / "sounds" / "0.wav", wave, 16000)
    mel = MelSpectrogram(SPEC)(wave)[0]
    numpy.save(tmp_path / "mels" / "0.npy", change(mel).numpy())
    found = read(tmp_path / "sounds", tmp_path / "mels")["0.wav"]
    if looks is None:
        assert isinstance(found, Sound), found
    else:
        assert isinstance(found, Skipped)
        assert "its mel is not its sound's" in found.reason
        assert looks in found.reason


def test_mels_of_another_spec_stop_everything(tmp_path: Path) -> None:
    sounds, mels = write_sounds(tmp_path / "sounds", count=1), tmp_path / "mels"
    mels.mkdir()
    wave, _ = audio.read(sounds / "0.wav")
    save_mel(mels / "0.safetensors", MelSpectrogram(SHIFTED)(wave[0]), SHIFTED)
    with pytest.raises(
        MelvocError, match=r"0.safetensors: not a mel of the training's spec .*hop_length: 64, the mel has 50"
    ):
        read(sounds, mels)
    with pytest.raises(MelvocError, match="no such folder"):
        spec_of_mels(tmp_path / "none")
