"""Convolutions: lengths, paddings and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from melvoc.nn.layers import Conv1d, ConvTranspose1d


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 5), (11, 3), (1, 1)])
def test_conv_is_torchs_with_the_length_kept(kernel: int, dilation: int) -> None:
    conv = Conv1d(3, 5, kernel, dilation=dilation, slope=0.1)
    x = torch.randn(2, 3, 40)
    expected = F.conv1d(F.leaky_relu(x, 0.1), conv.weight, conv.bias, padding="same", dilation=dilation)
    torch.testing.assert_close(conv(x), expected)


def test_conv_refuses_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"kernel_size=4.*only an odd one keeps the length.*use 5"):
        Conv1d(1, 1, 4)


@pytest.mark.parametrize(("stride", "kernel"), [(8, 16), (2, 4), (5, 11), (7, 14), (3, 3), (10, 10), (4, 7)])
def test_transposed_conv_gives_stride_times_the_length_and_the_published_samples(stride: int, kernel: int) -> None:
    up = ConvTranspose1d(3, 2, kernel, stride)
    x = torch.randn(2, 3, 9)
    published = F.conv_transpose1d(x, up.weight, up.bias, stride=stride, padding=(kernel - stride) // 2)
    assert up(x).shape == (2, 2, 9 * stride)
    torch.testing.assert_close(up(x), published[..., : 9 * stride])


def test_transposed_conv_refuses_a_kernel_with_holes() -> None:
    with pytest.raises(ValueError, match=r"kernel_size=3 is less than stride=4.*at least 4, usually 8"):
        ConvTranspose1d(1, 1, 3, 4)
