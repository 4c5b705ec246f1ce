"""Noise is a pure function of seed, row, channel and position."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pieces
from torch import Tensor

from melvoc.nn.graph import Engine, join
from melvoc.nn.noise import Noise, philox

KNOWN = {  # the known answers of Random123, philox4x32 with 10 rounds: counter, key, words
    "zeros": ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    "ones": ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}


def empty(batch: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(batch, 1, length, dtype=dtype)


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_answers(name: str) -> None:
    counter, key, words = KNOWN[name]
    got = philox(tuple(torch.tensor([word]) for word in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word) for word in got) == words


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 9), length=st.integers(1, 50), cuts=st.lists(st.integers(0, 50), max_size=6),
    seed=st.integers(0, 2**64 - 1), batch=st.integers(1, 4),
)  # fmt: skip
def test_pieces_and_rows(channels: int, length: int, cuts: list[int], seed: int, batch: int) -> None:
    noise = Noise(channels, seed)
    whole = noise(empty(batch, length))
    assert whole.shape == (batch, channels, length)
    machine, parts = Engine().open(noise), pieces(empty(batch, length), cuts)
    assert torch.equal(join(*[machine(part, number == len(parts)) for number, part in enumerate(parts, 1)]), whole)
    assert torch.equal(noise(empty(1, length)), whole[:1])
    assert torch.equal(Noise(channels + 3, seed)(empty(batch, length))[:, :channels], whole)


def test_rows_may_be_others_than_the_first() -> None:
    machine = Engine().open(Noise(2, 5))
    machine.of_rows(torch.tensor([3, 1]))
    assert torch.equal(machine(empty(2, 9), True), Noise(2, 5)(empty(4, 9))[[3, 1]])


def test_it_is_standard_normal_and_independent() -> None:
    """Means, correlations and the distribution, each within five standard errors."""
    values = Noise(6, 1)(empty(4, 20000, torch.float64)).flatten(0, 1)
    count = values.numel()
    assert abs(float(values.mean())) < 5 / math.sqrt(count)
    assert abs(float(values.square().mean()) - 1) < 5 * math.sqrt(2 / count)
    assert abs(float(values.pow(4).mean()) - 3) < 5 * math.sqrt(96 / count)
    correlation = torch.corrcoef(torch.cat([values[:, 1:], values[:, :-1]])) - torch.eye(48, dtype=torch.float64)
    assert float(correlation[:24].abs().max()) < 5 / math.sqrt(20000)
    places = torch.linspace(-3, 3, 25, dtype=torch.float64)
    shares = (values.flatten()[:, None] < places).double().mean(0)
    assert float((shares - torch.special.ndtr(places)).abs().max()) < 5 * 0.5 / math.sqrt(count)
    assert 4 < float(values.abs().max()) < 5.8


def test_seeds_differ_and_positions_go_beyond_a_word() -> None:
    assert not torch.equal(Noise(1, 0)(empty(1, 8)), Noise(1, 1)(empty(1, 8)))
    assert not torch.equal(Noise(1, 0)(empty(1, 8)), Noise(1, 1 << 32)(empty(1, 8)))
    far = Noise(1).at(empty(1, 8), torch.tensor([2**32 - 4]), None)
    assert torch.equal(far[..., 4:], Noise(1).at(empty(1, 4), torch.tensor([2**32]), None))
    assert not torch.equal(far[..., 4:], Noise(1)(empty(1, 4)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types_round_the_same_numbers(dtype: torch.dtype) -> None:
    exact = Noise(4, 2)(empty(2, 100, torch.float64))
    assert torch.equal(Noise(4, 2)(empty(2, 100, dtype)), exact.to(dtype))


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed={seed}, but a seed is from 0 to"):
        Noise(1, seed)
