"""Triton kernels: the alias-free activation in one pass, and the sums around a convolution in another.

Each lane makes 22 neighbouring outputs of one row on its own, from 32 inputs, in registers: 54 activated samples at
twice the rate for 44 that are its own, instead of a trip through memory for every step. The inputs of a program are
read along the rows, and change hands once, through shared memory (`_columns`). Lanes are counted over all rows, so
that short rows and any number of channels fill the programs.

All arithmetic is float32. The sums are written with `fma`, so that no compiler setting changes them; sin^2 has
period pi, so that one polynomial on [-pi/2, pi/2] is enough. Nothing is specialised on the value of a number or the
alignment of a pointer: a kernel is compiled once per storage type, whatever the lengths.

This module needs Triton and is imported on demand (`melvoc.nn.engines.cuda.launch`).
"""

# Triton is a language of its own in Python's clothes: its tuples grow by + only, and it has no types.
# mypy: ignore-errors
# ruff: noqa: RUF005
from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = 32  # inputs a lane sees
OUTPUTS = 22  # outputs it makes: it needs 5 more inputs on either side
REACH = 5


@triton.jit
def _columns(tile):
    """`[LANES, 32]` as 32 tensors of one input per lane, in order."""
    parts = (tl.permute(tl.reshape(tile, [tile.shape[0], 2, 2, 2, 2, 2]), [0, 5, 4, 3, 2, 1]),)
    for _ in tl.static_range(5):
        split = ()
        for k in tl.static_range(len(parts)):
            split = split + tl.split(parts[k])
        parts = split
    return parts


