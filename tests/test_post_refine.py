"""Refinement: sound that has the mel, the same in every form of synthesis, and clean where the mel says silence."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import VOCODERS, pieces, random_mel
from torch import Tensor, nn

import melvoc
from melvoc import MelSpec, MelSpectrogram, OptionError, SpecError
from melvoc.post import Sound, revive
from melvoc.post.refine import Refine, refined, sound_spec
from melvoc.spectrogram.conversion import to_nepers

VALUES: dict[str, Any] = {"sample_rate": 16000, "n_fft": 512, "hop_length": 128, "n_mels": 40}
SPEC = MelSpec(**VALUES)
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "band-limited": {"f_min": 100.0, "f_max": 5000.0},
    "power": {"power": 2.0, "log": "db"},
    "log1p": {"log": "log1p"},
    "log10, htk, no norm": {"log": "log10", "mel_scale": "htk", "norm": None},
    "centred": {"center": True, "magnitude_eps": 0.0},
    "zeros around": {"pad_mode": "constant"},
    "short window": {"win_length": 400, "center": True},
    "uneven hop": {"hop_length": 100},
    "little overlap": {"hop_length": 300, "center": True},
}


SPECS = {name: MelSpec(**VALUES | changes) for name, changes in CHANGES.items()}


def sound(spec: MelSpec, channels: int = 1) -> Sound:
    return Sound(spec=spec, channels=channels, samples_per_frame=spec.hop_length, sample_rate=spec.sample_rate)


def tone(samples: int, rate: int = 16000) -> Tensor:
    """A vibrato over noise: `[1, 1, N]`."""
    time = torch.arange(samples, dtype=torch.float64) / rate
    clean = 0.3 * torch.sin(2 * math.pi * 440 * time + 3 * torch.sin(2 * math.pi * 5 * time))
    return (clean + 0.02 * torch.randn(samples, generator=torch.Generator().manual_seed(1))).float()[None, None]


def spoilt(wave: Tensor) -> Tensor:
    """As a network gives it: the right sound under a gain that wanders by 6 dB, with some noise."""
    wander = torch.sin(torch.arange(wave.shape[-1]) / 2000.0)
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(2))
    return wave * torch.exp(0.7 * wander) + 0.01 * noise


def distance(wave: Tensor, mel: Tensor, spec: MelSpec) -> float:
    """Mean difference of the wave's mel from another, in nepers of amplitude."""
    found = MelSpectrogram(spec)(wave)[..., : mel.shape[-1]]
    a, b = (to_nepers(x, spec).clamp(min=-12.0 * spec.power) for x in (found, mel[..., : found.shape[-1]]))
    return float((a - b).abs().mean()) / spec.power


def refine(wave: Tensor, mel: Tensor, spec: MelSpec, rounds: int) -> Tensor:
    return Refine(rounds).open(sound(spec, wave.shape[1]))(mel, wave, True)


# What it gains


@pytest.mark.parametrize("name", SPECS)
def test_each_round_brings_the_sound_closer_to_its_mel_in_every_kind_of_mel(name: str) -> None:
    spec = SPECS[name]
    frames = 60
    true = tone(frames * spec.hop_length)
    mel = MelSpectrogram(spec)(true)[..., :frames]
    wave = spoilt(true[..., : mel.shape[-1] * spec.hop_length])
    errors = [distance(wave, mel, spec)] + [distance(refine(wave, mel, spec, rounds), mel, spec) for rounds in (1, 4)]
    assert errors[1] < 0.6 * errors[0], errors
    assert errors[2] < errors[1], errors


