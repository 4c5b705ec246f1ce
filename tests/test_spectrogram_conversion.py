"""Mels to other conventions: exact where arithmetic can be, near where it cannot, refused where frames differ."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, SpecError, convert_mel
from melvoc.spectrogram.conversion import FilterBank, filter_bank, from_nepers, to_nepers
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.transform import mel_filters

BASE: dict[str, Any] = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80, "magnitude_eps": 0}
LOGS = ["ln", "log10", "log1p", "db"]


def spec_of(**changes: Any) -> MelSpec:
    return MelSpec(**(BASE | changes))


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """The golden sound at 22.05 kHz: what tests have without ../shared."""
    return load_file(Path(__file__).parent / "golden" / "mel.safetensors")["bigvgan_v2_22khz_80band_256x.audio"]


def nepers_apart(a: Tensor, b: Tensor, spec: MelSpec) -> Tensor:
    """The distance of two mels of a spec, of amplitude."""
    return (to_nepers(a.double(), spec) - to_nepers(b.double(), spec)).abs() / spec.power


# --- exact


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("log", "other"), list(itertools.permutations(LOGS, 2)))
def test_another_log_is_exact_above_both_floors(log: Any, other: Any, power: int, speech: Tensor) -> None:
    source, target = spec_of(log=log, power=power), spec_of(log=other, power=power)
    expected = MelSpectrogram(target)(speech.double())
    converted = convert_mel(MelSpectrogram(source)(speech.double()), source=source, target=target)
    floors = [spec.log_floor for spec in (source, target)]
    nepers = to_nepers(
        MelSpectrogram(spec_of(log="db", power=power, log_floor=1e-30))(speech.double()), spec_of(log="db", power=power)
    )
    heard = nepers.exp() > 1.001 * max(floors)
    assert heard.float().mean() > 0.3
    torch.testing.assert_close(converted[heard], expected[heard], atol=1e-6, rtol=1e-9)
    assert torch.isfinite(converted).all()


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(LOGS),
    st.sampled_from(LOGS),
    st.sampled_from([1, 2]),
    st.floats(1e-12, 1e-3),
    st.floats(1e-12, 1e-3),
    st.integers(0, 2**31),
)
def test_another_log_and_floor_come_back(
    log: Any, other: Any, power: int, floor: float, other_floor: float, seed: int
) -> None:
    """There and back again is what the higher floor leaves; a linear mel, taken through both logs, says which."""
    source = spec_of(log=log, power=power, log_floor=None if log == "log1p" else floor)
    target = spec_of(log=other, power=power, log_floor=None if other == "log1p" else other_floor)
    linear = (
        torch.empty(80, 7, dtype=torch.float64).uniform_(-25, 5, generator=torch.Generator().manual_seed(seed)).exp()
    )
    mel = from_nepers(linear.log(), source)
    converted = convert_mel(mel, source=source, target=target)
    assert converted.shape == (1, 80, 7)
    expected = from_nepers(linear.clamp(min=source.log_floor).log(), target)
    torch.testing.assert_close(converted[0], expected, atol=1e-6, rtol=1e-6)
    back = convert_mel(converted, source=target, target=source)
    kept = from_nepers(linear.clamp(min=max(source.log_floor, target.log_floor)).log(), source)
    torch.testing.assert_close(back[0], kept, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_spec_changes_no_bit(name: str) -> None:
    spec = MelSpec.preset(name)
    mel = torch.randn(2, spec.n_mels, 5)
    assert torch.equal(convert_mel(mel, source=spec, target=MelSpec.from_dict(spec.to_dict())), mel)


def test_the_floor_rises_and_never_falls() -> None:
    high, low = spec_of(log_floor=1e-3), spec_of(log_floor=1e-7)
    mel = torch.full((80, 4), -9.0)
    assert convert_mel(mel, source=low, target=high).unique().item() == pytest.approx(-6.9078, abs=1e-4)
    assert convert_mel(mel, source=high, target=low).unique().item() == -9.0  # left as the decoder said it


def test_magnitude_eps_is_left_as_it_is() -> None:
    mel = torch.randn(80, 4)
    target = spec_of(magnitude_eps=1e-9)
    assert torch.equal(convert_mel(mel, source=spec_of(), target=target)[0], mel)


# --- estimated


@pytest.mark.parametrize(
    ("source", "target", "mean", "most"),
    [
        ({}, {"norm": None}, 0.002, 0.1),
        ({"norm": None}, {}, 0.002, 0.1),
        ({}, {"mel_scale": "htk"}, 0.08, 3.0),
        ({}, {"n_mels": 64}, 0.05, 1.0),
        ({}, {"n_mels": 60, "f_max": 8000}, 0.08, 3.0),
        ({}, {"power": 2, "log_floor": 1e-10}, 0.12, 2.5),
        ({"power": 2, "log_floor": 1e-10}, {}, 0.12, 2.5),
        ({"power": 2, "log": "db"}, {"log": "log10", "log_floor": 1e-8}, 0.12, 2.5),
        ({}, {"n_fft": 2048, "win_length": 1024, "n_mels": 80}, 0.15, 3.0),
        ({}, {"win_length": 800}, 0.15, 4.0),
    ],
    ids=str,
)
def test_estimates_are_near(
    source: dict[str, Any], target: dict[str, Any], mean: float, most: float, speech: Tensor
) -> None:
    """Nepers of amplitude, above the source's floor; docs/melspec.md has the figures of real audio."""
    a, b = spec_of(**source, center=True), spec_of(**target, center=True)
    loud = speech + 0.02 * torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    expected = MelSpectrogram(b)(loud)
    converted = convert_mel(MelSpectrogram(a)(loud), source=a, target=b)
    assert converted.shape == expected.shape
    distance = nepers_apart(converted, expected, b)
    assert distance.mean() < mean
    assert distance.max() < most


