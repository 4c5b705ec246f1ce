"""The one run: every form of synthesis gives the same sound, whatever the vocoder is made of."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Self

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import VOCODERS, pieces, random_mel
from torch import Tensor

import melvoc
from melvoc import Condition, post
from melvoc.errors import CheckpointError, MelvocError, PluginError, SpecError
from melvoc.nn.framing import Select, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, mean
from melvoc.nn.layers import Conv1d, ConvTranspose1d
from melvoc.nn.noise import Noise
from melvoc.post import PostMachine, PostStep, Sound
from melvoc.post.refine import Refine
from melvoc.synthesis import Resynthesis

SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)


class Wide(melvoc.Vocoder):
    """Two channels at twice the mel's rate, of a mel and a pitch: all that a vocoder may say of itself."""

    def __init__(self) -> None:
        super().__init__(name="wide", spec=SPEC)
        self.frames = Conv1d(41, 8, 3)
        self.up = ConvTranspose1d(8, 2, 512, 256)

    channels = property(lambda self: 2)  # type: ignore[assignment]
    samples_per_frame = property(lambda self: 256)  # type: ignore[assignment]
    sample_rate = property(lambda self: 32000)  # type: ignore[assignment]
    block_frames = property(lambda self: 7)  # type: ignore[assignment]

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {"f0": Condition(unit="Hz", low=0.0, high=4000.0)}

    def graph(self) -> Node:
        return Chain((Map(_scaled), self.frames, self.up, Map(torch.tanh)))


def _scaled(frames: Tensor) -> Tensor:
    return torch.cat([frames[:, :40] / 8, frames[:, 40:] / 4000], dim=1)


class Noisy(melvoc.Vocoder):
    """The mel's sound, and beside it noise as loud as a condition says."""

    channels = property(lambda self: 1)  # type: ignore[assignment]
    block_frames = property(lambda self: 5)  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(name="noisy", spec=SPEC)
        self.frames = Conv1d(40, SPEC.hop_length, 3)

    @property
    def conditions(self) -> Mapping[str, Condition]:
        return {"breath": Condition(unit="", low=0.0, high=1.0)}

    def graph(self) -> Node:
        noise = Branches((Noise(SPEC.hop_length, seed=3), Select(40, 41)), math.prod)
        tone = Chain((Select(0, 40), self.frames, Map(torch.tanh)))
        return Chain((Branches((noise, tone), mean), ToSamples(SPEC.hop_length)))


def test_noise_is_the_same_in_blocks_in_streams_and_in_any_batch() -> None:
    voc = Noisy()
    mel, breath = random_mel(voc, 23, batch=4), torch.rand(4, 23)
    whole = voc.mel_to_waveform(mel, conditions={"breath": breath}, block_frames=23)
    assert not torch.allclose(*(voc.mel_to_waveform(mel[[0, 0]], conditions={"breath": breath[[0, 0]]})), atol=0.1)
    torch.testing.assert_close(voc.mel_to_waveform(mel, conditions={"breath": breath}), whole, atol=1e-6, rtol=0)
    some = voc.mel_to_waveform(mel[:2], conditions={"breath": breath[:2]})
    torch.testing.assert_close(some, whole[:2], atol=1e-6, rtol=0)
    with voc.stream() as stream:
        parts = [
            stream.push(mel[..., a:b], conditions={"breath": breath[:, a:b]}) for a, b in [(0, 3), (3, 4), (4, 23)]
        ]
        torch.testing.assert_close(torch.cat([*parts, stream.flush()], -1), whole, atol=1e-6, rtol=0)
    grouped = voc.mel_to_waveform(mel, conditions={"breath": breath}, lengths=[23, 9, 23, 9])
    torch.testing.assert_close(grouped[[0, 2]], whole[[0, 2]], atol=1e-6, rtol=0)
    seen = 8 * SPEC.hop_length  # the last frame sees the end
    torch.testing.assert_close(grouped[[1, 3], :, :seen], whole[[1, 3], :, :seen], atol=1e-6, rtol=0)


class Delayed(PostMachine):
    """Holds the sound back by one frame, and gives it times a gain."""

    def __init__(self, gain: float, sound: Sound, held: Tensor | None = None) -> None:
        self.gain, self.sound, self.held = gain, sound, held

    def __call__(self, frames: Tensor, wave: Tensor, last: bool) -> Tensor:
        assert frames.shape[1] == self.sound.spec.n_mels, "a step sees the mel, without conditions"
        assert wave.shape[1] == self.sound.channels
        both = wave if self.held is None else torch.cat([self.held, wave], dim=-1)
        ready = both.shape[-1] if last else max(0, both.shape[-1] - self.sound.samples_per_frame)
        self.held = both[..., ready:].clone()
        return self.gain * both[..., :ready]

    def fork(self) -> Self:
        return type(self)(self.gain, self.sound, self.held)