@pytest.mark.parametrize(
    ("rounds", "most"), [(0, 0.330), (1, 0.225), (4, 0.172), (16, 0.136)]
)  # mean of the five clips, measured: 0.3188, 0.2179, 0.1648, 0.1286
def test_hifigan_v2_has_the_mel_distance_that_docs_claim(rounds: int, most: float, data_dir: Path) -> None:
    voc = _v2(data_dir)
    found = []
    for path in sorted((data_dir / "audio" / "ljspeech").glob("*.wav")):
        wave, rate = melvoc.audio.read(path)
        wave = wave[:, : 6 * rate] / wave[:, : 6 * rate].abs().max() * 0.95
        back = voc.mel_to_waveform(voc.mel(wave, sample_rate=rate), refine=rounds)[..., : wave.shape[-1]]
        measure = MelSpectrogram(MelSpec(sample_rate=rate, n_fft=1024, hop_length=256, n_mels=80))
        found.append(float((measure(back) - measure(wave[..., : back.shape[-1]])).abs().mean()))
    assert sum(found) / len(found) < most


def _v2(data_dir: Path) -> melvoc.Vocoder:
    from melvoc.storage.container import to_bytes
    from melvoc.storage.conversion import convert

    folder = data_dir / "weights" / "hifigan_ljspeech_v2"
    checkpoint = convert(folder / "generator_v2", config=folder / "config.json")
    return melvoc.from_bytes(to_bytes(checkpoint), device="cpu")


def test_frequencies_that_the_mel_does_not_cover_are_left_alone() -> None:
    spec = MelSpec(**VALUES | {"f_max": 4000.0})
    noise = 0.1 * torch.randn(1, 1, 100 * spec.hop_length)
    mel = torch.full((1, 40, 100), math.log(spec.log_floor))
    kept = refine(noise, mel, spec, 4)
    before, after = (
        torch.stft(x[0, 0], 512, window=torch.hann_window(512), return_complex=True) for x in (noise, kept)
    )
    above, below = slice(150, None), slice(4, 110)  # bins of 31.25 Hz, away from 4 kHz
    assert float((after[above] - before[above]).abs().mean() / before[above].abs().mean()) < 0.01
    assert float(after[below].abs().mean() / before[below].abs().mean()) < 0.003


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.f_max == 8000])
def test_silence_stays_silent_and_nothing_clicks_at_the_ends(name: str) -> None:
    spec = SPECS[name]
    silent = torch.zeros(1, 1, 40 * spec.hop_length)
    mel = MelSpectrogram(spec)(silent)[..., :40]
    mel = torch.cat([mel, mel[..., -1:].expand(-1, -1, 40 - mel.shape[-1])], dim=-1)
    assert float(refine(silent, mel, spec, 4).abs().max()) < 1e-6
    hiss = 1e-3 * torch.randn(silent.shape)
    rest = refine(hiss, mel, spec, 4)
    inside = slice(spec.n_fft, -spec.n_fft)
    assert float(rest[..., inside].std()) < 0.2 * 1e-3, "noise is left where the mel says silence"
    assert float(rest.abs().max()) <= float(hiss.abs().max()) * 1.01, "the ends are louder than they were"


