"""`melvoc mel`: turn a sound file into a mel."""

from __future__ import annotations

import argparse
from functools import cached_property
from typing import Any

import torch

from melvoc.audio import AudioReader
from melvoc.audio.folder import ENDINGS as SOUNDS
from melvoc.cli import tell
from melvoc.cli.common import (
    add_fetching,
    check_sample_rate,
    check_standard_input,
    finite_blocks,
    load,
    named,
    read_spec,
)
from melvoc.cli.folders import add_several, are_several, ending_of, make_plan, run_plan
from melvoc.cli.runners import locally
from melvoc.errors import MelvocError
from melvoc.griffinlim import default_spec
from melvoc.spectrogram.file import save_mel
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram

FORMATS = ("safetensors", "npy")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("mel", help="turn a sound file into a mel")
    parser.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        help="a sound file, any rate, any number of channels; - for standard input; or several, or folders",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".safetensors (with the spec) or .npy, or a folder for several files",
    )
    add_several(parser, FORMATS)
    parser.add_argument("--spec", help="a preset's name, or a .json of MelSpec fields")
    parser.add_argument("--vocoder", help="the mel of this vocoder: a name, a melvoc file, hf://owner/repo")
    parser.add_argument("--sample-rate", type=int, help="the mel's rate in Hz (default: the spec's, else the input's)")
    add_fetching(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the mel of a sound file, or of several."""
    check_standard_input(arguments)
    check_sample_rate(arguments)
    if arguments.spec and arguments.vocoder:
        raise MelvocError("--spec and --vocoder both say which mel to make; give only one of them")
    several = are_several(arguments.inputs, arguments.output)
    ending = ending_of(arguments, FORMATS, several=several)
    choice = Choice(arguments)
    if several:
        plan = make_plan(arguments.inputs, arguments.output, SOUNDS, ending)
        _ = choice.given  # what is wrong with it shows before the first file
        run = locally(lambda job: make_mel(choice, str(job.source), str(job.target)), len(plan.jobs))
        return run_plan(plan, run, out=arguments.output, overwrite=arguments.overwrite)
    tell(make_mel(choice, named(arguments.inputs[0]), arguments.output))
    return 0


class Choice:
    """The spec that the arguments ask for.

    Args:
        arguments: of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments

    @cached_property
    def given(self) -> MelSpec | None:
        """That of --vocoder or --spec, read once, when it is first needed."""
        arguments = self._arguments
        if arguments.vocoder:
            spec = load(arguments, arguments.vocoder, device="cpu").spec
        elif arguments.spec:
            spec = read_spec(arguments.spec)
        else:
            return None
        if (rate := arguments.sample_rate) not in (None, spec.sample_rate):
            raise MelvocError(f"--sample-rate {rate}, but this mel is at {spec.sample_rate} Hz; omit --sample-rate")
        return spec

    def spec(self, sample_rate: int) -> MelSpec:
        """That of the mel of a file with this rate."""
        rate = self._arguments.sample_rate
        return self.given or default_spec(sample_rate if rate is None else rate)


def make_mel(choice: Choice, source: str, output: str) -> str:
    """Read, resample, analyse, in blocks; one mel per channel.

    Returns:
        What was made, in a few words.
    """
    with AudioReader(source) as reader:
        spec = choice.spec(reader.sample_rate)
        analysis = MelSpectrogram(spec).stream(sample_rate=reader.sample_rate)
        parts = [analysis.push(block) for block in finite_blocks(reader)]
        if not analysis.taken:
            raise MelvocError(f"{reader.path}: has no samples; give a file with sound in it")
        parts.append(analysis.flush())
    mel = torch.cat(parts, dim=-1)
    save_mel(output, mel, spec, samples=analysis.samples)
    return f"{output}: {mel.shape[0]} x {mel.shape[1]} bands x {mel.shape[2]} frames at {spec.sample_rate} Hz"
