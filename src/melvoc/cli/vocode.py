"""`melvoc vocode`: synthesise audio from a saved mel, or re-synthesise an audio file."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import melvoc
from melvoc.audio import SUBTYPES, AudioReader, AudioWriter, to_pcm16
from melvoc.audio.folder import ENDINGS as SOUNDS
from melvoc.audio.resampling import resampled_length
from melvoc.audio.writer import container_of
from melvoc.cli import standard_output
from melvoc.cli.common import (
    add_loading,
    check_sample_rate,
    check_standard_input,
    finite_blocks,
    load,
    named,
    read_spec,
)
from melvoc.cli.folders import Job, add_several, are_several, check_nothing_lost, ending_of, make_plan, run_plan
from melvoc.cli.runners import locally, on_ray
from melvoc.errors import MelvocError, SpecError
from melvoc.griffinlim import default_spec
from melvoc.host import warn
from melvoc.registry import GRIFFINLIM
from melvoc.spectrogram.check import judge
from melvoc.spectrogram.file import ENDINGS as MELS
from melvoc.spectrogram.file import is_mel, read_mel
from melvoc.spectrogram.likelihood import Verdict, Watch
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.pair import GRAPHS
from melvoc.storage.pipes import regular
from melvoc.streaming import VocoderStream
from melvoc.synthesis import Resynthesis, check_block
from melvoc.vocoder import Vocoder

FORMATS = ("wav", "flac")
OTHERS = (".pt", ".pth", ".npz", ".pkl", ".csv", ".json")  # in which mels are kept, but not for melvoc
RAW_FRAMES = 16  # mel frames per read from a pipe, at most


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "vocode",
        help="synthesise audio from a saved mel, or re-synthesise an audio file",
        description="IN is a saved mel (.safetensors, .npy), or a sound file, which is turned into a mel and back.",
    )
    parser.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        help="a mel, a sound file, or - for either on standard input (with --raw: mel frames); or several, or folders",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=".wav or .flac, or a folder for several files; with --raw, standard output if omitted",
    )
    add_several(parser, FORMATS).add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on the workers of a Ray cluster (default: of this machine)",
    )
    parser.add_argument("--vocoder", help="a name, a melvoc or ONNX file, hf://owner/repo (default: griffinlim)")
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
    """Vocode a mel, a sound file, standard input, or several files."""
    check_sample_rate(arguments)
    if arguments.block_frames is not None and arguments.block_frames < 1:
        raise MelvocError(f"--block-frames {arguments.block_frames}: a block has at least 1 frame")
    check_standard_input(arguments)
    if not (arguments.output or arguments.raw):
        raise MelvocError("no output is given; say where to write with -o OUT.wav")
    if not arguments.output and arguments.subtype not in (None, SUBTYPES[0]):
        raise MelvocError(f"--subtype {arguments.subtype}: standard output is 16-bit PCM; omit it, or write with -o")
    arguments.subtype = arguments.subtype or SUBTYPES[0]
    several = not arguments.raw and are_several(arguments.inputs, arguments.output)
    ending = ending_of(arguments, FORMATS, several=several)
    if arguments.ray is not None and not several:
        raise MelvocError("--ray is for several inputs, or a folder; one file is made here, without it")
    if arguments.output:
        container_of(f"x{ending}" if several else arguments.output, arguments.subtype)  # before any work
    if arguments.raw:
        return run_raw(arguments)
    choice = Choice(arguments)
    code = 0
    if several:
        code = run_several(choice, ending)
    else:
        source = named(arguments.inputs[0])
        check_nothing_lost([Job(Path(source), Path(arguments.output))])
        vocode_file(choice, source, arguments.output, watch=watched)
    if not (arguments.vocoder or code):  # printed after the work: an error is one line, with nothing next to it
        best = next((name for name in melvoc.list_vocoders() if choice.suits(name)), None)
        hint = f"; for better sound: --vocoder {best} (`melvoc list`)" if best else ""
        print(f"melvoc: no --vocoder given: using Griffin-Lim{hint}", file=sys.stderr)
    return code


class Choice:
    """The mel's spec and the vocoder that the arguments ask for, each read once, when it is first needed.

    Args:
        arguments: of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.named = arguments, arguments.vocoder not in (None, GRIFFINLIM)
        self._vocoder: Vocoder | None = None
        self._mels: set[MelSpec] = set()  # that were given, where no vocoder was

    def suits(self, name: str) -> bool:
        """Whether a registered vocoder takes the mels that were given; of sounds it makes its own.

        What the workers of a cluster were given is not known here.
        """
        known = self.arguments.ray is None
        return known and (not self._mels or self._mels == {melvoc.info(name).spec})

    @cached_property
    def spec(self) -> MelSpec | None:
        """That of --spec."""
        return read_spec(self.arguments.spec) if self.arguments.spec else None

    def vocoder(self, spec: MelSpec | None, sample_rate: int | None = None) -> Vocoder:
        """That of --vocoder, or Griffin-Lim for a spec, or for the default one at a sample rate."""
        options: dict[str, Any] = {"refine": self.arguments.refine}
        if not self.named:
            if spec is not None:
                self._mels.add(spec)
            spec = default_spec(sample_rate) if spec is None and sample_rate is not None else spec
            return load(self.arguments, GRIFFINLIM, spec=spec, **options)
        if self._vocoder is None:
            if self.spec is not None and self.arguments.vocoder.endswith(GRAPHS):  # it may not say what its mel is
                options["spec"] = self.spec
            self._vocoder = load(self.arguments, self.arguments.vocoder, **options)
        return self._vocoder

    def check_spec(self, vocoder: Vocoder) -> None:
        """Check that --spec, where it is given, is the vocoder's.

        Raises:
            MelvocError: it is not.
        """
        if self.spec is not None and vocoder.spec != self.spec:
            raise MelvocError(f"--spec is not {vocoder.name}'s mel; omit --spec, or give another vocoder")


