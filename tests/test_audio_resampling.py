"""The one resampler: its response, its agreement with torchaudio's formula, and pieces that join to the whole."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melvoc.audio import resampling
from melvoc.audio.resampling import BETA, ROLLOFF, ZERO_CROSSINGS, Resampler, resample, resampled_length
from melvoc.errors import SpecError

PAIRS = [(44100, 48000), (48000, 44100), (22050, 48000), (24000, 44100), (16000, 22050), (44100, 22050), (8000, 96000)]


def reference(wave: np.ndarray, orig: int, new: int) -> np.ndarray:
    """The Kaiser-windowed sinc, sample by sample in float64: output m is the signal's value at time m / new.

    `y[m] = sum_n x[n] h(m / new - n / orig)` with the lowpass `h(t) = c sinc(c t) kaiser(c t) / orig`, where `c` is the
    lower rate times the rolloff.
    """
    cutoff = min(orig, new) * ROLLOFF
    times = np.arange(math.ceil(len(wave) * new / orig))[:, None] / new - np.arange(len(wave))[None] / orig
    crossing = cutoff * times
    inside = np.abs(crossing) < ZERO_CROSSINGS
    window = scipy.special.i0(BETA * np.sqrt(np.where(inside, 1 - (crossing / ZERO_CROSSINGS) ** 2, 0)))
    kernel = np.where(inside, np.sinc(crossing) * window / scipy.special.i0(BETA), 0) * cutoff / orig
    return np.asarray(kernel @ wave)


def tone(frequency: float, rate: int, seconds: float = 0.5) -> Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(rate * seconds), dtype=torch.float64) / rate)


def level(wave: Tensor, frequency: float, rate: int) -> float:
    """Amplitude at a frequency in dB, by a Blackman-Harris-like window, away from the ends."""
    middle = wave[len(wave) // 5 : -len(wave) // 5].double()
    window = torch.kaiser_window(len(middle), periodic=True, beta=20.0, dtype=torch.float64)
    carrier = torch.exp(-2j * math.pi * frequency * torch.arange(len(middle), dtype=torch.float64) / rate)
    return 20 * math.log10(float(2 * (middle * window * carrier).sum().abs() / window.sum()) + 1e-20)


def random_wave(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype) / 4


@pytest.mark.parametrize(("orig", "new"), [(44100, 48000), (48000, 44100)])
@pytest.mark.parametrize("frequency", [20.0, 100.0, 1000.0, 10000.0, 15000.0, 18000.0, 19000.0, 20000.0])
def test_the_pass_band_is_flat_to_20_khz(orig: int, new: int, frequency: float) -> None:
    assert abs(level(resample(tone(frequency, orig), orig, new), frequency, new)) <= 0.1


@pytest.mark.parametrize("frequency", [1000.0, 10000.0, 19000.0, 20000.0])
def test_images_are_below_80_db(frequency: float) -> None:
    """From 44.1 to 48 kHz: the image of f lies at 44.1 kHz - f, and is heard up to 24 kHz."""
    up = resample(tone(frequency, 44100), 44100, 48000).float()
    image = 44100 - frequency
    at = image if image <= 24000 else 48000 - image
    assert level(up, at, 48000) < -80


@pytest.mark.parametrize("frequency", [22800.0, 23000.0, 23500.0, 23900.0])
def test_aliases_are_below_80_db(frequency: float) -> None:
    """From 48 to 44.1 kHz: what lies above 22.05 kHz folds down to 44.1 kHz - f."""
    assert level(resample(tone(frequency, 48000), 48000, 44100).float(), 44100 - frequency, 44100) < -80


@pytest.mark.parametrize(("orig", "new"), PAIRS)
def test_everything_but_the_tone_is_below_80_db(orig: int, new: int) -> None:
    """Whatever it is: the residue of a tone in the middle of the band, after the tone is taken out by least squares."""
    frequency = 0.2 * min(orig, new)
    wave = resample(tone(frequency, orig, 0.2), orig, new)
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    phase = 2 * math.pi * frequency * torch.arange(len(middle), dtype=torch.float64) / new
    basis = torch.stack([phase.cos(), phase.sin()], 1)
    residue = middle - basis @ torch.linalg.lstsq(basis, middle[:, None]).solution[:, 0]
    assert 20 * math.log10(float(residue.abs().max())) < -80


@pytest.mark.parametrize(("orig", "new"), PAIRS)
@pytest.mark.parametrize("samples", [1, 2, 7, 300, 1001])
def test_it_is_the_kaiser_sinc(orig: int, new: int, samples: int) -> None:
    wave = random_wave(samples)
    expected = torch.from_numpy(reference(wave.numpy(), orig, new))
    torch.testing.assert_close(resample(wave, orig, new), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(resample(wave.float(), orig, new), expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("orig", "new"), [(44056, 44100), (44100, 48001), (9973, 8000)])
def test_rates_without_a_divisor(orig: int, new: int) -> None:
    """Tens of thousands of phases, whose weights as one convolution would not fit in memory."""
    wave = random_wave(700)
    expected = torch.from_numpy(reference(wave.numpy(), orig, new))
    torch.testing.assert_close(resample(wave, orig, new), expected, atol=1e-9, rtol=0)
    machine = Resampler(orig, new)
    pieces = [machine(wave[None, None, :300], False), machine(wave[None, None, 300:], True)]
    torch.testing.assert_close(torch.cat(pieces, -1)[0, 0], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("orig", "new"), PAIRS)
def test_it_is_torchaudios(orig: int, new: int) -> None:
    try:
        from torchaudio.functional import resample as theirs
    except (ImportError, OSError) as error:
        pytest.skip(f"torchaudio does not import here ({error})")
    wave = random_wave(2, 3000)  # in float32 torchaudio rounds its phases, and is off its own formula by 2e-5
    expected = theirs(
        wave,
        orig,
        new,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=ZERO_CROSSINGS,
        rolloff=ROLLOFF,
        beta=BETA,
    )
    torch.testing.assert_close(resample(wave, orig, new), expected, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 500))
def test_the_length_is_the_ceiling(orig: int, new: int, samples: int) -> None:
    assert resample(torch.zeros(samples), orig, new).shape[-1] == math.ceil(samples * new / orig)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([(3, 4), (4, 3), (147, 160), (160, 147), (1, 2), (2, 1), (5, 5), (7, 1), (1, 7)]),
    st.integers(0, 1500),
    st.lists(st.integers(0, 1500), max_size=7),
)
def test_pieces_join_to_the_whole(rates: tuple[int, int], samples: int, cuts: list[int]) -> None:
    orig, new = rates
    wave = random_wave(2, 3, samples, dtype=torch.float32)
    machine = Resampler(orig * 100, new * 100)
    places = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    pieces = [machine(wave[..., a:b], False) for a, b in itertools.pairwise(places)]
    joined = torch.cat([*pieces, machine(wave[..., :0], True)], -1)
    whole = resample(wave, orig, new)
    assert joined.shape == whole.shape
    assert not joined.numel() or (joined - whole).abs().max() < 1e-6


def test_the_last_piece_may_hold_samples() -> None:
    wave = random_wave(1, 1, 1000, dtype=torch.float32)
    machine = Resampler(44100, 48000)
    joined = torch.cat([machine(wave[..., :400], False), machine(wave[..., 400:], True)], -1)
    torch.testing.assert_close(joined, resample(wave, 44100, 48000), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("orig", "new"), [(44100, 48000), (48000, 44100), (3, 1), (5, 5)])
def test_the_delay_is_what_it_says(orig: int, new: int) -> None:
    """After n samples, no more outputs are missing than `delay` counts."""
    machine = Resampler(orig, new)
    bound = machine.delay(0) if orig != new else 0
    taken = given = worst = 0
    for size in [1, 7, 160, 300, 1, 1, 441, 500, 3, 900]:
        given += machine(torch.zeros(1, 1, size), False).shape[-1]
        taken += size
        worst = max(worst, math.ceil(taken * new / orig) - given)
    assert worst <= bound


def test_a_fork_goes_on_by_itself() -> None:
    wave = random_wave(1, 1, 2000, dtype=torch.float32)
    machine = Resampler(44100, 48000)
    first = machine(wave[..., :900], False)
    twin = machine.fork()
    twin(torch.ones(1, 1, 77), True)
    rest = machine(wave[..., 900:], True)
    torch.testing.assert_close(torch.cat([first, rest], -1), resample(wave, 44100, 48000), atol=1e-6, rtol=0)


def test_numpy_rates() -> None:
    wave = random_wave(90)
    assert torch.equal(resample(wave, np.int32(3), np.int64(4)), resample(wave, 3, 4))  # type: ignore[arg-type]


def test_equal_rates_change_no_bit() -> None:
    wave = random_wave(2, 100)
    assert torch.equal(resample(wave, 48000, 48000), wave)


@pytest.mark.parametrize("shape", [(90,), (2, 90), (2, 3, 90), (2, 1, 3, 90), (0, 90)])
def test_shapes(shape: tuple[int, ...]) -> None:
    wave = random_wave(*shape)
    result = resample(wave, 3, 4)
    assert result.shape == (*shape[:-1], 120)
    if wave.numel():
        flat = resample(wave.reshape(-1, 90)[-1], 3, 4)
        torch.testing.assert_close(result.reshape(-1, 120)[-1], flat)


def test_an_array_is_resampled_to_a_tensor() -> None:
    wave = random_wave(2, 300)
    assert torch.equal(resample(wave.numpy(), 22050, 48000), resample(wave, 22050, 48000))
    assert torch.equal(resample(wave.numpy()[:, ::-1], 22050, 48000), resample(wave.flip(1), 22050, 48000))


@pytest.mark.parametrize("wave", [np.zeros(9, np.int16), torch.zeros(9, dtype=torch.int32), torch.tensor(0.5)])
def test_integers_are_no_waveform(wave: Tensor) -> None:
    with pytest.raises(SpecError, match=r"the waveform is \[.*\] of torch\..*, but it is \[\.\.\., N\] of float32"):
        resample(wave, 8000, 16000)


def test_it_is_differentiable() -> None:
    wave = random_wave(40).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resample(x, 3, 4), wave)


def test_a_constant_stays_constant() -> None:
    wave = torch.ones(4000, dtype=torch.float64)
    middle = resample(wave, 44100, 48000)[1000:-1000]
    assert (middle - 1).abs().max() < 1e-4


@pytest.mark.parametrize("rate", [0, -1, 44100.0, True, "44100", None])
def test_rates_are_whole_numbers(rate: object) -> None:
    with pytest.raises(SpecError, match="orig=.*a sample rate is a whole number of Hz, at least 1"):
        resample(torch.zeros(10), rate, 48000)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="new=.*a sample rate is a whole number of Hz, at least 1"):
        Resampler(48000, rate)  # type: ignore[arg-type]


def test_no_filter_is_made_where_none_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_phases", None)
    wave = torch.rand(1, 1, 100)
    assert Resampler(44100, 44100)(wave, True) is wave
    assert resample(wave, 48000, 48000) is wave
    assert Resampler(44100, 48000).delay(0) > 64


@pytest.mark.parametrize("samples", [0, 1, 147, 1000])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_length_is_rounded_up_whatever_the_form(samples: int, old: int, new: int) -> None:
    expected = math.ceil(Fraction(samples * new, old))
    assert resampled_length(samples, old, new) == expected
    assert resample(torch.zeros(samples), old, new).shape == (expected,)
    assert Resampler(old, new)(torch.zeros(1, 1, samples), True).shape[-1] == expected


@pytest.mark.parametrize("rates", [(2**31 - 1, 48000), (7, 2**31 - 1)])
def test_rates_whose_filters_fit_nowhere_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=rf"from {rates[0]} Hz to {rates[1]} Hz takes filters of \d+ taps, but at most"):
        resample(torch.zeros(100), *rates)
