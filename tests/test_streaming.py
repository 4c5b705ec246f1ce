"""Streams: exact for every split, one state a stream, and clear about their end."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GOLDEN, TINY, VOCODERS, neural, pieces, random_mel, randomised, vocoder
from torch.utils.flop_counter import FlopCounterMode

import melvoc
from melvoc.architectures.bigvgan import BigVGAN, BigVGANConfig
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.architectures.vocos import Vocos, VocosConfig
from melvoc.nn.graph import Engine
from melvoc.vocoder import Vocoder


def streamed(voc: Vocoder, parts: list[torch.Tensor], **options: int) -> torch.Tensor:
    with voc.stream(**options) as stream:
        return torch.cat([*[stream.push(part) for part in parts], stream.flush()], dim=-1)


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=12, deadline=None)
@given(
    frames=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    batch=st.integers(1, 2),
    seed=st.integers(0, 9),
)
def test_any_split_gives_what_one_call_gives(name: str, frames: int, cuts: list[int], batch: int, seed: int) -> None:
    voc = VOCODERS[name]
    mel = random_mel(voc, frames, batch, seed)
    whole = voc.mel_to_waveform(mel)
    assert whole.shape == (batch, 1, voc.spec.samples(frames))
    torch.testing.assert_close(streamed(voc, pieces(mel, cuts)), whole, atol=1e-5, rtol=0, msg=lambda m: f"{cuts}: {m}")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("name", TINY)
def test_pieces_of_one_size(name: str, size: int) -> None:
    voc = VOCODERS[name]
    mel = random_mel(voc, 40)
    whole = voc.mel_to_waveform(mel)
    torch.testing.assert_close(streamed(voc, list(mel.split(size, -1))), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_the_plain_engine_agrees_with_the_whole_network(name: str) -> None:
    voc = vocoder(name, engine="torch")
    mel = random_mel(voc, 50)
    with torch.no_grad():
        whole = voc(mel).clamp(-1, 1)
    torch.testing.assert_close(voc.mel_to_waveform(mel, block_frames=8), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(VOCODERS[name].mel_to_waveform(mel, block_frames=9), whole, atol=1e-5, rtol=0)


FULL_SIZE = {
    "hifigan V1": lambda: (HiFiGAN(HiFiGANConfig()), "hifigan_22khz_80band_256x"),
    "vocos": lambda: (Vocos(VocosConfig()), "vocos_24khz_100band"),
    "bigvgan base": lambda: (
        BigVGAN(BigVGANConfig(n_mels=100)),
        "bigvgan_v2_24khz_100band_256x",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_networks_stream_to_1e_4(name: str) -> None:
    network, preset = FULL_SIZE[name]()
    voc = neural(randomised(network), name=name, spec=melvoc.MelSpec.preset(preset))
    mel = random_mel(voc, 70)
    whole = voc.mel_to_waveform(mel, block_frames=70)
    torch.testing.assert_close(streamed(voc, pieces(mel, [16, 17, 40, 56])), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_nothing_is_computed_twice(name: str) -> None:
    """Pieces of 16 frames cost at most 1.25 times the multiply-adds of one call (counted, on no device)."""
    network = vocoder(name).network.to("meta")
    mel = torch.empty(1, network.config.n_mels, 320, device="meta")
    with FlopCounterMode(display=False) as once, torch.no_grad():
        network(mel)
    with FlopCounterMode(display=False) as in_pieces, torch.no_grad():
        machine, parts = Engine().open(network.graph), mel.split(16, -1)
        samples = sum(machine(part, number == len(parts)).shape[-1] for number, part in enumerate(parts, 1))
    assert samples == 320 * network.config.hop_length
    assert once.get_total_flops() > 0
    assert in_pieces.get_total_flops() <= 1.25 * once.get_total_flops()


@pytest.mark.parametrize("name", TINY)
def test_latency_is_what_is_still_to_come(name: str) -> None:
    voc = VOCODERS[name]
    with voc.stream() as stream:
        given_out = stream.push(random_mel(voc, 60)).shape[-1]
        assert voc.spec.samples(60) - given_out == stream.latency_samples
        assert stream.latency_frames == -(-stream.latency_samples // voc.spec.hop_length)


@pytest.mark.parametrize("name", TINY)
def test_a_bounded_lookahead_answers_at_once_and_converges(name: str) -> None:
    voc = VOCODERS[name]
    mel = random_mel(voc, 60)
    whole = voc.mel_to_waveform(mel)
    errors = []
    with voc.stream() as stream:
        exact = stream.latency_frames
    for frames in (0, 2, exact):
        with voc.stream(lookahead_frames=frames) as stream:
            first = stream.push(mel[..., :30])
            rest = [stream.push(piece) for piece in mel[..., 30:].split(7, -1)]
            got = torch.cat([first, *rest, stream.flush()], -1)
        if frames < exact:
            assert stream.latency_samples == frames * voc.spec.hop_length
            assert first.shape[-1] == (30 - frames) * voc.spec.hop_length
        assert got.shape == whole.shape
        errors.append(float((got - whole).abs().mean()))
    assert errors[2] < 1e-5
    assert errors[0] >= errors[1] >= errors[2]
    assert errors[0] > 1e-5, "no look-ahead and no error: the bound is not in force"


def test_a_stream_that_resamples_has_no_seams() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    mel = random_mel(voc, 40)
    whole = voc.mel_to_waveform(mel, sample_rate=48000)
    assert whole.shape[-1] == -(-voc.spec.samples(40) * 48000 // 44100)
    got = streamed(voc, pieces(mel, [1, 9, 9, 30]), sample_rate=48000)
    torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)
    with voc.stream(sample_rate=48000) as stream:
        given_out = stream.push(mel).shape[-1]
        missing = whole.shape[-1] - given_out
        assert missing <= stream.latency_samples < missing + 200, "the bound holds, to a block of the resampler"


def test_streams_of_one_model_are_independent_and_run_in_threads() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    mels = [random_mel(voc, 30 + 5 * n, seed=n) for n in range(4)]
    expected = [voc.mel_to_waveform(mel) for mel in mels]
    got: dict[int, torch.Tensor] = {}

    def run(number: int) -> None:
        got[number] = streamed(voc, list(mels[number].split(3 + number, -1)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, wave in enumerate(expected):
        torch.testing.assert_close(got[number], wave, atol=1e-5, rtol=0, msg=lambda m, n=number: f"stream {n}: {m}")


def test_shapes_of_pieces_and_of_what_comes_back() -> None:
    voc = VOCODERS["bigvgan_v1_tiny"]
    mel = random_mel(voc, 40)
    with voc.stream() as stream:
        assert stream.push(mel[0, :, :0]).shape == (1, 1, 0)
        assert stream.push(mel[0, :, :3]).shape == (1, 1, 0)  # a single mel; the look-ahead is longer than three frames
        assert stream.push(mel[:, None, :, 3:]).shape[:2] == (1, 1)
        assert stream.push(mel[..., :0]).shape == (1, 1, 0)
        assert stream.flush().shape[:2] == (1, 1)
    with voc.stream() as stream:
        assert stream.flush().shape == (1, 1, 0)


def test_a_stream_is_one_line() -> None:
    voc = VOCODERS["vocos_tiny"]
    with voc.stream(sample_rate=48000) as stream:
        late = f"latency {stream.latency_samples} samples ({stream.latency_frames} frames)"
        assert repr(stream) == f"<VocoderStream of 'vocos_tiny': 48000 Hz, {late}, open>"
        stream.flush()
    assert repr(stream) == f"<VocoderStream of 'vocos_tiny': 48000 Hz, {late}, was flushed>"


def test_what_comes_back_is_an_ordinary_tensor() -> None:
    voc = VOCODERS["bigvgan_v1_tiny"]
    with voc.stream() as stream:
        wave = stream.push(random_mel(voc, 40))
    gain = torch.ones(1, requires_grad=True)
    (wave * gain).sum().backward()
    assert gain.grad is not None


@pytest.mark.parametrize(("end", "message"), [("flush", "was flushed"), ("close", "was closed")])
def test_an_ended_stream_refuses_more(end: str, message: str) -> None:
    voc = VOCODERS["bigvgan_v1_tiny"]
    stream = voc.stream()
    stream.push(random_mel(voc, 5))
    getattr(stream, end)()
    with pytest.raises(melvoc.MelvocError, match=f"{message}.*open a new one"):
        stream.push(random_mel(voc, 5))
    with pytest.raises(melvoc.MelvocError, match=message):
        stream.flush()


def test_with_releases_the_state_whatever_happens() -> None:
    voc = VOCODERS["bigvgan_v1_tiny"]
    stream = voc.stream()

    def fail() -> None:
        with stream:
            stream.push(random_mel(voc, 5))
            raise KeyError("the caller's own error")

    with pytest.raises(KeyError, match="the caller's own error"):
        fail()
    with pytest.raises(melvoc.MelvocError, match="was closed"):
        stream.push(random_mel(voc, 5))


def test_a_failure_inside_ends_the_stream() -> None:
    voc = vocoder("bigvgan_v1_tiny", engine="torch")
    stream = voc.stream()
    stream.push(random_mel(voc, 5))
    weight = voc.network.conv_pre.weight
    voc.network.conv_pre.weight = torch.nn.Parameter(weight[:, :-1])
    with pytest.raises(RuntimeError, match="channels"):
        stream.push(random_mel(voc, 5))
    with pytest.raises(melvoc.MelvocError, match="failed in an earlier push.*open a new one"):
        stream.push(random_mel(voc, 5))


def test_a_bad_piece_is_refused_and_the_stream_goes_on() -> None:
    voc = VOCODERS["bigvgan_v1_tiny"]
    mel = random_mel(voc, 20)
    with voc.stream() as stream:
        parts = [stream.push(mel[..., :10])]
        with pytest.raises(melvoc.SpecError, match="batch of 2.*began with 1"):
            stream.push(mel.expand(2, -1, -1))
        with pytest.raises(melvoc.SpecError, match="NaN"):
            stream.push(mel * float("nan"))
        with pytest.raises(melvoc.SpecError, match="99"):
            stream.push(mel[:, :99])
        parts += [stream.push(mel[..., 10:]), stream.flush()]
    torch.testing.assert_close(torch.cat(parts, -1), voc.mel_to_waveform(mel), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [-1, 1.5, True])
def test_a_lookahead_is_a_number_of_frames(frames: object) -> None:
    with pytest.raises(melvoc.SpecError, match=f"lookahead_frames={frames}.*whole number of frames from 0"):
        VOCODERS["vocos_tiny"].stream(lookahead_frames=frames)  # type: ignore[arg-type]


def test_a_vocoder_that_cannot_stream_says_so() -> None:
    voc = melvoc.load("griffinlim", spec=melvoc.MelSpec.preset("hifigan_22khz_80band_256x"))
    with pytest.raises(melvoc.MelvocError, match="griffinlim cannot stream.*needs the whole mel"):
        voc.stream()


@pytest.mark.slow
def test_long_input_runs_in_constant_memory() -> None:
    """Peak memory of a minute is that of ten seconds, the mel and the sound themselves left out."""
    import subprocess
    import sys

    code = (
        "import resource, sys, torch, melvoc\n"
        "sys.path.insert(0, 'tests')\n"
        "from networks import vocoder, random_mel\n"
        "voc = vocoder('bigvgan_v2_tiny', engine='torch')\n"
        "frames = int(sys.argv[1]); mel = random_mel(voc, frames)\n"
        "voc.mel_to_waveform(mel)\n"
        "own = frames * (voc.spec.n_mels + voc.spec.hop_length) * 4\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - own)\n"
    )
    root = GOLDEN.parent.parent

    def peak(frames: int) -> int:
        command = [sys.executable, "-c", code, str(frames)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)

    assert peak(5200) < peak(870) + 60e6


def test_a_named_spec_is_trusted_and_compared() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    spread = torch.linspace(0, 1, 300).expand(1, voc.spec.n_mels, 300)  # a mel that was scaled to [0, 1]
    with voc.stream() as stream, pytest.warns(UserWarning, match="unlikely to be one with log='ln'"):
        stream.push(spread)
    with warnings.catch_warnings(), voc.stream(spec=voc.spec) as stream:
        warnings.simplefilter("error")
        stream.push(spread)
        stream.push(spread.numpy())
        with pytest.raises(melvoc.SpecError, match="goes up to 41"):  # noise at full scale
            stream.push(spread + 40)
        with pytest.raises(melvoc.SpecError, match="NaN or Inf"):
            stream.push(spread / 0)
        stream.flush()
    with pytest.raises(melvoc.MelMismatchError, match="mel_scale: .* needs 'slaney', the mel has 'htk'"):
        voc.stream(spec=melvoc.MelSpec(**voc.spec.to_dict() | {"mel_scale": "htk", "f_max": 16000.0}))
