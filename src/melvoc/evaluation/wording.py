"""The sentence on top of a report, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from melvoc.evaluation.ranking import Candidate, Kind, Verdict
from melvoc.metrics import Metric

TAGS: Mapping[Kind, str] = {
    "clear": "the figures agree",
    "close": "too close to tell",
    "split": "the figures disagree",
    "one file": "one file only",
    "one figure": "one figure only",
    "one candidate": "nothing to compare",
    "nothing": "nothing measured",
}
Means = Mapping[Candidate, Mapping[str, float]]


def shown(value: float) -> str:
    """A figure in about three digits."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def label(candidate: Candidate, names: Mapping[str, str] | None = None) -> str:
    """A candidate's name in a sentence, with shorter names for vocoders where they are given."""
    name, rounds = candidate
    name = name if names is None else names[name]
    return f"{name} with refine={rounds}" if rounds else name


def shortened(names: Sequence[str]) -> dict[str, str]:
    """Paths without the folders that they share, where that leaves them apart; other names as they are."""
    paths = [name for name in dict.fromkeys(names) if "/" in name and not name.startswith("hf://")]
    last = {name: PurePath(name).name for name in paths}
    for parts in range(2, 32):
        clash = {short for short in last.values() if list(last.values()).count(short) > 1}
        if not clash:
            break
        last = {
            name: "/".join(PurePath(name).parts[-parts:]) if short in clash else short for name, short in last.items()
        }
    return {name: last.get(name, name) for name in names}


def sentence(verdict: Verdict, average: Means, speeds: Mapping[Candidate, float], metrics: Sequence[Metric]) -> str:
    """Which vocoder to use, and why.

    Args:
        verdict: on the rows.
        average: figures of each candidate.
        speeds: times real time of each candidate.
        metrics: that were computed.
    """
    names, titles = shortened([name for name, _ in average]), {metric.name: metric.title for metric in metrics}
    if verdict.choice is None or verdict.leader is None:
        return "No figure could be computed, so there is nothing to choose by."
    choice = label(verdict.choice, names)
    if verdict.rival is None:
        return f"Only {choice} was measured: name another vocoder, or rounds of refinement, to compare."
    rival, leader, lead = label(verdict.rival, names), titles[verdict.leader], verdict.lead
    mine, theirs = (average[one][verdict.leader] for one in (verdict.choice, verdict.rival))
    by = f"{leader}: {shown(mine)} against {shown(theirs)} of {rival}"
    if verdict.kind == "one figure":
        return (
            f"By the only figure that was computed, {choice} is ahead ({by}). One figure is not enough to choose by: "
            "compute others, and listen."
        )
    votes = _votes(verdict, titles)
    if verdict.kind == "one file" or lead is None:
        return (
            f"On this one file {choice} is ahead ({by}; {votes}). One file shows no spread: measure more, and listen."
        )
    margin = f"a difference of {shown(abs(lead.mean))} with a margin of {shown(lead.margin)} over {lead.files} files"
    if verdict.kind == "split":
        return f"The figures disagree: {choice} leads ({by}, {margin}), but {votes}. Listen to both before you choose."
    if verdict.kind == "close":
        equals = [verdict.choice, *verdict.equals]
        fastest = max(equals, key=lambda one: speeds.get(one, 0.0))
        speed = f", {speeds[fastest]:.1f} times real time" if fastest in speeds else ""
        return (
            f"{listed([label(one, names) for one in equals])} cannot be told apart by these files ({by}, {margin}; "
            f"{votes}). Choose by ear, or take the fastest: {label(fastest, names)}{speed}."
        )
    equals_named = listed([label(one, names) for one in verdict.equals])
    but = f" {leader} alone cannot tell it from {equals_named}, but the others can." if verdict.equals else ""
    return f"Use {choice}: it is ahead ({by}, {margin}), and {votes}.{but}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _votes(verdict: Verdict, titles: Mapping[str, str]) -> str:
    """How the other figures voted."""
    others = len(titles) - 1
    parts = [f"{len(verdict.agree) or 'none'} of {others} other figures agree{'s' * (len(verdict.agree) == 1)}"]
    if verdict.against:
        against = listed([titles[name] for name in verdict.against])
        parts.append(f"{len(verdict.against)} say{'s' * (len(verdict.against) == 1)} the opposite ({against})")
    if rest := others - len(verdict.agree) - len(verdict.against):
        parts.append(f"{rest} cannot tell")
    return listed(parts)