def test_noise_keeps_its_level_under_another_window_and_fft() -> None:
    wave = 0.2 * torch.randn(60000, generator=torch.Generator().manual_seed(0))
    a, b = spec_of(center=True), spec_of(center=True, n_fft=2048, win_length=1536)
    converted = convert_mel(MelSpectrogram(a)(wave), source=a, target=b)
    assert (converted.mean(-1) - MelSpectrogram(b)(wave).mean(-1)).abs().mean() < 0.1


def test_what_the_source_does_not_hold_is_silence() -> None:
    """Above its f_max, and where it is at its floor."""
    a, b = spec_of(f_max=4000), spec_of()
    converted = convert_mel(torch.zeros(80, 5), source=a, target=b)
    edges = torch.tensor(b.band_edges())
    torch.testing.assert_close(
        converted[0, edges[:-2] > 4100], torch.full((int((edges[:-2] > 4100).sum()), 5), -11.5129)
    )
    assert (converted[0, edges[2:] < 3900] > -3).all()
    silence = convert_mel(
        torch.full((80, 5), -11.5129), source=spec_of(), target=spec_of(mel_scale="htk", log_floor=1e-8)
    )
    torch.testing.assert_close(silence, torch.full_like(silence, -18.4207))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_spectra_gives_finite_mels_of_the_targets_shape(data: st.DataObject) -> None:
    def draw_spec() -> MelSpec:
        n_fft = data.draw(st.integers(32, 128))
        win_length = data.draw(st.integers(16, n_fft))
        try:
            return MelSpec(
                sample_rate=8000,
                n_fft=n_fft,
                hop_length=16,
                win_length=win_length,
                n_mels=data.draw(st.integers(1, 8)),
                f_min=data.draw(st.sampled_from([0, 100.0])),
                f_max=data.draw(st.sampled_from([None, 3000.0])),
                mel_scale=data.draw(st.sampled_from(["slaney", "htk"])),
                norm=data.draw(st.sampled_from(["slaney", None])),
                power=data.draw(st.sampled_from([1, 2])),
                log=data.draw(st.sampled_from(["ln", "log10", "log1p", "db"])),
                center=True,
            )
        except SpecError:
            assume(False)
            raise

    source, target = draw_spec(), draw_spec()
    scale = data.draw(st.sampled_from([0.0, 1.0, 30.0, 1000.0]))
    mel = scale * torch.randn(2, source.n_mels, 3, generator=torch.Generator().manual_seed(0))
    converted = convert_mel(mel, source=source, target=target)
    assert converted.shape == (2, target.n_mels, 3)
    if scale < 1000 or source.log != "log1p":
        assert not converted.isnan().any()
    if scale <= 30:
        assert torch.isfinite(converted).all()


def test_louder_stays_louder_by_as_much() -> None:
    """The estimate scales with the sound: nothing in it is tied to a level."""
    a, b = spec_of(log_floor=1e-30), spec_of(mel_scale="htk", norm=None, log_floor=1e-30)
    mel = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    difference = convert_mel(mel + 7, source=a, target=b) - convert_mel(mel, source=a, target=b)
    torch.testing.assert_close(difference, torch.full_like(difference, 7.0), atol=1e-3, rtol=0)


def test_rows_and_frames_do_not_mix() -> None:
    a, b = spec_of(), spec_of(mel_scale="htk")
    mel = torch.randn(2, 80, 5, generator=torch.Generator().manual_seed(0))
    together = convert_mel(mel, source=a, target=b)
    for row, frame in itertools.product(range(2), range(5)):
        alone = convert_mel(mel[row, :, frame : frame + 1], source=a, target=b)
        torch.testing.assert_close(alone[0, :, 0], together[row, :, frame], atol=1e-4, rtol=0)


