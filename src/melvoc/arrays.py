"""What callers hand over as a tensor: a torch tensor, or a NumPy array."""

from __future__ import annotations

import torch
from torch import Tensor

from melvoc.errors import SpecError, kind_of

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what mels and weights are made of
_MOST_CHANNELS, _LEAST_SAMPLES = 8, 256  # of a sound [N, C]


def check_layout(wave: Tensor, shape: str) -> None:
    """Refuse sounds `[N, C]`, which some libraries read files as: they would be thousands of sounds of two samples.

    Args:
        wave: of any shape; one with two dimensions is looked at.
        shape: that is meant, for the message.

    Raises:
        SpecError: it has at least 256 rows of at most 8 samples.
    """
    if wave.dim() == 2 and 0 < wave.shape[1] <= _MOST_CHANNELS and wave.shape[0] >= _LEAST_SAMPLES:
        raise SpecError(
            f"the waveform is {list(wave.shape)}, which looks like [N, C], as soundfile has it, but it is {shape}; "
            "pass wave.T"
        )


def as_tensor(values: object, what: str) -> Tensor:
    """A tensor as it is, or one of a NumPy array, with which it shares memory where torch can.

    Args:
        values: a tensor, or an array of any layout and byte order, read-only ones too.
        what: it is, for the message.

    Raises:
        SpecError: neither, or an array of what torch has no type for.
    """
    if isinstance(values, Tensor):
        return values
    import numpy

    if not isinstance(values, (numpy.ndarray, numpy.generic)):
        raise SpecError(
            f"{what} is {kind_of(values)}, but it is a torch.Tensor or a NumPy array; torch.as_tensor makes one"
        )
    array = numpy.require(values, values.dtype.newbyteorder("="), ["C", "W"])
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise SpecError(f"{what} is a NumPy array of {array.dtype}, but it is one of float32 or float64") from error
