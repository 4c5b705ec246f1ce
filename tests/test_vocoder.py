"""What every vocoder inherits, and what it asks of a subclass."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GOLDEN, VOCODERS, golden_network, neural, random_mel, vocoder
from torch import Tensor, nn

import melvoc
from melvoc.nn.graph import Chain, Map, Node
from melvoc.nn.layers import ConvTranspose1d
from melvoc.options import pick_device

SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=40)


class Tone(melvoc.Vocoder):
    """A complete plugin in five lines: each frame's level on a tone of 1 kHz."""

    def __init__(self) -> None:
        super().__init__(name="tone", spec=SPEC)

    def forward(self, mel: Tensor) -> Tensor:
        level = mel.mean(1, keepdim=True).exp().repeat_interleave(self.spec.hop_length, -1)
        time = torch.arange(level.shape[-1], device=mel.device) / self.spec.sample_rate
        return 3 * level * torch.sin(2 * math.pi * 1000 * time)


class Streaming(melvoc.Vocoder):
    """A plugin that says how it streams."""

    def __init__(self) -> None:
        super().__init__(name="streaming", spec=SPEC)
        self.up = ConvTranspose1d(40, 1, 256, 128)
        self.nodes = Chain((self.up, Map(torch.tanh)))

    def forward(self, mel: Tensor) -> Tensor:
        return self.nodes(mel)

    def graph(self) -> Node:
        return self.nodes


def test_a_vocoder_is_one_line_and_no_tree() -> None:
    assert repr(Tone()) == "<Tone 'tone': 16000 Hz, 40 bands, hop 128, 0 M parameters, float32, cpu, engine torch>"
    tiny = vocoder("vocos_tiny")
    line = "<NeuralVocoder 'vocos_tiny': 24000 Hz, 100 bands, hop 256, 0.0763 M parameters, {}, cpu, engine {}>"
    assert repr(tiny) == str(tiny) == line.format("float32", "cpu")
    assert repr(vocoder("vocos_tiny", engine="torch")) == line.format("float32", "torch")
    assert repr(tiny.to(torch.float64)) == line.format("float64", "torch")
    model = nn.Sequential(Tone())
    assert repr(model) == f"Sequential(\n  (0): {Tone()!r}\n)"


def test_identity() -> None:
    voc = Tone()
    assert (voc.name, voc.spec, voc.sample_rate, voc.get_sample_rate()) == ("tone", SPEC, 16000, 16000)
    assert (voc.device, voc.dtype) == (torch.device("cpu"), torch.float32)
    assert voc.to(torch.float64).dtype == torch.float64
    assert isinstance(voc, nn.Module)


@pytest.mark.parametrize("shape", [(40, 9), (2, 40, 9), (2, 1, 40, 9)])
def test_every_mel_shape(shape: tuple[int, ...]) -> None:
    wave = Tone().mel_to_waveform(torch.full(shape, -4.0))
    assert wave.shape == (2 if len(shape) > 2 else 1, 1, 9 * 128)
    assert wave.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3000,), (2, 3000), (2, 1, 3000)])
def test_mel_of_every_waveform_shape(shape: tuple[int, ...]) -> None:
    mel = Tone().mel(torch.rand(shape) - 0.5, sample_rate=Tone().sample_rate)
    assert mel.shape == (2 if len(shape) > 1 else 1, 40, SPEC.frames(3000))


def test_arrays_go_in_and_tensors_come_out() -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    voc = VOCODERS["vocos_tiny"]
    mel = voc.mel(wave, sample_rate=16000)
    array = mel.float().numpy()
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch complains of arrays that it may not write to
        made = voc.mel_to_waveform(array, lengths=np.array([mel.shape[-1]]))
        assert torch.equal(made, voc.mel_to_waveform(mel.float()))
        whole = voc.resynthesize(wave.astype("float32"), sample_rate=16000)
    assert isinstance(whole, Tensor)
    assert whole.shape == (1, 1, 12000)


def test_mel_resamples_first() -> None:
    time = torch.arange(48000) / 48000
    tone = 0.5 * torch.sin(2 * math.pi * 1000 * time)
    mel = Tone().mel(tone, sample_rate=48000)
    direct = Tone().mel(0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000), sample_rate=16000)
    assert mel.shape == direct.shape
    loud = direct > -4  # the tone's own bands; what is far below differs by the filter's floor
    torch.testing.assert_close(
        mel[..., 10:-10][loud[..., 10:-10]], direct[..., 10:-10][loud[..., 10:-10]], atol=0.01, rtol=0
    )


def test_the_output_is_clamped() -> None:
    wave = Tone().mel_to_waveform(torch.zeros(40, 9), spec=SPEC)  # three times full scale before the clamp
    assert float(wave.max()) == 1.0
    assert float(wave.min()) == -1.0


