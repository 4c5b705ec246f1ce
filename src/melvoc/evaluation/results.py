"""What an evaluation found, as an object and as files."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melvoc.errors import MelvocError
from melvoc.evaluation.ranking import Candidate, Table, Verdict, judge, means
from melvoc.evaluation.wording import grounds, headline, shortened
from melvoc.metrics import Metric
from melvoc.storage.atomic import replacing

Row = dict[str, float | int | str | None]

REPORT, JSON, CSV = "report.html", "results.json", "results.csv"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What the report lets one hear and see of a sound.

    Attributes:
        title: the vocoder's, or the recording's.
        sound: FLAC.
        picture: PNG of its levels.
        difference: PNG of its levels less the recording's; None for the recording.
    """

    title: str
    sound: bytes
    picture: bytes
    difference: bytes | None = None


@dataclass(kw_only=True, repr=False)
class Evaluation:
    """What `melvoc.evaluate` found.

    Attributes:
        rows: one per file, vocoder and refinement: a column for each metric, None where there is no figure.
        missing: metrics that could not be computed at all: `name`, `title` and `how` to get it.
        failed: `file`, `vocoder` (None: all of them), `refine` and `error`.
        metrics: of the columns, without the missing ones.
        pooled: figures over a set that are not the mean of the files', by candidate and name.
        vocoders: of each, what it is: `name`, `sample_rate`, `parameters`, `mel` and so on.
        settings: how it was measured: `protocol`, `speech` and so on.
        environment: machine and versions.
        notes: what a reader has to know before comparing.
        clips: by file, the recording's and then each candidate's.
    """

    rows: list[Row] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    pooled: dict[Candidate, dict[str, float]] = field(default_factory=dict)
    vocoders: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clips: dict[str, list[Clip]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: how much was measured, and the headline."""
        files = len({row["file"] for row in self.rows})
        counts = f"{len(self.rows)} rows (files: {files}, vocoders: {len(self.vocoders)}), {len(self.failed)} failed"
        return f"<Evaluation: {counts}; {self.headline}>"

    @property
    def verdict(self) -> Verdict:
        """Which candidate to use, and how sure that is."""
        return judge(Table(self.rows), self.metrics, speech=self.speech)

    @property
    def speech(self) -> bool:
        """Whether most files are speech."""
        files = {str(row["file"]): bool(row["speech"]) for row in self.rows}
        return 2 * sum(files.values()) > len(files)

    @property
    def headline(self) -> str:
        """Which candidate to use, in a sentence."""
        speeds = {one: found["speed"] for one, found in means(Table(self.rows), ["speed"]).items() if "speed" in found}
        return headline(self.verdict, speeds, self._short(), len({row["file"] for row in self.rows}))

    @property
    def grounds(self) -> str:
        """What the headline rests on, and what that cannot hear."""
        return grounds(self.verdict, self.means(), self.metrics, self._short())

    def _short(self) -> dict[str, str]:
        return shortened([str(row["vocoder"]) for row in self.rows])

    def means(self) -> dict[Candidate, dict[str, float]]:
        """Each candidate's figures over all files: means, or what the protocol makes of the set."""
        found = means(Table(self.rows), [metric.name for metric in self.metrics])
        return {one: values | self.pooled.get(one, {}) for one, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json."""
        verdict, average = self.verdict, self.means()
        return {
            "headline": self.headline,
            "grounds": self.grounds,
            "verdict": {"kind": verdict.kind, "choice": verdict.choice, "leader": verdict.leader},
            "means": [{"vocoder": one[0], "refine": one[1]} | average[one] for one in average],
            "rows": self.rows,
            "missing": self.missing,
            "failed": self.failed,
            "metrics": [_described(metric) for metric in self.metrics],
            "vocoders": self.vocoders,
            "settings": self.settings,
            "environment": self.environment,
            "notes": self.notes,
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write report.html, results.json and results.csv, each whole or not at all.

        Raises:
            MelvocError: they cannot be written.
        """
        from melvoc.evaluation.report import page

        place = Path(folder)
        try:
            with replacing(place / JSON) as temporary:
                temporary.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
            with replacing(place / CSV) as temporary:
                _write_csv(temporary, self.rows)
            with replacing(place / REPORT) as temporary:
                temporary.write_text(page(self), encoding="utf-8")
        except OSError as error:
            raise MelvocError(f"{place}: cannot be written ({error.strerror or error}); make room for it") from error


def check_free(folder: str | os.PathLike[str]) -> None:
    """Check that a folder has no report yet.

    Raises:
        MelvocError: it has one.
    """
    if any((Path(folder) / name).exists() for name in (REPORT, JSON, CSV)):
        raise MelvocError(f"{folder}: has a report already; choose another folder, or --overwrite (overwrite=True)")


def make_folder(folder: str | os.PathLike[str]) -> bool:
    """Make the folder of a report; whether there was none.

    Raises:
        MelvocError: it cannot be made or written.
    """
    place = Path(folder)
    made = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"room?")
        return made
    except OSError as error:
        why = "a file" if place.is_file() else error.strerror or str(error)
        raise MelvocError(f"{place}: no folder for a report can be made there ({why}); choose another") from error


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["file", "vocoder", "refine"])
        writer.writeheader()
        writer.writerows(rows)


def _described(metric: Metric) -> dict[str, Any]:
    names = ("name", "title", "better", "source", "deaf_to", "speech", "reference")
    return {name: getattr(metric, name) for name in names}
