"""What is refused, warned about and let through of a mel that comes without its spec."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import VOCODERS
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.audio.resampling import resample
from melvoc.spectrogram.check import batch_mel, check_mel, check_piece, judge
from melvoc.spectrogram.likelihood import Watch, improbable
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.transform import mel_filters

GOLDEN = Path(__file__).parent / "golden"
SPEC = MelSpec.preset("bigvgan_v2_22khz_80band_256x")
NATURAL = [name for name in PRESETS if MelSpec.preset(name).log == "ln"]
LOGS: list[dict[str, Any]] = [
    {"log": log, "power": power} for log in ("ln", "log10", "db") for power in (1, 2)
]  # log1p has no floor, and a test of its own


@pytest.fixture(scope="module")
def griffinlim() -> melvoc.Vocoder:
    return melvoc.load("griffinlim", spec=SPEC, n_iter=1)


def spec_of(**changes: Any) -> MelSpec:
    return MelSpec(**(SPEC.to_dict() | {"log_floor": None} | changes))


def levels(spec: MelSpec) -> tuple[float, float]:
    """The boundaries as the documentation says them: floor - 4 nepers, full scale + 3 nepers, in the spec's log.

    A neper is a factor e of amplitude, 8.686 dB; full scale is the largest filter row sum times the window's sum.
    """
    window = float(torch.hann_window(spec.win_length, dtype=torch.float64).sum())
    full = float(mel_filters(spec).double().sum(1).max()) * window**spec.power
    neper = spec.power  # in the natural logarithm of the mel's own unit
    unit = {"ln": 1.0, "log1p": 1.0, "log10": math.log10(math.e), "db": 20 / spec.power * math.log10(math.e)}[spec.log]
    return unit * (math.log(spec.log_floor) - 4 * neper), unit * (math.log(full) + 3 * neper)


def mel_with(value: float, spec: MelSpec) -> Tensor:
    """Plausible all over but for one value."""
    least, most = levels(spec)
    mel = torch.full((1, spec.n_mels, 30), min(-0.5, (least + most) / 2))
    mel[0, 3, 7] = value
    return mel


def possible(mel: Tensor, spec: MelSpec) -> None:
    """Not refused; a warning is allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_mel(mel, spec)


def silent(mel: Tensor, spec: MelSpec) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return check_mel(mel, spec)


# --- the range


@pytest.mark.parametrize("log", LOGS, ids=str)
def test_the_boundaries(log: dict[str, Any]) -> None:
    spec = spec_of(**log)
    least, most = levels(spec)
    slack = 0.01 * (most - least) / 20
    possible(mel_with(least + slack, spec), spec)
    possible(mel_with(most - slack, spec), spec)
    with pytest.raises(SpecError, match=f"this mel goes down to .*stays between {least:.4g} and {most:.4g}"):
        check_mel(mel_with(least - slack, spec), spec)
    with pytest.raises(SpecError, match=f"this mel goes up to .*stays between {least:.4g} and {most:.4g}"):
        check_mel(mel_with(most + slack, spec), spec)


def test_the_boundaries_of_log1p() -> None:
    """Nothing is nepers below a floor of 0, where log1p is linear: 4 of its own units."""
    spec = spec_of(log="log1p")
    full = float(mel_filters(spec).double().sum(1).max()) * 512
    most = math.log1p(full * math.exp(3))
    for value in (-3.9, most - 0.01):
        possible(torch.tensor([value, 1.0]).repeat(80, 5), spec)
    for value in (-4.1, most + 0.01):
        with pytest.raises(SpecError, match="this mel goes"):
            check_mel(torch.tensor([value, 1.0]).repeat(80, 5), spec)


@pytest.mark.parametrize("floor", [1e-7, 1e-5, 1e-3])
def test_the_floor_is_the_specs_own(floor: float) -> None:
    spec = spec_of(log_floor=floor)
    possible(mel_with(math.log(floor) - 3.9, spec), spec)
    with pytest.raises(SpecError, match=f"log_floor={floor:g}"):
        check_mel(mel_with(math.log(floor) - 4.1, spec), spec)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("sound", ["square", "noise", "silence", "impulse"])
