"""What is refused, warned about and let through of a mel that comes without its spec."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.spectrogram.check import batch_mel, check_mel, check_piece
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.transform import mel_filters

GOLDEN = Path(__file__).parent / "golden"
SPEC = MelSpec.preset("bigvgan_v2_22khz_80band_256x")
NATURAL = [name for name in PRESETS if MelSpec.preset(name).log == "ln"]
LOGS: list[dict[str, Any]] = [
    {"log": log, "power": power} for log in ("ln", "log10", "db") for power in (1, 2)
]  # log1p has no floor, and a test of its own


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
    silent(mel_with(least + slack, spec), spec)
    silent(mel_with(most - slack, spec), spec)
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
        silent(torch.tensor([value, 1.0]).repeat(80, 5), spec)
    for value in (-4.1, most + 0.01):
        with pytest.raises(SpecError, match="this mel goes"):
            check_mel(torch.tensor([value, 1.0]).repeat(80, 5), spec)


@pytest.mark.parametrize("floor", [1e-7, 1e-5, 1e-3])
def test_the_floor_is_the_specs_own(floor: float) -> None:
    spec = spec_of(log_floor=floor)
    silent(mel_with(math.log(floor) - 3.9, spec), spec)
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
    mel = MelSpectrogram(spec)(wave)
    if mel.min() < 0 or spec.log == "log1p":
        silent(mel, spec)
    else:  # with filters of height 1, noise at full scale has no negative value: suspicious, but not refused
        with pytest.warns(UserWarning, match="looks like a log1p mel"):
            check_mel(mel, spec)


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
    silent(mel, SPEC)
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
    silent(mel, SPEC)
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
    with pytest.raises(SpecError, match="looks like a linear mel.*was not scaled"):
        check_mel(linear, SPEC)


def test_a_natural_log_mel_is_no_log1p_mel(audio: Tensor) -> None:
    with pytest.raises(SpecError, match="it looks like a mel in ln, log10 or dB"):
        check_mel(MelSpectrogram(SPEC)(audio * 0.01), spec_of(log="log1p"))


def test_a_log1p_mel_where_the_log_is_ln_or_log10_is_warned_about(audio: Tensor) -> None:
    mel = MelSpectrogram(spec_of(log="log1p"))(audio)
    for log in ("ln", "log10"):
        with pytest.warns(UserWarning, match="no negative value .*looks like a log1p mel.*pass spec=") as caught:
            assert check_mel(mel, spec_of(log=log)).shape == mel.shape
        assert len(caught) == 1
    silent(mel, spec_of(log="log1p"))
    silent(mel, spec_of(log="db"))  # where a loud mel has no negative value either


def test_a_mel_without_negatives_is_refused_if_its_median_is_impossible_too() -> None:
    mel = torch.rand(1, 80, 200, generator=torch.Generator().manual_seed(0)) + 3.0  # no noise is so loud in every band
    with pytest.raises(SpecError, match=r"no negative value and a median of 3\.5.*looks like a log1p mel"):
        check_mel(mel, SPEC)
    mel[0, :, :150] = 0.1
    with pytest.warns(UserWarning, match="looks like a log1p mel"):
        check_mel(mel, SPEC)


def test_one_negative_value_ends_the_suspicion() -> None:
    mel = torch.full((80, 20), 1.0)
    mel[0, 0] = -0.1
    silent(mel, SPEC)


def test_the_warning_names_the_callers_line() -> None:
    voc = melvoc.load("griffinlim", spec=SPEC, n_iter=1)
    with pytest.warns(UserWarning, match="log1p") as caught:
        voc.mel_to_waveform(torch.full((80, 9), 0.5))
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


def test_a_mel_whose_spec_is_named_may_have_any_range() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_mel(torch.full((80, 20), 90.0), SPEC, known=True)
        check_mel(torch.full((80, 20), 0.5), SPEC, known=True)
        check_mel(torch.full((80, 20), -90.0), SPEC, known=True)


def test_golden_mels_pass_their_own_spec_and_few_others() -> None:
    entries = json.loads((GOLDEN / "mel.json").read_text(encoding="utf-8"))
    mels = load_file(GOLDEN / "mel.safetensors")
    for name, entry in entries.items():
        silent(mels[f"{name}.mel"], MelSpec(**entry["spec"]))


# --- pieces of a stream


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
        (np.zeros((80, 9)), "is a ndarray.*torch.as_tensor"),
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


def test_a_piece_may_be_empty() -> None:
    assert batch_mel(torch.zeros(80, 0), SPEC, empty=True).shape == (1, 80, 0)
    assert check_mel(torch.zeros(0, 80, 5), SPEC).shape == (0, 80, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_checked_alike(dtype: torch.dtype) -> None:
    assert silent(torch.full((80, 9), -5.0, dtype=dtype), SPEC).dtype == dtype
    with pytest.raises(SpecError, match="looks like a dB mel"):
        check_mel(torch.full((80, 9), -60.0, dtype=dtype), SPEC)