# Every form


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SPECS)),
    frames=st.integers(1, 40),
    rounds=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
    channels=st.integers(1, 2),
)
def test_pieces_join_to_the_whole(name: str, frames: int, rounds: int, cuts: list[int], channels: int) -> None:
    spec = SPECS[name]
    generator = torch.Generator().manual_seed(frames)
    mel = torch.randn(2, 40, frames, generator=generator) - 4
    wave = 0.1 * torch.randn(2, channels, frames * spec.hop_length, generator=generator)
    step, room = Refine(rounds), sound(spec, channels)
    whole = step.open(room)(mel, wave, True)
    machine, parts = step.open(room), pieces(wave, cuts)
    out, taken, known, done = [], 0, 0, 0
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        taken += part.shape[-1]
        ahead = frames if last else min(frames, -(-taken // spec.hop_length))  # frames come before their samples
        out.append(machine(mel[..., known:ahead], part, last))
        known, done = ahead, done + out[-1].shape[-1]
        assert last or taken - done <= step.delay(room), "later than it says"
    assert whole.shape == wave.shape
    torch.testing.assert_close(torch.cat(out, dim=-1), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["bigvgan_v2_tiny", "vocos_tiny"])
@pytest.mark.parametrize("rounds", [1, 4])
def test_streams_blocks_and_batches_give_what_one_call_gives(name: str, rounds: int) -> None:
    voc = VOCODERS[name]
    mel = random_mel(voc, 50, batch=2)
    whole = voc.mel_to_waveform(mel, refine=rounds, spec=voc.spec)
    plain = voc.mel_to_waveform(mel, spec=voc.spec)
    assert whole.shape == plain.shape
    assert float((whole - plain).abs().max()) > 0.01
    tolerance: dict[str, Any] = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(
        voc.mel_to_waveform(mel, refine=rounds, block_frames=7, spec=voc.spec), whole, **tolerance
    )
    torch.testing.assert_close(voc.mel_to_waveform(mel[1:], refine=rounds, spec=voc.spec), whole[1:], **tolerance)
    short = voc.mel_to_waveform(mel[:1, :, :31], refine=rounds, spec=voc.spec)
    spoiled = mel.clone()
    spoiled[0, :, 31:] = 3.0
    both = voc.mel_to_waveform(spoiled, refine=rounds, lengths=[31, 50], spec=voc.spec)
    torch.testing.assert_close(both[:1, :, : short.shape[-1]], short, **tolerance)
    torch.testing.assert_close(both[1:], whole[1:], **tolerance)
    with voc.stream(refine=rounds, spec=voc.spec) as stream:
        got = [stream.push(part) for part in pieces(mel, [1, 2, 17, 30])] + [stream.flush()]
    torch.testing.assert_close(torch.cat(got, dim=-1), whole, **tolerance)


def test_a_streams_latency_includes_the_rounds_and_can_be_cut_short() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    hop = voc.spec.hop_length
    plain, exact = voc.stream().latency_samples, voc.stream(refine=2).latency_samples
    assert exact == plain + voc.spec.n_fft - 1 + 3 * hop
    mel = random_mel(voc, 30)
    with voc.stream(refine=2, spec=voc.spec) as stream:
        given = 0
        for frames in range(1, 31):
            given += stream.push(mel[..., frames - 1 : frames]).shape[-1]
            assert frames * hop - given <= stream.latency_samples
    with voc.stream(refine=2, spec=voc.spec, lookahead_frames=1) as stream:
        for frames in range(1, 31):
            assert stream.push(mel[..., frames - 1 : frames]).shape[-1] == (hop if frames > 1 else 0)
        assert stream.flush().shape[-1] == hop


def test_a_streams_state_does_not_grow() -> None:
    machine = Refine(3).open(sound(SPEC))
    sizes = []
    for _ in range(40):
        machine(torch.randn(1, 40, 16) - 4, 0.1 * torch.randn(1, 1, 16 * SPEC.hop_length), False)
        held = [value for one in machine._rounds for value in vars(one).values() if isinstance(value, Tensor)]
        sizes.append(sum(value.untyped_storage().nbytes() for value in held))
    assert max(sizes[5:]) <= max(sizes[:5])


def test_a_fork_leaves_its_origin_alone() -> None:
    frames, wave = torch.randn(1, 40, 30) - 4, 0.1 * torch.randn(1, 1, 30 * SPEC.hop_length)
    machine = Refine(2).open(sound(SPEC))
    half = 15 * SPEC.hop_length
    first = machine(frames[..., :15], wave[..., :half], False)
    machine.fork()(frames[..., :3], wave[..., : 3 * SPEC.hop_length], False)
    rest = machine(frames[..., 15:], wave[..., half:], True)
    whole = Refine(2).open(sound(SPEC))(frames, wave, True)
    torch.testing.assert_close(torch.cat([first, rest], dim=-1), whole, atol=1e-6, rtol=0)


def test_sound_at_twice_the_mels_rate_is_refined_in_the_mels_frames_and_bands() -> None:
    room = Sound(spec=SPEC, channels=2, samples_per_frame=256, sample_rate=32000)
    spec = sound_spec(room)
    assert (spec.n_fft, spec.win_length, spec.hop_length, spec.f_max) == (1024, 1024, 256, 8000.0)
    true = tone(60 * 256, rate=32000)
    mel = MelSpectrogram(SPEC)(melvoc.resample(true[0], 32000, 16000))[..., :60]
    wave = spoilt(true).expand(1, 2, -1)
    found = Refine(2).open(room)(mel, wave, True)
    assert found.shape == wave.shape
    torch.testing.assert_close(found[:, 0], found[:, 1])
    before, after = (distance(melvoc.resample(x[0, :1], 32000, 16000), mel, SPEC) for x in (wave, found))
    assert after < 0.5 * before


def test_half_precision_is_computed_in_float32_and_float64_in_float64() -> None:
    mel, wave = torch.randn(1, 40, 20) - 4, 0.1 * torch.randn(1, 1, 20 * SPEC.hop_length)
    exact = refine(wave, mel, SPEC, 2)
    half = Refine(2).open(sound(SPEC))(mel.bfloat16(), wave.bfloat16(), True)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - exact).abs().max()) < 0.05
    double = refine(wave.double(), mel.double(), SPEC, 2)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), exact, atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(refine(wave, mel, SPEC, 2), exact)