def run_several(choice: Choice, ending: str) -> int:
    """Vocode files and folders. What is wrong with the arguments shows before the first file."""
    arguments = choice.arguments
    plan = make_plan(arguments.inputs, arguments.output, (*SOUNDS, *MELS), ending)
    vocoder = choice.vocoder(choice.spec)
    check_block(vocoder, arguments.block_frames)
    choice.check_spec(vocoder)
    run = locally(partial(_make, choice), len(plan.jobs), vocoder.device.type)
    if arguments.ray is not None:
        run = partial(on_ray, partial(_worker, arguments), arguments.ray)
    return run_plan(plan, run, out=arguments.output, overwrite=arguments.overwrite)


def _worker(arguments: argparse.Namespace) -> Callable[[Job], object]:
    """What a worker of a cluster makes files with."""
    return partial(_make, Choice(arguments))


def _make(choice: Choice, job: Job) -> None:
    vocode_file(choice, str(job.source), str(job.target), watch=finite_blocks)


def vocode_file(choice: Choice, source: str, output: str, *, watch: Callable[[AudioReader], Iterator[Tensor]]) -> None:
    """Vocode a mel or a sound, from a file or a pipe.

    Args:
        choice: of the vocoder.
        source: to read.
        output: to write.
        watch: gives the blocks of a sound.
    """
    with regular(source) as path:  # of a pipe a copy
        if is_mel(path):
            vocode_mel(choice, path, output)
            return
        if Path(path).suffix in OTHERS and Path(path).is_file():
            raise MelvocError(f"{source}: neither a mel (.safetensors, .npy) nor a sound; melvoc.save_mel writes a mel")
        with AudioReader(path, note=lambda said: warn(said.replace(path, source))) as reader:
            vocode_sound(choice, reader, output, watch(reader))


def vocode_mel(choice: Choice, path: str, output: str) -> None:
    """Synthesise a saved mel: one channel per row."""
    arguments, saved = choice.arguments, read_mel(path)
    spec = choice.spec if arguments.spec else saved.spec
    if saved.spec is not None and spec != saved.spec:
        raise MelvocError(f"{path} carries its own spec, and --spec differs from it; omit --spec")
    if spec is None and not arguments.vocoder:
        raise MelvocError(f"{path}: an .npy does not say what its mel is; give --spec or --vocoder")
    vocoder = choice.vocoder(spec)
    rate = arguments.sample_rate or vocoder.sample_rate
    try:
        unnamed = not arguments.spec and spec in (None, vocoder.spec)  # a file's own spec is no proof either
        if unnamed and (verdict := judge(saved.mel, vocoder.spec)):
            raise SpecError(f"{verdict}, not the mel of {vocoder.name}; if it is, name its spec with --spec")
        wave = vocoder.mel_to_waveform(saved.mel, spec=spec, sample_rate=rate, block_frames=arguments.block_frames)
    except SpecError as error:
        raise MelvocError(f"{path}: {error}") from error
    wave = wave.flatten(0, 1)
    if saved.samples is not None:
        length = resampled_length(saved.samples, vocoder.spec.sample_rate, rate)
        wave = F.pad(wave[..., :length], (0, max(0, length - wave.shape[-1])))  # the mel ends with its last whole hop
    with opened(arguments, output, rate, wave.shape[0]) as writer:
        writer.write(wave)


