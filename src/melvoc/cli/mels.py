"""`melvoc mel`: turn a sound file into a mel."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from melvoc.audio import AudioReader
from melvoc.cli.common import add_fetching, check_standard_input, default_spec, finite_blocks, load, named, read_spec
from melvoc.errors import MelvocError
from melvoc.spectrogram.file import write_mel
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("mel", help="turn a sound file into a mel")
    parser.add_argument(
        "input", metavar="IN", help="a sound file, any rate, any number of channels; - for standard input"
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=".safetensors (with the spec) or .npy")
    parser.add_argument("--spec", help="a preset's name, or a .json of MelSpec fields")
    parser.add_argument("--vocoder", help="the mel of this vocoder: a name, a melvoc file, hf://owner/repo")
    parser.add_argument("--sample-rate", type=int, help="the mel's rate in Hz (default: the spec's, else the input's)")
    add_fetching(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, resample, analyse, in blocks; one mel per channel."""
    check_standard_input(arguments)
    if arguments.spec and arguments.vocoder:
        raise MelvocError("--spec and --vocoder both say which mel to make; give only one of them")
    with AudioReader(named(arguments.input)) as reader:
        spec, rate = choose_spec(arguments, reader.sample_rate), arguments.sample_rate
        if rate not in (None, spec.sample_rate):
            raise MelvocError(f"--sample-rate {rate}, but this mel is at {spec.sample_rate} Hz; omit --sample-rate")
        analysis = MelSpectrogram(spec).stream(sample_rate=reader.sample_rate)
        parts = [analysis.push(block) for block in finite_blocks(reader)]
        if not analysis.taken:
            raise MelvocError(f"{reader.path}: has no samples; give a file with sound in it")
        parts.append(analysis.flush())
    mel = torch.cat(parts, dim=-1)
    write_mel(arguments.output, mel, spec, samples=analysis.samples)
    print(f"{arguments.output}: {mel.shape[0]} x {mel.shape[1]} bands x {mel.shape[2]} frames at {spec.sample_rate} Hz")
    return 0


def choose_spec(arguments: argparse.Namespace, sample_rate: int) -> MelSpec:
    """The spec of the requested mel, for a file of the given rate."""
    if arguments.vocoder:
        return load(arguments, arguments.vocoder, device="cpu").spec
    if arguments.spec:
        return read_spec(arguments.spec)
    return default_spec(sample_rate if arguments.sample_rate is None else arguments.sample_rate)
