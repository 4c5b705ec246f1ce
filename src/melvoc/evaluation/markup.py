"""Pieces of HTML: tables, lists, pictures and players. Every text that comes in is escaped here, but for headings."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from melvoc.evaluation.results import Clip
from melvoc.evaluation.wording import shown
from melvoc.metrics import Metric

DASH = "\u2013"
_ARROWS = {"lower": "\u2193 lower", "higher": "\u2191 higher", "nearer 0": "\u2192 0"}
_SAID = {"best": " (best)", "equal": " (as good)"}


def table(heads: Sequence[str], body: Sequence[str], caption: str, *, sortable: bool = False) -> str:
    """A table of ready rows, which scrolls by itself; headings are HTML, and buttons where it sorts."""
    if sortable:
        cells = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{head}</button></th>' for head in heads
        )
    else:
        cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    kind, said = ' class="sorted"' if sortable else "", escape(caption)
    return (
        f'<p class="soft" aria-hidden="true">{said}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said}"><table{kind}>'
        f'<caption class="hidden">{said}</caption><thead><tr>{cells}</tr></thead><tbody>'
        f"{''.join(body)}</tbody></table></div>"
    )


def heading(metric: Metric, leader: str | None = None) -> str:
    """A metric's heading: its title, and where better lies."""
    leads = '<span class="leads">leads</span>' if metric.name == leader else ""
    return f'{leads}{escape(metric.title)}<span class="way" title="is better">{_ARROWS[metric.better]}</span>'


def named(name: str, shown_as: str, *, sortable: bool = False) -> str:
    """The heading of a row."""
    key = f' data-v="{escape(name)}"' if sortable else ""
    return f'<th scope="row" title="{escape(name)}"{key}>{escape(shown_as)}</th>'


def text(value: str, key: str = "") -> str:
    """A cell of text, with what it is sorted by."""
    return f'<td class="text" data-v="{escape(key or value)}">{escape(value)}</td>'


def figure(value: float | None, mark: str = "", why: str = "") -> str:
    """A cell with a figure: a dash with its reason where there is none.

    Args:
        value: the figure.
        mark: "best", "equal" or neither.
        why: there is none.
    """
    if value is None:
        return f'<td class="none" data-v="" title="{escape(why)}">{DASH}</td>'
    said = f'<span class="hidden">{_SAID[mark]}</span>' if mark else ""
    kind = f' class="{mark}"' if mark else ""
    return f'<td{kind} data-v="{value!r}">{_grouped(value)}{said}</td>'


def clip(sound: Clip, file: str) -> str:
    """A player with its pictures."""
    about = escape(f"{sound.title}, {file}")
    parts = [
        f"<figure><figcaption>{escape(sound.title)}</figcaption>",
        f'<audio controls preload="metadata" aria-label="{about}" src="{_data("audio/flac", sound.sound)}"></audio>',
        f'<img alt="Spectrogram: {about}" src="{_data("image/png", sound.picture)}">',
    ]
    if sound.difference is not None:
        alt = f"Difference of its spectrogram to the recording's: {about}"
        parts.append(f'<p>less the recording</p><img alt="{alt}" src="{_data("image/png", sound.difference)}">')
    return "".join([*parts, "</figure>"])


def items(texts: Iterable[str]) -> str:
    """The items of a list."""
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def terms(entries: Iterable[tuple[str, object]]) -> str:
    """The entries of a description list."""
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(plain(value))}</dd>" for name, value in entries)


def plain(value: object) -> str:
    """A value of a specification or a setting."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    return DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def scale(colours: Sequence[tuple[int, int, int]]) -> str:
    """The colours of a picture as a strip."""
    stops = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours)
    return f'<span class="scale" style="background: linear-gradient(90deg, {stops})"></span>'


def _grouped(value: float) -> str:
    """A figure, in groups of thousands where it is that large."""
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else shown(value)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
