"""`melvoc vocode`: a mel, or sound by way of a mel, into sound."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import melvoc
from melvoc.audio import AudioReader, AudioWriter, to_pcm16
from melvoc.audio.resampling import Resampler
from melvoc.cli.common import DTYPES, add_loading, default_spec, finite_blocks, load, read_spec
from melvoc.errors import MelvocError, SpecError
from melvoc.spectrogram.file import read_mel
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.vocoder import Vocoder

BETTER = (
    "melvoc: Griffin-Lim, for want of a --vocoder; for better sound: "
    "--vocoder bigvgan_v2_44khz_128band_512x (`melvoc list`)"
)
RAW_FRAMES = 16  # mel frames to a read from a pipe, at most


def add_parser(commands: Any) -> None:
    """The command."""
    parser = commands.add_parser(
        "vocode",
        help="a mel, or sound by way of a mel, into sound",
        description="IN is a saved mel (.safetensors, .npy), or a sound file, which is turned into a mel and back.",
    )
    parser.add_argument(
        "input", metavar="IN", help="a mel, a sound file, or - for mel frames on standard input (--raw)"
    )
    parser.add_argument("-o", "--output", metavar="OUT", help=".wav or .flac; with --raw, standard output if left away")
    parser.add_argument("--vocoder", help="a name, a melvoc file, hf://owner/repo (default: griffinlim)")
    parser.add_argument("--spec", help="the mel's: a preset's name, or a .json of MelSpec fields")
    parser.add_argument("--sample-rate", type=int, help="of OUT in Hz (default: the vocoder's)")
    parser.add_argument("--block-frames", type=int, help="mel frames a block (default: chosen from model and device)")
    parser.add_argument(
        "--raw", action="store_true", help="float32 little-endian mel frames in, 16-bit PCM out as it comes"
    )
    add_loading(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Choose the way in."""
    if arguments.sample_rate is not None and not 1 <= arguments.sample_rate < 2**31:
        raise MelvocError(f"--sample-rate {arguments.sample_rate}: a sample rate is at least 1 Hz, at most {2**31 - 1}")
    if arguments.block_frames is not None and arguments.block_frames < 1:
        raise MelvocError(f"--block-frames {arguments.block_frames}: a block has at least 1 frame")
    if arguments.raw:
        return run_raw(arguments)
    if arguments.input == "-":
        raise MelvocError("IN is -, but standard input is read with --raw only (float32 mel frames)")
    if not arguments.output:
        raise MelvocError("there is no OUT; say where to write with -o OUT.wav")
    is_mel = Path(arguments.input).suffix in (".safetensors", ".npy")
    (vocode_mel if is_mel else vocode_sound)(arguments)
    if not arguments.vocoder:
        print(BETTER, file=sys.stderr)  # after the work: an error is one line, with nothing beside it
    return 0


def choose(arguments: argparse.Namespace, spec: Any) -> Vocoder:
    """The vocoder asked for, or Griffin-Lim for the spec."""
    if arguments.vocoder and arguments.vocoder != "griffinlim":
        return load(arguments, arguments.vocoder)
    return melvoc.load("griffinlim", device=arguments.device, dtype=DTYPES.get(arguments.dtype), spec=spec)


