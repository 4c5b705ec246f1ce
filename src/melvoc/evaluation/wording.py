"""The sentence on top of a report, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from melvoc.evaluation.ranking import Candidate, Kind, Verdict
from melvoc.metrics import Metric

TAGS: Mapping[Kind, str] = {
    "clear": "told apart",
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
    """Paths without the folders that they share and without ".safetensors", where that leaves them apart; other names
    as they are."""
    paths = [
        name
        for name in dict.fromkeys(names)
        if ("/" in name or name.endswith(".safetensors")) and not name.startswith("hf://")
    ]
    for parts in range(1, max((len(PurePath(name).parts) for name in paths), default=0) + 1):
        short = {name: "/".join(PurePath(name).parts[-parts:]).removesuffix(".safetensors") for name in paths}
        if len({short.get(name, name) for name in names}) == len(set(names)):
            return {name: short.get(name, name) for name in names}
    return {name: name for name in names}


def headline(verdict: Verdict, speeds: Mapping[Candidate, float], names: Mapping[str, str], files: int = 1) -> str:
    """Which candidate to use, in a sentence.

    Args:
        verdict: on the rows.
        speeds: times real time of each candidate.
        names: shorter ones of the vocoders.
        files: that were measured, if only by some of the candidates.
    """
    if verdict.choice is None:
        return "No figure could be computed, so there is nothing to choose by."
    choice = label(verdict.choice, names)
    if verdict.kind == "one candidate":
        return f"Only {choice} was measured: name another vocoder, or rounds of refinement, to compare."
    if verdict.kind == "one figure":
        return f"{choice} is ahead, but by the only figure there is, which is not enough to choose by: compute others."
    if verdict.kind == "one file" and files > 1:
        return (
            f"{choice} is ahead on the only one of {files} files that every candidate got through, which may be "
            "chance: see what failed, and listen."
        )
    if verdict.kind == "one file":
        return f"On this one file {choice} is ahead, which may be chance: measure more files, and listen."
    if verdict.kind == "split" and verdict.rival is not None:
        return f"Try {choice} first, but listen to {label(verdict.rival, names)} as well: the figures disagree."
    if verdict.kind == "close" and verdict.lead is not None:
        fastest = max([verdict.choice, *verdict.equals], key=lambda one: speeds.get(one, 0.0))
        speed = f" ({speeds[fastest]:.1f} times real time)" if fastest in speeds else ""
        several = listed([label(one, names) for one in verdict.equals])
        return (
            f"{choice} is ahead, but these {verdict.lead.files} files cannot tell it from {several}: choose by ear, "
            f"measure more files, or take the fastest, {label(fastest, names)}{speed}."
        )
    return f"Use {choice}."


def grounds(verdict: Verdict, average: Means, metrics: Sequence[Metric], names: Mapping[str, str]) -> str:
    """What a headline rests on, and what that cannot hear; nothing where nothing was compared."""
    if verdict.choice is None or verdict.rival is None or verdict.leader is None:
        return ""
    known = {metric.name: metric for metric in metrics}
    leader, lead = known[verdict.leader], verdict.lead
    mine, theirs = (
        f"{shown(average[one][leader.name])} for {label(one, names)}" for one in (verdict.choice, verdict.rival)
    )
    text = f"The leading figure, {leader.title}: {mine} against {theirs}"
    if lead is not None and lead.files > 1:
        spread = "" if lead.sign else ", which is within the spread"
        of = " in magnitude" if leader.better == "nearer 0" else ""
        text += (
            f", a difference{of} of {shown(abs(lead.mean))} give or take {shown(lead.margin)} over {lead.files} files"
        )
        text += spread
    others = len(average[verdict.choice].keys() & known.keys()) - 1
    deaf = f"It cannot hear {leader.deaf_to}."
    return f"{text}. {deaf}" + (f" {_votes(verdict, known, others)}" if others else "")


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _votes(verdict: Verdict, known: Mapping[str, Metric], others: int) -> str:
    """How the other figures voted."""
    agree, against = len(verdict.agree), verdict.against
    if not agree and not against:
        return f"None of the others ({others}) can tell the two apart."
    counts = {"agree": agree, "say the opposite": len(against), "cannot tell": others - agree - len(against)}
    words = {"agree": "agrees", "say the opposite": "says the opposite"}
    parts = [f"{count} {words.get(what, what) if count == 1 else what}" for what, count in counts.items() if count]
    text = f"Of the other figures, {listed(parts)}."
    if against:
        which = [f"{known[name].title}, which cannot hear {known[name].deaf_to}" for name in against]
        text += f" The opposite: {'; '.join(which)}."
    return text
