"""The ONNX model of a vocoder: inputs, network, steps after it, outputs and metadata."""

from __future__ import annotations

import json
from dataclasses import asdict

from melvoc.errors import MelvocError, quoted
from melvoc.exporting.context import context_frames
from melvoc.exporting.graph import Builder, Shape, Signal
from melvoc.exporting.metadata import describe
from melvoc.exporting.nodes import lower
from melvoc.exporting.refinement import lower_refine
from melvoc.exporting.sherpa import check_sherpa, inverted_outside, lower_spectral, sherpa_metadata
from melvoc.exporting.streams import ENDS, State, Stream
from melvoc.post import PostStep, Sound
from melvoc.post.refine import Refine
from melvoc.vocoder import Vocoder


def onnx_model(vocoder: Vocoder, steps: tuple[PostStep, ...], *, sherpa: bool = False) -> bytes:
    """The model as it is written to a file.

    Args:
        vocoder: on the CPU, in float32.
        steps: that follow its network.
        sherpa: whether it is for sherpa-onnx.

    Raises:
        MelvocError: something in it has no form in ONNX here, or not for sherpa-onnx.
    """
    builder = Builder()
    inputs, declared = _inputs(vocoder)
    metadata = describe(vocoder, steps)
    if sherpa:
        check_sherpa(vocoder)
        network = inverted_outside(vocoder, steps)
        metadata |= sherpa_metadata(vocoder, network)
        if network is not None:
            spectrum = lower_spectral(builder, network, Signal("mel", inputs["mel"]))
            shape: Shape = ["batch", network.config.n_fft // 2 + 1, "frames"]
            outputs = {name: (value, "float32", shape) for name, value in spectrum.items()}
            return builder.finish(declared, outputs, metadata)
    frames = Signal(builder.concatenate(list(inputs), 1), sum(inputs.values()))
    wave = lower(builder, vocoder.graph(), frames)
    for step in steps:
        wave = _after(builder, vocoder, step, wave)
    if not steps and (context := context_frames(vocoder)):
        metadata["melvoc.context_frames"] = json.dumps(context)
    audio = builder.node("Clip", wave.name, -1.0, 1.0)
    return builder.finish(declared, {"audio": (audio, "float32", _audio_shape(vocoder))}, metadata)


def streaming_model(vocoder: Vocoder, steps: tuple[PostStep, ...]) -> bytes:
    """The model of one step of a stream.

    Args:
        vocoder: on the CPU, in float32.
        steps: that follow its network: none.

    Raises:
        MelvocError: something in it has no streaming form in ONNX here.
    """
    if steps:
        kinds = ", ".join(step.kind for step in steps)
        raise MelvocError(f"ONNX: the network alone is exported as a stream, not {kinds}; give refine=0")
    builder = Builder()
    inputs, declared = _inputs(vocoder)
    stream = Stream(builder)
    wave = stream.lower(vocoder.graph(), Signal(builder.concatenate(list(inputs), 1), sum(inputs.values())))
    audio = builder.node("Clip", wave.name, -1.0, 1.0)
    shapes = {name: (state.kind, _open(name, state)) for name, state in stream.states.items()}
    after = {f"next_{name}": (stream.after[name], *shapes[name]) for name in stream.states}
    metadata = describe(vocoder, steps) | {
        "melvoc.states": json.dumps({name: asdict(state) for name, state in stream.states.items()}),
        "melvoc.latency_samples": str(vocoder.graph().delay(0)),
    }
    outputs = {"audio": (audio, "float32", _audio_shape(vocoder))} | after
    return builder.finish(declared | {ENDS: ("int64", [1])} | shapes, outputs, metadata)


def _audio_shape(vocoder: Vocoder) -> Shape:
    return ["batch", vocoder.channels, "samples"]


def _inputs(vocoder: Vocoder) -> tuple[dict[str, int], dict[str, tuple[str, Shape]]]:
    """Mel and conditions: their channels by name, and their types and shapes.

    Raises:
        MelvocError: a vocoder without a graph.
    """
    if not vocoder.can_stream:
        raise MelvocError(
            f"{vocoder.name} cannot become an ONNX file: {type(vocoder).__name__} has no graph of melvoc's nodes (see "
            "docs/plugins.md, Streaming); write a .pt2, or use torch.onnx.export on it"
        )
    if taken := {"mel", "audio", "last"}.intersection(vocoder.conditions):
        raise MelvocError(
            f"{vocoder.name} has a condition {quoted(min(taken))}, which is the name of another input or output of the "
            "file; rename the condition"
        )
    inputs = {"mel": vocoder.spec.n_mels} | {name: one.channels for name, one in vocoder.conditions.items()}
    return inputs, {name: ("float32", ["batch", channels, "frames"]) for name, channels in inputs.items()}


def _open(name: str, state: State) -> Shape:
    """The shape of a state, whose length a step may change."""
    return [*state.shape[:-1], f"{name}_length"] if state.kind == "float32" else list(state.shape)


def _after(builder: Builder, vocoder: Vocoder, step: PostStep, wave: Signal) -> Signal:
    """A step after the network.

    Raises:
        MelvocError: one that has no form in ONNX here.
    """
    if not isinstance(step, Refine):
        raise MelvocError(f"ONNX: melvoc has no form in ONNX for the step {step.kind!r}; remove it from voc.post")
    sound = Sound(
        spec=vocoder.spec,
        channels=vocoder.channels,
        samples_per_frame=vocoder.samples_per_frame,
        sample_rate=vocoder.sample_rate,
    )
    return lower_refine(builder, step, sound, Signal("mel", vocoder.spec.n_mels), wave)
