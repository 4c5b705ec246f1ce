"""A builder of ONNX graphs: nodes with one output, and constants, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melvoc.errors import MissingPackageError

OPSET = 18  # the first with bitwise operators; ONNX Runtime 1.14
IR_VERSION = 8  # of the same release
LAST = (1 << 63) - 1  # an end that a slice never reaches

Name = str  # of a value in the graph
Shape = Sequence[str | int]  # text stands for a dynamic length


def needed_onnx() -> Any:
    """The package `onnx`.

    Raises:
        MissingPackageError: it is not installed, or does not import.
    """
    try:
        import onnx
    except Exception as error:
        raise MissingPackageError(f"ONNX files need the package onnx: pip install 'melvoc[onnx]' ({error})") from error
    return onnx


class Builder:
    """Nodes and constants of one graph, in order.

    Every method that adds a node gives the name of its output. Where a value is taken, a number or an array will do:
    numbers become constants, and equal constants are stored once.
    """

    def __init__(self) -> None:
        self._onnx = needed_onnx()
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Name] = {}  # by what is in them
        self._stored: dict[Name, NDArray[Any]] = {}  # networks' own memory, mostly
        self._made: dict[Name, tuple[str, tuple[Name, ...], Mapping[str, Any]]] = {}
        self._seen: dict[tuple[Any, ...], Name] = {}

    def node(self, operator: str, *inputs: Name | float | NDArray[Any], **attributes: Any) -> Name:
        """Add a node with one output, or find the equal one that is there."""
        names = tuple(one if isinstance(one, str) else self.constant(one) for one in inputs)
        key = (operator, names, repr(sorted(attributes.items())))
        if key not in self._seen:
            output = self._seen[key] = f"{operator.lower()}_{len(self._nodes)}"
            self._nodes.append(self._onnx.helper.make_node(operator, names, [output], name=output, **attributes))
            self._made[output] = (operator, names, attributes)
        return self._seen[key]

    def constant(self, value: float | NDArray[Any]) -> Name:
        """A constant: a float becomes float32, an int int64, and an array keeps its type."""
        kinds = {bool: np.bool_, int: np.int64, float: np.float32}
        array = np.ascontiguousarray(value, dtype=kinds.get(type(value)))
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._stored)}"
            self._stored[self._constants[key]] = array
        return self._constants[key]

    # What several lowerings use

    def ints(self, *values: int | Name) -> Name:
        """A list of whole numbers, some of which are values `[1]` of the graph."""
        if not any(isinstance(value, str) for value in values):
            return self.constant(np.array(values, np.int64))
        parts = [value if isinstance(value, str) else self.constant(np.array([value])) for value in values]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def length(self, x: Name, axis: int = -1) -> Name:
        """How long a value is, as a value `[1]`."""
        return self.node("Gather", self.node("Shape", x), np.array([axis]), axis=0)

    def slice(self, x: Name, start: int | Name, stop: int | Name, axis: int = -1, step: int = 1) -> Name:
        """`x[start:stop:step]` along an axis."""
        return self.node("Slice", x, self.ints(start), self.ints(stop), self.ints(axis), self.ints(step))

    def reshape(self, x: Name, *shape: int | Name) -> Name:
        """Another shape; a 0 keeps what is there, and one -1 takes the rest."""
        return self.node("Reshape", x, self.ints(*shape))

    def transpose(self, x: Name, *order: int) -> Name:
        """Axes in another order; one that undoes the last one is none."""
        made = self._made.get(x)
        if made and made[0] == "Transpose" and [made[2]["perm"][axis] for axis in order] == list(range(len(order))):
            return made[1][0]
        return self.node("Transpose", x, perm=list(order))

    def pad(self, x: Name, left: int | Name, right: int | Name, mode: str = "constant", rank: int = 3) -> Name:
        """More samples at the ends of the last axis."""
        if left == right == 0:
            return x
        none = [0] * (rank - 1)
        return self.node("Pad", x, self.ints(*none, left, *none, right), mode=mode)

    def concatenate(self, parts: Sequence[Name], axis: int = -1) -> Name:
        """Values after one another."""
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=axis)

    def finish(
        self,
        inputs: Mapping[Name, tuple[str, Shape]],
        outputs: Mapping[Name, tuple[Name, str, Shape]],
        metadata: Mapping[str, str],
    ) -> bytes:
        """The model as it is written to a file.

        Args:
            inputs: their types ("float32", "int64") and shapes, by name.
            outputs: by the name that they get: the value, its type and its shape.
            metadata: text by key.
        """
        helper, kinds = self._onnx.helper, {"float32": 1, "int64": 7}  # onnx.TensorProto's numbers
        ends = [helper.make_node("Identity", [value], [name], name=name) for name, (value, _, _) in outputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *ends],
            "melvoc",
            [helper.make_tensor_value_info(name, kinds[kind], shape) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(name, kinds[kind], shape) for name, (_, kind, shape) in outputs.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="melvoc")
        helper.set_model_props(model, dict(metadata))
        for name, array in self._stored.items():  # where they stay: whoever takes them copies them
            model.graph.initializer.append(self._onnx.numpy_helper.from_array(array, name))
        return model.SerializeToString()  # type: ignore[no-any-return]


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor as a float32 array on the CPU."""
    return tensor.detach().to("cpu", torch.float32).numpy()


class Signal(NamedTuple):
    """A value `[B, channels, N]`."""

    name: Name
    channels: int