def test_the_mels_of_extreme_sounds_pass(name: str, sound: str) -> None:
    spec = MelSpec.preset(name)
    wave = {
        "square": (torch.arange(20000) // 50 % 2) * 2.0 - 1,
        "noise": torch.rand(20000, generator=torch.Generator().manual_seed(1)) * 2 - 1,
        "silence": torch.zeros(20000),
        "impulse": torch.zeros(20000).index_fill(0, torch.tensor(9000), 1.0),
    }[sound]
    silent(MelSpectrogram(spec)(wave), spec)


@pytest.mark.parametrize("name", NATURAL)
@pytest.mark.parametrize("mean", [-4.0, -5.0])
def test_random_normal_mels_pass_every_natural_log_spec(name: str, mean: float) -> None:
    """What an untrained decoder or a test makes: mean -4 or -5, deviation 2, of many seeds and shapes."""
    spec = MelSpec.preset(name)
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        for batch, frames in ((1, 1), (1, 3), (3, 17), (2, 100), (1, 500), (2, 1500)):
            mel = mean + 2 * torch.randn(batch, spec.n_mels, frames, generator=generator)
            if mel.min() < 0:
                silent(mel, spec)
            check_piece(mel, spec)


def test_a_share_of_outliers_passes_only_where_there_are_very_many_values() -> None:
    """A tail of one in 1e5, at most 2 nepers further: random numbers, not another scale."""
    mel = torch.full((1, 80, 5000), -5.0)
    mel[0, 0, :4] = -16.0
    possible(mel, SPEC)
    mel[0, 0, 4] = -16.0
    with pytest.raises(SpecError, match="goes down to -16"):
        check_mel(mel, SPEC)
    mel[0, 0, 1:] = -5.0
    mel[0, 0, 0] = -17.6
    with pytest.raises(SpecError, match=r"goes down to -17\.6"):
        check_mel(mel, SPEC)


def test_one_outlier_passes_at_the_end_of_a_tail() -> None:
    mel = torch.full((1, 80, 100), -5.0)
    mel[0, 0, :2] = torch.tensor([-13.5, -15.9])
    possible(mel, SPEC)
    for frames, tail in (
        (100, [-15.9, -12.0]),
        (100, [-13.5, -15.9, -15.6]),
        (100, [-13.5, 6.5]),
        (20, [-13.5, -15.9]),
    ):
        mel = torch.full((1, 80, frames), -5.0)
        mel[0, 0, : len(tail)] = torch.tensor(tail)
        with pytest.raises(SpecError, match="this mel goes"):
            check_mel(mel, SPEC)


# --- what it looks like


@pytest.fixture(scope="module")
def audio() -> Tensor:
    return load_file(GOLDEN / "mel.safetensors")["bigvgan_v2_22khz_80band_256x.audio"]


@pytest.mark.parametrize(
    "other",
    [
        {"log": "db"},
        {"log": "db", "power": 2},
        {"log": "db", "power": 2, "log_floor": 1e-8, "center": True, "mel_scale": "htk", "norm": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("mine", [{}, {"log": "log10"}, {"log": "log1p"}], ids=str)
def test_a_db_mel_is_recognised(mine: dict[str, Any], other: dict[str, Any], audio: Tensor) -> None:
    mel = MelSpectrogram(spec_of(**other))(torch.cat([audio, torch.zeros(8000)]))
    with pytest.raises(SpecError, match="this mel goes down to .*it looks like a dB mel.*convert_mel"):
        check_mel(mel, spec_of(**mine))


def test_librosas_db_mel_relative_to_its_peak_is_recognised(audio: Tensor) -> None:
    librosa = pytest.importorskip("librosa")
    mel = librosa.feature.melspectrogram(y=audio.numpy(), sr=22050, n_fft=1024, hop_length=256, n_mels=80)
    mel = torch.from_numpy(librosa.power_to_db(mel, ref=np.max)).float()
    assert mel.max() == 0
    with pytest.raises(SpecError, match="it looks like a dB mel"):
        check_mel(mel, SPEC)


def test_a_linear_mel_is_recognised(audio: Tensor) -> None:
    loud = audio / audio.abs().max() * 32767
    mel = MelSpectrogram(spec_of(log="log1p", magnitude_eps=0))
    with pytest.warns(UserWarning, match="samples are in"):
        linear = mel(loud).expm1()
    with pytest.raises(SpecError, match="looks like a linear mel.*or one of audio that was not scaled"):
        check_mel(linear, SPEC)


def test_a_natural_log_mel_is_no_log1p_mel(audio: Tensor) -> None:
    with pytest.raises(SpecError, match="it looks like an ln mel"):
        check_mel(MelSpectrogram(SPEC)(audio * 0.01), spec_of(log="log1p"))


def test_a_mel_without_negatives_is_refused_if_its_median_is_impossible_too() -> None:
    mel = torch.rand(1, 80, 200, generator=torch.Generator().manual_seed(0)) + 3.0  # no noise is so loud in every band
    with pytest.raises(SpecError, match=r"no negative value and a median of 3\.5.*it looks like "):
        check_mel(mel, SPEC)
    mel[0, :, :150] = 0.1
    with pytest.warns(UserWarning, match="exactly 0.1, but silence is -11.5"):
        check_mel(mel, SPEC)


def test_the_warning_names_the_callers_line(griffinlim: melvoc.Vocoder) -> None:
    with pytest.warns(UserWarning, match="unlikely to be one with log='ln'.*pass spec=") as caught:
        griffinlim.mel_to_waveform(torch.full((80, 9), 0.5))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_are_refused_whatever_is_known(bad: float) -> None:
    mel = torch.full((2, 80, 20), -5.0)
    mel[1, 2, 3] = bad
    for known in (True, False):
        with pytest.raises(SpecError, match=r"1 NaN or Inf among its 3200 values, the first at \[1, 2, 3\]"):
            check_mel(mel, SPEC, known=known)
    with pytest.raises(SpecError, match="NaN or Inf"):
        check_piece(mel, SPEC)


def test_of_a_mel_whose_spec_is_named_nothing_is_guessed_within_two_nepers_more() -> None:
    least, most = levels(SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (least - 1.9, 0.5, most + 1.9):
            check_mel(torch.full((80, 20), value), SPEC, known=True)
    for value, beyond in ((least - 2.1, "down"), (most + 2.1, "up"), (-1000.0, "down"), (most + 37, "up")):
        with pytest.raises(SpecError, match=rf"goes {beyond} to .*limit a decoder's with spec\.clamp\(mel\)"):
            check_mel(torch.full((80, 20), value), SPEC, known=True)


def test_no_named_spec_makes_noise_of_a_mel_far_beyond_full_scale(griffinlim: melvoc.Vocoder) -> None:
    mel = torch.full((2, 80, 20), -5.0)
    loud = mel + 40
    for options in ({"spec": SPEC}, {"spec": SPEC, "lengths": [20, 3]}, {}):
        with pytest.raises(SpecError, match="goes up to 35"):
            griffinlim.mel_to_waveform(loud, **options)
    mel[1, :, 3:] = 40.0  # beyond the row's length, which is never read
    griffinlim.mel_to_waveform(mel, spec=SPEC, lengths=[20, 3])
    with VOCODERS["vocos_tiny"].stream(spec=VOCODERS["vocos_tiny"].spec) as stream:
        with pytest.raises(SpecError, match="goes up to 40"):
            stream.push(torch.full((100, 5), 40.0))
        stream.push(VOCODERS["vocos_tiny"].spec.clamp(torch.full((100, 5), 40.0)))


def test_golden_mels_pass_their_own_spec_and_few_others() -> None:
    entries = json.loads((GOLDEN / "mel.json").read_text(encoding="utf-8"))
    mels = load_file(GOLDEN / "mel.safetensors")
    for name, entry in entries.items():
        silent(mels[f"{name}.mel"], MelSpec(**entry["spec"]))


# --- possible, but improbable


def melody(rate: int) -> Tensor:
    """Three seconds of decaying notes with breath and a silence between them, peak 0.95: a sound with everything."""
    generator, length = torch.Generator().manual_seed(5), rate // 2
    time, notes = torch.arange(length) / rate, []
    for pitch in (220.0, 277.2, 329.6, 440.0, 164.8, 370.0):
        tones = [(2 * math.pi * k * pitch * time).sin() / k**1.2 for k in range(1, 40) if k * pitch < rate / 2]
        breath = torch.randn(length, generator=generator) * (0.05 * (-12 * time).exp() + 0.002)
        note = torch.stack(tones).sum(0) * (-5 * time).exp() + breath
        notes.append(note * (time < 0.42))
    wave = torch.cat(notes)
    return wave * (0.95 / wave.abs().max())


def logged(mel: Tensor, spec: MelSpec, log: str) -> Tensor:
    """The same mel in another logarithm, with the spec's own floor."""
    unit = {"ln": 1.0, "log10": math.log(10), "db": math.log(10) * spec.power / 20}
    value = (mel * unit[spec.log]).exp()
    return {
        "linear": value,
        "log1p": value.log1p(),
        "ln": value.log(),
        "log10": value.log10(),
        "db": value.log10() * 20 / spec.power,
    }[log]


def spoiled(mel: Tensor, spec: MelSpec) -> dict[str, tuple[Tensor, str]]:
    """A mel, spoiled in every way that must be noticed, with what the message says."""
    unit = (mel - mel.min()) / (mel.max() - mel.min())
    found = {
        "per band": ((mel - mel.mean(-1, keepdim=True)) / mel.std(-1, keepdim=True), "normalised"),
        "whole": ((mel - mel.mean()) / mel.std(), "normalised"),
        "[0, 1]": (unit, r"scaled to \[0, 1\]"),
        "[-1, 1]": (2 * unit - 1, r"scaled to \[-1, 1\]"),
        "[-4, 4]": (8 * unit - 4, r"scaled"),
    }
    logs = {
        "ln": "an ln mel",
        "log10": "a log10 mel",
        "log1p": "(a log1p|a linear) mel",
        "db": "a dB mel",
        "linear": "linear",
    }
    return found | {log: (logged(mel, spec, log), name) for log, name in logs.items() if log != spec.log}


def said(mel: Tensor, spec: MelSpec) -> str:
    try:
        return str(judge(mel, spec) or "")
    except SpecError as error:
        return str(error)


@pytest.mark.parametrize("name", sorted({MelSpec.preset(name): name for name in PRESETS}.values()))
def test_every_spoiled_mel_is_noticed_and_its_cause_named(name: str) -> None:
    spec = MelSpec.preset(name)
    mel = MelSpectrogram(spec)(melody(spec.sample_rate))
    silent(mel, spec)
    if spec.log == "log1p":
        pytest.skip("has a test of its own")
    for kind, (bad, cause) in spoiled(mel, spec).items():
        message = said(bad, spec)
        assert re.search(f"looks like .*{cause}", message), f"{kind}: {message!r}"
        if kind in ("linear", "[0, 1]"):
            assert not re.search("looks like a log1p", message), f"{kind}: {message!r}"


def test_what_is_no_log1p_mel_is_noticed() -> None:
    spec = MelSpec.preset("distill_v1_48khz_128band")
    natural = MelSpec(**(spec.to_dict() | {"log": "ln", "log_floor": 1e-10}))
    mel = MelSpectrogram(natural)(melody(48000))
    for kind, (bad, _) in spoiled(mel, natural).items():
        if kind != "log1p":
            assert said(bad, spec), kind
    silent(logged(mel, natural, "log1p"), spec)


def test_a_warning_says_value_rule_cause_and_way_out() -> None:
    mel = MelSpectrogram(SPEC)(melody(22050)) / math.log(10)
    with pytest.warns(UserWarning, match=r"log='ln'.*looks like a log10 mel.*convert_mel.*pass spec=") as caught:
        assert check_mel(mel, SPEC).shape == mel.shape
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_mel(mel, SPEC, known=True)


def test_a_heap_at_another_floor_is_noticed() -> None:
    """Silence at the floor of another spec, with ordinary values elsewhere; at the spec's own floor it is silence."""
    mel = -6 + 2 * torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    for heap, noticed in ((math.log(1e-5), False), (-10.5, True), (-11.4, False)):
        mel[..., :40] = heap
        verdict = improbable(mel, SPEC)
        assert bool(verdict) == noticed
        if verdict:
            assert "20 % of its values are exactly -10.5, but silence is -11.51" in verdict.sign


@pytest.mark.parametrize("frames", [1, 5, 7])
def test_few_values_are_not_judged(frames: int) -> None:
    mel = torch.rand(1, 80, frames)
    silent(mel, SPEC)
    silent(torch.rand(1, 80, 7), SPEC)


@pytest.mark.parametrize("value", [-11.5, -5.0, -3.0])
def test_a_constant_says_nothing_but_how_loud_it_is(value: float) -> None:
    silent(torch.full((1, 80, 100), value), SPEC)
    with pytest.warns(UserWarning, match="as loud as white noise of"):
        check_mel(torch.full((1, 80, 100), 0.5), SPEC)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_judgement_does_not_depend_on_the_type(dtype: torch.dtype) -> None:
    mel = MelSpectrogram(SPEC)(melody(22050))
    assert improbable(mel.to(dtype), SPEC) is None
    assert improbable((mel / math.log(10)).to(dtype), SPEC) is not None


def test_a_judgement_leaves_the_hosts_random_numbers_alone() -> None:
    spec = spec_of(n_mels=77)  # not seen before
    state = torch.get_rng_state()
    improbable(torch.randn(1, 77, 50, generator=torch.Generator().manual_seed(1)) - 5, spec)
    assert torch.equal(state, torch.get_rng_state())


SPECS = st.builds(
    lambda rate, n_fft, n_mels, norm, log_power: spec_of(
        **{"sample_rate": rate, "n_fft": n_fft, "win_length": n_fft, "hop_length": n_fft // 4, "f_max": None},
        **{"n_mels": n_mels, "norm": norm},
        **log_power,
    ),
    rate=st.sampled_from([16000, 22050, 24000, 32000, 44100, 48000]),
    n_fft=st.sampled_from([1024, 2048]),
    n_mels=st.sampled_from([40, 64, 80]),
    norm=st.sampled_from(["slaney", None]),
    log_power=st.sampled_from([*LOGS, {"log": "log1p", "power": 2}]),
)


@settings(max_examples=60, deadline=None)
@given(
    spec=SPECS, level=st.floats(-120, 0), sound=st.sampled_from(["noise", "sine", "click", "pink"]), seed=st.integers(0)
)
def test_plain_sounds_of_any_level_are_never_suspected(spec: MelSpec, level: float, sound: str, seed: int) -> None:
    """White and pink noise, sines and clicks from -120 dBFS to full scale, under any spec: physics, not a mistake."""
    generator, count = torch.Generator().manual_seed(seed % 2**63), spec.sample_rate
    noise = torch.rand(count, generator=generator) * 2 - 1
    pink = torch.fft.irfft(torch.fft.rfft(noise) / torch.arange(count // 2 + 1).clamp(min=1).sqrt(), n=count)
    frequency = 20.0 + 0.45 * spec.sample_rate * float(torch.rand((), generator=generator))
    wave = {
        "noise": noise,
        "pink": pink / pink.abs().max(),
        "sine": (2 * math.pi * frequency * torch.arange(count) / spec.sample_rate).sin(),
        "click": torch.zeros(count).index_fill(0, torch.randint(count, (1,), generator=generator), 1.0),
    }[sound]
    assert improbable(MelSpectrogram(spec)(wave * 10 ** (level / 20)), spec) is None


@pytest.mark.parametrize("log", LOGS, ids=lambda log: "-".join(map(str, log.values())))
@pytest.mark.parametrize("f_max", [2000.0, 4000.0, 8000.0])
def test_a_sound_that_lies_in_a_bank_far_below_nyquist_is_not_suspected(f_max: float, log: dict[str, Any]) -> None:
    """Its whole energy is in the bands: clipped noise below f_max is louder there than white noise of its RMS."""
    wide = {"sample_rate": 44100, "n_fft": 2048, "win_length": 2048, "hop_length": 512, "f_max": f_max}
    spec, count = spec_of(**wide, **log), 44100
    spectrum = torch.fft.rfft(torch.randn(count, generator=torch.Generator().manual_seed(0)))
    spectrum[round(f_max) :] = 0.0
    low = torch.fft.irfft(spectrum, n=count)
    square = 0.9 * (2 * math.pi * 110 * torch.arange(count) / 44100).sin().sign()
    for wave in ((8 * low / low.abs().max()).clamp(-1, 1), square):
        assert improbable(MelSpectrogram(spec)(wave), spec) is None
        with pytest.warns(UserWarning, match="ranges from"):
            beyond = MelSpectrogram(spec)(100 * wave / wave.abs().max())
        assert improbable(beyond, spec) is not None


@pytest.mark.parametrize("name", ["espnet_style_22khz_80band_log10", "speecht5_16khz_80band_log10"])
@pytest.mark.parametrize("decay", [3.0, 12.0, 40.0])
def test_a_tone_that_decays_to_nothing_is_not_suspected(name: str, decay: float) -> None:
    """It spans all that a log10 mel can: wider, and with steeper neighbours, than any recording."""
    spec = MelSpec.preset(name)
    for seconds in (1, 2, 4):
        time = torch.arange(seconds * spec.sample_rate) / spec.sample_rate
        for frequency in (110, 220, 440, 880):
            tone = sum((2 * math.pi * frequency * k * time).sin() / k for k in (1, 2, 3, 4)) * (-decay * time).exp()
            assert improbable(MelSpectrogram(spec)(0.95 * tone / tone.abs().max()), spec) is None


# --- on real sound


@pytest.fixture(scope="module")
def recordings(data_dir: Path) -> list[tuple[Tensor, int]]:
    """The first 4 s of every sixth recording: mono, peak 0.95, at least 1 s."""
    found = []
    for path in sorted(path for path in (data_dir / "audio").rglob("*") if path.suffix in (".wav", ".flac"))[::6]:
        wave, rate = melvoc.audio.read(path)
        mono = wave.mean(0)[: 4 * rate]
        if len(mono) >= rate:
            found.append((mono * (0.95 / mono.abs().max()), rate))
    return found


@pytest.mark.parametrize("name", sorted({MelSpec.preset(name): name for name in PRESETS}.values()))
def test_real_sound_is_not_suspected_and_spoiled_mels_of_it_are(
    name: str, recordings: list[tuple[Tensor, int]]
) -> None:
    spec = MelSpec.preset(name)
    noticed: dict[str, list[bool]] = {}
    for wave, rate in recordings:
        mel = MelSpectrogram(spec)(resample(wave[None], rate, spec.sample_rate).clamp(-1, 1))
        for part in (mel, *mel.split(90, dim=-1)):
            assert judge(part, spec) is None
        assert not any(streamed(mel, spec, size) for size in (1, 50))
        if spec.log != "log1p":
            for kind, (bad, _) in spoiled(mel, spec).items():
                noticed.setdefault(kind, []).append(bool(said(bad, spec)))
    for kind, results in noticed.items():
        least = 0.3 if (kind, spec.log) == ("ln", "log10") else 0.8
        assert sum(results) >= least * len(results), f"{kind}: {sum(results)} of {len(results)}"


# --- pieces of a stream


def streamed(mel: Tensor, spec: MelSpec, size: int) -> list[str]:
    """What a stream says about a mel in pieces of this many frames."""
    watch = Watch(spec)
    verdicts = [watch.push(piece) for piece in mel.split(size, dim=-1)] + [watch.flush()]
    return [str(verdict) for verdict in verdicts if verdict]


@pytest.mark.parametrize("size", [1, 7, 300, 10**6])
def test_a_stream_says_it_once_whatever_the_pieces(size: int) -> None:
    mel = MelSpectrogram(SPEC)(melody(22050)).repeat(1, 1, 3)
    assert streamed(mel, SPEC, size) == []
    for kind, (bad, cause) in spoiled(mel, SPEC).items():
        if kind != "db":  # out of range, which check_piece refuses
            verdicts = streamed(bad, SPEC, size)
            assert len(verdicts) == 1, kind
            assert re.search(cause, verdicts[0])


def test_a_stream_of_silence_is_judged_when_the_sound_begins() -> None:
    mel = MelSpectrogram(SPEC)(torch.cat([torch.zeros(22050 * 8), melody(22050)])) / math.log(10)
    assert len(streamed(mel, SPEC, 10)) == 1


def test_a_watch_holds_a_bounded_number_of_frames() -> None:
    watch, generator = Watch(SPEC), torch.Generator().manual_seed(0)
    for size in (1, 1000, 3, 0, 256, 255, 5000):
        watch.push(torch.randn(20, 80, size, generator=generator) * 2 - 5)
        assert sum(piece.shape[-1] for piece in watch._pieces) < 256
        assert all(piece.shape[0] <= 8 for piece in watch._pieces)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    mean=st.sampled_from([-4.0, -5.0]),
    name=st.sampled_from(NATURAL),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=8),
)
def test_random_normal_mels_pass_in_streams(seed: int, mean: float, name: str, sizes: list[int]) -> None:
    spec, generator, watch = MelSpec.preset(name), torch.Generator().manual_seed(seed), Watch(MelSpec.preset(name))
    for size in sizes:
        assert watch.push(mean + 2 * torch.randn(2, spec.n_mels, size, generator=generator)) is None
    assert watch.flush() is None


def test_a_vocoders_stream_warns_once_at_the_callers_line() -> None:
    voc = VOCODERS["vocos_tiny"]
    mel = MelSpectrogram(voc.spec)(melody(voc.spec.sample_rate)) / math.log(10)
    stream = voc.stream()
    with pytest.warns(UserWarning, match="looks like a log10 mel") as caught:
        _ = [stream.push(piece) for piece in mel.split(9, dim=-1)], stream.flush()
    assert [warning.filename for warning in caught] == [__file__]


def test_a_piece_has_two_nepers_more_on_both_sides() -> None:
    least, most = levels(SPEC)
    for value in (least - 1.9, most + 1.9):
        check_piece(mel_with(value, SPEC), SPEC)
    for value in (least - 2.1, most + 2.1):
        with pytest.raises(SpecError, match="this mel goes"):
            check_piece(mel_with(value, SPEC), SPEC)
    check_piece(torch.zeros(1, 80, 0), SPEC)


# --- shapes


@pytest.mark.parametrize(
    ("shape", "batch"), [((80, 9), (1, 80, 9)), ((2, 80, 9), (2, 80, 9)), ((2, 1, 80, 9), (2, 80, 9))]
)
def test_shapes(shape: tuple[int, ...], batch: tuple[int, ...]) -> None:
    assert check_mel(torch.full(shape, -5.0), SPEC).shape == batch
    assert batch_mel(torch.full(shape, -5.0), SPEC).shape == batch


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        ([[0.0] * 9] * 80, "is a list, but it is a torch.Tensor or a NumPy array; torch.as_tensor makes one"),
        (np.zeros((80, 9), dtype=np.int16), r"is torch.int16.*pass mel.float\(\)"),
        (torch.zeros(80, 9, dtype=torch.int64), r"is torch.int64.*pass mel.float\(\)"),
        (torch.zeros(80), r"is \[80\], but it is \[n_mels, T\]"),
        (torch.zeros(2, 2, 80, 9), r"is \[2, 2, 80, 9\].*reshape"),
        (torch.zeros(9, 80), r"is \[9, 80\].*looks transposed"),
        (torch.zeros(2, 100, 9), "100 bands, but this spec has n_mels=80; check its spec"),
        (torch.zeros(80, 0), "without any frames"),
        (torch.zeros(2, 80, 0), "without any frames"),
    ],
)
def test_what_is_no_mel(mel: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_mel(mel, SPEC)


def test_an_array_is_a_mel() -> None:
    array = np.full((80, 9), -5.0, dtype=">f4")[:, ::-1]
    assert torch.equal(check_mel(array, SPEC), torch.full((1, 80, 9), -5.0))


def test_a_piece_may_be_empty() -> None:
    assert batch_mel(torch.zeros(80, 0), SPEC, empty=True).shape == (1, 80, 0)
    assert check_mel(torch.zeros(0, 80, 5), SPEC).shape == (0, 80, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_checked_alike(dtype: torch.dtype) -> None:
    assert silent(torch.full((80, 9), -5.0, dtype=dtype), SPEC).dtype == dtype
    with pytest.raises(SpecError, match="looks like a dB mel"):
        check_mel(torch.full((80, 9), -60.0, dtype=dtype), SPEC)