@triton.jit
def _tile(parts):
    """The reverse of `_columns`."""
    for _ in tl.static_range(5):
        joined = ()
        for k in tl.static_range(len(parts) // 2):
            joined = joined + (tl.join(parts[2 * k], parts[2 * k + 1]),)
        parts = joined
    return tl.reshape(tl.permute(parts[0], [0, 5, 4, 3, 2, 1]), [parts[0].shape[0], 32])


@triton.jit
def _snake(x, frequency, factor):
    """`x + factor sin(frequency x)^2`, by range reduction with pi in three parts whose products are exact."""
    z = x * frequency
    turns = (z * 0.3183098861837907 + 12582912.0) - 12582912.0  # to the nearest integer: 1.5 * 2^23 has no fraction
    r = tl.fma(turns, -3.140625, z)
    r = tl.fma(turns, -9.67502593994140625e-4, r)
    r = tl.fma(turns, -1.509957990978376e-7, r)
    s = r * r
    p = tl.fma(s, 2.6000548e-6, -1.9806615e-4)
    p = tl.fma(s, p, 8.3330173e-3)
    p = tl.fma(s, p, -1.6666657e-1)
    sine = tl.fma(r * s, p, r)
    return tl.fma(sine * factor, sine, x)


@triton.jit
def _dot6(a, b, c, d, e, f, wa, wb, wc, wd, we, wf):
    return tl.fma(a, wa, tl.fma(b, wb, tl.fma(c, wc, tl.fma(d, wd, tl.fma(e, we, f * wf)))))


@triton.jit(
    do_not_specialize=[
        "x", "context", "bias", "frequency", "factor", "out", "rows", "channels", "blocks", "shift", "held", "length",
        "first", "count", "x_stride", "context_stride", "f0", "f1", "f2", "f3", "f4", "f5",
    ]
)  # fmt: skip
def snake(
    x,
    context,
    bias,
    frequency,
    factor,
    out,
    rows,
    channels,
    blocks,
    shift,
    held,
    length,
    first,
    count,
    x_stride,
    context_stride,
    f0,
    f1,
    f2,
    f3,
    f4,
    f5,
    LANES: tl.constexpr,  # noqa: N803
    HAS_BIAS: tl.constexpr,  # noqa: N803
):
    """Outputs `first` to `first + count` of the alias-free activation of the signal `[context | x] + bias`.

    The signal of `length` samples, of which the first `held` are the context's, is repeated at its edges, and so is
    the activated signal at twice the rate. Where an edge is not the true one, the caller does not ask for the 5
    outputs that see it. Rows are B * C; out is contiguous, x and context have a stride from row to row and are
    contiguous along time. f0 to f5 is half of the symmetric filter. A program makes one of
    `blocks` blocks of `22 * 2^shift` outputs for each of `LANES / 2^shift` rows.
    """
    lane = tl.arange(0, LANES)
    block = tl.program_id(0) % blocks
    first_row = tl.program_id(0) // blocks * (LANES >> shift)
    row = lane >> shift  # after first_row
    chunk = (block << shift) + (lane & ((1 << shift) - 1))
    start = first + chunk * 22  # a lane's first output
    live = row < rows - first_row
    column = tl.arange(0, 32)
    low = first + (block << shift) * 22 - 5  # the inputs that the program sees are from here
    high = low + (22 << shift) + 10  # to here
    j = (start - 5)[:, None] + column[None, :]
    x += first_row.to(tl.int64) * x_stride - held
    context += first_row.to(tl.int64) * context_stride
    out += first_row.to(tl.int64) * count
    if (low >= held) & (high <= length) & (first_row + (LANES >> shift) <= rows):
        tile = tl.load(x + ((row * x_stride)[:, None] + j)).to(tl.float32)
    else:
        j = tl.minimum(tl.maximum(j, 0), length - 1)
        old = live[:, None] & (j < held)
        new = live[:, None] & (j >= held)
        tile = tl.load(x + ((row * x_stride)[:, None] + j), mask=new, other=0.0).to(tl.float32)
        tile += tl.load(context + ((row * context_stride)[:, None] + j), mask=old, other=0.0).to(tl.float32)
    c = _columns(tile)
    channel = (first_row + row) % channels
    a = tl.load(frequency + channel)
    b = tl.load(factor + channel)
    if HAS_BIAS:
        offset = tl.load(bias + channel).to(tl.float32)
        biased = ()
        for i in tl.static_range(32):
            biased = biased + (c[i] + offset,)
        c = biased

    # Pair i = 0 ... 27 is the upsampled samples 2 p (from inputs p - 3 ... p + 2) and 2 p + 1 (from p - 2 ... p + 3),
    # where p = start - 3 + i; of the first pair only the second is seen, of the last only the first. Beyond the edges
    # the first and the last sample at twice the rate are repeated: the left edge is only where start is 0, and there
    # it is pair 3; the right edge may be anywhere, and its sample is carried on.
    at_left = start == 0
    end = length - start + 3  # pairs from this one on are beyond the right edge
    u0, u1, u2, u3, u4, u5 = 2 * f0, 2 * f1, 2 * f2, 2 * f3, 2 * f4, 2 * f5
    edge = _dot6(c[2], c[3], c[4], c[5], c[6], c[7], u0, u2, u4, u5, u3, u1)
    last = tl.where(at_left, edge, _dot6(c[0], c[1], c[2], c[3], c[4], c[5], u1, u3, u5, u4, u2, u0))
    even = (last,)  # of pair 0, and never seen
    odd = (_snake(last, a, b),)
    y = ()
    for i in tl.static_range(1, 28):
        e = _dot6(c[i - 1], c[i], c[i + 1], c[i + 2], c[i + 3], c[i + 4], u0, u2, u4, u5, u3, u1)
        if i < 3:
            e = tl.where(at_left, edge, e)
        even = even + (_snake(tl.where(i < end, e, last), a, b),)
        if i > 5:  # output i - 6 sees the odd samples of pairs i - 6 ... i - 1 and the even ones of i - 5 ... i
            seen = _dot6(odd[i - 6], odd[i - 5], odd[i - 4], odd[i - 3], odd[i - 2], odd[i - 1], f0, f2, f4, f5, f3, f1)
            more = _dot6(
                even[i - 5], even[i - 4], even[i - 3], even[i - 2], even[i - 1], even[i], f1, f3, f5, f4, f2, f0
            )
            y = y + (seen + more,)
        if i < 27:
            o = _dot6(c[i], c[i + 1], c[i + 2], c[i + 3], c[i + 4], c[i + 5], u1, u3, u5, u4, u2, u0)
            if i < 3:
                o = tl.where(at_left, edge, o)
            last = tl.where(i < end, o, last)
            odd = odd + (_snake(last, a, b),)
    for _ in tl.static_range(10):
        y = y + (y[0],)  # the columns of a tile are a power of two; these are not stored

    t = (chunk * 22)[:, None] + column[None, :]
    mask = live[:, None] & (column < 22)[None, :] & (t < count)
    tl.store(out + ((row * count)[:, None] + t), _tile(y).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["y", "bias", "skip", "channels", "blocks", "length", "skip_stride", "slope"])
def finish(
    y,
    bias,
    skip,
    channels,
    blocks,
    length,
    skip_stride,
    slope,
    BLOCK: tl.constexpr,  # noqa: N803
    HAS_SKIP: tl.constexpr,  # noqa: N803
    HAS_SLOPE: tl.constexpr,  # noqa: N803
):
    """In place: y + bias, then + skip, or a leaky ReLU. A program does one of `blocks` blocks of one row of B * C.

    y is contiguous; skip has a stride from row to row and is contiguous along time.
    """
    row = (tl.program_id(0) // blocks).to(tl.int64)
    t = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = t < length
    y += row * length
    value = tl.load(y + t, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + row % channels).to(tl.float32)
    if HAS_SKIP:
        value += tl.load(skip + row * skip_stride + t, mask=inside, other=0.0).to(tl.float32)
    if HAS_SLOPE:
        value = tl.where(value >= 0, value, value * slope)
    tl.store(y + t, value.to(y.dtype.element_ty), mask=inside)
