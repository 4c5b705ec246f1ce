"""Copy synthesis of files with several vocoders, measured and collected."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from melvoc.audio.files import read
from melvoc.audio.folder import ENDINGS, find_files
from melvoc.audio.resampling import resample, whole_rate
from melvoc.errors import MelvocError, MissingFileError, MissingPackageError, OptionError, clipped, quoted
from melvoc.evaluation.entries import Entry, Given, gather, several
from melvoc.evaluation.gallery import Gallery
from melvoc.evaluation.machine import environment
from melvoc.evaluation.notes import notes
from melvoc.evaluation.protocols import PROTOCOLS, Parts, Protocol
from melvoc.evaluation.ranking import Candidate, Table
from melvoc.evaluation.results import Evaluation, Row, check_free, make_folder
from melvoc.evaluation.speech import looks_like_speech
from melvoc.evaluation.wording import label, shortened
from melvoc.host import public
from melvoc.metrics import Metric
from melvoc.options import check_flag
from melvoc.post.refine import refined
from melvoc.progress import Progress, Report, check_progress, checkpoint, watched
from melvoc.registry import all_metrics
from melvoc.storage.pipes import naming, regular

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@public
def evaluate(
    audio: Paths,
    vocoders: Given | Iterable[Given] | Mapping[str, Given],
    refine: int | Iterable[int] = (0,),
    out: str | os.PathLike[str] | None = None,
    *,
    protocol: str = "default",
    metrics: Iterable[str] | None = None,
    speech: bool | None = None,
    sample_rate: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Turn recordings into mels and back with each vocoder and each refinement, and measure what comes back.

    A file or vocoder that fails is listed in the result, and the others go on. Whatever ends the evaluation early
    (Ctrl-C), the report of what was done is written.

    Args:
        audio: sound files and folders of them.
        vocoders: what `melvoc.load` takes, or vocoders; in a dict under names of one's own. "griffinlim" is given the
            mel of the first other vocoder.
        refine: rounds of refinement; every vocoder meets every one.
        out: folder for report.html, results.json and results.csv. None: nothing is written.
        protocol: "default", "bigvgan" or "vocos": as the papers measured (docs/metrics.md).
        metrics: names of what is measured. None: the protocol's, and by default all that is installed.
        speech: whether the files are speech. None: what each sounds like.
        sample_rate: at which is measured, in Hz. None: the lowest of the file's and the vocoders', so that no vocoder
            is blamed for a band that it does not have.
        device: for vocoders that are loaded here.
        seed: of Griffin-Lim's phases, and of what plugins draw from torch; that of other noise is `load`'s.
        overwrite: whether a report in `out` may be overwritten.
        progress: called with ("evaluate", done, total) in copies of files, and as by `load`; what it raises ends the
            evaluation (docs/applications.md).

    Returns:
        Rows of figures, what is missing or failed, and a verdict.

    Raises:
        OptionError: an argument that is not allowed.
        MelvocError: a vocoder that cannot be loaded, a folder that cannot be written, or a single file that is bad.

    Example:
        >>> import melvoc
        >>> found = melvoc.evaluate("docs/audio", "griffinlim", metrics=["mel_l1"])  # doctest: +SKIP
        >>> print(found.headline)  # doctest: +SKIP
    """
    check_progress(progress)
    chosen = _protocol(protocol)
    wanted = _metrics(chosen.metrics if metrics is None else metrics)
    rounds, seed = _rounds(refine), _seed(seed)
    if speech is not None:
        check_flag("speech", speech)
    rate = None if sample_rate is None else whole_rate(sample_rate)
    files = find_audio(audio)
    if out is not None and not overwrite:
        check_free(out)
    asked = True if speech is None and chosen.metrics is not None else speech  # both papers measured speech
    done = False
    with ExitStack() as stack:
        copies = {file: _copied(file, stack) for file in files}
        entries = gather(vocoders, list(copies.values()), device=device, seed=seed, progress=progress)
        made = out is not None and make_folder(out)
        session = Session(entries, rounds, chosen, wanted, speech=asked, sample_rate=rate, seed=seed)
        total = len(files) * len(entries) * len(rounds)
        try:
            watched(progress, "evaluate", total, lambda report: session.run(copies, report))
            done = True
        finally:
            result = session.conclude(complete=done)
            if out is not None and (result.rows or (done and len(files) > 1)):
                result.save(out)
            elif out is not None and made:
                Path(out).rmdir()
    if not result.rows and len(files) == 1:
        kind = MelvocError if Path(files[0]).exists() else MissingFileError
        raise kind(str(result.failed[0]["error"]))
    return result


