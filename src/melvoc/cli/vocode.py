"""`melvoc vocode`: synthesise audio from a saved mel, or re-synthesise an audio file."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import melvoc
from melvoc.audio import SUBTYPES, AudioReader, AudioWriter, to_pcm16
from melvoc.audio.resampling import resampled_length
from melvoc.audio.writer import container_of
from melvoc.cli.common import add_loading, check_standard_input, default_spec, finite_blocks, load, named, read_spec
from melvoc.errors import MelvocError, SpecError
from melvoc.host import warn
from melvoc.registry import GRIFFINLIM
from melvoc.spectrogram.check import judge
from melvoc.spectrogram.file import is_mel, read_mel
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.pipes import regular
from melvoc.synthesis import Resynthesis
from melvoc.vocoder import Vocoder

RAW_FRAMES = 16  # mel frames per read from a pipe, at most


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "vocode",
        help="synthesise audio from a saved mel, or re-synthesise an audio file",
        description="IN is a saved mel (.safetensors, .npy), or a sound file, which is turned into a mel and back.",
    )
    parser.add_argument(
        "input", metavar="IN", help="a mel, a sound file, or - for either on standard input (with --raw: mel frames)"
    )
    parser.add_argument("-o", "--output", metavar="OUT", help=".wav or .flac; with --raw, standard output if omitted")
    parser.add_argument("--vocoder", help="a name, a melvoc file, hf://owner/repo (default: griffinlim)")
    parser.add_argument("--spec", help="the mel's: a preset's name, or a .json of MelSpec fields")
    parser.add_argument("--sample-rate", type=int, help="sample rate of OUT in Hz (default: the vocoder's)")
    parser.add_argument(
        "--subtype", choices=SUBTYPES, help="what OUT's samples are (default: PCM_16); FLAC has the first two"
    )
    parser.add_argument(
        "--refine", type=int, help="rounds that bring the sound closer to the mel (default: the vocoder's)"
    )
    parser.add_argument("--block-frames", type=int, help="mel frames per block (default: chosen from model and device)")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="float32 little-endian mel frames in, 16-bit PCM out as soon as it is ready, channels interleaved",
    )
    add_loading(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Vocode a mel, a sound file or standard input."""
    if arguments.sample_rate is not None and not 1 <= arguments.sample_rate < 2**31:
        raise MelvocError(f"--sample-rate {arguments.sample_rate}: a sample rate is at least 1 Hz, at most {2**31 - 1}")
    if arguments.block_frames is not None and arguments.block_frames < 1:
        raise MelvocError(f"--block-frames {arguments.block_frames}: a block has at least 1 frame")
    check_standard_input(arguments)
    if not (arguments.output or arguments.raw):
        raise MelvocError("no output is given; say where to write with -o OUT.wav")
    if not arguments.output and arguments.subtype not in (None, SUBTYPES[0]):
        raise MelvocError(f"--subtype {arguments.subtype}: standard output is 16-bit PCM; omit it, or write with -o")
    arguments.subtype = arguments.subtype or SUBTYPES[0]
    if arguments.output:
        container_of(arguments.output, arguments.subtype)  # before any work
    if arguments.raw:
        return run_raw(arguments)
    arguments.source = named(arguments.input)
    with regular(arguments.source) as arguments.input:  # of a pipe a copy
        (vocode_mel if is_mel(arguments.input) else vocode_sound)(arguments)
    if not arguments.vocoder:
        best = melvoc.list_vocoders()[0]  # printed after the work: an error is one line, with nothing next to it
        print(
            f"melvoc: no --vocoder given: using Griffin-Lim; for better sound: --vocoder {best} (`melvoc list`)",
            file=sys.stderr,
        )
    return 0


def choose(arguments: argparse.Namespace, spec: MelSpec | None, sample_rate: int | None = None) -> Vocoder:
    """The requested vocoder, or Griffin-Lim for the spec, or for the default one at a sample rate."""
    if arguments.vocoder not in (None, GRIFFINLIM):
        return load(arguments, arguments.vocoder, refine=arguments.refine)
    if spec is None and sample_rate is not None:
        spec = default_spec(sample_rate)
    return load(arguments, GRIFFINLIM, spec=spec, refine=arguments.refine)