def vocode_mel(arguments: argparse.Namespace) -> None:
    """A saved mel: one channel a row."""
    saved = read_mel(arguments.input)
    spec = read_spec(arguments.spec) if arguments.spec else saved.spec
    if saved.spec is not None and spec != saved.spec:
        raise MelvocError(
            f"{arguments.input} says itself what its mel is, and --spec says otherwise; leave --spec away"
        )
    if spec is None and arguments.vocoder in (None, "griffinlim"):
        raise MelvocError(f"{arguments.input}: an .npy does not say what its mel is; give --spec or --vocoder")
    vocoder = choose(arguments, spec)
    rate = arguments.sample_rate or vocoder.sample_rate
    try:
        wave = vocoder.mel_to_waveform(saved.mel, spec=spec, sample_rate=rate, block_frames=arguments.block_frames)
    except SpecError as error:
        raise MelvocError(f"{arguments.input}: {error}") from error
    wave = wave[:, 0]
    if saved.samples is not None:
        length = -(-saved.samples * rate // vocoder.sample_rate)
        wave = F.pad(wave[..., :length], (0, max(0, length - wave.shape[-1])))  # the mel ends with its last whole hop
    with AudioWriter(arguments.output, sample_rate=rate, channels=wave.shape[0]) as writer:
        writer.write(wave)


def vocode_sound(arguments: argparse.Namespace) -> None:
    """Copy synthesis, each channel by itself, as long as the input; from disk to disk where the vocoder streams."""
    with AudioReader(arguments.input) as reader:
        spec = read_spec(arguments.spec) if arguments.spec else default_spec(reader.sample_rate)
        vocoder = choose(arguments, spec)
        if arguments.spec and vocoder.spec != spec:
            raise MelvocError(f"--spec is not the mel of {vocoder.name}; leave --spec away, it makes its own")
        rate = arguments.sample_rate or vocoder.sample_rate
        with AudioWriter(arguments.output, sample_rate=rate, channels=reader.channels) as writer:
            taken = given = 0
            source = Counted(reader)
            pieces = (
                _streamed(vocoder, source, reader, rate)
                if vocoder.can_stream
                else _whole(vocoder, source, reader, rate, arguments.block_frames)
            )
            for piece in pieces:
                taken = -(-source.samples * rate // reader.sample_rate)
                piece = piece[..., : max(0, taken - given)] if source.ended else piece
                writer.write(piece)
                given += piece.shape[-1]
            if not source.samples:
                raise MelvocError(f"{arguments.input}: has no samples; give a file with sound in it")


class Counted:
    """The blocks of a file, and how many samples have come; a progress bar where somebody watches."""

    def __init__(self, reader: AudioReader) -> None:
        self.reader, self.samples, self.ended = reader, 0, False

    def __iter__(self) -> Iterator[Tensor]:
        from tqdm import tqdm

        rate = self.reader.sample_rate
        with tqdm(
            total=round(self.reader.samples / rate, 1), unit="s", disable=not sys.stderr.isatty(), leave=False
        ) as bar:
            for block in finite_blocks(self.reader):
                self.samples += block.shape[-1]
                yield block
                bar.update(block.shape[-1] / rate)
        self.ended = True


def _padding(samples: int, hop_length: int, n_fft: int) -> int:
    """Zeros after the end, so that the frames cover every sample and the shortest sound has one."""
    return max(-samples % hop_length, n_fft - samples)


def _streamed(vocoder: Vocoder, source: Counted, reader: AudioReader, rate: int) -> Iterator[Tensor]:
    """Resample, analyse, synthesise, resample, block by block: `[C, n]` pieces of sound."""
    resampler, analysis = Resampler(reader.sample_rate, vocoder.sample_rate), MelSpectrogram(vocoder.spec).stream()
    resampled = 0
    with vocoder.stream(sample_rate=rate) as stream:
        for block in source:
            wave = resampler(block[:, None], False).reshape(reader.channels, -1)
            resampled += wave.shape[-1]
            yield stream.push(analysis.push(wave))[:, 0].cpu()
        if not source.samples:
            return
        wave = resampler(torch.zeros(reader.channels, 1, 0), True).reshape(reader.channels, -1)
        resampled += wave.shape[-1]
        zeros = torch.zeros(reader.channels, _padding(resampled, vocoder.spec.hop_length, vocoder.spec.n_fft))
        last = [analysis.push(torch.cat([wave, zeros], dim=-1)), analysis.flush()]
        yield stream.push(torch.cat(last, dim=-1))[:, 0].cpu()
        yield stream.flush()[:, 0].cpu()


def _whole(
    vocoder: Vocoder, source: Counted, reader: AudioReader, rate: int, block_frames: int | None
) -> Iterator[Tensor]:
    """The same at once, for vocoders that need the whole mel."""
    blocks = list(source)
    if not source.samples:
        return
    wave = torch.cat(blocks, dim=-1)
    resampler = Resampler(reader.sample_rate, vocoder.sample_rate)
    wave = resampler(wave[:, None], True)[:, 0]
    zeros = torch.zeros(reader.channels, _padding(wave.shape[-1], vocoder.spec.hop_length, vocoder.spec.n_fft))
    mel = vocoder.mel(torch.cat([wave, zeros], dim=-1))
    wave = vocoder.mel_to_waveform(mel, spec=vocoder.spec, sample_rate=rate, block_frames=block_frames)
    yield wave[:, 0].cpu()


def run_raw(arguments: argparse.Namespace) -> int:
    """A pipe: mel frames in, PCM out as soon as it is ready."""
    if arguments.input != "-" or not arguments.vocoder:
        raise MelvocError(
            "--raw reads mel frames from standard input and needs a vocoder: vocode - --raw --vocoder NAME"
        )
    vocoder = load(arguments, arguments.vocoder)
    rate = arguments.sample_rate or vocoder.sample_rate
    with vocoder.stream(sample_rate=rate) as stream:
        pieces = _raw_pieces(stream, vocoder.spec.n_mels)
        if arguments.output:
            with AudioWriter(arguments.output, sample_rate=rate, channels=1) as writer:
                for piece in pieces:
                    writer.write(piece[0])
        else:
            for piece in pieces:
                sys.stdout.buffer.write(to_pcm16(piece[0, 0]).cpu().numpy().astype("<i2").tobytes())
                sys.stdout.buffer.flush()
    return 0


def _raw_pieces(stream: Any, n_mels: int) -> Iterator[Tensor]:
    """`[1, 1, n]` pieces of sound for the frames on standard input, whatever number of bytes comes at a time."""
    import numpy

    frame, held = 4 * n_mels, b""
    source = cast(io.BufferedReader, sys.stdin.buffer)  # its read1 gives what is there, without waiting for more
    while chunk := source.read1(RAW_FRAMES * frame):
        held += chunk
        whole = len(held) // frame * frame
        frames = numpy.frombuffer(held[:whole], dtype="<f4").reshape(-1, n_mels)
        held = held[whole:]
        if len(frames):
            yield stream.push(torch.from_numpy(frames.astype("float32")).T)
    if held:
        raise MelvocError(
            f"standard input ended inside a frame: {len(held)} bytes over, and a frame has {frame} (float32)"
        )
    yield stream.flush()
