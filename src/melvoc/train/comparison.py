"""How a trained generator compares with Griffin-Lim on the held-out files, in figures and in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.errors import MelvocError, MissingPackageError
from melvoc.griffinlim import GriffinLim
from melvoc.metrics import mel_l1, multi_scale_mel, visqol, zimtohrli
from melvoc.neural import NeuralVocoder
from melvoc.progress import Report
from melvoc.train.sounds import Sound
from melvoc.train.validate import LEAST_SAMPLES, MOST_FILES, excerpt

REFINE = 4  # rounds of refinement, in the second comparison
ROUNDS = 32  # of Griffin-Lim
RAW, REFINED, RIVAL = "raw", f"refine={REFINE}", "griffinlim"
METRICS = (multi_scale_mel.METRIC, mel_l1.METRIC, zimtohrli.METRIC, visqol.METRIC)
_NAMES = {"multi_scale_mel": "multi-scale mel", "mel_l1": "log-mel L1", "zimtohrli": "Zimtohrli", "visqol": "ViSQOL"}
_BETTER = {RAW: "better", REFINED: "better with refinement", None: "not there yet"}
# What decides, and by how much each may be behind: mel distances and Zimtohrli tell generators from Griffin-Lim, while
# its ViSQOL is next to that of the recording itself. A log-mel L1 is what Griffin-Lim minimises.
DECIDING = {"multi_scale_mel": 0.0, "zimtohrli": 0.0, "visqol": 0.1}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A generator beside melvoc's Griffin-Lim of 32 rounds, which gets the same mels.

    Attributes:
        files: held-out files that were compared, the first 5 s of each.
        figures: means over the files, by metric and by candidate: "raw" (the generator alone), "refine=4" and
            "griffinlim". Zimtohrli and ViSQOL only where they are installed.
        longer: how to train longer, as options of `melvoc train`; empty where it has stopped getting better.
        unmoved: steps of a run in which the discriminators alone have learnt, so that the generator is as it began;
            else 0.
    """

    files: int
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    longer: str = ""
    unmoved: int = 0

    @property
    def verdicts(self) -> dict[str, str | None]:
        """By metric which candidate is better than Griffin-Lim: the generator alone before the refined one; or None."""
        return {name: self._ahead(name) for name in self.figures}

    @property
    def best(self) -> str | None:
        """Which candidate is better than Griffin-Lim by all that decides, "raw" before "refine=4"; or None.

        That is multi-scale mel and, where they are installed, Zimtohrli, and at most 0.1 less of ViSQOL (`DECIDING`).
        """
        names = [name for name in DECIDING if name in self.figures]
        return next((one for one in (RAW, REFINED) if names and all(self._enough(name, one) for name in names)), None)

    @property
    def better(self) -> bool:
        """Whether it is better than Griffin-Lim, with the refinement that it takes."""
        return self.best is not None

    @property
    def words(self) -> str:
        """One line: figure by figure, and what to do."""
        if not self.files:
            unknown = "nothing was held out, so how it compares with Griffin-Lim is not known; hold out some files"
            return f"{unknown}; {self._advice()}" if self.unmoved else unknown
        parts = [
            f"{_NAMES.get(name, name)} {row[RAW]:.3g} as it is, {row[REFINED]:.3g} with {REFINE} rounds of refinement, "
            f"Griffin-Lim {row[RIVAL]:.3g}: {self._said(name)}"
            for name, row in self.figures.items()
        ]
        files = "1 held-out file" if self.files == 1 else f"{self.files} held-out files"
        return "; ".join([f"on {files}: {parts[0]}" if parts else f"on {files} there is no figure", *parts[1:]]) + (
            f"; {self._advice()}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "files": self.files,
            "figures": {name: dict(row) for name, row in self.figures.items()},
            "verdicts": self.verdicts,
            "better": self.better,
            "words": self.words,
        }

    def _ahead(self, name: str) -> str | None:
        row, sign = self.figures[name], _SIGNS[name]
        return next((one for one in (RAW, REFINED) if sign * row[one] > sign * row[RIVAL]), None)

    def _enough(self, name: str, candidate: str) -> bool:
        """Whether a figure of a candidate is ahead, or no more behind than it may be."""
        row, slack = self.figures[name], DECIDING[name]
        ahead = _SIGNS[name] * (row[candidate] - row[RIVAL])
        return ahead > 0 or (slack > 0 and ahead >= -slack)

    def _said(self, name: str) -> str:
        ahead = self._ahead(name)
        near = name in DECIDING and any(self._enough(name, one) for one in (RAW, REFINED))
        return "next to it" if ahead is None and near else _BETTER[ahead]

    def _advice(self) -> str:
        if self.unmoved:
            return (
                f"the generator is as it began: in all {self.unmoved} steps the discriminators alone have learnt; "
                "lower --discriminator-warmup, or give the run more time"
            )
        if self.best:
            return "it is better than Griffin-Lim as it is" if self.best == RAW else f"use it with --refine {REFINE}"
        if not self.longer:
            return (
                "it has stopped getting better on them, so more sounds help now, not more time; "
                f"use it with --refine {REFINE}"
            )
        return f"train longer ({self.longer}), and use --refine {REFINE} until then"


