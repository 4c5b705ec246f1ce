"""What a vocoder promises of its sound."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.audio.resampling import resample, resampled_length
from melvoc.errors import CheckpointError, MelMismatchError, MelvocError, OptionError, SpecError, quoted
from melvoc.neural import NeuralVocoder
from melvoc.nn.graph import join
from melvoc.post import Sound
from melvoc.post.refine import sound_spec
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.vocoder_file import from_bytes, pack, to_bytes, unpack
from melvoc.synthesis import Condition, stacked, wave_dtype
from melvoc.testing.case import ALL, BOTH, Case, apart


def description(case: Case) -> None:
    """It says of itself what it must."""
    voc = case.vocoder
    for name, least in (("channels", 1), ("samples_per_frame", 1), ("sample_rate", 1), ("block_frames", 1)):
        value = getattr(voc, name)
        case.require(
            type(value) is int and value >= least, f"{name} is {value!r}, but it is a whole number from {least}"
        )
    case.require(isinstance(voc.name, str) and bool(voc.name), f"its name is {voc.name!r}, but it is a text")
    case.require(voc.get_sample_rate() == voc.sample_rate, "get_sample_rate() is not sample_rate; override the latter")
    case.require(
        isinstance(voc.conditions, Mapping) and all(isinstance(one, Condition) for one in voc.conditions.values()),
        f"conditions are {quoted(voc.conditions)}, but they map names to melvoc.Condition",
    )
    frames = voc.spec.frames(3 * voc.spec.n_fft)
    mel = voc.mel(torch.zeros(2, 3 * voc.spec.n_fft), sample_rate=voc.spec.sample_rate)
    expected = [2, voc.spec.n_mels, frames]
    case.require(list(mel.shape) == expected, f"mel() gave {list(mel.shape)}, but it is {expected}; do not override it")


def shapes(case: Case) -> None:
    """Shape, dtype, device and range, for every shape of mel; the caller keeps what it gave; `forward` agrees."""
    voc, mel, given = case.vocoder, case.mel.clone(), {name: one.clone() for name, one in case.conditions.items()}
    expected, dtype = [2, voc.channels, case.frames * voc.samples_per_frame], wave_dtype(voc)
    wave = case.whole
    case.require(list(wave.shape) == expected, f"the sound is {list(wave.shape)}, but for this mel it is {expected}")
    case.require(
        wave.dtype == dtype, f"the sound is {wave.dtype}, but it is {dtype}; leave the dtype to the base class"
    )
    case.require(wave.device == voc.device, f"the sound is on {wave.device}, but the vocoder is on {voc.device}")
    case.require(not wave.requires_grad, "the sound has a gradient; mel_to_waveform computes none, forward may")
    case.require(bool(wave.isfinite().all()), "the sound contains NaN or Inf; find the layer that makes them")
    case.require(float(wave.abs().max()) <= 1.0, "the sound leaves [-1, 1]; leave clamping to the base class")
    unchanged = torch.equal(case.mel, mel) and all(
        torch.equal(case.conditions[name], one) for name, one in given.items()
    )
    case.require(unchanged, "the caller's mel or conditions were changed; never write into them")
    four = voc.mel_to_waveform(mel[:, None], spec=voc.spec, conditions=case.part(BOTH, ALL))
    case.same(four, wave, "a mel [B, 1, n_mels, T] gives another sound than [B, n_mels, T]")
    two = voc.mel_to_waveform(mel[0], spec=voc.spec, conditions=case.part(slice(0, 1), ALL))
    case.same(two, case.alone(0), "a mel [n_mels, T] gives another sound than [1, n_mels, T]")
    if not voc.post:
        with torch.no_grad():
            plain = voc(stacked(voc, mel.to(voc.device), case.conditions).to(voc.mel_dtype))
        case.same(
            plain.clamp(-1, 1).to(dtype),
            wave,
            "forward(mel) gives another sound than mel_to_waveform; give both one graph",
        )


def lengths(case: Case) -> None:
    """Rows of several lengths are what they are alone; length cuts or pads."""
    voc, hop, short = case.vocoder, case.vocoder.samples_per_frame, case.frames - 3
    padded = case.mel.clone()
    padded[1, :, short:] = float("nan")  # never looked at
    rows = case.part(BOTH, ALL)
    wave = voc.mel_to_waveform(padded, spec=voc.spec, lengths=[case.frames, short], conditions=rows)
    case.same(wave[:1], case.alone(0), "with lengths=, a whole row is not what it is alone")
    alone = case.sound(slice(1, 2), slice(0, short))
    case.same(wave[1:, :, : short * hop], alone, "with lengths=, a shorter row is not what it is alone")
    case.require(not wave[1, :, short * hop :].any(), "with lengths=, a row is not silent after its end")
    total = case.frames * hop
    for length in (0, total - 1, total + hop):
        wave = case.sound(slice(0, 1), length=length)
        case.require(wave.shape[-1] == length, f"length={length} gave {wave.shape[-1]} samples")
        case.require(not wave[..., total:].any(), f"length={length} is not padded by zeros")
    case.same(wave[..., :total], case.alone(0), "with length=, the sound is another one")


def batch(case: Case) -> None:
    """Rows do not influence each other."""
    for row in (0, 1):
        alone = case.sound(slice(row, row + 1))
        case.same(
            case.whole[row : row + 1], alone, f"row {row} of a batch is not what it is alone; rows are independent"
        )


def determinism(case: Case) -> None:
    """The same mel gives the same sound."""
    case.same(
        case.sound(),
        case.whole,
        "the same mel gives another sound the second time; keep no state, and draw noise from a seed of its own",
        within=1e-6 if case.vocoder.device.type == "cpu" else None,
    )


def streams(case: Case) -> None:
    """The pieces of a stream, and of long input, are the whole; without a graph there are none."""
    voc, numbers, frames = case.vocoder, random.Random(0), case.frames
    if not voc.can_stream:
        case.refused(lambda: voc.stream(), MelvocError, "stream() without a graph()")
        return
    splits = [[0, 0, 1, 1, frames], [2, 4, 6, 8, 9, 10][: frames // 2]]  # equal pieces, which an engine may record
    splits += [sorted(numbers.randrange(frames + 1) for _ in range(3)) for _ in range(2)]
    for cuts in splits:
        case.same(case.streamed(cuts), case.whole, f"pieces cut at {cuts} are not the whole; a machine is wrong")
    _latency(case)
    _beside(case)
    case.same(case.sound(block_frames=5), case.whole, "blocks of 5 frames are not the whole; a machine is wrong")
    shape = list(case.streamed([2, 5], lookahead_frames=0).shape)
    case.require(shape == list(case.whole.shape), f"with lookahead_frames=0 a stream gave {shape}")
    stream = voc.stream()
    stream.flush()
    case.refused(lambda: stream.push(case.mel), MelvocError, "a push after flush")
    if not voc.post:
        _forks(case)


def _latency(case: Case) -> None:
    """A stream is once as far behind as it says, within two frames: each change of rate in a chain rounds up."""
    stream, hop, given, behind = case.open(), case.vocoder.samples_per_frame, 0, 0
    for frame in range(case.frames):
        given += case.push(stream, slice(frame, frame + 1)).shape[-1]
        behind = max(behind, (frame + 1) * hop - given)
    measurable = stream.latency_frames < case.frames
    case.require(
        not measurable or stream.latency_samples - behind < 2 * hop,
        f"latency_samples={stream.latency_samples}, but a stream was never more than {behind} samples behind; correct "
        "delay()",
    )


def _beside(case: Case) -> None:
    """Two streams that take turns do not meet."""
    orders = [0, 1], [1, 0]
    streams, made = [case.open(), case.open()], dict[int, list[Tensor]]({0: [], 1: []})
    for start in range(0, case.frames, 3):
        for turn, rows in enumerate(orders):
            made[turn].append(case.push(streams[turn], slice(start, start + 3), rows))
    for turn, rows in enumerate(orders):
        case.same(
            torch.cat([*made[turn], streams[turn].flush()], dim=-1),
            case.whole[rows],
            "a stream is another one beside a second; what a stream remembers belongs into its own machine",
        )


def _forks(case: Case) -> None:
    """A machine goes on as if it had not been forked."""
    voc = case.vocoder
    frames = stacked(voc, case.mel.to(voc.device), case.conditions).to(voc.mel_dtype)
    with torch.inference_mode():
        machine = voc.engine().open(voc.graph())
        first = machine(frames[..., :4], False)
        machine.fork()(frames[..., :2].flip(-1), False)
        wave = join(first, machine(frames[..., 4:], True)).clamp(-1, 1)
    text = (
        "a stream is another one after its machine was forked; a machine replaces its state, and never writes into it"
    )
    case.same(wave.to(case.whole), case.whole, text)


def finiteness(case: Case) -> None:
    """Silence, clicks and the loudest sounds give sound."""
    voc, count = case.vocoder, case.frames * case.vocoder.spec.hop_length + 2 * case.vocoder.spec.n_fft
    sounds = {
        "silence": torch.zeros(count),
        "a square wave at full scale": torch.where(torch.arange(count) % 100 < 50, 1.0, -1.0),
        "a click": F.one_hot(torch.tensor(count // 2), count).float(),
    }
    mels = {name: voc.mel(sound, sample_rate=voc.spec.sample_rate) for name, sound in sounds.items()}
    mels["a mel that is the same everywhere"] = torch.full_like(case.mel[:1], float(mels["silence"].min()))
    for name, mel in mels.items():
        mel = mel[..., : case.frames]
        wave = voc.mel_to_waveform(mel, spec=voc.spec, conditions=case.part(slice(0, 1), ALL))
        finite = bool(wave.isfinite().all()) and float(wave.abs().max()) <= 1
        case.require(finite, f"the sound of {name} is not finite and in [-1, 1]; mind logarithms and divisions")


def refinement(case: Case) -> None:
    """A round of refinement works whole and in pieces, or is an error where the mel's frames do not fit the sound."""
    voc = case.vocoder
    try:
        sound_spec(
            Sound(
                spec=voc.spec,
                channels=voc.channels,
                samples_per_frame=voc.samples_per_frame,
                sample_rate=voc.sample_rate,
            )
        )
    except SpecError:
        case.refused(lambda: case.sound(refine=1), SpecError, "refine=1, with frames that are not whole samples,")
        return
    wave = case.sound(refine=1)
    case.require(wave.shape == case.whole.shape, f"refine=1 gave {list(wave.shape)}; leave refine to the base class")
    case.refused(lambda: case.sound(refine=-1), OptionError, "refine=-1")
    if voc.can_stream:
        cuts = [1, 1, 4]
        within = max(case.tolerance, 200 * apart(case.streamed(cuts), case.whole))
        case.same(case.streamed(cuts, refine=1), wave, "refined pieces are not the refined whole", within=within)


