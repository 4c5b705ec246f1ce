"""Griffin-Lim: any mel, no worse than the peers, reproducible, and bounded whatever it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, MelvocError, SpecError, audio
from melvoc.griffinlim import GriffinLim, _within_full_scale
from melvoc.spectrogram.conversion import FilterBank, to_nepers
from melvoc.spectrogram.presets import PRESETS

SMALL = MelSpec(sample_rate=16000, n_fft=256, hop_length=64, n_mels=24)


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "mel.safetensors")


def random_mel(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 5


def distance(wave: Tensor, mel: Tensor, spec: MelSpec) -> float:
    """Mean distance of the wave's mel from the one given, in nepers of amplitude, where that is above -11.5."""
    found = MelSpectrogram(spec)(wave)[..., : mel.shape[-1]]
    floor = -11.5 * spec.power
    a, b = (to_nepers(x, spec).clamp(min=floor) for x in (found, mel[..., : found.shape[-1]]))
    return float((a - b).abs().mean()) / spec.power


# --- quality


@pytest.mark.parametrize(("clip", "most"), [("guit_em9.flac", 0.114), ("loop_garzul.flac", 0.087)])
def test_it_is_no_worse_than_torchaudio_and_librosa(clip: str, most: float, data_dir: Path) -> None:
    """Their better log-mel L1 at 32 rounds; benchmarks/griffinlim.py measures all three in one run."""
    wave, rate = audio.read(data_dir / "audio" / "cc0_44khz" / clip)
    spec = MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128, center=True, magnitude_eps=0)
    mel = MelSpectrogram(spec)(wave.mean(0)[: 5 * rate])
    assert distance(melvoc.load("griffinlim", spec=spec).mel_to_waveform(mel), mel, spec) < most


def test_a_loud_sound_is_not_clipped(data_dir: Path) -> None:
    """A bass near full scale: its first two seconds go beyond it by 5 %, and cut off there would be 0.38 away."""
    wave, rate = audio.read(data_dir / "audio" / "cc0_44khz" / "bass_woodsy_c.flac")
    spec = MelSpec.preset("griffinlim")
    mel = MelSpectrogram(spec)(wave.mean(0)[: 2 * rate])
    found = melvoc.load("griffinlim").mel_to_waveform(mel)
    assert found.abs().max() == pytest.approx(1.0, abs=1e-6)
    assert distance(found, mel, spec) < 0.1


@settings(max_examples=50, deadline=None)
@given(hop=st.integers(1, 9), frames=st.integers(1, 6), seed=st.integers(0, 99), loud=st.floats(0.1, 1e6))
def test_peaks_are_made_to_fit_and_the_rest_is_left(hop: int, frames: int, seed: int, loud: float) -> None:
    wave = torch.randn(2, frames * hop, generator=torch.Generator().manual_seed(seed)) * loud
    wave[1] /= wave[1].abs().max()
    fitted = _within_full_scale(wave, hop)
    assert fitted.abs().max() <= 1 + 1e-6
    assert torch.equal(fitted[1], wave[1])
    gain = (fitted / wave)[0].double()
    assert (gain.diff().abs() <= 1 / hop + 1e-6).all(), "the gain jumps"
    peaks = torch.nn.functional.max_pool1d(wave[:1].view(1, frames, hop).abs().amax(-1)[None], 3, 1, 1)[0, 0]
    assert (gain.view(frames, hop) >= 1 / peaks.clamp(min=1)[:, None] - 1e-6).all(), "quieter than it must be"
    quiet = wave[0].view(frames, hop).abs().amax(1) <= 1
    alone = [i for i in range(frames) if quiet[max(0, i - 1) : i + 2].all()]
    assert torch.equal(fitted[0].view(frames, hop)[alone], wave[0].view(frames, hop)[alone])


@pytest.mark.parametrize("name", PRESETS)
def test_any_spec(name: str, golden: dict[str, Tensor]) -> None:
    """log1p, HTK, 48 kHz, dB, a window shorter than n_fft: the mel comes back near to what it was."""
    spec = MelSpec.preset(name)
    source = next((key for key in golden if key == f"{name}.audio"), "bigvgan_v2_44khz_128band_512x.audio")
    mel = MelSpectrogram(spec)(golden[source])
    wave = GriffinLim(spec=spec, n_iter=24).mel_to_waveform(mel)
    assert wave.shape == (1, 1, spec.samples(mel.shape[-1]))
    assert wave.abs().max() <= 1
    assert distance(wave, mel, spec) < 0.4


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_valid_spec_and_shape(data: st.DataObject) -> None:
    n_fft = data.draw(st.integers(16, 100))
    win_length = data.draw(st.integers(8, n_fft))
    spec = MelSpec(
        sample_rate=8000,
        n_fft=n_fft,
        hop_length=data.draw(st.integers(1, win_length)),
        win_length=win_length,
        n_mels=data.draw(st.integers(1, 3)),
        norm=data.draw(st.sampled_from(["slaney", None])),
        mel_scale=data.draw(st.sampled_from(["slaney", "htk"])),
        power=data.draw(st.sampled_from([1, 2])),
        log=data.draw(st.sampled_from(["ln", "log10", "log1p", "db"])),
        center=data.draw(st.booleans()),
        pad_mode=data.draw(st.sampled_from(["reflect", "constant"])),
    )
    batch, frames = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    voc = GriffinLim(spec=spec, n_iter=data.draw(st.integers(1, 3)))
    wave = voc.mel_to_waveform(spec.clamp(random_mel(batch, spec.n_mels, frames)), spec=spec)
    assert wave.shape == (batch, 1, frames * spec.hop_length)
    assert torch.isfinite(wave).all()