def find_audio(audio: Paths) -> list[str]:
    """The files that are meant, each once: folders are looked through.

    Raises:
        MissingFileError: a folder without sound files.
        OptionError: nothing at all, or something else.
    """
    files: list[str] = []
    for place in _places(audio):
        if not Path(place).is_dir():
            files.append(place)
            continue
        found, skipped = find_files(place, ENDINGS)
        if not found:
            others = "; ".join(f"{entry.name}: {entry.reason}" for entry in skipped[:3])
            raise MissingFileError(f"{place}: has no sound files{others and f' ({others})'}; give another folder")
        files += map(str, found)
    if not files:
        raise OptionError("no audio is given; give at least one sound file or folder")
    each: dict[str, str] = {}
    for file in files:  # under its first name, whatever the others are
        each.setdefault(os.path.realpath(file), file)
    return list(each.values())


def _places(audio: Paths) -> list[str]:
    """The files and folders that were given."""
    try:
        return [os.fsdecode(place) for place in several("audio", audio, str, os.PathLike)]
    except TypeError as error:
        raise OptionError("audio holds what is no path; melvoc.audio.write makes a file of a waveform") from error


class Session:
    """An evaluation that is running: takes file after file."""

    def __init__(
        self,
        entries: Sequence[Entry],
        rounds: Sequence[int],
        protocol: Protocol,
        metrics: Sequence[Metric],
        *,
        speech: bool | None,
        sample_rate: int | None,
        seed: int,
    ) -> None:
        self._entries, self._rounds, self._protocol, self._seed = entries, rounds, protocol, seed
        self._names = [metric.name for metric in metrics]
        self._speech, self._rate = speech, sample_rate
        self._gallery, self._parts = Gallery(), dict[tuple[Candidate, str], dict[str, list[Parts]]]()
        missing = [entry for metric in metrics if (entry := _uninstalled(metric))]
        gone = {entry["name"] for entry in missing}
        self.result = Evaluation(
            metrics=[metric for metric in metrics if metric.name not in gone],
            missing=missing,
            vocoders=[entry.describe() for entry in entries],
            settings={
                "protocol": protocol.name, "speech": speech, "sample_rate": sample_rate, "refine": list(rounds),
                "seed": seed,
            },
            clips=self._gallery.clips,
        )  # fmt: skip
        self._short, self._done = shortened([entry.name for entry in entries]), 0

    def run(self, files: Mapping[str, str], report: Report) -> None:
        """Measure file after file, each with the path to read it from, and report how many copies are done."""
        shown: dict[str, str] = {}
        for file in files:  # names that any text can hold, and no two of them the same
            name = clipped(file)
            shown[name if name not in shown else f"{name} ({len(shown)})"] = file
        for name, file in shown.items():
            self._measure(name, files[file], report)

    def _measure(self, file: str, path: str, report: Report) -> None:
        """All vocoders on one file."""
        try:
            with naming(path, file):
                reference, rate = self._protocol.prepare(*_read(path))
            speech = looks_like_speech(reference, rate) if self._speech is None else self._speech
            common = self._rate or min(rate, *(entry.vocoder.sample_rate for entry in self._entries))
            target = resample(reference, rate, common)
        except Exception as error:
            self._fail(file, None, None, error)
            self._done += len(self._entries) * len(self._rounds)
            report(self._done)
            return
        shown = self._gallery.open(file)
        about: Row = {
            "sample_rate": common, "file_rate": rate, "seconds": round(reference.shape[1] / rate, 3),
            "channels": reference.shape[0], "speech": speech,
        }  # fmt: skip
        for entry in self._entries:
            mel: Tensor | None = None
            for rounds in self._rounds:
                try:
                    mel = entry.mel(reference, rate) if mel is None else mel
                    self._row(file, entry, rounds, mel, target, about, shown)
                except Exception as error:  # of a plugin, of torch for want of memory, ...
                    self._fail(file, entry.name, rounds, error)
                self._done += 1
                report(self._done)
        self._gallery.close(file)

    def conclude(self, *, complete: bool) -> Evaluation:
        """The result of what was measured."""
        result = self.result
        result.settings["complete"] = complete
        for file in list(result.clips):
            self._gallery.close(file)  # where a signal came before its first copy
        table = Table(result.rows)
        for (candidate, name), parts in self._parts.items():
            common = [part for file in table.common(name) for part in parts[file]]
            try:
                value = self._protocol.pool[name].figure(common) if common else math.nan
            except MelvocError:
                continue  # of no file, as each row says
            if math.isfinite(value):
                result.pooled.setdefault(candidate, {})[name] = value
        packages = {package for metric in result.metrics for package in metric.packages}
        device = self._entries[0].vocoder.device
        result.environment = environment(device, ("soundfile", "auraloss", *sorted(packages)))
        result.notes = notes(result.rows, result.vocoders, result.settings, result.missing)
        if not complete:
            result.notes.insert(0, "The evaluation was stopped before its end: this is what was done until then.")
        return result

    def _row(self, file: str, entry: Entry, rounds: int, mel: Tensor, target: Tensor, about: Row, shown: bool) -> None:
        rate = int(about["sample_rate"] or 0)
        copy = entry.copy(mel, target.shape[1], rate, refine=rounds, seed=self._seed)
        if not bool(torch.isfinite(copy.wave).all()):
            raise MelvocError(f"{entry.name} made NaN or Inf of it; find out why, or leave it out")
        reference, sound = self._protocol.listen(target, copy.wave, rate)
        figures, reasons = self._figures(file, entry, rounds, reference, sound, rate, speech=bool(about["speech"]))
        if shown:
            self._gallery.add(file, label((entry.name, rounds), self._short), reference, sound, rate)
        self.result.rows.append(
            {"file": file, "vocoder": entry.name, "refine": rounds, **figures, "speed": copy.speed}
            | {"peak_memory_mb": None if copy.memory is None else round(copy.memory / 1e6, 1)}
            | {"parameters": entry.parameters, **about, "undefined": "; ".join(reasons)}
        )

    def _figures(
        self, file: str, entry: Entry, rounds: int, reference: Tensor, sound: Tensor, rate: int, *, speech: bool
    ) -> tuple[Row, list[str]]:
        """Every figure, None where there is none, and the reasons for that."""
        figures: Row = dict.fromkeys(self._names)
        reasons = []
        for metric in list(self.result.metrics):
            checkpoint()
            try:
                if metric.speech and not speech:
                    raise MelvocError("for speech only")
                figures[metric.name] = self._figure(metric, file, entry, rounds, reference, sound, rate)
            except MissingPackageError as error:
                self.result.metrics.remove(metric)
                self.result.missing.append({"name": metric.name, "title": metric.title, "how": str(error)})
            except Exception as error:  # of other people's code
                reasons.append(f"{metric.name}: {_said(error).replace('; ', ', ')}")
        return figures, reasons

    def _figure(
        self, metric: Metric, file: str, entry: Entry, rounds: int, reference: Tensor, sound: Tensor, rate: int
    ) -> float:
        """One figure: the mean over the channels, or what the protocol makes of them."""
        pairs = list(zip(reference.clone(), sound.clone(), strict=True))  # whose own a plugin may write into
        if (pool := self._protocol.pool.get(metric.name)) is not None:
            parts = [pool.parts(one, other, rate) for one, other in pairs]
            value = pool.figure(parts)
            self._parts.setdefault(((entry.name, rounds), metric.name), {})[file] = parts
        else:
            frames = entry.vocoder.sample_rate / entry.vocoder.samples_per_frame
            value = math.fsum(metric.measure(*pair, rate, frame_rate=frames) for pair in pairs) / len(pairs)
        if not math.isfinite(value):
            raise MelvocError(f"came out as {value}")
        return value

    def _fail(self, file: str, vocoder: str | None, refine: int | None, error: Exception) -> None:
        self.result.failed.append({"file": file, "vocoder": vocoder, "refine": refine, "error": _said(error)})


