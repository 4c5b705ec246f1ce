"""ONNX graphs give the sound that melvoc gives."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from exported import NETWORKS, SPEC, run, session, some_mel, tiny
from expressions import expression, frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from melvoc.errors import MelvocError
from melvoc.exporting.graph import Builder, Signal
from melvoc.exporting.models import onnx_model
from melvoc.exporting.nodes import lower
from melvoc.nn.framing import Select, ToSamples
from melvoc.nn.graph import Branches, Chain, Map, Node, concatenate
from melvoc.nn.layers import Conv1d
from melvoc.nn.noise import Noise
from melvoc.post import PostStep
from melvoc.post.refine import Refine
from melvoc.spectrogram.spec import MelSpec
from melvoc.synthesis import Condition
from melvoc.vocoder import Vocoder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# Of ONNX Runtime's own kernels, on a CPU and in WebAssembly: no complex numbers, no DFT, no control flow.
OPERATORS = {
    "Add", "And", "BitwiseAnd", "BitwiseXor", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "Cos", "Div", "Erf",
    "Exp", "Expand", "Gather", "Greater", "GreaterOrEqual", "Identity", "LayerNormalization", "LeakyRelu", "Less",
    "Log", "MatMul", "Max", "Mul", "PRelu", "Pad", "Range", "Reciprocal", "ReduceMean", "ReduceSum", "Reshape", "Shape",
    "Sin", "Slice", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


@functools.cache
def exported(name: str) -> tuple[Vocoder, bytes, Any]:
    vocoder = tiny(name, **({"seed": 5} if name == "flow2gan 2" else {}))
    model = onnx_model(vocoder, ())
    return vocoder, model, session(model)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None)
@given(frames=st.integers(1, 500), batch=st.integers(1, 3))
@example(frames=1, batch=1)
@example(frames=2, batch=3)
@example(frames=500, batch=2)
def test_the_sound_is_melvocs(name: str, frames: int, batch: int) -> None:
    vocoder, _, runtime = exported(name)
    mel = some_mel(vocoder, frames, batch)
    wanted = vocoder.mel_to_waveform(mel, spec=SPEC)
    most = 5e-4 if name == "glnet" else 2e-5  # its rounds amplify rounding where a mel is no sound's
    torch.testing.assert_close(run(runtime, mel=mel), wanted, atol=most, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_operators_that_every_runtime_has(name: str) -> None:
    model = onnx.load_from_string(exported(name)[1])
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert {(one.domain, one.version) for one in model.opset_import} == {("", 18)}
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert clips
    assert all(len(node.input) == 3 and all(node.input) for node in clips), "both bounds"


def test_weights_are_stored_once() -> None:
    """Steps of Flow2GAN run the same layers, and rounds of refinement the same transforms."""
    for less, more in (
        (exported("flow2gan 1")[1], exported("flow2gan 2")[1]),
        (onnx_model(tiny("vocos"), (Refine(1),)), onnx_model(tiny("vocos"), (Refine(3),))),
    ):
        sizes = [
            sum(len(one.raw_data) for one in onnx.load_from_string(model).graph.initializer) for model in (less, more)
        ]
        assert sizes[1] < 1.05 * sizes[0]


def test_another_seed_is_another_sound() -> None:
    first, second = (onnx_model(tiny("flow2gan 1", seed=seed), ()) for seed in (0, (1 << 63) - 1))
    vocoder = tiny("flow2gan 1", seed=(1 << 63) - 1)
    mel = some_mel(vocoder, 9)
    torch.testing.assert_close(
        run(session(second), mel=mel), vocoder.mel_to_waveform(mel, spec=SPEC), atol=2e-5, rtol=0
    )
    assert not torch.allclose(run(session(first), mel=mel), run(session(second), mel=mel), atol=1e-2)


def test_the_sound_is_clamped() -> None:
    vocoder = tiny("wavenext")
    with torch.no_grad():
        vocoder.network.head.linear_2.weight.mul_(100.0)
    mel = some_mel(vocoder, 20)
    sound = run(session(onnx_model(vocoder, ())), mel=mel)
    assert float(sound.abs().max()) == 1.0
    torch.testing.assert_close(sound, vocoder.mel_to_waveform(mel, spec=SPEC), atol=1e-4, rtol=0)


# Refinement


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"center": True, "pad_mode": "constant", "magnitude_eps": 0.0, "log_floor": 1e-7},
        {"power": 2.0, "log": "db"},
        {"log": "log10", "norm": None, "mel_scale": "htk"},
        {"log": "log1p", "win_length": 50},
        {"n_fft": 72, "f_max": 7000.0},
        {"n_fft": 65, "win_length": 65},
    ],
    ids=str,
)
@pytest.mark.parametrize("rounds", [1, 3])
def test_refinement_inside_the_graph(change: dict[str, Any], rounds: int) -> None:
    vocoder = tiny("hifigan", spec=SPEC.replace(**change))
    runtime = session(onnx_model(vocoder, (Refine(rounds),)))
    for frames, batch in ((1, 1), (2, 3), (40, 2)):
        noise = 0.1 * torch.randn(batch, 16 * frames + 64, generator=torch.Generator().manual_seed(frames))
        mel = vocoder.mel(noise, sample_rate=16000)[..., :frames]  # of sound, which rounds converge for
        wanted = vocoder.mel_to_waveform(mel, refine=rounds)
        torch.testing.assert_close(run(runtime, mel=mel), wanted, atol=1e-4, rtol=0)


# Anything that is made of melvoc's nodes


@pytest.mark.parametrize("seed", range(60))
def test_any_expression_of_nodes(seed: int) -> None:
    node, channels = expression(seed, 5)
    frozen(node)
    builder = Builder()
    value = lower(builder, node, Signal("x", 5))
    assert value.channels == channels
    model = builder.finish(
        {"x": ("float32", ["batch", 5, "n"])}, {"y": (value.name, "float32", ["batch", channels, "m"])}, {}
    )
    runtime = session(model)
    for frames, batch in ((17, 2), (24, 1)):
        x = torch.randn(batch, 5, frames)
        torch.testing.assert_close(run(runtime, x=x), node(x), atol=1e-4, rtol=1e-4)


def test_noise_by_row() -> None:
    builder, node = Builder(), Noise(6, seed=77)
    value = lower(builder, node, Signal("x", 1))
    model = builder.finish({"x": ("float32", ["b", 1, "n"])}, {"y": (value.name, "float32", ["b", 6, "n"])}, {})
    x = torch.zeros(3, 1, 11)
    torch.testing.assert_close(run(session(model), x=x), node(x), atol=3e-6, rtol=0)


class Duet(Vocoder):
    """Stereo, with a condition: what a plugin may be."""

    conditions = {"f0": Condition(unit="Hz", low=0.0, high=500.0)}  # noqa: RUF012
    channels = 2

    def __init__(self, spec: MelSpec = SPEC) -> None:
        super().__init__(name="duet", spec=spec)
        self.out = Conv1d(9, 32, 3)
        nn.init.normal_(self.out.weight, 0, 0.05)

    def graph(self) -> Node:
        pitched = Branches((Select(0, 8), Chain((Select(8, 9), Map(lambda x: x / 500.0)))), concatenate)
        return Chain((pitched, self.out, Map(torch.tanh), ToSamples(16)))


def test_conditions_are_inputs_by_name_and_channels_stay() -> None:
    vocoder = Duet()
    model = onnx_model(vocoder, (Refine(1),))
    mel, f0 = some_mel(vocoder, 12, 2), torch.rand(2, 1, 12) * 300
    wanted = vocoder.mel_to_waveform(mel, spec=SPEC, conditions={"f0": f0}, refine=1)
    assert wanted.shape == (2, 2, 192)
    torch.testing.assert_close(run(session(model), mel=mel, f0=f0), wanted, atol=1e-4, rtol=0)


class Whole(Vocoder):
    """Plain torch: no graph."""

    def __init__(self) -> None:
        super().__init__(name="whole", spec=SPEC)

    def forward(self, mel: Tensor) -> Tensor:
        return mel.new_zeros(mel.shape[0], 1, 16 * mel.shape[-1])


class Odd:
    """A node that nobody knows."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


class Unknown(PostStep):
    kind = "unknown"

    def open(self, sound: Any) -> Any: ...
    def delay(self, sound: Any) -> int: ...  # type: ignore[empty-body]
    def to_dict(self) -> dict[str, Any]: ...  # type: ignore[empty-body]
    @classmethod
    def from_dict(cls, values: Any) -> Any: ...


def test_what_has_no_form_in_onnx_says_so() -> None:
    with pytest.raises(MelvocError, match=r"whole cannot become an ONNX file: Whole has no graph .* write a \.pt2"):
        onnx_model(Whole(), ())
    with pytest.raises(MelvocError, match=r"ONNX: the network has a Odd, .* make it of melvoc's own nodes"):
        lower(Builder(), Chain((Odd(),)), Signal("x", 1))  # type: ignore[arg-type]
    with pytest.raises(MelvocError, match=r"no form in ONNX for the step 'unknown'; remove it"):
        onnx_model(tiny("wavenext"), (Unknown(),))
