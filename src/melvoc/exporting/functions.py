"""The functions inside a `Map` or a join, as ONNX nodes.

A function is run once, on small tensors, and what it does with torch is written down as it happens: a function of
single samples or frames does the same whatever their number. So it needs no entry anywhere, as long as it is made of
the operations below.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from melvoc.errors import MelvocError
from melvoc.exporting.graph import LAST, Builder, Name, Signal, array_of

FRAMES = 5  # of the small tensors
IN_PLACE = re.compile(r"[a-z]\w*_")  # torch's names of what writes into its argument
LARGEST = float(np.finfo(np.float32).max)


def lower_function(builder: Builder, function: Callable[[Any], Tensor], inputs: Signal | Sequence[Signal]) -> Signal:
    """The value of a function.

    Args:
        builder: of the graph.
        function: of one signal, or of a list of them, sample by sample.
        inputs: the signal, or the list.

    Raises:
        MelvocError: it does something that has no form in ONNX here.
    """
    recorder = _Recorder(builder)
    with torch.no_grad():
        tensors: Any = (
            recorder.tensor(inputs) if isinstance(inputs, Signal) else [recorder.tensor(one) for one in inputs]
        )
        with recorder:
            result = function(tensors)
    return Signal(recorder.name(result), result.shape[1])


class _Recorder(TorchFunctionMode):
    """Writes torch's functions down while they run."""

    def __init__(self, builder: Builder) -> None:
        super().__init__()
        self._builder = builder
        self._names: dict[int, tuple[Name, Tensor]] = {}  # by id, which stays a tensor's own while it is kept here

    def tensor(self, signal: Signal) -> Tensor:
        """A small tensor that stands for a signal; its values do not matter."""
        small = torch.ones(2, signal.channels, FRAMES, device="cpu")
        self._names[id(small)] = (signal.name, small)
        return small

    def name(self, value: Any) -> Any:
        """The name of a tensor that stands for a signal, an array for one that is constant; the rest is as it is."""
        if isinstance(value, tuple | list):
            return type(value)(map(self.name, value))
        if not isinstance(value, Tensor):
            return value
        known = self._names.get(id(value))
        return known[0] if known else array_of(value)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        concerned = any(id(one) in self._names for one in _tensors([*args, *named.values()]))
        operation, in_place = function.__name__.strip("_"), IN_PLACE.fullmatch(function.__name__)
        if concerned and in_place and self._is_seen_elsewhere(args[0]):
            raise MelvocError(f"ONNX: a function writes into a part of a tensor ({in_place[0]}); return a new one")
        result = function(*args, **named)
        made = list(_tensors([result]))  # none of a shape, for example
        if concerned and made:
            names = self._lower(operation, result, args, named)
            for one, name in zip(made, names if isinstance(names, list) else [names], strict=True):
                self._names[id(one)] = (name, one)
        return result

    def _is_seen_elsewhere(self, written: Tensor) -> bool:
        """Whether it is a part or a view of another tensor, which would change with it."""
        memory = written.untyped_storage()
        shared = (one for _, one in self._names.values() if one is not written)
        return memory.nbytes() > written.nbytes or any(
            one.untyped_storage().data_ptr() == memory.data_ptr() for one in shared
        )

    def _lower(self, operation: str, result: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The value of an operation, or the values.

        Raises:
            MelvocError: it has no form in ONNX here.
        """
        lower = OPERATIONS.get(operation)
        if lower is None:
            raise MelvocError(
                f"ONNX: a function uses torch's {operation}, for which melvoc has no form in ONNX; use one of "
                f"{', '.join(sorted(OPERATIONS))}, or write a .pt2"
            )
        if odd := {one.dtype for one in _tensors([result])} - {torch.float32, torch.bool}:
            raise MelvocError(
                f"ONNX: a function makes {odd.pop()} of its input, but here everything is float32; keep it"
            )
        values = {key: self.name(value) for key, value in named.items()}
        try:
            return lower(self._builder, result, *self.name(args), **values)
        except (TypeError, ValueError) as error:
            raise MelvocError(
                f"ONNX: a function uses torch's {operation} with arguments that have no form in ONNX here ({error}); "
                "write it out, or write a .pt2"
            ) from error


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among the arguments of a function, in lists as well."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _simple(operator: str) -> Callable[..., Name]:
    return lambda builder, result, x: builder.node(operator, x)


def _binary(operator: str, *, reflected: bool = False) -> Callable[..., Name]:
    def lower(builder: Builder, result: Tensor, x: Any, other: Any, *, alpha: float = 1) -> Name:
        x, other = (float(one) if isinstance(one, int | float) else one for one in (x, other))
        first, second = (other, x) if reflected else (x, other)
        return builder.node(operator, first, second if alpha == 1 else builder.node("Mul", second, float(alpha)))

    return lower


def _clamp(builder: Builder, result: Tensor, x: Name, min: float | None = None, max: float | None = None) -> Name:
    """With both bounds: a Clip with an empty input is not understood everywhere."""
    return builder.node("Clip", x, -LARGEST if min is None else float(min), LARGEST if max is None else float(max))


def _gelu(builder: Builder, result: Tensor, x: Name, approximate: str = "none") -> Name:
    """As ONNX Runtime recognises it, which makes one operation of it."""
    if approximate != "none":
        cube = builder.node("Mul", builder.node("Mul", x, x), x)
        inner = builder.node("Add", x, builder.node("Mul", cube, 0.044715))
        share = builder.node("Tanh", builder.node("Mul", inner, math.sqrt(2.0 / math.pi)))
    else:
        share = builder.node("Erf", builder.node("Div", x, math.sqrt(2.0)))
    return builder.node("Mul", builder.node("Mul", x, builder.node("Add", share, 1.0)), 0.5)


def _expm1(builder: Builder, result: Tensor, x: Name) -> Name:
    """exp(x) - 1 = 2 sinh(x / 2) exp(x / 2), exact for small x, too; of large ones a half would overflow."""
    half = builder.node("Mul", builder.node("Clip", x, -1.0, 1.0), 0.5)
    near = builder.node("Mul", builder.node("Mul", builder.node("Sinh", half), builder.node("Exp", half)), 2.0)
    small = builder.node("Less", builder.node("Abs", x), 1.0)
    return builder.node("Where", small, near, builder.node("Sub", builder.node("Exp", x), 1.0))


def _linear(builder: Builder, result: Tensor, x: Name, weight: Any, bias: Any = None) -> Name:
    product = builder.node("MatMul", x, np.ascontiguousarray(weight.T))
    return product if bias is None else builder.node("Add", product, bias)


def _layer_norm(
    builder: Builder, result: Tensor, x: Name, shape: Sequence[int], weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Name:  # fmt: skip
    weight = np.ones(shape, np.float32) if weight is None else weight
    bias = np.zeros(shape, np.float32) if bias is None else bias
    return builder.node("LayerNormalization", x, weight, bias, axis=-len(shape), epsilon=float(eps))


def _prelu(builder: Builder, result: Tensor, x: Name, weight: Any) -> Name:
    return builder.node("PRelu", x, weight.reshape(-1, *[1] * (result.dim() - 2)))


def _transpose(builder: Builder, result: Tensor, x: Name, first: int, second: int) -> Name:
    order = list(range(result.dim()))
    order[first], order[second] = order[second], order[first]
    return builder.transpose(x, *order)


def _unsqueeze(builder: Builder, result: Tensor, x: Name, dim: int) -> Name:
    return builder.node("Unsqueeze", x, np.array([dim]))


def _cat(builder: Builder, result: Tensor, parts: Sequence[Name], dim: int = 0) -> Name:
    return builder.concatenate(parts, dim)


def _chunk(builder: Builder, result: Sequence[Tensor], x: Name, parts: Any, dim: int = 0) -> list[Name]:
    """Also torch's split: what came out says how it was cut."""
    ends = np.cumsum([0, *[part.shape[dim] for part in result]])
    return [builder.slice(x, int(a), int(b), axis=dim) for a, b in itertools.pairwise(ends)]


def _getitem(builder: Builder, result: Tensor, x: Name, index: Any) -> Name:
    """Whole slices of the channels and samples; None adds an axis."""
    for axis, one in enumerate(index if isinstance(index, tuple) else (index,)):
        if one is None:
            x = builder.node("Unsqueeze", x, np.array([axis]))
        elif isinstance(one, slice) and (one.step or 1) > 0:
            if one != slice(None):
                stop = LAST if one.stop is None else one.stop
                x = builder.slice(x, one.start or 0, stop, axis=axis, step=one.step or 1)
        else:
            raise MelvocError(f"ONNX: a function indexes by {one!r}, but only slices have a form in ONNX here; slice")
    return x


def _reduced(operator: str) -> Callable[..., Name]:
    def lower(builder: Builder, result: Tensor, x: Name, dim: int | Sequence[int], keepdim: bool = False) -> Name:
        axes = np.array([dim] if isinstance(dim, int) else list(dim))
        return builder.node(operator, x, axes, keepdims=int(keepdim))

    return lower


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: _simple(name.capitalize()) for name in ("abs", "cos", "erf", "exp", "log", "neg", "reciprocal")},
    **{name: _simple(name.capitalize()) for name in ("sigmoid", "sin", "softplus", "sqrt", "tanh")},
    **dict.fromkeys(("clone", "contiguous", "detach", "float", "to"), lambda builder, result, x, *how, **named: x),
    "relu": lambda builder, result, x, inplace=False: builder.node("Relu", x),
    "rsqrt": lambda builder, result, x: builder.node("Reciprocal", builder.node("Sqrt", x)),
    "square": lambda builder, result, x: builder.node("Mul", x, x),
    "silu": lambda builder, result, x, inplace=False: builder.node("Mul", x, builder.node("Sigmoid", x)),
    "leaky_relu": lambda builder, result, x, negative_slope=0.01, inplace=False: builder.node(
        "LeakyRelu", x, alpha=float(negative_slope)
    ),
    "gelu": _gelu,
    "prelu": _prelu,
    "clamp": _clamp,
    "clip": _clamp,
    **{name: _binary("Add") for name in ("add", "radd", "iadd")},
    **{name: _binary("Sub") for name in ("sub", "isub")},
    **{name: _binary("Mul") for name in ("mul", "rmul", "imul")},
    **{name: _binary("Div") for name in ("div", "truediv", "true_divide")},
    "pow": _binary("Pow"),
    "rsub": _binary("Sub", reflected=True),
    **{name: _binary("Div", reflected=True) for name in ("rdiv", "rtruediv")},
    "gt": _binary("Greater"),
    "lt": _binary("Less"),
    "where": lambda builder, result, condition, x, other: builder.node("Where", condition, x, other),
    "expm1": _expm1,
    "maximum": _binary("Max"),
    "minimum": _binary("Min"),
    "linear": _linear,
    "layer_norm": _layer_norm,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "cat": _cat,
    "chunk": _chunk,
    "split": _chunk,
    "getitem": _getitem,
    "mean": _reduced("ReduceMean"),
    "sum": _reduced("ReduceSum"),
}  # fmt: skip