_SIGNS = {metric.name: 1 if metric.better == "higher" else -1 for metric in METRICS}


@torch.no_grad()
def compare(
    vocoder: NeuralVocoder,
    sounds: Sequence[Sound],
    *,
    segment: int,
    longer: str,
    unmoved: int = 0,
    late: Callable[[], bool] = lambda: False,
    report: Report = lambda done: None,
) -> Comparison:
    """Compare a generator with Griffin-Lim, file after file (16 at most), until it is late, but one at least.

    Args:
        vocoder: the generator.
        sounds: held out.
        segment: as in `validate`.
        longer: as `Comparison.longer`.
        unmoved: as `Comparison.unmoved`.
        late: whether to stop.
        report: called after each file with how many are done.
    """
    rival = GriffinLim(spec=vocoder.spec, n_iter=ROUNDS).to(vocoder.device)
    rows: list[dict[str, dict[str, float]]] = []
    missing: set[str] = set()
    for sound in sounds[:MOST_FILES]:
        if rows and late():
            break
        real, mel = excerpt(sound, vocoder.spec, segment=segment, device=vocoder.device)
        copies = {
            RAW: vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=0),
            REFINED: vocoder.mel_to_waveform(mel, spec=vocoder.spec, refine=REFINE),
            RIVAL: rival.mel_to_waveform(mel, spec=vocoder.spec),
        }
        rows.append(_figures(real, copies, vocoder.spec.sample_rate, missing))
        report(len(rows))
    return Comparison(files=len(rows), figures=_means(rows), longer=longer, unmoved=unmoved)


def _figures(
    real: Tensor, copies: Mapping[str, Tensor], sample_rate: int, missing: set[str]
) -> dict[str, dict[str, float]]:
    """Of one file, by metric and candidate; a metric without a figure for one of them is left out."""
    found: dict[str, dict[str, float]] = {}
    waves = {name: _padded(copy[0, 0, : real.shape[-1]]) for name, copy in copies.items()}
    reference = _padded(real[0])
    for metric in METRICS:
        if metric.name in missing:
            continue
        try:
            found[metric.name] = {name: metric.measure(reference, wave, sample_rate) for name, wave in waves.items()}
        except MissingPackageError:
            missing.add(metric.name)
        except MelvocError:
            continue  # silence, say
    return found


def _padded(wave: Tensor) -> Tensor:
    wave = wave.float().cpu()
    return F.pad(wave, (0, max(0, LEAST_SAMPLES - len(wave))))


def _means(rows: Iterable[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Over the files that have a figure."""
    gathered: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        for name, figures in row.items():
            gathered.setdefault(name, []).append(figures)
    return {
        name: {one: math.fsum(figures[one] for figures in each) / len(each) for one in (RAW, REFINED, RIVAL)}
        for name, each in gathered.items()
    }