def test_another_spec_is_refused_field_by_field() -> None:
    other = melvoc.MelSpec.from_dict(SPEC.to_dict() | {"mel_scale": "htk", "f_max": 7000.0})
    with pytest.raises(
        melvoc.MelMismatchError, match=r"f_max: tone needs 8000.*the mel has 7000.*mel_scale: tone needs 'slaney'"
    ) as error:
        Tone().mel_to_waveform(torch.zeros(40, 9), spec=other)
    assert "n_fft" not in str(error.value)
    with pytest.raises(melvoc.SpecError, match="is a dict, but it is a melvoc.MelSpec"):
        Tone().mel_to_waveform(torch.zeros(40, 9), spec=SPEC.to_dict())  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4), seed=st.integers(0, 5))
def test_a_batch_of_lengths_is_each_one_by_itself(lengths: list[int], seed: int) -> None:
    for voc in (VOCODERS["bigvgan_v2_tiny"], VOCODERS["vocos_tiny"]):
        mel = random_mel(voc, 30, len(lengths), seed)
        for row, length in enumerate(lengths):
            mel[row, :, length:] = float("nan")  # what lies beyond is not even looked at
        wave = voc.mel_to_waveform(mel, lengths=lengths)
        assert wave.shape == (len(lengths), 1, voc.spec.samples(30))
        for row, length in enumerate(lengths):
            end = voc.spec.samples(length)
            assert not wave[row, :, end:].any(), "past its end a row is silent"
            if length:
                alone = voc.mel_to_waveform(mel[row, :, :length])
                torch.testing.assert_close(wave[row : row + 1, :, :end], alone, atol=1e-5, rtol=0)


def test_lengths_and_another_sample_rate() -> None:
    mel = torch.full((2, 40, 10), -4.0)
    wave = Tone().mel_to_waveform(mel, lengths=torch.tensor([10, 4]), sample_rate=24000)
    assert wave.shape == (2, 1, 10 * 128 * 3 // 2)
    assert wave[1, 0, : 4 * 128 * 3 // 2].any()
    assert not wave[1, 0, 4 * 128 * 3 // 2 :].any()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3], "lengths has 3 entries for 2 mels"),
        ([1, 11], r"lengths\[1\]=11.*from 0 to 10"),
        ([1.5, 2], r"lengths\[0\]=1.5"),
        ([torch.tensor(2.5), 2], r"lengths\[0\]=2.5"),
        (torch.tensor([True, False]), r"lengths\[0\]=True"),
        ([torch.tensor(True), 2], r"lengths\[0\]=True"),
        ({3: 1, 4: 2}, r"lengths=\{3: 1, 4: 2\}, but it is a list of frame counts"),
        ("12", "lengths='12', but it is a list of frame counts"),
    ],
)
def test_lengths_that_do_not_fit(lengths: list[float], message: str) -> None:
    with pytest.raises(melvoc.SpecError, match=message):
        Tone().mel_to_waveform(torch.full((2, 40, 10), -4.0), lengths=lengths)  # type: ignore[arg-type]


def test_a_mel_is_of_a_type_that_torch_computes_with() -> None:
    mel = torch.full((40, 10), -4.0).to(torch.float8_e4m3fn)
    with pytest.raises(melvoc.SpecError, match=r"the mel is torch.float8_e4m3fn, but .* pass mel.float\(\)"):
        Tone().mel_to_waveform(mel)


@pytest.mark.parametrize("how", [lambda voc: voc.to("auto"), lambda voc: voc.to(device="auto")])
def test_to_takes_what_load_takes(how: Callable[[melvoc.Vocoder], melvoc.Vocoder]) -> None:
    assert how(Streaming()).device == pick_device("auto")
    assert Streaming().to("cpu", torch.float64).dtype == torch.float64


def test_the_progress_of_a_vocoder_that_needs_the_whole_is_over_when_its_sound_is_there() -> None:
    events: list[int] = []

    class Watched(Tone):
        def forward(self, mel: Tensor) -> Tensor:
            events.append(-1)
            return super().forward(mel)

    Watched().resynthesize(
        torch.zeros(40_000), sample_rate=16000, progress=lambda stage, done, total: events.append(total - done)
    )
    assert events[-1] == 0
    assert 0 not in events[: len(events) - events[::-1].index(-1)], "not before it has worked"


@pytest.mark.parametrize("block_frames", [0, 2.0, True])
def test_block_frames_is_a_count(block_frames: object) -> None:
    with pytest.raises(melvoc.SpecError, match=f"block_frames={block_frames}.*at least 1"):
        Streaming().mel_to_waveform(torch.full((40, 5), -4.0), block_frames=block_frames)  # type: ignore[arg-type]


def test_blocks_need_a_vocoder_that_streams() -> None:
    with pytest.raises(melvoc.MelvocError, match="block_frames=4, but tone cannot run in blocks"):
        Tone().mel_to_waveform(torch.full((40, 5), -4.0), block_frames=4)
    with pytest.raises(melvoc.MelvocError, match="tone cannot stream: Tone needs the whole mel"):
        Tone().stream()


def test_a_plugin_streams_where_its_class_says_how() -> None:
    voc, mel = Streaming(), torch.randn(2, 40, 33) - 4
    with torch.no_grad():
        whole = voc(mel)
    torch.testing.assert_close(voc.mel_to_waveform(mel, block_frames=5), whole)
    with voc.stream() as stream:
        joined = torch.cat([*[stream.push(piece) for piece in mel.split(4, -1)], stream.flush()], -1)
    torch.testing.assert_close(joined, whole)


def test_a_plugin_that_breaks_the_contract_is_named() -> None:
    class Short(Tone):
        def forward(self, mel: Tensor) -> Tensor:
            return super().forward(mel)[..., :-1]

    with pytest.raises(melvoc.PluginError, match=r"Short.forward gave \[1, 1, 639\].*contract is.*\[1, 1, 640\]"):
        Short().mel_to_waveform(torch.full((40, 5), -4.0))


def test_a_spec_is_needed() -> None:
    with pytest.raises(melvoc.SpecError, match="is a dict, but it is a melvoc.MelSpec"):
        melvoc.Vocoder(name="x", spec={})  # type: ignore[arg-type]


def test_gradients_flow_through_forward() -> None:
    voc = VOCODERS["bigvgan_v2_tiny"]
    mel = random_mel(voc, 6).requires_grad_()
    voc(mel).square().sum().backward()
    assert mel.grad is not None
    assert float(mel.grad.abs().max()) > 0
    assert not voc.mel_to_waveform(mel).requires_grad


def test_float64_stays_float64() -> None:
    network, mel, wave = golden_network(GOLDEN, "bigvgan_v2_tiny")
    voc = neural(network, name="tiny", spec=VOCODERS["bigvgan_v2_tiny"].spec).to(torch.float64)
    got = voc.mel_to_waveform(mel, spec=voc.spec)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, wave.double(), atol=1e-6, rtol=0)