def resampling(case: Case) -> None:
    """Sound at another rate is the resampled sound; what is resynthesised is as long as it was."""
    voc = case.vocoder
    rate = voc.sample_rate * 3 // 2
    expected = resample(case.whole.float(), voc.sample_rate, rate).clamp(-1, 1).to(case.whole)
    case.same(case.sound(sample_rate=rate), expected, f"sample_rate={rate} does not give the resampled sound")
    if voc.conditions:
        return
    wave = 0.1 * torch.randn(2, 3 * voc.spec.n_fft + 17, generator=case.generator)
    found = list(voc.resynthesize(wave, sample_rate=rate).shape)
    wanted = [2, voc.channels, resampled_length(wave.shape[-1], rate, voc.sample_rate)]
    case.require(found == wanted, f"resynthesize gave {found}, but it is {wanted}; leave it to the base class")


def saving(case: Case) -> None:
    """From a file and from a packed dict comes the same vocoder; the class of a plugin is refused."""
    voc = case.vocoder
    try:
        blob = to_bytes(voc)
    except CheckpointError:
        if type(voc) is NeuralVocoder and voc.architecture is not None:
            raise
        return
    again = [
        from_bytes(blob, device=voc.device, dtype=voc.dtype),
        unpack(pack(voc, prefix="x."), prefix="x.", device=voc.device, dtype=voc.dtype),
    ]
    for other in again:
        case.require((other.name, other.spec) == (voc.name, voc.spec), "what was saved has another name or spec")
        wave = other.mel_to_waveform(case.mel, spec=voc.spec, conditions=case.part(BOTH, ALL))
        case.same(wave, case.whole, "what was saved gives another sound when it is loaded")


