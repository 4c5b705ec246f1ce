"""Small vocoders as ONNX graphs, made node by node with the `onnx` package, and the same in torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from melvoc import MelSpec

SPEC = MelSpec(sample_rate=8000, n_fft=256, hop_length=64, n_mels=20)
CONTEXT = (3, 3)  # frames on either side of one: two of the convolution, one of the transposed convolution


def weights(channels: int = 1, n_mels: int = SPEC.n_mels, hop: int = SPEC.hop_length) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "w1": 0.1 * torch.randn(8, n_mels, 5, generator=draw),
        "b1": 0.1 * torch.randn(8, generator=draw),
        "w2": 0.1 * torch.randn(8, channels, 2 * hop, generator=draw),
    }


def network(mel: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    """`[B, n_mels, T]` to `[B, channels, T * hop_length]`: what the graph of `write` computes."""
    own = weights() if tensors is None else tensors
    x = F.leaky_relu(F.conv1d(mel, own["w1"], own["b1"], padding=2), 0.1)
    hop = own["w2"].shape[-1] // 2
    return F.conv_transpose1d(x, own["w2"], stride=hop, padding=hop // 2).tanh()


def metadata(spec: MelSpec = SPEC, /, **more: Any) -> dict[str, str]:
    """What melvoc's exports say, as docs/export.md has it."""
    texts = {"melvoc.spec": spec.to_dict(), "melvoc.samples_per_frame": spec.hop_length} | {
        f"melvoc.{key}": value for key, value in more.items()
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in texts.items()}


def write(
    path: Path,
    texts: Mapping[str, str] | None = None,
    *,
    shape: tuple[object, ...] = ("batch", 20, "frames"),
    before: tuple[Any, ...] = (),
    after: tuple[Any, ...] = (),
    inputs: tuple[str, str] = ("mel", "audio"),
    outputs: int = 1,
    kind: int = TensorProto.FLOAT,
    tensors: Mapping[str, Tensor] | None = None,
    pads: tuple[int, int] | None = None,
) -> str:
    """A file with the graph of `network`.

    Args:
        path: of the file.
        texts: its metadata.
        shape: of its input, as it is declared.
        before: nodes that make "x" of the input, where it is no `[B, n_mels, T]`.
        after: nodes that make the output of "y", where it is no `[B, channels, N]`.
        inputs: names of the input and of the output.
        outputs: how many there are.
        kind: of the input.
        tensors: the weights.
        pads: of the transposed convolution; None: half a hop on both sides.
    """
    mel, audio = inputs
    own = weights() if tensors is None else tensors
    hop = own["w2"].shape[-1] // 2
    nodes = [
        *before,
        helper.make_node("Conv", ["x" if before else mel, "w1", "b1"], ["c"], pads=[2, 2]),
        helper.make_node("LeakyRelu", ["c"], ["r"], alpha=0.1),
        helper.make_node("ConvTranspose", ["r", "w2"], ["t"], strides=[hop], pads=list(pads or (hop // 2, hop // 2))),
        helper.make_node("Tanh", ["t"], ["y" if after else audio]),
        *after,
    ]
    made = [audio, *(f"{audio}{n}" for n in range(1, outputs))]
    nodes += [helper.make_node("Identity", [audio], [name]) for name in made[1:]]
    graph = helper.make_graph(
        nodes,
        "vocoder",
        [helper.make_tensor_value_info(mel, kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in own.items()],
    )
    return save(path, graph, texts)


def save(path: Path, graph: Any, texts: Mapping[str, str] | None = None) -> str:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, dict(texts or {}))
    onnx.save(model, path)
    return str(path)


def transposed() -> tuple[Any, ...]:
    return (helper.make_node("Transpose", ["mel"], ["x"], perm=[0, 2, 1]),)


def squeezed(*axes: int) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Nodes that drop axes of the sound, and the constant that they need."""
    return (helper.make_node("Squeeze", ["y", "axes"], ["audio"]),), {"axes": torch.tensor(axes)}


def sherpa_vocos(path: Path, bins: int, texts: Mapping[str, str]) -> tuple[str, Callable[[Tensor], Tensor]]:
    """A file with magnitude, cosine and sine as outputs, and the spectrum `[B, bins, T]` that they mean."""
    draw = torch.Generator().manual_seed(1)
    ways = [0.1 * torch.randn(bins, SPEC.n_mels, 1, generator=draw) for _ in range(2)]
    nodes = [
        helper.make_node("Conv", ["mel", "m"], ["log"]),
        helper.make_node("Exp", ["log"], ["mag"]),
        helper.make_node("Conv", ["mel", "p"], ["phase"]),
        helper.make_node("Cos", ["phase"], ["x"]),
        helper.make_node("Sin", ["phase"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "vocos",
        [helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["N", SPEC.n_mels, "T"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", bins, "T"]) for name in ("mag", "x", "y")],
        [numpy_helper.from_array(np.asarray(way), name) for way, name in zip(ways, "mp", strict=True)],
    )

    def spectrum(mel: Tensor) -> Tensor:
        return torch.polar(F.conv1d(mel, ways[0]).exp(), F.conv1d(mel, ways[1]))

    return save(path, graph, texts), spectrum
