"""From tensors to kernels, and to plain torch where a kernel cannot run."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.nn.alias_free import AliasFreeSnake, kaiser_sinc
from melvoc.nn.graph import join

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LANES = 32  # one warp per program: no barriers, and its registers are enough
BLOCK = 1024  # samples per program of `finish`
LARGEST_STRIDE = 2**31 // LANES  # offsets inside a program are 32-bit


class Kernels:
    """The kernels of `melvoc.nn.engines.cuda.kernel`, each with its plain torch form.

    The first kernel that fails to compile or start is the last one tried: there is one warning, and everything
    runs in plain torch from then on. The same holds where a gradient is wanted, which the kernels lack: melvoc
    trains through the modules themselves, and only machines, which serve inference, come here.

    Args:
        module: `melvoc.nn.engines.cuda.kernel`, imported; None for plain torch.
        devices: device types that the module's kernels run on.
        lanes: lanes per program, a power of two.
    """

    def __init__(self, module: ModuleType | None, *, devices: tuple[str, ...] = ("cuda",), lanes: int = LANES) -> None:
        self.module = module
        self._devices = devices
        self._lanes = lanes
        self._taps = tuple(kaiser_sinc().float()[:6].tolist())  # half of a symmetric filter
        self._coefficients: WeakKeyDictionary[AliasFreeSnake, tuple[object, Tensor, Tensor, list[Tensor]]]
        self._coefficients = WeakKeyDictionary()

    def snake(
        self,
        layer: AliasFreeSnake,
        x: Tensor,
        *,
        context: Tensor | None = None,
        bias: Tensor | None = None,
        first: int = 0,
        count: int,
    ) -> Tensor:
        """Some outputs of the alias-free activation of `[context | x] + bias`.

        Args:
            layer: the activation.
            x: `[B, C, n]`.
            context: `[B, C, m]`, what came before x.
            bias: `[C]`.
            first: index of the first output, 0 or at least 5.
            count: how many outputs, at least 1. Where context is not the signal's start, the first 5 outputs are wrong,
                and where x is not its end, the last 5.

        Returns:
            `[B, C, count]`.
        """
        if self._runs(x):
            y = x.new_empty(*x.shape[:2], count)
            if self._try(lambda: self._launch_snake(layer, x, context, bias, first, count, y)):
                return y
        signal = join(context, x)
        if bias is not None:
            signal = signal + bias[:, None]
        return layer(signal)[..., first : first + count]  # type: ignore[no-any-return]

    def finish(self, y: Tensor, bias: Tensor, *, skip: Tensor | None = None, slope: float | None = None) -> Tensor:
        """What follows a convolution without bias, in place where a kernel runs: `y + bias + skip`, or a leaky ReLU.

        Args:
            y: `[B, C, n]`, used by no one else.
            bias: `[C]`.
            skip: like y, or None.
            slope: of the leaky ReLU below zero, or None for none.

        Returns:
            `[B, C, n]`.
        """
        if self._runs(y) and y.is_contiguous() and self._try(lambda: self._launch_finish(y, bias, skip, slope)):
            return y
        y = y + bias[:, None]
        if skip is not None:
            y = y + skip
        return y if slope is None else F.leaky_relu(y, slope)

    def coefficients(self, layer: AliasFreeSnake) -> tuple[Tensor, Tensor]:
        """The layer's frequency and factor, float32 `[C]`, computed again only when its parameters have changed."""
        parameters = [parameter for parameter in (layer.act.alpha, layer.act.beta) if parameter is not None]
        version = [(parameter.data_ptr(), _version(parameter)) for parameter in parameters]
        known = self._coefficients.get(layer)
        if known is None or known[0] != version:
            frequency, factor = layer.act.coefficients()
            held = [parameter.detach() for parameter in parameters]  # or others could end up at their address
            known = (version, frequency.detach().float().contiguous(), factor.detach().float().contiguous(), held)
            self._coefficients[layer] = known
        return known[1], known[2]

    def _runs(self, x: Tensor) -> bool:
        wanted = torch.is_grad_enabled() and x.requires_grad
        return self.module is not None and x.device.type in self._devices and x.dtype in DTYPES and not wanted

    def _try(self, launch: Callable[[], None]) -> bool:
        try:
            launch()
        except Exception as error:  # compilers and drivers fail in their own ways; none of them is worth a crash
            self.module = None
            _warn(f"failed ({type(error).__name__}: {error})")
            return False
        return True

    def _launch_snake(
        self,
        layer: AliasFreeSnake,
        x: Tensor,
        context: Tensor | None,
        bias: Tensor | None,
        first: int,
        count: int,
        y: Tensor,
    ) -> None:
        assert self.module is not None  # ensured by _runs
        frequency, factor = self.coefficients(layer)
        x, x_stride = _rows(x)
        held = 0 if context is None else context.shape[-1]
        context, context_stride = (x, 0) if context is None else _rows(context)
        chunks = -(-count // self.module.OUTPUTS)
        shift = min((chunks - 1).bit_length(), self._lanes.bit_length() - 1)
        rows, blocks = x.shape[0] * x.shape[1], -(-chunks // (1 << shift))
        groups = -(-rows // (self._lanes >> shift))
        with torch.cuda.device_of(x):  # Triton uses the current device
            self.module.snake[(groups * blocks,)](
                x,
                context,
                frequency if bias is None else bias,
                frequency,
                factor,
                y,
                rows,
                x.shape[1],
                blocks,
                shift,
                held,
                held + x.shape[-1],
                first,
                count,
                x_stride,
                context_stride,
                *self._taps,
                LANES=self._lanes,
                HAS_BIAS=bias is not None,
                num_warps=1,
                enable_fp_fusion=True,  # explicit, because its default changes between versions of Triton
            )

    def _launch_finish(self, y: Tensor, bias: Tensor, skip: Tensor | None, slope: float | None) -> None:
        assert self.module is not None  # ensured by _runs
        source, stride = (y, 0) if skip is None else _rows(skip)
        blocks = -(-y.shape[-1] // BLOCK)
        with torch.cuda.device_of(y):
            self.module.finish[(y.shape[0] * y.shape[1] * blocks,)](
                y,
                bias,
                source,
                y.shape[1],
                blocks,
                y.shape[-1],
                stride,
                0.0 if slope is None else slope,
                BLOCK=BLOCK,
                HAS_SKIP=skip is not None,
                HAS_SLOPE=slope is not None,
                num_warps=4,
                enable_fp_fusion=True,
            )


def load_kernels() -> Kernels:
    """The kernels if Triton is available, else plain torch and a warning."""
    try:
        return Kernels(importlib.import_module("melvoc.nn.engines.cuda.kernel"))
    except Exception as error:  # a broken Triton fails at import with whatever its parts raise
        _warn(f"cannot be used ({type(error).__name__}: {error})")
        return Kernels(None)


def _warn(what: str) -> None:
    warnings.warn(
        f"melvoc's GPU kernels {what}; plain torch runs instead: the same sound, slower. They need the Triton that "
        'comes with torch on Linux; engine="torch" selects plain torch without this warning',
        RuntimeWarning,
        stacklevel=3,
    )


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """x `[B, C, n]` with one stride over all rows and contiguous along time, copied if it is not; and the stride."""
    batch, channels, length = x.shape
    stride = x.stride(1) if channels > 1 else x.stride(0)
    regular = batch == 1 or channels == 1 or x.stride(0) == channels * x.stride(1)
    if not regular or stride >= LARGEST_STRIDE or (length > 1 and x.stride(2) != 1):
        return x.contiguous(), length
    return x, stride


def _version(parameter: Tensor) -> int:
    return -1 if parameter.is_inference() else parameter._version
