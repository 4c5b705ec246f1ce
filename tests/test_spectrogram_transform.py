"""Mels are the published ones, whole or in pieces, with gradients that are always finite."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import melvoc
from melvoc import MelSpec, MelSpectrogram, SpecError
from melvoc.audio.resampling import resample
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.transform import mel_filters

SMALL = MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=8)
GOLDEN = json.loads((Path(__file__).parent / "golden" / "mel.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "mel.safetensors")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.6 - 0.8


@st.composite
def small_specs(draw: st.DrawFn) -> MelSpec:
    """Specs of a few bins and every convention."""
    n_fft = draw(st.integers(8, 96))
    win_length = draw(st.integers(2, n_fft))
    fields: dict[str, Any] = {
        "hop_length": draw(st.integers(1, win_length)),
        "win_length": win_length,
        "mel_scale": draw(st.sampled_from(["slaney", "htk"])),
        "norm": draw(st.sampled_from(["slaney", None])),
        "power": draw(st.sampled_from([1, 2])),
        "log": draw(st.sampled_from(["ln", "log10", "log1p", "db"])),
        "magnitude_eps": draw(st.sampled_from([0, 1e-9])),
        "center": draw(st.booleans()),
        "pad_mode": draw(st.sampled_from(["reflect", "constant"])),
    }
    try:
        return MelSpec(sample_rate=8000, n_fft=n_fft, n_mels=draw(st.integers(1, 6)), **fields)
    except SpecError:
        assume(False)
        raise


# --- the published numbers


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_golden_conventions(name: str, dtype: torch.dtype, golden: dict[str, Tensor]) -> None:
    spec = MelSpec(**GOLDEN[name]["spec"])
    mel = MelSpectrogram(spec)(golden[f"{name}.audio"].to(dtype))
    expected = golden[f"{name}.mel"]
    assert mel.dtype == dtype
    assert mel.shape == (1, *expected.shape) == (1, spec.n_mels, spec.frames(golden[f"{name}.audio"].numel()))
    assert (mel[0] - expected).abs().max() < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_conventions_on_a_gpu(name: str, golden: dict[str, Tensor]) -> None:
    wave = golden[f"{name}.audio"].cuda().requires_grad_()
    mel = MelSpectrogram(MelSpec(**GOLDEN[name]["spec"]))(wave)
    mel.sum().backward()
    assert (mel.device.type, bool(torch.isfinite(wave.grad).all())) == ("cuda", True)  # type: ignore[arg-type]
    assert (mel[0].cpu() - golden[f"{name}.mel"]).abs().max() < 1e-4


@pytest.mark.parametrize("name", PRESETS)
def test_filters_are_librosas(name: str) -> None:
    librosa = pytest.importorskip("librosa")
    spec = MelSpec.preset(name)
    theirs = librosa.filters.mel(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min,
        fmax=spec.f_max,
        htk=spec.mel_scale == "htk",
        norm=spec.norm,
        dtype=np.float64,
    )
    filters = mel_filters(spec).numpy()
    np.testing.assert_allclose(filters, theirs, rtol=1e-4, atol=1e-6 * theirs.max())


def test_filters_are_the_callers_own() -> None:
    mel_filters(SMALL).zero_()
    assert mel_filters(SMALL).sum() > 0


def test_slaney_triangles_have_the_area_one() -> None:
    """Over Hz, and up to the sampling by bins, which wide bands see least of."""
    spec = MelSpec(sample_rate=48000, n_fft=16384, hop_length=512, n_mels=80)
    areas = mel_filters(spec).sum(1) * spec.sample_rate / spec.n_fft
    assert (areas - 1).abs().max() < 0.02
    heights = mel_filters(MelSpec(**{**spec.to_dict(), "norm": None})).amax(1)
    assert heights.max() <= 1
    assert heights.min() > 0.9


# --- physics


def test_a_tone_is_in_its_band() -> None:
    spec = MelSpec.preset("bigvgan_v2_44khz_128band_512x")
    edges = torch.tensor(spec.band_edges())
    for frequency in (110.0, 1000.0, 15000.0):
        wave = torch.sin(2 * torch.pi * frequency * torch.arange(44100) / 44100)
        band = int(MelSpectrogram(spec)(wave)[0].mean(1).argmax())
        assert edges[band] < frequency < edges[band + 2]


@pytest.mark.parametrize(
    ("log", "power", "step"),
    [("ln", 1, 0.6931), ("ln", 2, 1.3863), ("log10", 1, 0.3010), ("db", 1, 6.0206), ("db", 2, 6.0206)],
)
def test_twice_the_amplitude_is_one_step(log: Any, power: int, step: float) -> None:
    spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40, log=log, power=power, magnitude_eps=0)
    wave = noise(16000) / 2
    difference = MelSpectrogram(spec)(2 * wave) - MelSpectrogram(spec)(wave)
    torch.testing.assert_close(difference, torch.full_like(difference, step), atol=1e-3, rtol=0)


@pytest.mark.parametrize("log", ["ln", "log10", "log1p", "db"])
@pytest.mark.parametrize("power", [1, 2])
def test_silence_is_the_floor(log: Any, power: int) -> None:
    spec = MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40, log=log, power=power, magnitude_eps=0)
    floor = {"ln": -11.5129, "log10": -5.0, "log1p": 0.0, "db": -200.0 / power}[log]
    mel = MelSpectrogram(spec)(torch.zeros(2000))
    torch.testing.assert_close(mel, torch.full_like(mel, floor), atol=1e-4, rtol=0)


# --- shapes and refusals


@pytest.mark.parametrize(
    ("shape", "batch"), [((400,), 1), ((1, 400), 1), ((3, 400), 3), ((3, 1, 400), 3), ((0, 400), 0)]
)
def test_shapes(shape: tuple[int, ...], batch: int) -> None:
    assert MelSpectrogram(SMALL)(noise(*shape)).shape == (batch, 8, SMALL.frames(400))


def test_an_array_is_a_waveform() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 800)
    for array in (wave, wave.astype("float32"), wave.astype(">f8")[::-1][::-1]):
        made = MelSpectrogram(SMALL)(array)
        torch.testing.assert_close(made, MelSpectrogram(SMALL)(torch.from_numpy(wave)).to(made), atol=1e-4, rtol=0)
    stream = MelSpectrogram(SMALL).stream()
    torch.testing.assert_close(torch.cat([stream.push(wave), stream.flush()], -1), MelSpectrogram(SMALL)(wave))


def test_a_row_is_the_same_in_any_batch() -> None:
    wave = noise(3, 500)
    batch = MelSpectrogram(SMALL)(wave)
    for row in range(3):
        torch.testing.assert_close(batch[row : row + 1], MelSpectrogram(SMALL)(wave[row]), atol=1e-5, rtol=0)


def test_long_audio_goes_block_by_block_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = noise(2, 3000)
    whole = MelSpectrogram(SMALL)(wave)
    monkeypatch.setattr("melvoc.spectrogram.transform._BLOCK_SAMPLES", 700)
    torch.testing.assert_close(MelSpectrogram(SMALL)(wave), whole, atol=1e-5, rtol=0)


@settings(max_examples=100, deadline=None)
@given(small_specs(), st.integers(0, 300))
def test_any_length_gives_the_specs_frames_or_a_clear_error(spec: MelSpec, samples: int) -> None:
    mel = MelSpectrogram(spec)
    reflected = spec.pad + 1 if spec.pad_mode == "reflect" else 1
    if samples < reflected or spec.frames(samples) < 1:
        with pytest.raises(SpecError, match=f"has {samples} samples, but this spec needs at least .*append zeros"):
            mel(noise(samples))
    else:
        assert mel(noise(samples)).shape == (1, spec.n_mels, spec.frames(samples))


@pytest.mark.parametrize("name", ["bigvgan_v2_44khz_128band_512x", "vocos_mel_24khz", "librosa_22khz_128band_db"])
def test_audio_shorter_than_the_padding(name: str) -> None:
    spec = MelSpec.preset(name)
    least = spec.pad + 1 if spec.pad_mode == "reflect" else 1
    assert MelSpectrogram(spec)(noise(least)).shape[-1] >= 1
    with pytest.raises(SpecError, match=f"has {least - 1} samples, but this spec needs at least {least}.*append zeros"):
        MelSpectrogram(spec)(noise(least - 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_are_refused(bad: float) -> None:
    wave = noise(2, 400)
    wave[1, 17] = bad
    with pytest.raises(SpecError, match="1 NaN or Inf among its 800 samples"):
        MelSpectrogram(SMALL)(wave)
    with pytest.raises(SpecError, match="1 NaN or Inf"):
        MelSpectrogram(SMALL).stream().push(wave)


def test_beyond_full_scale_warns_once() -> None:
    mel = MelSpectrogram(SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel(torch.tensor([1.0, -1.0] * 200))
    with pytest.warns(UserWarning, match=r"ranges from -1.5 to 2, but samples are in \[-1, 1\]"):
        mel(torch.tensor([2.0, -1.5] * 200))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel(torch.tensor([30000.0, -1.5] * 200))


@pytest.mark.parametrize("use", [MelSpectrogram(SMALL), MelSpectrogram(SMALL).stream().push])
def test_the_warning_names_the_callers_line(use: Callable[[Tensor], Tensor]) -> None:
    with pytest.warns(UserWarning, match="ranges") as caught:
        use(torch.full((400,), 2.0))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        ([0.0] * 400, "is a list, but it is a torch.Tensor or a NumPy array; torch.as_tensor makes one"),
        (np.zeros(400, dtype=np.int16), "is torch.int16.*divided by"),
        (torch.zeros(400, dtype=torch.int16), "is torch.int16.*divided by"),
        (torch.zeros(400, dtype=torch.float16), r"is torch.float16.*pass \.float\(\)"),
        (torch.zeros(400, dtype=torch.complex64), "is torch.complex64"),
        (torch.zeros(2, 2, 400), r"is \[2, 2, 400\].*fold_channels"),
        (torch.zeros(1, 1, 1, 400), r"is \[1, 1, 1, 400\]"),
        (torch.tensor(0.5), r"is \[\], but it is \[N\]"),
    ],
)
def test_what_is_no_waveform(waveform: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MelSpectrogram(SMALL)(waveform)


def test_it_needs_a_spec() -> None:
    with pytest.raises(SpecError, match="but it is a melvoc.MelSpec; MelSpec.preset has some by name"):
        MelSpectrogram({"sample_rate": 16000})  # type: ignore[arg-type]


def test_it_is_a_module_without_state() -> None:
    mel = MelSpectrogram(SMALL)
    assert mel.state_dict() == {}
    assert list(mel.parameters()) == []
    assert repr(mel) == "MelSpectrogram(MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=8))"
    stream = mel.stream()
    stream.push(torch.zeros(100))
    spec = "MelSpec(sample_rate=16000, n_fft=64, hop_length=16, n_mels=8)"
    assert repr(stream) == f"<MelStream: 100 samples taken, open, {spec}>"
    stream.flush()
    assert repr(stream) == f"<MelStream: 100 samples taken, flushed, {spec}>"


def test_it_stays_in_full_precision_under_autocast() -> None:
    wave = noise(400)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = MelSpectrogram(SMALL)(wave)
    torch.testing.assert_close(inside, MelSpectrogram(SMALL)(wave), atol=0, rtol=0)


def test_constants_made_in_inference_mode_serve_training() -> None:
    spec = MelSpec(sample_rate=16000, n_fft=66, hop_length=16, n_mels=8)  # of this test only: the first call makes them
    with torch.inference_mode():
        MelSpectrogram(spec)(noise(400))
    wave = noise(400).requires_grad_()
    MelSpectrogram(spec)(wave).sum().backward()
    assert wave.grad is not None


# --- gradients


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("signal", ["zero", "one click", "noise", "tiny", "loud"])
def test_gradients_are_finite(name: str, signal: str) -> None:
    wave = torch.zeros(6000) if signal in ("zero", "one click") else noise(6000)
    if signal == "one click":
        wave[3000] = 1.0
    wave = (wave * {"tiny": 1e-30, "loud": 1.25}.get(signal, 1.0)).requires_grad_()
    MelSpectrogram(MelSpec.preset(name))(wave).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()
    if signal == "zero":
        assert (wave.grad == 0).all()
    if signal == "noise":
        assert wave.grad.abs().max() > 0


@pytest.mark.parametrize("log", ["ln", "log10", "log1p", "db"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("eps", [0, 1e-9])
def test_gradients_are_right(log: Any, power: int, eps: float) -> None:
    spec = MelSpec(
        sample_rate=8000, n_fft=16, hop_length=8, n_mels=2, log=log, power=power, magnitude_eps=eps, center=True
    )
    mel = MelSpectrogram(spec)
    assert torch.autograd.gradcheck(mel, noise(1, 20, dtype=torch.float64).requires_grad_())


@settings(max_examples=100, deadline=None)
@given(small_specs(), st.sampled_from([0.0, 1e-44, 1e-41, 1e-38, 1e-30, 1e-20, 1e-3, 1.0]))
def test_gradients_are_finite_for_any_spec(spec: MelSpec, scale: float) -> None:
    wave = (noise(200) * scale).requires_grad_()
    MelSpectrogram(spec)(wave).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()


# --- in pieces


@settings(max_examples=80, deadline=None)
@given(small_specs(), st.integers(1, 400), st.lists(st.integers(0, 400), max_size=8))
def test_pieces_join_to_the_whole(spec: MelSpec, samples: int, cuts: list[int]) -> None:
    mel = MelSpectrogram(spec)
    reflected = spec.pad + 1 if spec.pad_mode == "reflect" else 1
    assume(samples >= reflected and spec.frames(samples) >= 1)
    wave = noise(2, samples, dtype=torch.float64)
    places = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    stream = mel.stream()
    frames = [stream.push(wave[:, a:b]) for a, b in itertools.pairwise(places)]
    frames.append(stream.flush())
    assert all(part.shape[:2] == (2, spec.n_mels) for part in frames)
    torch.testing.assert_close(torch.cat(frames, -1), mel(wave), atol=1e-8, rtol=0)


def test_single_samples_join_to_the_whole() -> None:
    mel = MelSpectrogram(SMALL)
    wave, stream = noise(300), mel.stream()
    frames = [stream.push(sample[None]) for sample in wave] + [stream.flush()]
    torch.testing.assert_close(torch.cat(frames, -1), mel(wave), atol=1e-5, rtol=0)


def test_frames_come_as_soon_as_they_can() -> None:
    stream = MelSpectrogram(SMALL).stream()
    given = stream.push(noise(640)).shape[-1]
    assert given == 1 + (640 + SMALL.pad - SMALL.n_fft) // SMALL.hop_length
    assert given + stream.flush().shape[-1] == SMALL.frames(640)


def test_a_stream_has_nothing_of_the_callers_memory() -> None:
    """An audio callback fills one buffer again and again; a first piece may be an hour."""
    wave = noise(640)
    stream, buffer, frames = MelSpectrogram(SMALL).stream(), np.empty(20, np.float32), []
    for piece in wave.split(20):
        buffer[:] = piece
        frames.append(stream.push(buffer))
        buffer[:] = 0.9
    torch.testing.assert_close(torch.cat([*frames, stream.flush()], -1), MelSpectrogram(SMALL)(wave))
    long = MelSpectrogram(SMALL).stream()
    long.push(noise(100_000))
    assert long._nothing is not None
    assert long._nothing.untyped_storage().nbytes() == 0


def test_a_stream_holds_little_of_a_long_signal() -> None:
    stream = MelSpectrogram(SMALL).stream()
    for piece in noise(10000).split(37):
        stream.push(piece)
        held = stream._window.tail.untyped_storage().nbytes()
        assert held < 2 * SMALL.n_fft * 4


def test_a_stream_that_ends_too_early_says_so() -> None:
    stream = MelSpectrogram(SMALL).stream()
    stream.push(noise(SMALL.pad))
    with pytest.raises(SpecError, match="has 24 samples, but this spec needs at least 25"):
        stream.flush()
    with pytest.raises(SpecError, match="has 0 samples"):
        MelSpectrogram(SMALL).stream().flush()


def test_a_flushed_stream_is_over() -> None:
    stream = MelSpectrogram(SMALL).stream()
    stream.push(noise(100))
    stream.flush()
    for use in (lambda: stream.push(noise(10)), stream.flush):
        with pytest.raises(SpecError, match="was flushed.*open a new one"):
            use()


@pytest.mark.parametrize("piece", [noise(2, 50), noise(50).double(), torch.full((50,), float("nan")), noise(2, 2, 50)])
def test_a_piece_that_does_not_fit_is_refused_and_the_stream_goes_on(piece: Tensor) -> None:
    wave, stream = noise(200), MelSpectrogram(SMALL).stream()
    frames = [stream.push(wave[:90])]
    with pytest.raises(SpecError, match="continue as it began|NaN|fold_channels"):
        stream.push(piece)
    frames += [stream.push(wave[90:]), stream.flush()]
    torch.testing.assert_close(torch.cat(frames, -1), MelSpectrogram(SMALL)(wave), atol=1e-5, rtol=0)


def test_public_names() -> None:
    assert melvoc.MelSpectrogram is MelSpectrogram


def test_what_resampling_makes_of_full_scale_is_not_the_callers_fault() -> None:
    """Between samples at full scale the signal is higher, and resampling shows it."""
    spec = MelSpec.preset("griffinlim")
    square = torch.sin(2 * math.pi * 997 * torch.arange(22050) / 22050).sign()
    assert resample(square, 22050, spec.sample_rate).abs().max() > 1.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MelSpectrogram(spec)(square, sample_rate=22050)
        stream = MelSpectrogram(spec).stream(sample_rate=22050)
        stream.push(square), stream.flush()
        griffinlim = melvoc.load("griffinlim", spec=spec, n_iter=1)
        griffinlim.mel(square, sample_rate=22050)
        griffinlim.resynthesize(square[:4000], sample_rate=22050)
    with pytest.warns(UserWarning, match="ranges from -1.5 to 1.5"):
        MelSpectrogram(spec)(1.5 * square, sample_rate=22050)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("n_fft", "hop"), [(2048, 441), (512, 128), (255, 64), (512, 400)])
@pytest.mark.parametrize("samples", [600, 4410, 5000])
def test_a_mel_that_covers_its_sound_has_a_frame_for_each_hop(center: bool, n_fft: int, hop: int, samples: int) -> None:
    """Also where the padding of frames that are not centred is odd."""
    spec = MelSpec(sample_rate=44100, n_fft=n_fft, hop_length=hop, n_mels=10, center=center)
    stream = MelSpectrogram(spec).stream(cover=True)
    frames = stream.push(torch.zeros(1, samples)).shape[-1] + stream.flush().shape[-1]
    assert frames * hop >= samples
    assert frames <= max(1 + -(-samples // hop), spec.frames(n_fft))