def test_weights_that_change_are_used() -> None:
    """What an engine prepares from the weights must not outlive them."""
    voc = copy.deepcopy(VOCODERS["bigvgan_v2_tiny"])
    mel = random_mel(voc, 10)
    before = voc.mel_to_waveform(mel)
    with torch.no_grad():
        for parameter in voc.network.resblocks.parameters():
            parameter.mul_(1.1)
    expected = voc(mel).detach().clamp(-1, 1)
    after = voc.mel_to_waveform(mel)
    assert float((after - before).abs().max()) > 1e-4
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [0, -1, 44100.0, "44100", True, 2**31])
def test_a_sample_rate_is_a_whole_number(rate: object) -> None:
    voc = Tone()
    for call in (
        lambda: voc.mel_to_waveform(torch.zeros(40, 9), sample_rate=rate),  # type: ignore[arg-type]
        lambda: voc.mel(torch.zeros(9000), sample_rate=rate),  # type: ignore[arg-type]
        lambda: melvoc.MelSpectrogram(SPEC)(torch.zeros(9000), sample_rate=rate),
        lambda: melvoc.MelSpectrogram(SPEC).stream(sample_rate=rate),  # type: ignore[arg-type]
    ):
        with pytest.raises(melvoc.SpecError, match="sample_rate=.*, but it is a whole number of Hz"):
            call()


def test_no_rate_is_guessed() -> None:
    for call in (Tone().mel, Tone().resynthesize):
        with pytest.raises(TypeError, match="sample_rate"):
            call(torch.zeros(9000))  # type: ignore[call-arg]


def test_what_is_no_tensor_and_a_batch_of_none() -> None:
    with pytest.raises(melvoc.SpecError, match="the waveform is a list, but it is a torch.Tensor"):
        Tone().mel([0.0] * 9000, sample_rate=16000)  # type: ignore[arg-type]
    with pytest.raises(melvoc.SpecError, match="an empty batch; give at least one mel"):
        Tone().mel_to_waveform(torch.zeros(0, 40, 9))
    with pytest.raises(melvoc.SpecError, match="lengths=5, but it is a list of frame counts"):
        Tone().mel_to_waveform(torch.zeros(40, 9), lengths=5)  # type: ignore[arg-type]
