"""A folder of sound files, read, checked and resampled; unusable files are named and left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melvoc.audio import AudioReader
from melvoc.audio.folder import ENDINGS, Skipped, find_files, walk
from melvoc.errors import MelvocError, MissingFileError, clipped
from melvoc.spectrogram.file import read_mel
from melvoc.spectrogram.likelihood import likely_cause
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.storage.reading import is_utf8
from melvoc.train.given import Given
from melvoc.train.usable import usable

LEAST_SECONDS = 0.5  # of usable sound in total
_COMPARED = 10.0  # seconds of a sound, with which a mel that does not say its spec is compared
_SLOPES, _OFFSET = (0.7, 1.4), 1.0  # of a mel over the sound's own; the offset in deviations
_FLAT = 0.2  # units of the logarithm: a sound that varies less says nothing about slopes
_FRAMES_OFF = 2  # frames by which a paired mel may be shorter or longer than the sound's own


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One usable file.

    Attributes:
        name: path below the folder, with forward slashes.
        wave: `[N]` float32, mono (the mean of the channels), at the spec's rate.
        mel: `[n_mels, T]` of another model, or None.
        note: what is wrong with the file although it is used, or None.
    """

    name: str
    wave: Tensor
    mel: Tensor | None = None
    note: str | None = None


class Found(NamedTuple):
    """The sounds of a run, not read yet.

    Attributes:
        root: where they are, for messages.
        sounds: each with its name.
        others: files that are no sounds.
    """

    root: str
    sounds: list[Given]
    others: list[Skipped]


def find_sounds(folder: str | os.PathLike[str], *, ignored: Sequence[str] = ()) -> Found:
    """Every sound file of a folder and its subfolders, and what else lies there (`melvoc.audio.folder.find_files`).

    A file whose name is not UTF-8 is left out: a run's records could not name it. So is what lies in a run's folder:
    its samples are made.

    Args:
        folder: to look into.
        ignored: endings of files of another kind that are in use.

    Raises:
        MelvocError: no such folder, or no sound files in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such folder; give a folder of sound files")
    found, skipped = find_files(root, ignored=ignored)
    runs = {folder for path in found for folder in path.relative_to(root).parents if _is_run(root / folder)} - {Path()}
    skipped += [
        Skipped(name=clipped(folder.as_posix()), reason="the folder of a run, whose sounds are made")
        for folder in sorted(runs)
    ]
    found = [path for path in found if runs.isdisjoint(path.relative_to(root).parents)]
    sounds = [path for path in found if is_utf8(path)]
    skipped += [
        Skipped(name=clipped(path.relative_to(root).as_posix()), reason="its name is not UTF-8; rename it")
        for path in found
        if not is_utf8(path)
    ]
    if not sounds:
        listed = "; ".join(f"{entry.name}: {entry.reason}" for entry in skipped[:3])
        raise MelvocError(
            f"{root}: has no {', '.join(ENDINGS[:4])} files, nor others that are read; give a folder of sound files"
            + (f" ({listed})" if listed else "")
        )
    return Found(str(root), [Given(path.relative_to(root).as_posix(), path) for path in sounds], skipped)


def read_sounds(
    found: Found, spec: MelSpec, *, mels: str | os.PathLike[str] | None = None, keep_clipped: bool = False
) -> Iterator[Sound | Skipped]:
    """Yield each sound in order, as soon as it is read.

    Args:
        found: in a folder, or given.
        spec: whose rate the sounds are resampled to, and with which the mels are compared.
        mels: folder of mels, each at its sound's relative path: `x/a.wav` has `x/a.safetensors` or `x/a.npy`.
        keep_clipped: whether to keep what is clipped, with a note.

    Raises:
        MelvocError: a mel with a different spec.
    """
    for name, source in found.sounds:
        notes = list[str]()
        try:
            wave, own = _read(source, notes) if isinstance(source, Path) else source
        except MelvocError as error:
            yield Skipped(name=clipped(name), reason=str(error).removeprefix(f"{source}: "))
            continue
        used = usable(wave, own, spec.sample_rate, notes, keep_clipped=keep_clipped, paired=mels is not None)
        if isinstance(used, str):
            yield Skipped(name=clipped(name), reason=used)
            continue
        note = "; ".join(text.removeprefix(f"{source}: ") for text in notes) or None
        sound = Sound(name=name, wave=used, note=note)
        yield sound if mels is None else _paired(sound, Path(mels) / Path(name).with_suffix(""), spec)


def gather(
    entries: Iterator[Sound | Skipped], folder: str | os.PathLike[str], spec: MelSpec
) -> tuple[list[Sound], list[Skipped]]:
    """Collect `read_sounds`, checking that there is something to learn from.

    Raises:
        MelvocError: less than half a second of usable sound.
    """
    every = list(entries)
    sounds = [entry for entry in every if isinstance(entry, Sound)]
    skipped = [entry for entry in every if isinstance(entry, Skipped)]
    seconds = sum(len(sound.wave) for sound in sounds) / spec.sample_rate
    if seconds < LEAST_SECONDS:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in skipped[:3])
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise MelvocError(
            f"{os.fspath(folder)}: {len(sounds)} of {len(every)} files can be used, {seconds:.2g} s of sound in total, "
            f"but training needs at least {LEAST_SECONDS} s; add files" + (f" ({reasons}{more})" if reasons else "")
        )
    return sounds, skipped


def distinct(sounds: Sequence[Sound]) -> tuple[list[Sound], list[Skipped]]:
    """Each sound once, under its first name: a copy among what is trained on would make a held-out file known."""
    names: dict[bytes, str] = {}
    kept, others = [], []
    for sound in sounds:
        digest = hashlib.sha256(sound.wave.numpy().tobytes())
        if sound.mel is not None:
            digest.update(sound.mel.numpy().tobytes())
        if (first := names.setdefault(digest.digest(), sound.name)) == sound.name:
            kept.append(sound)
        else:
            others.append(Skipped(name=sound.name, reason=f"the same sound as {first}"))
    return kept, others


def check_enough(trained: Sequence[Sound], held_out: Sequence[Sound], spec: MelSpec) -> None:
    """Check that what is left to train on is enough.

    Raises:
        MelvocError: less than half a second of it.
    """
    seconds = sum(len(sound.wave) for sound in trained) / spec.sample_rate
    if seconds < LEAST_SECONDS:
        raise MelvocError(
            f"with {len(held_out)} files held out {seconds:.2g} s of sound are left to train on, but training needs at "
            f"least {LEAST_SECONDS} s; add files, or hold out fewer (--validation-files 0, validation_files=0)"
        )


def spec_of_mels(folder: str | os.PathLike[str]) -> MelSpec | None:
    """The spec that a folder's mels carry: that of the first readable one, None if none carries one (bare arrays).

    Raises:
        MelvocError: no such folder.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(f"{os.fspath(folder)}: no such folder; give the folder of the mels")
    for path in sorted(path for path in walk(Path(folder), []) if path.suffix == ".safetensors"):
        with suppress(MelvocError):  # reported when its sound is read
            return read_mel(path).spec
    return None