def vocode_sound(choice: Choice, reader: AudioReader, output: str, blocks: Iterator[Tensor]) -> None:
    """Copy synthesis, each channel separately, as long as the input; from disk to disk if the vocoder streams."""
    arguments, vocoder = choice.arguments, choice.vocoder(choice.spec, reader.sample_rate)
    if choice.spec is not None and vocoder.spec != choice.spec:
        raise MelvocError(f"--spec is not {vocoder.name}'s mel; omit --spec: the vocoder makes its own mel")
    rate = arguments.sample_rate or vocoder.sample_rate
    run = Resynthesis(
        vocoder,
        steps=vocoder.post,
        sample_rate=reader.sample_rate,
        output_sample_rate=rate,
        block_frames=arguments.block_frames,
    )
    with torch.no_grad(), opened(arguments, output, rate, reader.channels * vocoder.channels) as writer:
        for block in blocks:
            writer.write(run.push(block).flatten(0, 1))
        if not run.taken:
            raise MelvocError(f"{reader.path}: has no samples; give a file with sound in it")
        writer.write(run.flush().flatten(0, 1))


def opened(arguments: argparse.Namespace, output: str, sample_rate: int, channels: int) -> AudioWriter:
    """The file to write."""
    return AudioWriter(output, sample_rate=sample_rate, channels=channels, subtype=arguments.subtype)


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
    if arguments.inputs != ["-"] or not arguments.vocoder:
        raise MelvocError(
            "--raw reads mel frames from standard input and needs a vocoder: vocode - --raw --vocoder NAME"
        )
    if arguments.block_frames is not None:
        raise MelvocError("--block-frames with --raw, whose blocks are what arrives; omit it")
    choice = Choice(arguments)
    vocoder = choice.vocoder(choice.spec)
    choice.check_spec(vocoder)
    rate = arguments.sample_rate or vocoder.sample_rate
    with vocoder.stream(sample_rate=rate, spec=vocoder.spec) as stream:
        pieces = _raw_pieces(stream, vocoder, None if choice.spec else Watch(vocoder.spec))
        if arguments.output:
            with opened(arguments, arguments.output, rate, vocoder.channels) as writer:
                for piece in pieces:
                    writer.write(piece[0])
        else:
            for piece in pieces:
                with standard_output():
                    sys.stdout.buffer.write(to_pcm16(piece[0].T).cpu().numpy().astype("<i2").tobytes())
    return 0


def _raw_pieces(stream: VocoderStream, vocoder: Vocoder, watch: Watch | None) -> Iterator[Tensor]:
    """`[1, channels, n]` pieces of sound for the frames on standard input, however many bytes arrive at a time.

    Raises:
        MelvocError: the frames of a mel that is possible but improbable, if it is watched and as soon as there are
            enough of them; half a frame at the end; or none at all.
    """
    import numpy

    def said(verdict: Verdict) -> str:
        return f"standard input: {verdict}, not the mel of {vocoder.name}; if it is, name its spec with --spec"

    n_mels = vocoder.spec.n_mels
    frame, held, taken = 4 * n_mels, b"", 0
    source = cast(io.BufferedReader, sys.stdin.buffer)  # its read1 returns what is there, without waiting for more
    while chunk := source.read1(RAW_FRAMES * frame):
        held += chunk
        whole = len(held) // frame * frame
        frames = numpy.frombuffer(held[:whole], dtype="<f4").reshape(-1, n_mels)
        held, taken = held[whole:], taken + len(frames)
        if len(frames):
            mel = torch.from_numpy(frames.astype("float32")).T
            made = stream.push(mel)
            if watch and (verdict := watch.push(mel[None])):
                raise MelvocError(said(verdict))
            yield made
    if held:
        raise MelvocError(
            f"standard input ended inside a frame: {len(held)} bytes left over, but a frame has {frame} (float32)"
        )
    if not taken:
        raise MelvocError("standard input: has no frames; give a mel, [n_mels] float32 values for each frame")
    if watch and (verdict := watch.flush()):  # of a short one, whose sound is out
        warn(said(verdict))
    yield stream.flush()
