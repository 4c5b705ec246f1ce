"""The report: one HTML file that carries its sounds and pictures and asks the network for nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from melvoc.evaluation.gallery import MOST_SECONDS, PICTURES, RULE
from melvoc.evaluation.markup import DASH, clip, figure, heading, items, named, plain, scale, table, terms, text
from melvoc.evaluation.pictures import DIFFERENCES, LEVELS
from melvoc.evaluation.ranking import Candidate, Table, candidate_of, difference, goodness, means, merits
from melvoc.evaluation.results import Evaluation, Row
from melvoc.evaluation.wording import TAGS, label, shortened
from melvoc.metrics import Metric

_COSTS = {
    "speed": "speed (times real time)", "peak_memory_mb": "peak memory (MB)", "parameters": "parameters",
}  # fmt: skip
_OPEN = 3  # files whose sounds are in view at once


def page(found: Evaluation) -> str:
    """The report as HTML."""
    verdict, count = found.verdict, len({row["file"] for row in found.rows})
    template = Template(files("melvoc.evaluation").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title="Vocoders by ear and by figure",
        subtitle=escape(
            f"Copy synthesis of {_count(count, 'file')} by {_count(len(found.vocoders), 'vocoder')}; protocol: "
            f"{found.settings.get('protocol', 'default')}"
        ),
        tag=TAGS[verdict.kind],
        doubtful="" if verdict.kind == "clear" else " doubtful",
        headline=escape(found.headline),
        grounds=escape(found.grounds),
        deaf=items(f"{metric.title}: {metric.deaf_to}." for metric in found.metrics),
        notes=items(found.notes),
        problems=_problems(found),
        overview=_overview(found, verdict.leader),
        gallery=_gallery(found),
        everything=_everything(found),
        vocoders=_vocoders(found.vocoders),
        definitions=terms((entry.title, f"{entry.better} is better; {entry.source}") for entry in found.metrics),
        environment=terms({**found.environment, **found.settings}.items()),
    )


def _overview(found: Evaluation, leader: str | None) -> str:
    """Candidates by figures: the best of each column marked, and what cannot be told from it."""
    average, figures = found.means(), Table(found.rows)
    names, costs = shortened([one[0] for one in average]), _costs(found)
    metrics = [metric for metric in found.metrics if any(metric.name in values for values in average.values())]
    if not metrics:
        return "<p>Nothing was measured.</p>"
    metrics.sort(key=lambda metric: metric.name != leader)
    marks = {metric.name: _marks(figures, metric, average, found.pooled) for metric in metrics}
    body = []
    for one in average:
        cells = [figure(average[one].get(metric.name), marks[metric.name].get(one, "")) for metric in metrics]
        cells += [figure(costs[one].get(name)) for name in _COSTS]
        body.append(f"<tr>{named(one[0], label(one, names))}{''.join(cells)}</tr>")
    heads = ["vocoder", *(heading(metric, leader) for metric in metrics), *_COSTS.values()]
    caption = (
        "Means over the files that all have, or what the protocol makes of these files as a set; arrows show where "
        "better lies, and of what is nearer 0 the better, it is the magnitudes that are compared. Filled: the best. "
        "Framed: as good as the best, whose lead is within the spread over files (95 % interval of the differences by "
        "file)."
    )
    return table(heads, body, caption)


def _costs(found: Evaluation) -> dict[Candidate, dict[str, float]]:
    """The mean speed and the most memory of each candidate, and its parameters."""
    costs = means(Table(found.rows), list(_COSTS))
    for row in found.rows:
        if (peak := _number(row["peak_memory_mb"])) is not None:
            own = costs[candidate_of(row)]
            own["peak_memory_mb"] = max(own.get("peak_memory_mb", 0.0), peak)
    return costs


def _marks(
    figures: Table,
    metric: Metric,
    average: Mapping[Candidate, Mapping[str, float]],
    pooled: Mapping[Candidate, Mapping[str, float]],
) -> dict[Candidate, str]:
    """How each candidate's cell is marked: by what stands in it."""
    have = [one for one in average if metric.name in average[one]]
    if len(have) < 2:
        return {}
    merit = merits(figures, metric)
    merit |= {one: goodness(pooled[one][metric.name], metric) for one in have if metric.name in pooled.get(one, {})}
    best = max(have, key=lambda one: merit.get(one, -math.inf))
    marks = {best: "best"}
    for one in have:
        lead = difference(figures, metric, best, one)
        if one != best and lead is not None and lead.sign == 0:
            marks[one] = "equal"
    return marks


