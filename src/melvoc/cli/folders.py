"""Several inputs, files and folders: which file is made of which, and one after the other.

Under OUT a file lies as it does under the deepest folder that holds every input: of one folder IN, as it does in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from melvoc.audio.folder import Skipped, find_files
from melvoc.cli import FAILED, line_of, tell
from melvoc.errors import MelvocError, clipped
from melvoc.storage.reading import exists

_FILES = (".wav", ".flac", ".safetensors", ".npy")  # endings of what is made


@dataclass(frozen=True)
class Job:
    """One file to make.

    Attributes:
        source: the input.
        target: the output, whose folder need not exist.
    """

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in order.
        left_out: of the folders, files that are not used.
        single: whether the input is one file, for which OUT is a folder.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[Skipped, ...]
    single: bool = False


Runner = Callable[[Iterator[Job]], Generator[str | None]]  # what went wrong with each job, None where nothing did


def add_several(parser: argparse.ArgumentParser, formats: Sequence[str]) -> argparse._ArgumentGroup:
    """Add the options for several inputs, as a group."""
    group = parser.add_argument_group("several inputs, or folders")
    group.add_argument("--format", choices=formats, help=f"ending of what is made in OUT (default: {formats[0]})")
    group.add_argument("--overwrite", action="store_true", help="make anew what is there; otherwise it is skipped")
    return group


def ending_of(arguments: argparse.Namespace, formats: Sequence[str], *, several: bool) -> str:
    """The ending of what is made in a folder.

    Raises:
        MelvocError: it is given for one file, whose name has one.
    """
    if arguments.format and not several:
        raise MelvocError(
            f"--format {arguments.format} is for several inputs, or a folder; of one, OUT's ending says it"
        )
    return f".{arguments.format or formats[0]}"


def are_several(inputs: Sequence[str], out: str | None) -> bool:
    """Whether OUT is a folder: for several inputs, one that is a folder, or one file where OUT is a folder already."""
    return len(inputs) > 1 or (inputs[0] != "-" and (_is_folder(inputs[0]) or (out is not None and _is_folder(out))))


def make_plan(inputs: Sequence[str], out: str, endings: Collection[str], ending: str) -> Plan:
    """Find the files to use and what to make of each.

    Args:
        inputs: files and folders.
        out: the folder to write to.
        endings: of a folder's files that are used, in lower case; a file that is named is used whatever its ending.
        ending: of what is made.

    Raises:
        MelvocError: arguments that make no sense together, or nothing to do.
    """
    _check(inputs, Path(out))
    sources: dict[Path, Path] = {}  # by absolute path: each file once
    left_out: list[Skipped] = []
    for entry in map(Path, inputs):
        if _is_folder(entry):
            files, others = find_files(entry, endings, without=out)
            left_out += [Skipped(**vars(other) | {"name": clipped(str(entry / other.name))}) for other in others]
        else:
            files = [entry]
        sources |= {_absolute(file): file for file in files}
    if not sources:
        found = "; ".join(f"{entry.name}: {entry.reason}" for entry in left_out[:3])
        raise MelvocError(
            f"{', '.join(inputs)}: nothing to do, there are no files that can be read ({', '.join(sorted(endings))}); "
            "give files, or folders with some in them" + (f" ({found})" if found else "")
        )
    held = [_absolute(entry if _is_folder(entry) else entry.parent) for entry in map(Path, inputs)]
    names = [os.path.relpath(path, os.path.commonpath(held)) for path in sources]
    jobs = tuple(map(Job, sources.values(), (Path(out, name) for name in output_names(names, ending))))
    check_nothing_lost(jobs)
    return Plan(jobs, tuple(left_out), single=len(inputs) == 1 and not _is_folder(Path(inputs[0])))


def output_names(names: Sequence[str], ending: str) -> list[str]:
    """A name for what is made of each file: its own with another ending; no two are the same.

    Where two would be, both keep their own ending too: `a.wav` and `a.mp3` become `a.wav.flac` and `a.mp3.flac`, and
    `a.mp3` beside a folder `a.flac` becomes `a.mp3.flac`.

    Args:
        names: of the inputs, all different.
        ending: of the outputs.
    """
    whole: set[str] = set()
    while True:
        made = [(name if name in whole else os.path.splitext(name)[0]) + ending for name in names]  # noqa: PTH122
        counts = Counter(made)
        counts.update({str(folder) for output in made for folder in Path(output).parents})
        shared = {name for name, output in zip(names, made, strict=True) if counts[output] > 1}
        if shared <= whole:
            return made
        whole |= shared


def check_nothing_lost(jobs: Sequence[Job]) -> None:
    """Check that no output is an input.

    Raises:
        MelvocError: one is.
    """
    inputs = {(status.st_dev, status.st_ino) for job in jobs if (status := _status(job.source))}
    for job in jobs:
        if (status := _status(job.target)) and (status.st_dev, status.st_ino) in inputs:
            raise MelvocError(f"{job.target}: both an input and an output; give another with -o")


def run_plan(plan: Plan, run: Runner, *, out: str, overwrite: bool) -> int:
    """Make what is not there yet: one line on stderr for each input that failed, one progress bar on a terminal.

    Args:
        plan: what to do.
        run: makes the files of jobs, and tells of each how it went.
        out: the folder that the plan writes to.
        overwrite: whether to make anew what is there.

    Returns:
        The exit code: 0, or where something failed 1, of a single file 2.
    """
    from tqdm import tqdm

    count = Counter(failed=_left_out(plan))
    with tqdm(total=len(plan.jobs), unit="file", disable=not sys.stderr.isatty(), leave=False) as bar:

        def missing() -> Iterator[Job]:
            for job in plan.jobs:
                if overwrite or not _status(job.target) or _is_folder(job.target):
                    yield job
                else:
                    count["present"] += 1
                    bar.update()

        with closing(run(missing())) as results:
            for problem in results:
                count["failed" if problem else "made"] += 1
                bar.update()
                if problem:
                    bar.write(f"melvoc: error: {problem}", file=sys.stderr)
    if plan.single and count["failed"]:
        return FAILED
    present = f", {count['present']} skipped (already there; --overwrite makes them anew)" if count["present"] else ""
    failed = f", {count['failed']} failed" if count["failed"] else ""
    tell(f"{out}: {count['made']} made{present}{failed}")
    return 1 if failed else 0


def _left_out(plan: Plan) -> int:
    """Name what a plan leaves out; returns how many of it somebody may have expected to be used."""
    bad = [entry for entry in plan.left_out if not entry.of_another_kind]
    for entry in plan.left_out:
        text = line_of(f"{entry.name}: {entry.reason}")
        if entry in bad:
            print(f"melvoc: error: {text}", file=sys.stderr)
        else:
            tell(f"left out {text}")
    return len(bad)


def _check(inputs: Sequence[str], out: Path) -> None:
    """Check that the arguments make sense together."""
    if "-" in inputs:
        raise MelvocError("- (standard input) is one of several inputs; give it alone, or save it as a file first")
    what = "a file" if exists(out) else "the name of a file" if out.suffix.lower() in _FILES else None
    if what and not _is_folder(out):
        raise MelvocError(
            f"{out}: {what}, but several inputs, or a folder, need a folder to write to; give one with -o"
        )
    for entry in map(Path, inputs):
        if _is_folder(entry) and _is_folder(out) and entry.samefile(out):
            raise MelvocError(f"{entry}: IN and OUT are the same folder; give another one with -o")


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path's raises where a folder above may not be read


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path's resolves links


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