def _said(error: Exception) -> str:
    """An error, also of other people's code, as a text that any file can hold."""
    return str(error) if isinstance(error, MelvocError) else clipped(f"{type(error).__name__}: {error}")


def _copied(file: str, stack: ExitStack) -> str:
    """A file that can be read more than once: of a pipe a copy. What is wrong with one shows when it is measured."""
    try:
        return stack.enter_context(regular(file))
    except MelvocError:
        return file


def _read(file: str) -> tuple[Tensor, int]:
    wave, rate = read(file)
    if not bool(torch.isfinite(wave).all()):
        raise MelvocError(f"{file}: contains NaN or Inf; find out where they come from, and write it again")
    return wave, rate


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise OptionError(f"protocol={quoted(name)}, but the protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _metrics(names: Iterable[str] | None) -> list[Metric]:
    """The metrics of these names, or all."""
    known = {metric.name: metric for metric in all_metrics()}
    if names is None:
        return list(known.values())
    wanted = list(dict.fromkeys(several("metrics", names, str)))
    for name in wanted:
        if name not in known:
            raise OptionError(f"metrics has {quoted(name)}, but the metrics are {', '.join(known)}")
    return [known[name] for name in wanted]


def _rounds(refine: int | Iterable[int]) -> list[int]:
    """Rounds of refinement, each once."""
    found = list(dict.fromkeys(several("refine", refine, int)))
    for rounds in found:
        refined((), rounds)  # checks it
    if not found:
        raise OptionError("refine is empty; give at least one number of rounds, 0 for none")
    return list(map(int, found))


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise OptionError(f"seed={quoted(seed)}, but it is a whole number")
    return int(seed)


def _uninstalled(metric: Metric) -> dict[str, str] | None:
    """What is missing for a metric and how to get it, or None."""
    for package in metric.packages:
        try:
            version(package)
        except PackageNotFoundError:
            return {"name": metric.name, "title": metric.title, "how": f"pip install {' '.join(metric.packages)}"}
    return None
