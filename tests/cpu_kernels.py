"""Kernels that show how a team runs them. `place` is the address of words of memory."""

from __future__ import annotations

from typing import NamedTuple

from melvoc.nn.engines.cpu.atomics import add_word, breathe, load_word, store_word, take_job
from melvoc.nn.engines.cpu.compile import kernel


class Words(NamedTuple):
    place: int


class Meeting(NamedTuple):
    place: int
    expected: int
    patience: int


class Lingering(NamedTuple):
    place: int
    breaths: int


@kernel(Words)
def mark(counter: int, jobs: int, place: int) -> None:
    """Word number n counts how often job n was done."""
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        add_word(place + 8 * job, 1)


@kernel(Words)
def sides(counter: int, jobs: int, place: int) -> None:
    """Word number n says who did job n: 1 from the front, 2 from the back."""
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        store_word(place + 8 * job, 1 + (counter & 1))
        for _ in range(200):
            breathe()


@kernel(Meeting)
def meet(counter: int, jobs: int, place: int, expected: int, patience: int) -> None:
    """The first word counts those who run this; they wait for one another, but not for ever."""
    here = add_word(place, 1) + 1
    while here < expected and patience > 0:
        breathe()
        here = load_word(place)
        patience -= 1


@kernel(Lingering)
def linger(counter: int, jobs: int, place: int, breaths: int) -> None:
    """Of two jobs, the first waits a while for the second to begin; that takes its time before it sets word 1."""
    while True:
        job = take_job(counter, jobs)
        if job >= jobs:
            break
        if job == 0:
            waited = 0
            while load_word(place) == 0 and waited < breaths:
                breathe()
                waited += 1
        else:
            store_word(place, 1)
            for _ in range(breaths):
                breathe()
            store_word(place + 8, 1)