def test_more_rounds_come_nearer(golden: dict[str, Tensor]) -> None:
    spec = MelSpec.preset("hifigan_22khz_80band_256x")
    mel = MelSpectrogram(spec)(golden["hifigan_22khz_80band_256x.audio"])
    apart = [distance(GriffinLim(spec=spec, n_iter=n).mel_to_waveform(mel), mel, spec) for n in (1, 8, 64)]
    assert apart[0] > apart[1] > apart[2]


def test_a_tone_comes_back_at_its_frequency_and_level() -> None:
    spec = MelSpec.preset("griffinlim")
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(44100) / 44100)
    wave = GriffinLim(spec=spec).mel_to_waveform(MelSpectrogram(spec)(tone))[0, 0]
    middle = wave[8192:-8192]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs()
    assert abs(float(spectrum.argmax()) * 44100 / len(middle) - 1000) < 15
    assert float(middle.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=0.15)


# --- reproducible


def test_one_seed_is_one_sound_whatever_the_batch() -> None:
    mel = random_mel(3, 24, 20)
    voc = GriffinLim(spec=SMALL, n_iter=4, seed=7)
    together = voc.mel_to_waveform(mel)
    assert torch.equal(voc.mel_to_waveform(mel), together)
    for row in range(3):
        torch.testing.assert_close(voc.mel_to_waveform(mel[row])[0], together[row], atol=1e-4, rtol=0)
    other = GriffinLim(spec=SMALL, n_iter=4, seed=8).mel_to_waveform(mel)
    assert (other - together).abs().max() > 1e-3


def test_torchs_own_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    GriffinLim(spec=SMALL, n_iter=1).mel_to_waveform(random_mel(24, 5))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_momentum_changes_the_way(golden: dict[str, Tensor]) -> None:
    mel = random_mel(24, 20)
    plain, fast = (GriffinLim(spec=SMALL, n_iter=8, momentum=m).mel_to_waveform(mel) for m in (0, 0.99))
    assert (plain - fast).abs().max() > 1e-3


def test_lengths_are_of_rows(golden: dict[str, Tensor]) -> None:
    mel = random_mel(2, 24, 20)
    voc = GriffinLim(spec=SMALL, n_iter=3)
    wave = voc.mel_to_waveform(mel, lengths=[20, 12])
    assert (wave[1, :, 12 * 64 :] == 0).all()
    torch.testing.assert_close(wave[1:, :, : 12 * 64], voc.mel_to_waveform(mel[1:, :, :12]), atol=1e-4, rtol=0)


# --- bounded


