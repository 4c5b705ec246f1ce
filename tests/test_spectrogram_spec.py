"""MelSpec refuses what no mel can be, and two specs that mean the same are equal."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import melvoc
from melvoc import MelSpec, SpecError
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.transform import mel_filters

BASE: dict[str, Any] = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80}
FIELDS = [
    *("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "f_min", "f_max", "mel_scale", "norm"),
    *("power", "log", "log_floor", "magnitude_eps", "center", "pad_mode"),
]


def spec_of(**changes: Any) -> MelSpec:
    return MelSpec(**(BASE | changes))


@st.composite
def specs(draw: st.DrawFn) -> MelSpec:
    """Any valid spec, every field drawn."""
    n_fft = draw(st.integers(2, 4096))
    win_length = draw(st.integers(1, n_fft))
    sample_rate = draw(st.integers(1, 400_000))
    f_min = draw(st.floats(0, sample_rate / 2, exclude_max=True))
    log = draw(st.sampled_from(["ln", "log10", "log1p", "db"]))
    fields: dict[str, Any] = {
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "hop_length": draw(st.integers(1, win_length)),
        "win_length": win_length,
        "n_mels": draw(st.integers(1, 128)),
        "f_min": f_min,
        "f_max": draw(st.none() | st.floats(f_min, sample_rate / 2, exclude_min=True)),
        "mel_scale": draw(st.sampled_from(["slaney", "htk"])),
        "norm": draw(st.sampled_from(["slaney", None])),
        "power": draw(st.sampled_from([1, 1.0, 2, 2.0])),
        "log": log,
        "log_floor": None if log == "log1p" else draw(st.none() | st.floats(1e-12, 1e-2)),
        "magnitude_eps": draw(st.sampled_from([0, 1e-9, 1e-6])),
        "center": draw(st.booleans()),
        "pad_mode": draw(st.sampled_from(["reflect", "constant"])),
    }
    with contextlib.suppress(SpecError):  # an empty band, the one rule that cannot be drawn for
        return MelSpec(**fields)
    assume(False)
    raise AssertionError


def test_the_fields_and_their_defaults_are_the_contract() -> None:
    spec = spec_of()
    assert list(spec.to_dict()) == FIELDS
    assert spec.to_dict() == BASE | {
        "win_length": 1024,
        "f_min": 0.0,
        "f_max": 11025.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "power": 1.0,
        "log": "ln",
        "log_floor": 1e-5,
        "magnitude_eps": 1e-9,
        "center": False,
        "pad_mode": "reflect",
    }


def test_it_takes_keywords_only_and_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="positional"):
        MelSpec(22050, 1024, 256, 80)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec_of().n_fft = 2048  # type: ignore[misc]


@pytest.mark.parametrize("field", ["sample_rate", "n_fft", "hop_length", "win_length", "n_mels"])
@pytest.mark.parametrize("value", [True, False, 512.0, np.float64(512), "512", b"512", [512], torch.tensor(512)])
def test_an_integer_is_never_a_bool_or_a_float(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"^{field}=.*whole number; pass an int"):
        spec_of(**{field: value})


@pytest.mark.parametrize("field", ["sample_rate", "n_fft", "hop_length", "n_mels"])
def test_a_required_integer_is_never_none(field: str) -> None:
    with pytest.raises(SpecError, match=f"^{field}=None is a NoneType"):
        spec_of(**{field: None})


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.uint16, np.uint64])
def test_numpy_integers_are_integers_and_become_pythons(kind: type) -> None:
    spec = MelSpec(**{name: kind(value) for name, value in BASE.items()}, f_max=kind(8000), power=kind(2))
    assert spec == spec_of(f_max=8000, power=2)
    assert {type(value) for value in spec.to_dict().values()} <= {int, float, bool, str}
    json.dumps(spec.to_dict())


@pytest.mark.parametrize("field", ["f_min", "f_max", "power", "log_floor", "magnitude_eps"])
@pytest.mark.parametrize("value", [True, np.True_, "1", (1.0,), 1j, torch.tensor(1.0)])
def test_a_number_is_an_int_or_a_float(field: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"^{field}=.*is a number; pass an int or a float"):
        spec_of(**{field: value})


@pytest.mark.parametrize("field", ["f_min", "f_max", "power", "log_floor", "magnitude_eps"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e-9, -1, 10**400])
def test_a_number_is_finite_and_not_negative(field: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"^{field}=.*finite number from 0 up"):
        spec_of(**{field: value})


@pytest.mark.parametrize("field", ["f_min", "power", "magnitude_eps"])
def test_only_f_max_win_length_and_log_floor_have_a_none_to_resolve(field: str) -> None:
    with pytest.raises(SpecError, match=f"^{field}=None"):
        spec_of(**{field: None})
    assert spec_of(f_max=None, win_length=None, log_floor=None) == spec_of()


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("mel_scale", "HTK", "'slaney', 'htk'"),
        ("mel_scale", "slany", "did you mean 'slaney'"),
        ("mel_scale", None, "'slaney', 'htk'"),
        ("norm", "area", "'slaney', None"),
        ("norm", 1, "'slaney', None"),
        ("norm", False, "'slaney', None"),
        ("power", 3, "1.0, 2.0"),
        ("power", 1.5, "1.0, 2.0"),
        ("power", 0, "1.0, 2.0"),
        ("log", "log", "did you mean"),
        ("log", "dB", "'db'"),
        ("log", ["ln"], "'ln'"),
        ("log", None, "'ln'"),
        ("pad_mode", "zeros", "'constant'"),
        ("pad_mode", "edge", "'reflect'"),
        ("center", 1, "True or False"),
        ("center", None, "True or False"),
        ("center", "no", "True or False"),
    ],
)
def test_a_choice_is_one_of_its_values(field: str, value: object, hint: str) -> None:
    with pytest.raises(SpecError, match=f"^{field}=.*{re.escape(hint)}"):
        spec_of(**{field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0.*from 1"),
        ({"sample_rate": -22050}, "sample_rate=-22050.*from 1"),
        ({"n_fft": 1}, "n_fft=1.*from 2"),
        ({"hop_length": 0}, "hop_length=0.*from 1"),
        ({"win_length": 0}, "win_length=0.*from 1"),
        ({"n_mels": 0}, "n_mels=0.*from 1"),
        ({"n_mels": 2**31}, "n_mels=2147483648"),
        ({"n_fft": 2**25}, "n_fft=33554432.*262144"),
        ({"win_length": 1025}, "win_length=1025 is longer than n_fft=1024"),
        ({"hop_length": 1025}, "hop_length=1025 is longer than win_length=1024"),
        ({"win_length": 200}, "hop_length=256 is longer than win_length=200"),
        ({"f_max": 11025.5}, "f_max=11025.5.*<= 11025"),
        ({"f_max": 22050}, "f_max=22050.*half of sample_rate=22050"),
        ({"f_min": 8000, "f_max": 8000}, "f_min < f_max"),
        ({"f_min": 9000, "f_max": 8000}, "f_min < f_max"),
        ({"f_min": 11025}, "f_min < f_max"),
        ({"f_max": 0}, "f_min < f_max"),
        ({"log_floor": 0}, "log_floor=0, but log='ln' needs a floor above 0"),
        ({"log": "log10", "log_floor": 0.0}, "log='log10' needs a floor above 0.*None means 1e-05"),
        ({"log": "db", "log_floor": 0.0}, "log='db' needs a floor above 0.*None means 1e-10"),
        ({"log_floor": 1e-40}, "that float32 can hold"),
        ({"log": "log1p", "log_floor": 1e-5}, "log1p has no floor; pass 0 or None"),
        ({"magnitude_eps": 1e-42}, "magnitude_eps=1e-42"),
        ({"magnitude_eps": 2}, "magnitude_eps=2"),
    ],
)
def test_ranges_and_relations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_mels": 320},
        {"n_mels": 10**9},  # and at once, without laying out so many bands
        {"n_fft": 256, "hop_length": 64},
        {"f_min": 5000, "f_max": 5010, "n_mels": 1},
        {"sample_rate": 192000, "n_mels": 256, "mel_scale": "htk"},
    ],
)
def test_no_band_may_be_empty(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="n_mels=.*(lower n_mels|raise n_fft)"):
        spec_of(**changes)


def test_a_spec_error_is_a_value_error_and_a_melvoc_error() -> None:
    with pytest.raises(ValueError, match="n_mels=0"):
        spec_of(n_mels=0)
    assert issubclass(SpecError, melvoc.MelvocError)


@settings(max_examples=150, deadline=None)
@given(specs())
def test_a_valid_spec_has_no_silent_band(spec: MelSpec) -> None:
    """The check in plain arithmetic and the filter bank agree."""
    assume(spec.n_mels * spec.n_bins < 2**18)
    filters = mel_filters(spec)
    assert filters.shape == (spec.n_mels, spec.n_bins)
    assert (filters.amax(1) > 0).all()
    assert (filters >= 0).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"f_max": None}, {"f_max": 11025}),
        ({"f_max": None}, {"f_max": 22050 / 2}),
        ({"win_length": None}, {"win_length": 1024}),
        ({"power": 1}, {"power": 1.0}),
        ({"f_min": 0}, {"f_min": -0.0}),
        ({"log_floor": None}, {"log_floor": 1e-5}),
        ({"log": "db", "log_floor": None}, {"log": "db", "log_floor": 1e-10}),
        ({"log": "log1p"}, {"log": "log1p", "log_floor": 0}),
    ],
)
def test_what_means_the_same_is_equal_and_has_one_hash(one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = spec_of(**one), spec_of(**other)
    assert a == b
    assert hash(a) == hash(b)
    assert a.diff(b) == {}
    assert repr(a) == repr(b)


def test_nothing_but_norm_is_none_afterwards() -> None:
    values = spec_of(norm=None).to_dict()
    assert [name for name, value in values.items() if value is None] == ["norm"]


@settings(max_examples=150, deadline=None)
@given(specs())
def test_round_trips(spec: MelSpec) -> None:
    through_json = MelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    for twin in (through_json, MelSpec(**spec.to_dict()), copy.deepcopy(spec), dataclasses.replace(spec)):
        assert twin == spec
        assert hash(twin) == hash(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec


@settings(max_examples=150, deadline=None)
@given(specs())
def test_its_repr_makes_it_again_and_nothing_replaced_is_itself(spec: MelSpec) -> None:
    assert eval(repr(spec)) == spec
    assert "\n" not in repr(spec)
    for twin in (spec, pickle.loads(pickle.dumps(spec)), MelSpec.from_dict(spec.to_dict())):
        assert twin.replace() == spec
        assert twin.replace(**spec.to_dict()) == spec


def test_its_repr_shows_what_is_no_default() -> None:
    assert repr(spec_of()) == "MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80)"
    assert repr(spec_of(f_max=11025, win_length=1024, log_floor=1e-5)) == repr(spec_of())
    assert repr(MelSpec.preset("vocos_mel_24khz")) == (
        "MelSpec(sample_rate=24000, n_fft=1024, hop_length=256, n_mels=100, mel_scale='htk', norm=None, "
        "log_floor=1e-07, magnitude_eps=0.0, center=True)"
    )


@pytest.mark.parametrize(
    ("given", "changes", "expected"),
    [
        ({}, {"sample_rate": 44100}, {"f_max": 22050.0, "sample_rate": 44100}),
        ({"f_max": 8000}, {"sample_rate": 44100}, {"f_max": 8000.0, "sample_rate": 44100}),
        ({"f_max": 8000}, {"f_max": None}, {"f_max": 11025.0}),
        ({}, {"n_fft": 2048}, {"n_fft": 2048, "win_length": 2048}),
        ({"win_length": 800}, {"n_fft": 2048}, {"n_fft": 2048, "win_length": 800}),
        ({}, {"log": "db"}, {"log": "db", "log_floor": 1e-10}),
        ({"log_floor": 1e-7}, {"log": "db"}, {"log": "db", "log_floor": 1e-7}),
        ({"log": "log1p"}, {"log": "ln"}, {"log": "ln", "log_floor": 1e-5}),
        ({"log_floor": 1e-7}, {"log": "log1p", "log_floor": None}, {"log": "log1p", "log_floor": 0.0}),
        ({"log": "db", "power": 2}, {"log": "log10"}, {"log": "log10", "log_floor": 1e-5}),
        ({"norm": None}, {"norm": "slaney"}, {"norm": "slaney"}),
    ],
)
def test_replace_resolves_defaults_anew(
    given: dict[str, Any], changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    spec = spec_of(**given)
    assert spec.replace(**changes).to_dict() == spec.to_dict() | expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fmax": 8000}, "'fmax' is not a field of MelSpec .did you mean 'f_max'"),
        ({"n_mels": None}, "n_mels=None"),
        ({"sample_rate": 16000, "f_max": 11025}, "f_max=11025, but 0 <= f_min < f_max <= 8000"),
        ({"log_floor": 1e-7, "log": "log1p"}, "log1p has no floor; pass 0 or None"),
    ],
)
def test_replace_is_as_strict(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of().replace(**changes)


@settings(max_examples=100, deadline=None)
@given(specs(), specs())
def test_diff_lists_what_differs_and_nothing_else(a: MelSpec, b: MelSpec) -> None:
    difference = a.diff(b)
    assert (a == b) == (not difference)
    assert b.diff(a) == {name: (theirs, mine) for name, (mine, theirs) in difference.items()}
    assert MelSpec.from_dict(a.to_dict() | {name: theirs for name, (_, theirs) in difference.items()}) == b
    assert list(difference) == [name for name in FIELDS if getattr(a, name) != getattr(b, name)]


def test_diff_shows_mine_and_the_other() -> None:
    assert spec_of().diff(spec_of(n_mels=64, norm=None)) == {"n_mels": (80, 64), "norm": ("slaney", None)}
    with pytest.raises(SpecError, match="it compares with a MelSpec"):
        spec_of().diff(spec_of().to_dict())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (BASE | {"n_mel": 80}, "'n_mel' is not a field of MelSpec.*did you mean 'n_mels'"),
        (BASE | {"fmax": None}, "did you mean 'f_max'"),
        (BASE | {3: 4}, "3 is not a field"),
        ({"sample_rate": 22050}, "no 'n_fft', 'hop_length', 'n_mels'"),
        ({}, "no 'sample_rate'"),
        ([("sample_rate", 22050)], "got a list.*json.loads"),
        ("{}", "got a str.*json.loads"),
        (BASE | {"n_fft": 1024.0}, "n_fft=1024.0 is a float"),
    ],
)
def test_from_dict_is_strict(values: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MelSpec.from_dict(values)


@pytest.mark.parametrize(
    "name",
    [
        "bigvgan_base_24khz_100band",
        "bigvgan_v2_22khz_80band_256x",
        "bigvgan_v2_24khz_100band_256x",
        "bigvgan_v2_44khz_128band_512x",
    ],
)
def test_from_config_reads_bigvgans_own(name: str, golden_dir: Path) -> None:
    config = json.loads((golden_dir / "hub_configs" / f"{name}.json").read_text(encoding="utf-8"))
    assert MelSpec.from_config(config) == MelSpec.preset(name)


@pytest.mark.parametrize("name", ["hifigan_ljspeech_v2", "hifigan_universal_v1"])
def test_from_config_reads_hifigans_own(name: str, data_dir: Path) -> None:
    config = json.loads((data_dir / "weights" / name / "config.json").read_bytes())
    assert MelSpec.from_config(config) == MelSpec.preset("hifigan_22khz_80band_256x")


CONFIG = (
    '{\r\n  "resblock": "1",\r\n  "num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": null,\r\n'
    '  "sampling_rate": 22050, "fmin": null, "fmax": null, "an_unknown_key": [1, 2], "fmax_for_loss": null\r\n}\r\n'
)


def test_from_config_takes_crlf_unknown_keys_and_null() -> None:
    assert MelSpec.from_config(json.loads(CONFIG)) == spec_of()


@pytest.mark.parametrize("key", ["sampling_rate", "n_fft", "hop_size", "win_size", "num_mels", "fmin", "fmax"])
def test_from_config_names_a_missing_key(key: str) -> None:
    config = json.loads(CONFIG)
    del config[key]
    with pytest.raises(SpecError, match=f"no '{key}'.*add what is missing"):
        MelSpec.from_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop_size": 256.0}, "hop_length=256.0 is a float.*hop_size is hop_length"),
        ({"num_mels": None}, "n_mels=None.*num_mels is n_mels"),
        ({"fmax": 12000}, "f_max=12000.*half of sample_rate=22050"),
        ({"sampling_rate": "22050"}, "sample_rate='22050' is a str"),
    ],
)
def test_from_config_is_as_strict_and_speaks_the_configs_language(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MelSpec.from_config(json.loads(CONFIG) | changes)


def test_from_config_wants_a_dict() -> None:
    with pytest.raises(SpecError, match="got a str, but it reads a dict; json.loads"):
        MelSpec.from_config(CONFIG)  # type: ignore[arg-type]


def test_presets_are_the_golden_conventions_and_every_registered_name(golden_dir: Path) -> None:
    golden: Mapping[str, Any] = json.loads((golden_dir / "mel.json").read_text(encoding="utf-8"))
    assert len(golden) == 10
    for name, entry in golden.items():
        assert MelSpec.preset(name) == MelSpec(**entry["spec"]), name
    assert set(melvoc.list_vocoders()) | set(golden) <= set(PRESETS)
    for name in melvoc.list_vocoders():
        spec = melvoc.info(name).spec
        assert spec in (None, MelSpec.preset(name)), name


def test_every_preset_is_valid() -> None:
    for name in PRESETS:
        assert MelSpec.from_dict(MelSpec.preset(name).to_dict()) == MelSpec.preset(name)


def test_an_unknown_preset_names_the_closest() -> None:
    with pytest.raises(SpecError, match="'bigvgan_v2_44khz_128band' is not a preset.*did you mean 'bigvgan_v2_44khz"):
        MelSpec.preset("bigvgan_v2_44khz_128band")


@settings(max_examples=100, deadline=None)
@given(specs(), st.integers(0, 10**7))
def test_frames_and_samples_are_the_contracts_formulas(spec: MelSpec, samples: int) -> None:
    pad = spec.n_fft // 2 if spec.center else (spec.n_fft - spec.hop_length) // 2
    assert spec.pad == pad
    assert spec.frames(samples) == max(0, 1 + (samples + 2 * pad - spec.n_fft) // spec.hop_length)
    assert spec.samples(samples // spec.hop_length) == samples // spec.hop_length * spec.hop_length
    if not spec.center and (spec.n_fft - spec.hop_length) % 2 == 0:
        assert spec.frames(spec.samples(samples)) == samples


@pytest.mark.parametrize("method", ["frames", "samples"])
@pytest.mark.parametrize("value", [-1, 1.0, True, "7", None])
def test_frames_and_samples_take_whole_numbers(method: str, value: object) -> None:
    with pytest.raises(SpecError, match="whole number"):
        getattr(spec_of(), method)(value)


def test_frames_and_samples_of_a_known_signal() -> None:
    assert spec_of().frames(22050) == 86
    assert spec_of(center=True).frames(22050) == 87
    assert spec_of().samples(86) == 22016
    assert spec_of().frames(0) == 0


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_band_edges_are_librosas(mel_scale: str) -> None:
    librosa = pytest.importorskip("librosa")
    spec = spec_of(f_min=40, f_max=8000, mel_scale=mel_scale)
    theirs = librosa.mel_frequencies(82, fmin=40, fmax=8000, htk=mel_scale == "htk")
    np.testing.assert_allclose(spec.band_edges(), theirs, rtol=1e-9)
    assert (spec.band_edges()[0], spec.band_edges()[-1]) == (40.0, 8000.0)