# --- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop_length": 200}, "hop_length: 256 and 200"),
        ({"sample_rate": 24000}, "sample_rate: 22050 and 24000"),
        ({"center": True}, "center: False and True"),
        ({"pad_mode": "constant"}, "pad_mode: 'reflect' and 'constant'"),
        ({"hop_length": 200, "center": True}, "hop_length: 256 and 200; center: False and True"),
    ],
)
def test_frames_in_different_places_are_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"different places \\({message}\\).*compute the mel again from the audio"):
        convert_mel(torch.zeros(80, 4), source=spec_of(), target=spec_of(**changes, log="log10"))


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (torch.zeros(64, 4), "64 bands, but this spec has n_mels=80"),
        (torch.zeros(80, 0), "without any frames"),
        (torch.full((80, 4), float("nan")), "NaN or Inf"),
        (torch.zeros(80, 4, dtype=torch.int32), "torch.int32"),
    ],
)
def test_a_mel_must_be_the_sources(mel: Tensor, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        convert_mel(mel, source=spec_of(), target=spec_of(log="db"))


@pytest.mark.parametrize("name", ["source", "target"])
def test_specs_are_specs(name: str) -> None:
    specs: dict[str, Any] = {"source": spec_of(), "target": spec_of()} | {name: "griffinlim"}
    way_out = r"melvoc.MelSpec.preset\('griffinlim'\) makes it"
    with pytest.raises(SpecError, match=rf"{name}='griffinlim' is a str, but it is a melvoc.MelSpec; {way_out}"):
        convert_mel(torch.zeros(80, 4), **specs)


@pytest.mark.parametrize("shape", [(80, 4), (2, 80, 4), (2, 1, 80, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shapes_and_types(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for changes in ({"log": "log10"}, {"mel_scale": "htk"}):
        converted = convert_mel(torch.zeros(shape, dtype=dtype), source=spec_of(), target=spec_of(**changes))
        assert converted.shape == (shape[0] if len(shape) > 2 else 1, 80, 4)
        assert converted.dtype == dtype
        if dtype != torch.bfloat16:  # which NumPy does not have
            array = torch.zeros(shape, dtype=dtype).numpy()
            assert torch.equal(convert_mel(array, source=spec_of(), target=spec_of(**changes)), converted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_floor_of_a_half_precision_mel_is_silence(dtype: torch.dtype) -> None:
    """However it was rounded: in bfloat16 ln(1e-5) is -11.5, above itself."""
    source, target = spec_of(), spec_of(mel_scale="htk", log_floor=1e-8)
    silent = torch.full((80, 4), math.log(1e-5))
    converted = convert_mel(silent.to(dtype), source=source, target=target)
    assert torch.equal(converted, convert_mel(silent, source=source, target=target).to(dtype))
    assert float(converted.max()) < -18, "as silent as the target can be"


def test_it_is_public() -> None:
    assert melvoc.convert_mel is convert_mel


# --- what it is made of


@pytest.mark.parametrize("name", ["griffinlim", "distill_v1_48khz_128band", "espnet_style_22khz_80band_log10"])
def test_the_filter_bank_in_groups_is_the_filter_bank(name: str) -> None:
    spec = MelSpec.preset(name)
    bank, filters = FilterBank(spec, torch.device("cpu"), torch.float64), mel_filters(spec).double()
    spectra = torch.rand(7, spec.n_bins, dtype=torch.float64)
    torch.testing.assert_close(bank.apply(spectra), spectra @ filters.T)
    bands = torch.rand(7, spec.n_mels, dtype=torch.float64)
    weights = filters / filters.sum(0).clamp(min=1e-30)
    torch.testing.assert_close(bank.spread(bands, outside=0.0), bands @ weights)


@pytest.mark.parametrize("name", PRESETS)
def test_the_inversion_has_the_mel_and_is_not_negative(name: str) -> None:
    spec = MelSpec.preset(name)
    generator = torch.Generator().manual_seed(0)
    mel = torch.rand(20, spec.n_bins, generator=generator).square() @ mel_filters(spec).T  # of a spectrum that exists
    spectra = filter_bank(spec, torch.device("cpu"), torch.float32).invert(mel, steps=60)
    assert (spectra >= 0).all()
    assert torch.isfinite(spectra).all()
    apart = ((spectra @ mel_filters(spec).T) / mel).log().abs()
    assert apart.mean() < 2e-3
    assert apart.max() < 0.2  # where a band has one bin or two, all of them shared


def test_an_impossible_mel_has_a_nearest_spectrum() -> None:
    """One band alone, which no spectrum has: finite, and no louder than it."""
    spec = spec_of()
    mel = torch.zeros(1, 80)
    mel[0, 40] = 1.0
    spectra = filter_bank(spec, torch.device("cpu"), torch.float32).invert(mel, steps=60)
    assert torch.isfinite(spectra).all()
    found = spectra @ mel_filters(spec).T
    assert int(found.argmax()) == 40
    assert found.max() <= 1.0 + 1e-5


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LOGS), st.sampled_from([1, 2]), st.floats(-80, 80))
def test_nepers_and_back(log: Any, power: int, nepers: float) -> None:
    spec = spec_of(log=log, power=power, log_floor=None if log == "log1p" else 1e-37)
    value = torch.tensor(nepers, dtype=torch.float64)
    back = to_nepers(from_nepers(value, spec), spec)
    assert float(back) == pytest.approx(nepers, abs=1e-6, rel=1e-9)


def test_negative_log1p_is_silence() -> None:
    nepers = to_nepers(torch.tensor([0.0, -3.0, 1e-30]), spec_of(log="log1p"))
    assert torch.isfinite(nepers).all()
    assert (nepers < -60).all()