def _everything(found: Evaluation) -> str:
    """A row for each file and candidate."""
    if not found.rows:
        return "<p>Nothing was measured.</p>"
    shorter = shortened([str(row["file"]) for row in found.rows])
    names, best = shortened([str(row["vocoder"]) for row in found.rows]), _best_by_file(found)
    body = []
    for row in found.rows:
        file, one = str(row["file"]), candidate_of(row)
        cells = [named(file, shorter[file], sortable=True), text(label(one, names), label(one))]
        for metric in found.metrics:
            value = _number(row[metric.name])
            mark = "best" if one in best.get((file, metric.name), ()) else ""
            cells.append(figure(value, mark, "" if value is not None else _why(row, metric)))
        cells += [figure(_number(row[name])) for name in ("speed", "seconds", "sample_rate")]
        body.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["file", "vocoder", *map(heading, found.metrics), "speed", "seconds", "measured at (Hz)"]
    return table(heads, body, "Press a heading to sort. Filled: the best of its file.", sortable=True) + _reasons(found)


def _best_by_file(found: Evaluation) -> dict[tuple[str, str], list[Candidate]]:
    """The best candidates by file and metric, where there are others that are worse."""
    values: dict[tuple[str, str], list[tuple[float, Candidate]]] = {}
    for row in found.rows:
        for metric in found.metrics:
            if (value := _number(row[metric.name])) is not None:
                key = str(row["file"]), metric.name
                values.setdefault(key, []).append((goodness(value, metric), candidate_of(row)))
    tops = {key: max(several)[0] for key, several in values.items()}
    return {
        key: [one for good, one in several if good == tops[key]]
        for key, several in values.items()
        if min(several)[0] < tops[key]
    }


def _why(row: Row, metric: Metric) -> str:
    reasons = [part for part in str(row["undefined"]).split("; ") if part.startswith(f"{metric.name}: ")]
    return reasons[0] if reasons else f"{metric.name}: not computed"


def _reasons(found: Evaluation) -> str:
    """Why there are dashes, each reason once."""
    counts = Counter(part for row in found.rows for part in str(row["undefined"]).split("; ") if part)
    if not counts:
        return ""
    listed = items(f"{reason} ({_count(count, 'row')})" for reason, count in counts.items())
    return f'<p class="soft">{DASH} stands where there is no figure:</p><ul class="notes soft">{listed}</ul>'


def _gallery(found: Evaluation) -> str:
    """Players and pictures, file by file."""
    if not found.clips:
        return "<p>No sounds were kept.</p>"
    names, about = shortened(list(found.clips)), {str(row["file"]): row for row in found.rows}
    parts = [
        f'<p class="soft">{escape(RULE)}</p><p class="soft">{escape(PICTURES)} Quiet{scale(LEVELS)}loud; '
        f"too little{scale(DIFFERENCES)}too much.</p>"
    ]
    for number, (file, sounds) in enumerate(found.clips.items()):
        seconds = min(MOST_SECONDS, _number(about[file]["seconds"]) or 0.0)
        highest = (_number(about[file]["sample_rate"]) or 0.0) / 2000
        title = f"{escape(names[file])} <span>0 to {seconds:.3g} s, 0 to {highest:.3g} kHz</span>"
        clips = "".join(clip(sound, names[file]) for sound in sounds)
        parts.append(
            f'<details{" open" if number < _OPEN else ""}><summary title="{escape(file)}">{title}</summary>'
            f'<div class="clips">{clips}</div></details>'
        )
    return "".join(parts)


def _problems(found: Evaluation) -> str:
    """What is missing and what failed."""
    parts = []
    if found.failed:
        listed = items(
            f"{entry['file']}{_by(entry)}: {str(entry['error']).removeprefix(entry['file'] + ': ')}"
            for entry in found.failed
        )
        parts.append(f'<h2>Failed</h2><ul class="notes">{listed}</ul>')
    if found.missing:
        listed = items(f"{entry['title']}: {entry['how']}" for entry in found.missing)
        parts.append(
            f"<details><summary>{_count(len(found.missing), 'figure')} not measured here, and how to get "
            f'them</summary><ul class="notes">{listed}</ul></details>'
        )
    return "".join(parts)


def _by(entry: Mapping[str, Any]) -> str:
    return "" if entry["vocoder"] is None else f" by {label((entry['vocoder'], entry['refine'] or 0))}"


def _vocoders(vocoders: Sequence[Mapping[str, Any]]) -> str:
    names = shortened([entry["name"] for entry in vocoders])
    fields = ("class", "sample_rate", "parameters", "device", "dtype")
    mel = list(dict.fromkeys(name for entry in vocoders for name in entry["mel"]))
    body = []
    for entry in vocoders:
        values = [*(entry[name] for name in fields), *(entry["mel"].get(name) for name in mel)]
        cells = "".join(text(plain(value)) for value in values)
        body.append(f"<tr>{named(entry['name'], names[entry['name']])}{cells}</tr>")
    heads = ["vocoder", *fields, *(f"mel: {name}" for name in mel)]
    return table(heads, body, "The vocoders, and the mels that they went by.")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