def _is_run(folder: Path) -> bool:
    """Whether it is a `RunFolder`'s."""
    return (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()


def _read(path: Path, notes: list[str]) -> tuple[Tensor, int]:
    """`[C, N]` and its rate; a file that is cut is noted."""
    with AudioReader(path, note=notes.append) as reader:
        return reader.read(), reader.sample_rate


def _paired(sound: Sound, stem: Path, spec: MelSpec) -> Sound | Skipped:
    """The sound with its mel, or why that does not fit."""
    name, wave = sound.name, sound.wave
    path = next(
        (other for end in (".safetensors", ".npy") if (other := stem.parent / (stem.name + end)).is_file()), None
    )
    if path is None:
        return Skipped(name=name, reason=f"has no mel {stem.name}.safetensors or {stem.name}.npy")
    try:
        saved = read_mel(path)
    except MelvocError as error:
        return Skipped(name=name, reason=f"its mel cannot be read: {error}")
    if saved.spec is not None and (different := spec.diff(saved.spec)):
        listed = "; ".join(f"{field}: {mine!r}, the mel has {theirs!r}" for field, (mine, theirs) in different.items())
        raise MelvocError(f"{path}: not a mel of the training's spec ({listed}); train with the mels' own spec")
    mel = saved.mel.float()
    mel = mel[0] if mel.dim() == 3 and mel.shape[0] == 1 else mel
    if mel.dim() != 2 or mel.shape[0] != spec.n_mels:
        reason = f"its mel is {list(mel.shape)}, but it is [{spec.n_mels}, T], of the sound mixed down to one channel"
        return Skipped(name=name, reason=reason)
    if not bool(torch.isfinite(mel).all()):
        return Skipped(name=name, reason="its mel contains NaN or Inf")
    frames = spec.frames(len(wave))
    if abs(mel.shape[1] - frames) > _FRAMES_OFF:
        return Skipped(name=name, reason=f"its mel has {mel.shape[1]} frames, but the sound has {frames}")
    if saved.spec is None and (problem := _unlike(mel, wave, spec)):
        return Skipped(name=name, reason=f"{problem}; make the mels in the training's spec, or save them with theirs")
    return replace(sound, mel=mel)


def _unlike(mel: Tensor, wave: Tensor, spec: MelSpec) -> str | None:
    """What is wrong with a bare mel beside the sound's own: a slope far from 1 is another logarithm, or another sound.

    The slope is that of the least-squares line through the first seconds, both blurred over 4 bands and 8 frames,
    because a decoder does not follow noise from cell to cell. log10 for ln leaves 0.43 of it.
    """
    count = min(len(wave), int(_COMPARED * spec.sample_rate))
    own = MelSpectrogram(spec)(wave[:count])[0]
    frames = min(own.shape[1], mel.shape[1]) - spec.n_fft // spec.hop_length  # the cut's own padding is left out
    if frames < 8 or spec.n_mels < 4:
        return None
    mine, theirs = (F.avg_pool2d(part[None, :, :frames].double(), (4, 8))[0] for part in (own, mel))
    if not float(mine.std()) > _FLAT:
        return None
    centred = mine - mine.mean()
    slope = float((centred * theirs).sum() / centred.square().sum())
    offset = float((theirs - mine).mean())
    if _SLOPES[0] <= slope <= _SLOPES[1] and abs(offset) <= _OFFSET * float(mine.std()):
        return None
    looks = likely_cause(mel, spec)
    return (
        f"its mel is not its sound's: it follows the sound's own with slope {slope:.2f}, {offset:+.2f} apart ({looks}?)"
    )
