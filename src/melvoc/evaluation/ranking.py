"""Which vocoder to use, from a table of figures that mislead one by one.

The rule (docs/evaluation.md): one figure leads, those that it cannot tell from its best are equals, and the other
figures decide between equals; where they contradict the leading figure, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal

from melvoc.metrics import Metric

Row = Mapping[str, float | int | str | None]
Candidate = tuple[str, int]  # a vocoder's name, and rounds of refinement
Kind = Literal["clear", "close", "split", "one file", "one figure", "one candidate", "nothing"]

# The leading figure is the first of these that was computed.
LEADERS_OF_SPEECH = ("distillmos", "multi_scale_mel", "mr_stft", "mel_l1")
LEADERS = ("multi_scale_mel", "mr_stft", "mel_l1")
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one candidate is than another by one figure, over the files that both have.

    Attributes:
        mean: of the differences by file; above 0 where the first is better.
        margin: half the width of its 95 % interval (Student's t, paired by file); infinite for one file.
        files: how many.
    """

    mean: float
    margin: float
    files: int

    @property
    def sign(self) -> int:
        """1 where the first is better beyond the spread over files, -1 where the second is, else 0."""
        if self.files == 1:  # no spread is known
            return (self.mean > 0) - (self.mean < 0)
        return (self.mean > self.margin) - (self.mean < -self.margin)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which candidate to use, and how sure that is.

    Attributes:
        kind: "clear"; "close" (differences within the spread over files); "split" (most other figures contradict the
            leading one); or what there is too little of.
        choice: the candidate; None where nothing was measured.
        leader: name of the leading figure.
        equals: candidates that the leading figure cannot tell from the choice, the choice left out.
        rival: the candidate that the choice is compared with, its nearest.
        lead: its difference in the leading figure to its rival.
        agree: names of other figures by which the choice is better than its rival, beyond the spread.
        against: of those by which the rival is.
    """

    kind: Kind
    choice: Candidate | None = None
    leader: str | None = None
    equals: tuple[Candidate, ...] = ()
    rival: Candidate | None = None
    lead: Difference | None = None
    agree: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


def goodness(value: float, metric: Metric) -> float:
    """A figure turned so that more is better."""
    return {"lower": -value, "higher": value, "nearer 0": -abs(value)}[metric.better]


class Table:
    """Figures by candidate and file.

    Args:
        rows: with `file`, `vocoder`, `refine` and a column for each figure, None where there is none.

    Attributes:
        candidates: the pairs of vocoder and refinement, in the order of their rows.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[Candidate, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(candidate_of(row), []).append(row)
        self._figures: dict[tuple[str, Candidate], dict[str, float]] = {}
        self.candidates = list(self._rows)

    def figures(self, name: str, candidate: Candidate) -> Mapping[str, float]:
        """One figure of a candidate, by file, where it could be computed."""
        if (name, candidate) not in self._figures:
            self._figures[name, candidate] = {
                str(row["file"]): float(value)
                for row in self._rows.get(candidate, ())
                if (value := row.get(name)) is not None
            }
        return self._figures[name, candidate]

    def common(self, name: str) -> list[str]:
        """The files for which every candidate has a figure: nobody gains by a file left out."""
        values = [self.figures(name, candidate) for candidate in self.candidates]
        return sorted(set.intersection(*map(set, values))) if values else []


def candidate_of(row: Row) -> Candidate:
    """Whose figures a row has."""
    return str(row["vocoder"]), int(row["refine"] or 0)


def means(table: Table, names: Sequence[str]) -> dict[Candidate, dict[str, float]]:
    """The mean of each figure, over the files that all candidates have it for."""
    result: dict[Candidate, dict[str, float]] = {candidate: {} for candidate in table.candidates}
    for name in names:
        if common := table.common(name):
            for candidate, own in result.items():
                figures = table.figures(name, candidate)
                own[name] = math.fsum(figures[file] for file in common) / len(common)
    return result


def merits(table: Table, metric: Metric) -> dict[Candidate, float]:
    """The mean goodness of each candidate, over the files that `means` takes; of what is nearer 0 the better, that is
    not the goodness of the mean."""
    common = table.common(metric.name)
    return {
        candidate: math.fsum(goodness(table.figures(metric.name, candidate)[file], metric) for file in common)
        / len(common)
        for candidate in (table.candidates if common else ())
    }


def difference(table: Table, metric: Metric, first: Candidate, second: Candidate) -> Difference | None:
    """How much better the first candidate is than the second, over the files that `means` takes; None if there are
    none."""
    mine, theirs = table.figures(metric.name, first), table.figures(metric.name, second)
    common = [file for file in table.common(metric.name) if file in mine and file in theirs]
    values = [goodness(mine[file], metric) - goodness(theirs[file], metric) for file in common]
    if not values:
        return None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Difference(mean=mean, margin=math.inf, files=1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Difference(mean=mean, margin=_quantile(count - 1) * math.sqrt(variance / count), files=count)


def judge(table: Table, metrics: Sequence[Metric], *, speech: bool) -> Verdict:
    """Choose a candidate by the rule above.

    Args:
        table: of the figures.
        metrics: of its columns.
        speech: whether the files are speech, for which the figure without a reference leads.
    """
    everyone = table.candidates
    average = means(table, [metric.name for metric in metrics])
    known = [metric for metric in metrics if everyone and all(metric.name in average[one] for one in everyone)]
    if not known:
        return Verdict(kind="nothing")
    leader, others = _split(known, speech)
    merit = merits(table, leader)
    ranked = sorted(everyone, key=lambda one: merit[one], reverse=True)
    if len(everyone) == 1:
        return Verdict(kind="one candidate", choice=ranked[0], leader=leader.name)
    equals = [ranked[0], *(one for one in ranked[1:] if _sign(table, leader, ranked[0], one) == 0)]
    least = min(2, len(table.common(leader.name)))  # files: of many, one alone has no vote
    votes = {one: _votes(table, others, one, equals, least) for one in equals}
    choice = max(equals, key=lambda one: votes[one])  # the first of several: the leader's
    tied = tuple(one for one in equals if one != choice)
    rival = (*tied, *(one for one in ranked if one not in equals))[0]
    signs = {metric.name: _sign(table, metric, choice, rival, least) for metric in others}
    agree, against = (tuple(name for name, sign in signs.items() if sign == wanted) for wanted in (1, -1))
    lead = difference(table, leader, choice, rival)
    kind = _kind(lead, len(others), len(agree), len(against), tied=bool(tied))
    return Verdict(
        kind=kind, choice=choice, leader=leader.name, equals=tied, rival=rival, lead=lead, agree=agree, against=against
    )


@lru_cache
def _quantile(freedom: int) -> float:
    """Student's t: of a mean's error in units of its standard error, what 95 % stay within."""
    from scipy.stats import t as student

    return float(student.ppf((1 + _CONFIDENCE) / 2, freedom))


def _kind(lead: Difference | None, others: int, agree: int, against: int, *, tied: bool) -> Kind:
    if not others:
        return "one figure"
    if lead is None or lead.files == 1:
        return "one file"
    if tied and 2 * max(agree, against) <= others:
        return "close"
    return "split" if against > agree else "clear"


def _split(known: Sequence[Metric], speech: bool) -> tuple[Metric, list[Metric]]:
    """The leading figure and the others."""
    byname = {metric.name: metric for metric in known}
    leaders = chain(LEADERS_OF_SPEECH if speech else LEADERS, byname)
    leader = byname[next(name for name in leaders if name in byname)]
    return leader, [metric for metric in known if metric is not leader]


def _votes(table: Table, others: Sequence[Metric], one: Candidate, equals: Sequence[Candidate], least: int) -> int:
    """For a candidate and against it, by all other figures and against all its equals."""
    return sum(_sign(table, metric, one, other, least) for metric in others for other in equals if other != one)


def _sign(table: Table, metric: Metric, first: Candidate, second: Candidate, least: int = 1) -> int:
    """Which is better by a figure that is known of so many files."""
    found = difference(table, metric, first, second)
    return 0 if found is None or found.files < least else found.sign