def errors(case: Case) -> None:
    """What does not fit is refused."""
    voc, mel, rows = case.vocoder, case.mel, case.part(BOTH, ALL)
    other = MelSpec.from_dict(voc.spec.to_dict() | {"power": 3.0 - voc.spec.power})
    broken = mel.clone()
    broken[0, 0, 0] = float("nan")

    def run(mel: Tensor, **options: Any) -> Callable[[], Tensor]:
        return lambda: voc.mel_to_waveform(mel, **{"conditions": rows} | options)

    case.refused(run(mel, spec=other), MelMismatchError, "a mel of another spec")
    case.refused(run(mel[:, 1:]), SpecError, "a mel with one band less")
    case.refused(run(mel[None, None]), SpecError, "a mel with five dimensions")
    case.refused(run(broken), SpecError, "a mel with NaN")
    case.refused(run(mel, lengths=[1]), SpecError, "lengths= of another batch")
    case.refused(run(mel, length=-1), SpecError, "length=-1")
    case.refused(run(mel, sample_rate=0), SpecError, "sample_rate=0")
    case.refused(run(mel, conditions={"nothing": mel[:, 0]}), SpecError, "a condition that does not exist")
    if voc.conditions:
        case.refused(run(mel, conditions=None), SpecError, "a mel without its conditions")
