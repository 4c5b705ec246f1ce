"""Which vocoder to use, from a table of figures that mislead one by one.

The rule (docs/evaluation.md): one figure leads, those that it cannot tell from its best are equals, and the other
figures decide between equals; where they contradict the leading figure, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def candidates(rows: Sequence[Row]) -> list[Candidate]:
    """The pairs of vocoder and refinement, in the order of their rows."""
    return list(dict.fromkeys(_candidate(row) for row in rows))


def figures(rows: Sequence[Row], name: str, candidate: Candidate) -> dict[str, float]:
    """One figure of a candidate, by file, where it could be computed."""
    return {
        str(row["file"]): float(value)
        for row in rows
        if _candidate(row) == candidate and (value := row.get(name)) is not None
    }


def means(rows: Sequence[Row], names: Sequence[str]) -> dict[Candidate, dict[str, float]]:
    """The mean of each figure, over the files for which every candidate has it: nobody gains by a file left out."""
    everyone = candidates(rows)
    result: dict[Candidate, dict[str, float]] = {candidate: {} for candidate in everyone}
    for name in names:
        values = [figures(rows, name, candidate) for candidate in everyone]
        common = set.intersection(*map(set, values)) if values else set()
        for candidate, own in zip(everyone, values, strict=True):
            if common:
                result[candidate][name] = math.fsum(own[file] for file in common) / len(common)
    return result


def difference(rows: Sequence[Row], metric: Metric, first: Candidate, second: Candidate) -> Difference | None:
    """How much better the first candidate is than the second; None where no file has both figures."""
    mine, theirs = figures(rows, metric.name, first), figures(rows, metric.name, second)
    values = [goodness(mine[file], metric) - goodness(theirs[file], metric) for file in mine.keys() & theirs.keys()]
    if not values:
        return None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Difference(mean=mean, margin=math.inf, files=1)
    from scipy.stats import t as student

    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    quantile = float(student.ppf((1 + _CONFIDENCE) / 2, count - 1))
    return Difference(mean=mean, margin=quantile * math.sqrt(variance / count), files=count)


def judge(rows: Sequence[Row], metrics: Sequence[Metric], *, speech: bool) -> Verdict:
    """Choose a candidate by the rule above.

    Args:
        rows: with `file`, `vocoder`, `refine` and a column for each metric; None where there is no figure.
        metrics: of the columns.
        speech: whether the files are speech, for which the figure without a reference leads.
    """
    everyone = candidates(rows)
    average = means(rows, [metric.name for metric in metrics])
    known = [metric for metric in metrics if everyone and all(metric.name in average[one] for one in everyone)]
    if not known:
        return Verdict(kind="nothing")
    leader, others = _split(known, speech)
    ranked = sorted(everyone, key=lambda one: goodness(average[one][leader.name], leader), reverse=True)
    if len(everyone) == 1:
        return Verdict(kind="one candidate", choice=ranked[0], leader=leader.name)
    equals = [ranked[0], *(one for one in ranked[1:] if _sign(rows, leader, ranked[0], one) == 0)]
    choice = max(equals, key=lambda one: _votes(rows, others, one, equals))  # the first of several: the leader's
    tied = tuple(one for one in equals if one != choice)
    rival = (*tied, *(one for one in ranked if one not in equals))[0]
    signs = {metric.name: _sign(rows, metric, choice, rival) for metric in others}
    agree, against = (tuple(name for name, sign in signs.items() if sign == wanted) for wanted in (1, -1))
    lead = difference(rows, leader, choice, rival)
    kind = _kind(lead, len(known), bool(tied), len(agree) - len(against))
    return Verdict(
        kind=kind, choice=choice, leader=leader.name, equals=tied, rival=rival, lead=lead, agree=agree, against=against
    )


def _kind(lead: Difference | None, known: int, tied: bool, net: int) -> Kind:
    if known == 1:
        return "one figure"
    if lead is None or lead.files == 1:
        return "one file"
    if net < 0:
        return "split"
    return "close" if tied and net == 0 else "clear"


def _split(known: Sequence[Metric], speech: bool) -> tuple[Metric, list[Metric]]:
    """The leading figure and the others."""
    byname = {metric.name: metric for metric in known}
    leaders = chain(LEADERS_OF_SPEECH if speech else LEADERS, byname)
    leader = byname[next(name for name in leaders if name in byname)]
    return leader, [metric for metric in known if metric is not leader]


def _votes(rows: Sequence[Row], others: Sequence[Metric], one: Candidate, equals: Sequence[Candidate]) -> int:
    """For a candidate and against it, by all other figures and against all its equals."""
    return sum(_sign(rows, metric, one, other) for metric in others for other in equals if other != one)


def _sign(rows: Sequence[Row], metric: Metric, first: Candidate, second: Candidate) -> int:
    found = difference(rows, metric, first, second)
    return 0 if found is None else found.sign


def _candidate(row: Row) -> Candidate:
    return str(row["vocoder"]), int(row["refine"] or 0)
