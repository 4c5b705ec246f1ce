"""What callers hand over as a tensor: a torch tensor, or a NumPy array."""

from __future__ import annotations

import torch
from torch import Tensor

from melvoc.errors import SpecError, kind_of


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