@pytest.mark.parametrize("changes", [{}, {"power": 2.0, "log": "db"}, {"log": "log1p", "magnitude_eps": 0.0}])
def test_gradients_are_those_of_the_function(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"sample_rate": 1000, "n_fft": 16, "hop_length": 4, "n_mels": 3, "f_max": 400.0}
    spec = MelSpec(**values | changes)
    generator = torch.Generator().manual_seed(3)
    wave = 0.2 * torch.randn(1, 1, 24, dtype=torch.float64, generator=generator)
    mel = MelSpectrogram(spec)(0.2 * torch.randn(1, 24, dtype=torch.float64, generator=generator))
    for x in (wave, mel):
        x.requires_grad_()
    assert torch.autograd.gradcheck(lambda w, m: refine(w, m, spec, 2), (wave, mel), atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_gradients_are_finite_in_silence(name: str) -> None:
    spec = SPECS[name]
    wave = torch.zeros(1, 1, 12 * spec.hop_length, requires_grad=True)
    mel = torch.full((1, 40, 12), -30.0, requires_grad=True)
    refine(wave, mel, spec, 2).square().sum().backward()
    for x in (wave, mel):
        assert x.grad is not None
        assert x.grad.isfinite().all()


# Where it is asked for


class Hiss(melvoc.Vocoder):
    """A plugin's vocoder that needs the whole mel and knows nothing of refinement."""

    def __init__(self, spec: MelSpec = SPEC) -> None:
        super().__init__(name="hiss", spec=spec)
        self.gain = nn.Parameter(torch.tensor(0.1))

    def forward(self, mel: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        wave = torch.randn(mel.shape[-1] * self.spec.hop_length, generator=generator) * self.gain
        return wave.expand(mel.shape[0], 1, -1)


def test_every_vocoder_is_refined_without_a_line_of_its_own() -> None:
    voc = Hiss()
    true = tone(40 * SPEC.hop_length)
    mel = voc.mel(true[0], sample_rate=16000)
    errors = [distance(voc.mel_to_waveform(mel, refine=rounds), mel, SPEC) for rounds in (0, 1, 4)]
    assert errors[2] < errors[1] < 0.5 * errors[0]
    griffinlim = melvoc.load("griffinlim", spec=SPEC, n_iter=2)
    few, more = (distance(griffinlim.mel_to_waveform(mel, refine=rounds), mel, SPEC) for rounds in (0, 4))
    assert more < few


def test_a_vocoders_own_rounds_are_stored_and_can_be_overruled(tmp_path: Path) -> None:
    voc = VOCODERS["vocos_tiny"]
    mel = random_mel(voc, 20)
    plain, once = (voc.mel_to_waveform(mel, spec=voc.spec, refine=rounds) for rounds in (0, 1))
    melvoc.save(voc, tmp_path / "plain.safetensors")
    loaded = melvoc.load(tmp_path / "plain.safetensors", refine=1, device="cpu")
    torch.testing.assert_close(loaded.mel_to_waveform(mel, spec=voc.spec), once, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.mel_to_waveform(mel, spec=voc.spec, refine=0), plain, atol=1e-5, rtol=0)
    melvoc.save(loaded, tmp_path / "refined.safetensors")
    again = melvoc.load(tmp_path / "refined.safetensors", device="cpu")
    assert again.post == (Refine(1),)
    torch.testing.assert_close(again.mel_to_waveform(mel, spec=voc.spec), once, atol=1e-5, rtol=0)
    assert melvoc.load(tmp_path / "refined.safetensors", refine=0, device="cpu").post == ()
    back = again.resynthesize(torch.randn(1, 9000) * 0.1, sample_rate=voc.sample_rate)
    assert not torch.equal(back, again.resynthesize(torch.randn(1, 9000) * 0.1, sample_rate=voc.sample_rate, refine=0))


def test_numbers_of_rounds_may_be_numpys() -> None:
    assert refined((), numpy.int64(0)) == ()
    assert refined((), numpy.int64(2)) == (Refine(2),)
    assert type(Refine(numpy.int64(2)).rounds) is int


def test_rounds_take_the_place_of_those_that_are_there() -> None:
    other = dataclasses.make_dataclass("Other", [])()
    assert refined((), 0) == ()
    assert refined((other,), 3) == (other, Refine(3))
    assert refined((Refine(1), other), 2) == (Refine(2), other)
    assert refined((other, Refine(1), other), 0) == (other, other)


@pytest.mark.parametrize("rounds", [-1, 257, 1.5, True, "2"])
def test_what_is_no_number_of_rounds_is_refused_before_anything_is_done(rounds: Any) -> None:
    message = r"refine=.*, but it is a whole number of rounds from 0 to 256"
    voc = VOCODERS["vocos_tiny"]
    mel = random_mel(voc, 4)
    with pytest.raises(OptionError, match=message):
        voc.mel_to_waveform(mel, refine=rounds)
    with pytest.raises(OptionError, match=message):
        voc.stream(refine=rounds)
    with pytest.raises(OptionError, match=message):
        melvoc.load("bigvgan_v2_44khz_128band_512x", refine=rounds, local_files_only=True)
    if rounds != -1:
        with pytest.raises(OptionError, match=message):
            revive([{"kind": "refine", "rounds": rounds}])
    with pytest.raises(OptionError, match=r"refine has \['rounds', 'speed'\], but it takes rounds"):
        revive([{"kind": "refine", "rounds": 1, "speed": 2}])


def test_frames_that_are_no_whole_samples_of_the_sound_are_refused() -> None:
    room = Sound(spec=SPEC, channels=1, samples_per_frame=176, sample_rate=22000)
    assert sound_spec(room).n_fft == 704
    room = Sound(spec=SPEC, channels=1, samples_per_frame=176, sample_rate=22050)
    low = Sound(spec=SPEC, channels=1, samples_per_frame=64, sample_rate=8000)
    with pytest.raises(SpecError, match="its mel reaches up to 8000 Hz, its sound at 8000 Hz only to 4000 Hz"):
        Refine(1).open(low)
    with pytest.raises(SpecError, match=r"cannot be refined: .* 512 samples at 16000 Hz, which are 705.6 samples"):
        Refine(1).open(room)