def extreme_mels() -> dict[str, Tensor]:
    comb = torch.full((24, 15), -11.5)
    comb[::2] = 3.0  # what no spectrum has: every other band silent between loud ones
    return {
        "random": random_mel(24, 15),
        "silence": torch.full((24, 15), -11.5129),
        "comb": comb,
        "far below": torch.full((24, 15), -300.0),
        "far above": torch.full((24, 15), 300.0),
        "both": torch.tensor([-300.0, 300.0]).repeat(24, 8),
    }


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("name", extreme_mels())
def test_the_work_is_the_same_whatever_the_mel(name: str, power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MelSpec(**SMALL.to_dict() | {"power": power})
    counts = {"rfft": 0, "irfft": 0, "mm": 0}
    rfft, irfft = torch.fft.rfft, torch.fft.irfft

    def counted(key: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[key] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(torch.fft, "rfft", counted("rfft", rfft))
    monkeypatch.setattr(torch.fft, "irfft", counted("irfft", irfft))
    monkeypatch.setattr("melvoc.spectrogram.conversion.FilterBank.correct", counted("mm", FilterBank.correct))
    wave = GriffinLim(spec=spec, n_iter=6)(extreme_mels()[name][None])  # unchecked
    assert counts == {"rfft": 6, "irfft": 7, "mm": 5 + 3}
    assert torch.isfinite(wave).all()
    assert wave.abs().max() <= 1


@pytest.mark.parametrize("name", ["griffinlim", "distill_v1_48khz_128band", "librosa_22khz_128band_db"])
def test_silence_is_silent(name: str) -> None:
    spec = MelSpec.preset(name)
    mel = MelSpectrogram(spec)(torch.zeros(30000))
    assert GriffinLim(spec=spec, n_iter=4).mel_to_waveform(mel).abs().max() < 1e-6


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_few_frames(frames: int, center: bool, pad_mode: Any) -> None:
    """Too short to be mirrored, as it may be."""
    spec = MelSpec(**SMALL.to_dict() | {"center": center, "pad_mode": pad_mode})
    wave = GriffinLim(spec=spec, n_iter=8).mel_to_waveform(torch.full((24, frames), -2.0))
    assert wave.shape == (1, 1, frames * 64)
    assert torch.isfinite(wave).all()
    assert wave.abs().max() > 1e-4


# --- a vocoder among others


def test_options_and_their_defaults() -> None:
    voc = melvoc.load("griffinlim")
    assert isinstance(voc, GriffinLim)
    assert (voc.name, voc.spec, voc.n_iter, voc.momentum, voc.seed) == (
        "griffinlim",
        MelSpec(sample_rate=44100, n_fft=2048, hop_length=512, n_mels=128),
        32,
        0.99,
        0,
    )
    voc = melvoc.load("griffinlim", spec=SMALL, n_iter=np.int64(3), momentum=0, seed=np.int32(5))
    assert voc.options == {"spec": SMALL.to_dict(), "n_iter": 3, "momentum": 0.0, "seed": 5}
    json.dumps(voc.options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": 0}, "n_iter=0, but it is a whole number from 1"),
        ({"n_iter": 2.0}, "n_iter=2.0"),
        ({"n_iter": True}, "n_iter=True"),
        ({"seed": -1}, "seed=-1, but it is a whole number from 0"),
        ({"seed": None}, "seed=None"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"momentum": 1}, "momentum=1, but it is a number from 0 to less than 1"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"momentum": float("nan")}, "momentum=nan"),
        ({"momentum": True}, "momentum=True"),
        ({"momentum": "fast"}, "momentum='fast'"),
        ({"spec": "griffinlim"}, "spec='griffinlim'"),
        ({"iterations": 9}, "iterations"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MelvocError, match=message):
        melvoc.load("griffinlim", **options)


def test_it_is_saved_as_its_options(tmp_path: Path) -> None:
    voc = melvoc.load("griffinlim", spec=MelSpec.preset("distill_v1_48khz_128band"), n_iter=5, momentum=0.5, seed=3)
    melvoc.save(voc, tmp_path / "gl.safetensors")
    twins = [
        melvoc.load(tmp_path / "gl.safetensors"),
        melvoc.from_bytes(melvoc.to_bytes(voc)),
        melvoc.unpack(melvoc.pack(voc)),
        GriffinLim.from_options(voc.options),
    ]
    mel = MelSpectrogram(voc.spec)(torch.rand(9000) - 0.5)
    for twin in twins:
        assert isinstance(twin, GriffinLim)
        assert twin.options == voc.options
        assert torch.equal(twin.mel_to_waveform(mel), voc.mel_to_waveform(mel))
    assert (tmp_path / "gl.safetensors").stat().st_size < 4096


@pytest.mark.parametrize("change", [{"n_iter": None}, {"colour": 1}])
def test_bad_saved_options(change: dict[str, Any]) -> None:
    options = {key: value for key, value in (GriffinLim(spec=SMALL).options | change).items() if value is not None}
    with pytest.raises(MelvocError, match="Griffin-Lim takes spec, n_iter, momentum, seed"):
        GriffinLim.from_options(options)


def test_it_does_not_stream_and_says_so() -> None:
    with pytest.raises(MelvocError, match="griffinlim.*stream"):
        GriffinLim(spec=SMALL).stream()


def test_a_mel_of_another_spec_is_refused() -> None:
    with pytest.raises(melvoc.MelMismatchError, match="n_mels"):
        GriffinLim(spec=SMALL).mel_to_waveform(torch.zeros(80, 5), spec=MelSpec.preset("griffinlim"))
    with pytest.raises(SpecError, match="looks like a dB mel"):
        GriffinLim(spec=SMALL).mel_to_waveform(torch.full((24, 5), -60.0))


def test_double_precision() -> None:
    mel = random_mel(24, 12)
    single = GriffinLim(spec=SMALL, n_iter=2).mel_to_waveform(mel)
    double = melvoc.load("griffinlim", spec=SMALL, n_iter=2, dtype=torch.float64).mel_to_waveform(mel)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-4, rtol=0)