@dataclasses.dataclass(frozen=True)
class Gain(PostStep):
    """The step of these tests."""

    gain: float
    kind = "test_gain"

    def open(self, sound: Sound) -> PostMachine:
        return Delayed(self.gain, sound)

    def delay(self, sound: Sound) -> int:
        return sound.samples_per_frame

    def to_dict(self) -> dict[str, Any]:
        return {"gain": self.gain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        if values.keys() != {"gain"}:
            raise melvoc.OptionError(f"{dict(values)!r}, but a gain has one number, 'gain'")
        return cls(**values)


@pytest.fixture(autouse=True)
def gain_step() -> Iterator[None]:
    """The step in a file of its own, as far as Python can tell."""
    module = types.ModuleType("melvoc.post.test_gain")
    module.STEP = Gain  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def wide() -> Wide:
    torch.manual_seed(0)
    return Wide()


def inputs(frames: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    mel = 2 * torch.randn(batch, 40, frames, generator=generator) - 4
    return mel, 400 * torch.rand(batch, frames, generator=generator)


# What a vocoder says of itself


def test_sound_belongs_to_the_vocoder_and_the_spec_to_the_mel(wide: Wide) -> None:
    mel, f0 = inputs(30)
    wave = wide.mel_to_waveform(mel, conditions={"f0": f0})
    assert wave.shape == (2, 2, 30 * 256)
    assert torch.equal(wave, wide.mel_to_waveform(mel[:, None], conditions={"f0": f0[:, None]}))
    whole = wide(torch.cat([mel, f0[:, None]], dim=1))
    torch.testing.assert_close(wave, whole, atol=1e-6, rtol=0)
    assert wide.mel_to_waveform(mel, conditions={"f0": f0}, sample_rate=48000).shape == (2, 2, 30 * 384)
    assert wide.mel(torch.zeros(32000), sample_rate=32000).shape == (1, 40, SPEC.frames(16000))


@pytest.mark.parametrize("frames", [1, 6, 7, 8, 40])
@pytest.mark.parametrize("steps", [(), (Gain(0.5), Gain(0.25))])
def test_blocks_and_pieces_are_the_whole(wide: Wide, frames: int, steps: tuple[PostStep, ...]) -> None:
    mel, f0 = inputs(frames)
    wide.post = steps
    whole = wide.mel_to_waveform(mel, conditions={"f0": f0}, block_frames=1000)
    plain = wide(torch.cat([mel, f0[:, None]], dim=1)) * (0.125 if steps else 1.0)
    torch.testing.assert_close(whole, plain, atol=1e-6, rtol=0)
    for block in (None, 1, 3):
        blocks = wide.mel_to_waveform(mel, conditions={"f0": f0}, block_frames=block)
        torch.testing.assert_close(blocks, whole, atol=1e-6, rtol=0)
    cuts = [1, 1, 5]
    with wide.stream() as stream:
        parts = zip(pieces(mel, cuts), pieces(f0, cuts), strict=True)
        joined = torch.cat([*[stream.push(m, conditions={"f0": f}) for m, f in parts], stream.flush()], dim=-1)
    torch.testing.assert_close(joined, whole, atol=1e-6, rtol=0)
    with wide.stream() as stream:
        exact = -(-(wide.graph().delay(0) + 256 * len(steps)) // 256)
        assert stream.latency_frames == exact, "a step's delay counts"
    wide.post = ()


def test_rows_of_different_lengths_with_conditions_and_steps(wide: Wide) -> None:
    mel, f0 = inputs(20, batch=3)
    wide.post = (Gain(0.5),)
    lengths = [20, 7, 0]
    wave = wide.mel_to_waveform(mel, conditions={"f0": f0}, lengths=lengths)
    for row, length in enumerate(lengths):
        assert not wave[row, :, length * 256 :].any()
        if length:
            one = wide.mel_to_waveform(mel[row, :, :length], conditions={"f0": f0[row : row + 1, :length]})
            torch.testing.assert_close(wave[row : row + 1, :, : length * 256], one, atol=1e-6, rtol=0)
    wide.post = ()


def test_conditions_beyond_a_rows_length_do_not_matter(wide: Wide) -> None:
    mel, f0 = inputs(9, batch=2)
    wave = wide.mel_to_waveform(mel, conditions={"f0": f0}, lengths=[9, 4])
    f0[1, 4:], mel[1, :, 4:] = float("nan"), float("nan")
    assert torch.equal(wide.mel_to_waveform(mel, conditions={"f0": f0}, lengths=[9, 4]), wave)
    f0[1, 3] = -1.0
    with pytest.raises(SpecError, match="condition 'f0' ranges from -1 to .*, but it is finite and from 0 to 4000 Hz"):
        wide.mel_to_waveform(mel, conditions={"f0": f0}, lengths=[9, 4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conditions_have_their_own_precision(wide: Wide, dtype: torch.dtype) -> None:
    mel, f0 = inputs(9)
    short = mel.to(dtype)
    wanted = wide.mel_to_waveform(short.float(), conditions={"f0": f0})
    assert torch.equal(wide.mel_to_waveform(short, conditions={"f0": f0}), wanted)
    assert torch.equal(wide.mel_to_waveform(short, conditions={"f0": f0.double()}), wanted)


@pytest.mark.parametrize("samples", [1, 300, 1100, 4001])
@pytest.mark.parametrize("hop", [100, 400])
def test_a_sound_comes_back_at_its_length_whatever_the_hop(samples: int, hop: int) -> None:
    """Also where centred frames hardly overlap, and the last one reaches beyond what was pushed."""

    class Flat(melvoc.Vocoder):
        block_frames = property(lambda self: 3)  # type: ignore[assignment]

        def graph(self) -> Node:
            return Chain((Map(lambda x: x[:, :1].expand(-1, hop, -1)), ToSamples(hop)))

    spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=hop, n_mels=20, center=True)
    voc, wave = Flat(name="flat", spec=spec), 0.1 * torch.randn(1, samples)
    whole = voc.resynthesize(wave, sample_rate=16000)
    assert whole.shape == (1, 1, samples)
    assert voc.resynthesize(wave, sample_rate=16000, output_sample_rate=24000).shape[-1] == -(-samples * 3 // 2)
    run = Resynthesis(voc, steps=(), sample_rate=16000, output_sample_rate=16000)
    parts = [run.push(part) for part in wave.split(37, dim=-1)]
    assert torch.equal(torch.cat([*parts, run.flush()], dim=-1), whole)


def test_lookahead_with_a_step(wide: Wide) -> None:
    mel, f0 = inputs(12)
    wide.post = (Gain(0.5),)
    with wide.stream(lookahead_frames=0) as stream:
        waves = [
            stream.push(mel[..., i : i + 1], conditions={"f0": f0[:, i : i + 1]}).shape[-1]
            for i in range(mel.shape[-1])
        ]
        assert stream.latency_frames == 0
        assert sum(waves) + stream.flush().shape[-1] == 12 * 256
    assert waves == [256] * 12, "each frame is answered at once"
    wide.post = ()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (None, r"conditions are \[\], but wide takes f0 \(Hz\); pass exactly those"),
        ({"f0": torch.zeros(2, 9), "gain": torch.zeros(2, 9)}, r"conditions are \['f0', 'gain'\], but wide takes f0"),
        ({"f0": torch.zeros(2, 8)}, r"condition 'f0' is \[2, 1, 8\], but for this mel it is \[2, 1, 9\]"),
        ({"f0": torch.full((2, 9), float("nan"))}, "condition 'f0' ranges from nan to nan, but it is finite"),
        ({"f0": torch.full((2, 9), 5000.0)}, "ranges from 5000 to 5000, but it is finite and from 0 to 4000 Hz"),
    ],
)
def test_conditions_that_do_not_fit(wide: Wide, conditions: dict[str, Tensor] | None, message: str) -> None:
    mel, _ = inputs(9)
    with pytest.raises(SpecError, match=message):
        wide.mel_to_waveform(mel, conditions=conditions)
    with wide.stream() as stream, pytest.raises(SpecError, match=message):
        stream.push(mel, conditions=conditions)


def test_a_vocoder_without_conditions_takes_none() -> None:
    voc = melvoc.load("griffinlim", n_iter=1)
    assert voc.conditions == {}
    assert (voc.channels, voc.samples_per_frame) == (1, voc.spec.hop_length)
    with pytest.raises(SpecError, match=r"conditions are \['f0'\], but griffinlim takes none"):
        voc.mel_to_waveform(torch.full((128, 5), -4.0), conditions={"f0": torch.zeros(1, 5)})


def test_a_delay_that_is_wrong_is_the_plugins_mistake(wide: Wide) -> None:
    class Shorter(Wide):
        channels = property(lambda self: 2)  # type: ignore[assignment]
        samples_per_frame = property(lambda self: 255)  # type: ignore[assignment]

    mel, f0 = inputs(9)
    with pytest.raises(PluginError, match="wide gave 2304 samples for 9 frames, but the contract is 255 per frame"):
        Shorter().mel_to_waveform(mel, conditions={"f0": f0})


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_are_wrong_are_the_plugins_mistake(wide: Wide, channels: int) -> None:
    """Else clamping would write past what there is room for."""

    class Other(Wide):
        channels = property(lambda self: count)  # type: ignore[assignment]

    count = channels
    mel, f0 = inputs(300)
    message = rf"gave \[2, 2\] rows and channels of sound, but the contract is \[2, {channels}\]"
    with pytest.raises(PluginError, match=message):
        Other().mel_to_waveform(mel, conditions={"f0": f0})
    with pytest.raises(PluginError, match=message):
        Other().stream().push(mel, conditions={"f0": f0})


@pytest.mark.parametrize("steps", [(), (Refine(1),)])
def test_a_stream_does_not_depend_on_what_becomes_of_its_pieces(steps: tuple[PostStep, ...]) -> None:
    """An audio callback fills one buffer again and again."""

    class Carrying(melvoc.Vocoder):
        def __init__(self) -> None:
            spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)
            super().__init__(name="carrying", spec=spec)
            self.conv, self.up, self.post = Conv1d(40, 40, 7), ConvTranspose1d(40, 1, 256, 128), steps

        def graph(self) -> Node:
            return Chain((Branches((self.conv, Map(lambda x: x)), mean), self.up))

    torch.manual_seed(0)
    voc = Carrying()
    mel = inputs(40)[0]
    buffer, pieces = torch.empty(2, 40, 2), []
    with voc.stream() as stream:
        for start in range(0, 40, 2):
            buffer.copy_(mel[..., start : start + 2])
            pieces.append(stream.push(buffer))
            buffer.fill_(float("nan"))
        pieces.append(stream.flush())
    torch.testing.assert_close(torch.cat(pieces, -1), voc.mel_to_waveform(mel, spec=voc.spec), atol=1e-4, rtol=0)


# The length that is asked for


@pytest.mark.parametrize(("rate", "made", "hop"), [(None, 1280, 128), (24000, 1920, 192), (8000, 640, 64)])
def test_length(rate: int | None, made: int, hop: int) -> None:
    voc = melvoc.load("griffinlim", spec=SPEC, n_iter=1)
    mel = torch.full((40, 10), -3.0)
    whole = voc.mel_to_waveform(mel, sample_rate=rate)
    assert whole.shape[-1] == made
    for length in (0, 1, made - 1, made, made + 1, made + hop):
        wave = voc.mel_to_waveform(mel, sample_rate=rate, length=length)
        assert wave.shape == (1, 1, length)
        assert torch.equal(wave[..., :made], whole[..., :length])
        assert not wave[..., made:].any()
    for bad in (-1, made + hop + 1, 1.0, True):
        with pytest.raises(SpecError, match=rf"length={bad!r}, but this mel gives {made} samples, and at most one hop"):
            voc.mel_to_waveform(mel, sample_rate=rate, length=bad)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="length=5 together with lengths"):
        voc.mel_to_waveform(mel, sample_rate=rate, length=5, lengths=[10])


# Mel and back


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 9000),
    rates=st.sampled_from([(44100, 44100), (48000, 44100), (16000, 24000), (44100, 32000)]),
    name=st.sampled_from(["bigvgan_v2_tiny", "griffinlim"]),
)
def test_resynthesis_is_as_long_as_the_sound(samples: int, rates: tuple[int, int], name: str) -> None:
    voc = VOCODERS[name] if name in VOCODERS else melvoc.load(name, n_iter=1)
    wave = 0.5 * torch.sin(torch.arange(samples) / 20)
    old, new = rates
    got = voc.resynthesize(wave, sample_rate=old, output_sample_rate=new)
    assert got.shape == (1, 1, -(-samples * new // old))
    assert torch.isfinite(got).all()
    assert voc.resynthesize(wave, sample_rate=old).shape[-1] == -(-samples * voc.sample_rate // old)


@pytest.mark.parametrize("name", ["bigvgan_v2_tiny", "vocos_tiny"])
def test_resynthesis_is_the_mel_and_back_in_pieces_of_any_size(name: str) -> None:
    voc = VOCODERS[name]
    wave = 0.2 * torch.randn(2, 30 * voc.spec.hop_length, generator=torch.Generator().manual_seed(1))
    mel = voc.mel(wave, sample_rate=voc.sample_rate)
    there = voc.mel_to_waveform(mel, spec=voc.spec)[..., : wave.shape[-1]]
    back = voc.resynthesize(wave.numpy(), sample_rate=voc.sample_rate)
    same = slice(0, there.shape[-1] - voc.spec.n_fft)  # the end's padding is zeros here, and mirrored there
    torch.testing.assert_close(back[..., same], there[..., same], atol=1e-4, rtol=0)
    run = Resynthesis(voc, steps=(), sample_rate=voc.sample_rate, output_sample_rate=voc.sample_rate, block_frames=3)
    with torch.no_grad():
        joined = torch.cat([*[run.push(part) for part in pieces(wave, [1, 700, 701, 5000])], run.flush()], dim=-1)
    torch.testing.assert_close(joined, back, atol=1e-4, rtol=0)


def test_resynthesis_needs_a_sample_and_no_conditions(wide: Wide) -> None:
    with pytest.raises(SpecError, match=r"the waveform is \[1, 0\], without any samples; give at least one"):
        VOCODERS["bigvgan_v2_tiny"].resynthesize(torch.zeros(0), sample_rate=44100)
    with pytest.raises(MelvocError, match="wide needs f0 besides the mel; use mel_to_waveform"):
        wide.resynthesize(torch.zeros(5000), sample_rate=32000)
    with pytest.raises(MelvocError, match="block_frames=3, but griffinlim cannot run in blocks; omit it"):
        melvoc.load("griffinlim").resynthesize(torch.zeros(5000), sample_rate=44100, block_frames=3)


# Steps in files


def test_steps_are_stored_in_format_2_and_nothing_else_is() -> None:
    voc = melvoc.unpack(melvoc.pack(VOCODERS["bigvgan_v2_tiny"]), device="cpu")
    plain = melvoc.pack(voc)
    voc.post = (Gain(0.5), Gain(0.25))
    state = melvoc.pack(voc)
    header, before = (json.loads(bytes(part["melvoc.header"].tolist())) for part in (state, plain))
    steps = [{"kind": "test_gain", "gain": 0.5}, {"kind": "test_gain", "gain": 0.25}]
    assert header == {**before, "format": 2, "post": steps}
    assert before["format"] == 1
    again = melvoc.unpack(state, device="cpu")
    assert again.post == voc.post
    mel = random_mel(voc, 9)
    torch.testing.assert_close(again.mel_to_waveform(mel), voc.mel_to_waveform(mel), atol=1e-6, rtol=0)
    griffinlim = melvoc.load("griffinlim", n_iter=2)
    griffinlim.post = (Gain(0.5),)
    assert melvoc.from_bytes(melvoc.to_bytes(griffinlim), device="cpu").post == (Gain(0.5),)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"kind": "denoise"}], "this melvoc has no step 'denoise'; update melvoc"),
        ([{"kind": "os.path"}], "is not a step; give a dict with a 'kind'"),
        (["test_gain"], "'test_gain' is not a step"),
        ([{"kind": "test_gain", "volume": 1}], "a gain has one number, 'gain'"),
    ],
)
def test_steps_that_a_file_may_not_have(steps: list[Any], message: str) -> None:
    state = melvoc.pack(VOCODERS["vocos_tiny"])
    header = json.loads(bytes(state["melvoc.header"].tolist())) | {"format": 2, "post": steps}
    state["melvoc.header"] = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match=f"this state: .*{message}"):
        melvoc.unpack(state)
    assert post.revive([]) == ()


def test_a_key_that_format_2_does_not_know_is_refused() -> None:
    state = melvoc.pack(VOCODERS["vocos_tiny"])
    header = json.loads(bytes(state["melvoc.header"].tolist())) | {"format": 2, "post": [], "speaker": 3}
    state["melvoc.header"] = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="the melvoc header has an unknown key 'speaker'; update melvoc"):
        melvoc.unpack(state)