def vocode_mel(arguments: argparse.Namespace) -> None:
    """Synthesise a saved mel: one channel per row."""
    saved = read_mel(arguments.input)
    spec = read_spec(arguments.spec) if arguments.spec else saved.spec
    if saved.spec is not None and spec != saved.spec:
        raise MelvocError(f"{arguments.input} carries its own spec, and --spec differs from it; omit --spec")
    if spec is None and arguments.vocoder in (None, GRIFFINLIM):
        raise MelvocError(f"{arguments.input}: an .npy does not say what its mel is; give --spec or --vocoder")
    vocoder = choose(arguments, spec)
    rate = arguments.sample_rate or vocoder.sample_rate
    try:
        if spec is None and (verdict := judge(saved.mel, vocoder.spec)):
            raise SpecError(f"{verdict}, not the mel of {vocoder.name}; if it is, name its spec with --spec")
        wave = vocoder.mel_to_waveform(saved.mel, spec=spec, sample_rate=rate, block_frames=arguments.block_frames)
    except SpecError as error:
        raise MelvocError(f"{arguments.input}: {error}") from error
    wave = wave.flatten(0, 1)
    if saved.samples is not None:
        length = resampled_length(saved.samples, vocoder.spec.sample_rate, rate)
        wave = F.pad(wave[..., :length], (0, max(0, length - wave.shape[-1])))  # the mel ends with its last whole hop
    with opened(arguments, rate, wave.shape[0]) as writer:
        writer.write(wave)


def vocode_sound(arguments: argparse.Namespace) -> None:
    """Copy synthesis, each channel separately, as long as the input; from disk to disk if the vocoder streams."""
    with AudioReader(
        arguments.input, note=lambda said: warn(said.replace(arguments.input, arguments.source))
    ) as reader:
        spec = read_spec(arguments.spec) if arguments.spec else None
        vocoder = choose(arguments, spec, reader.sample_rate)
        if spec is not None and vocoder.spec != spec:
            raise MelvocError(f"--spec is not {vocoder.name}'s mel; omit --spec: the vocoder makes its own mel")
        rate = arguments.sample_rate or vocoder.sample_rate
        run = Resynthesis(
            vocoder,
            steps=vocoder.post,
            sample_rate=reader.sample_rate,
            output_sample_rate=rate,
            block_frames=arguments.block_frames,
        )
        channels = reader.channels * vocoder.channels
        with torch.no_grad(), opened(arguments, rate, channels) as writer:
            for block in watched(reader):
                writer.write(run.push(block).flatten(0, 1))
            if not run.taken:
                raise MelvocError(f"{arguments.input}: has no samples; give a file with sound in it")
            writer.write(run.flush().flatten(0, 1))


def opened(arguments: argparse.Namespace, sample_rate: int, channels: int) -> AudioWriter:
    """The file to write."""
    return AudioWriter(arguments.output, sample_rate=sample_rate, channels=channels, subtype=arguments.subtype)


def watched(reader: AudioReader) -> Iterator[Tensor]:
    """The blocks of a file, with a progress bar on a terminal."""
    from tqdm import tqdm

    rate = reader.sample_rate
    seconds = None if reader.samples is None else round(reader.samples / rate, 1)
    with tqdm(total=seconds, unit="s", disable=not sys.stderr.isatty(), leave=False) as bar:
        for block in finite_blocks(reader):
            yield block
            bar.update(block.shape[-1] / rate)


def run_raw(arguments: argparse.Namespace) -> int:
    """Work as a pipe: mel frames in, PCM out as soon as it is ready."""
    if arguments.input != "-" or not arguments.vocoder:
        raise MelvocError(
            "--raw reads mel frames from standard input and needs a vocoder: vocode - --raw --vocoder NAME"
        )
    vocoder = load(arguments, arguments.vocoder, refine=arguments.refine)
    rate = arguments.sample_rate or vocoder.sample_rate
    with vocoder.stream(sample_rate=rate) as stream:
        pieces = _raw_pieces(stream, vocoder.spec.n_mels)
        if arguments.output:
            with opened(arguments, rate, vocoder.channels) as writer:
                for piece in pieces:
                    writer.write(piece[0])
        else:
            for piece in pieces:
                _put(to_pcm16(piece[0].T).cpu().numpy().astype("<i2").tobytes())
    return 0


def _put(data: bytes) -> None:
    """Write to standard output, at once."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # nobody reads any more
        raise
    except OSError as error:
        raise MelvocError(
            f"standard output: cannot be written ({error.strerror}); is there room on the disk?"
        ) from error


def _raw_pieces(stream: Any, n_mels: int) -> Iterator[Tensor]:
    """`[1, channels, n]` pieces of sound for the frames on standard input, however many bytes arrive at a time."""
    import numpy

    frame, held = 4 * n_mels, b""
    source = cast(io.BufferedReader, sys.stdin.buffer)  # its read1 returns what is there, without waiting for more
    while chunk := source.read1(RAW_FRAMES * frame):
        held += chunk
        whole = len(held) // frame * frame
        frames = numpy.frombuffer(held[:whole], dtype="<f4").reshape(-1, n_mels)
        held = held[whole:]
        if len(frames):
            yield stream.push(torch.from_numpy(frames.astype("float32")).T)
    if held:
        raise MelvocError(
            f"standard input ended inside a frame: {len(held)} bytes left over, but a frame has {frame} (float32)"
        )
    yield stream.flush()
