"""The vocoders of an evaluation: loaded, named, and asked for copies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from melvoc.audio.files import AudioReader
from melvoc.audio.resampling import resample
from melvoc.errors import MelvocError, OptionError, clipped, kind_of, quoted
from melvoc.evaluation.machine import Memory
from melvoc.griffinlim import default_spec
from melvoc.host import drawing
from melvoc.loading import load
from melvoc.progress import Progress
from melvoc.registry import GRIFFINLIM
from melvoc.spectrogram.transform import MelSpectrogram
from melvoc.vocoder import Vocoder

Given = str | os.PathLike[str] | Vocoder
_WARM_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A sound that went through a vocoder.

    Attributes:
        wave: `[C, N]`, on the CPU.
        speed: seconds of sound per second of work, of all channels; without the analysis, and without resampling.
        memory: bytes at most, or None.
    """

    wave: Tensor
    speed: float
    memory: int | None


class Entry:
    """A vocoder that takes part.

    Args:
        name: as the user gave it.
        vocoder: the object.
        mel_of: the name of the vocoder whose mel Griffin-Lim was given, or None.
    """

    def __init__(self, name: str, vocoder: Vocoder, mel_of: str | None = None) -> None:
        self.name, self.vocoder, self.mel_of = name, vocoder, mel_of
        self._memory, self._warm = Memory(vocoder), False

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        voc = self.vocoder
        return {
            "name": self.name,
            "class": type(voc).__name__,
            "sample_rate": voc.sample_rate,
            "parameters": self.parameters,
            "device": str(voc.device),
            "dtype": str(voc.dtype).removeprefix("torch."),
            "mel_of": self.mel_of,
            "mel": voc.spec.to_dict(),
        }

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.vocoder.parameters())

    def mel(self, wave: Tensor, sample_rate: int) -> Tensor:
        """The mel `[C, n_mels, T]` of a sound `[C, N]`, which covers all of it."""
        stream = MelSpectrogram(self.vocoder.spec).stream(sample_rate=sample_rate, cover=True)
        wave = wave.to(self.vocoder.device)
        return torch.cat([stream.push(wave), stream.flush()], -1)

    def copy(self, mel: Tensor, samples: int, sample_rate: int, *, refine: int, seed: int) -> Copy:
        """Turn a mel back into sound.

        Args:
            mel: `[C, n_mels, T]`.
            samples: of the sound wanted, at its rate.
            sample_rate: of the sound wanted, in Hz.
            refine: rounds.
            seed: of whatever is drawn.
        """
        if not self._warm:  # what is compiled or prepared once is not counted as speed
            self._memory.start()
            self._synthesise(mel[:1, :, :_WARM_FRAMES], refine, seed)
            self._memory.warmed()
            self._warm = True
        self._memory.start()
        begun = time.perf_counter()
        wave = self._synthesise(mel, refine, seed)
        seconds, memory = time.perf_counter() - begun, self._memory.peak()
        sound = mel.shape[0] * samples / sample_rate
        wave = resample(wave, self.vocoder.sample_rate, sample_rate)[:, :samples]
        return Copy(wave=F.pad(wave, (0, samples - wave.shape[1])), speed=sound / seconds, memory=memory)

    def _synthesise(self, mel: Tensor, refine: int, seed: int) -> Tensor:
        """`[C, N]`; of a vocoder with several channels of its own, their mean."""
        with drawing(self.vocoder.device, seed):
            wave = self.vocoder.mel_to_waveform(mel, spec=self.vocoder.spec, refine=refine)
        return wave.mean(1).float().cpu()


def gather(
    vocoders: Given | Iterable[Given] | Mapping[str, Given],
    files: list[str],
    *,
    device: str | torch.device,
    seed: int,
    progress: Progress | None,
) -> list[Entry]:
    """The vocoders, loaded. Griffin-Lim without a spec is given the first other's mel, else one for the first file.

    Raises:
        OptionError: there are none, or two of one name.
        MelvocError: one that cannot be loaded.
    """
    given = _named(vocoders)
    entries = {
        name: Entry(name, value if isinstance(value, Vocoder) else load(value, device=device, progress=progress))
        for name, value in given.items()
        if not _unspecified(value)
    }
    others = list(entries.values())
    for name, value in given.items():
        if _unspecified(value):
            first = others[0] if others else None
            spec = default_spec(_rate(files)) if first is None else first.vocoder.spec
            voc = load(GRIFFINLIM, spec=spec, seed=seed, device=device, progress=progress)
            entries[name] = Entry(name, voc, None if first is None else first.name)
    return [entries[name] for name in given]


def _named(vocoders: Given | Iterable[Given] | Mapping[str, Given]) -> dict[str, Given]:
    if isinstance(vocoders, Mapping):
        found = dict(vocoders)
    else:
        each = several("vocoders", vocoders, str, os.PathLike, Vocoder)
        names = [clipped(value.name if isinstance(value, Vocoder) else str(value)) for value in each]
        for name in names:
            if names.count(name) > 1:
                raise OptionError(
                    f"two vocoders have the name {name!r}, under which they are compared; name each once, or give a "
                    "dict of names and vocoders"
                )
        found = dict(zip(names, each, strict=True))
    if not found:
        raise OptionError("no vocoder is given; name at least one, such as 'griffinlim'")
    for name, value in found.items():
        if not isinstance(name, str):
            raise OptionError(f"vocoders has {name!r} for a name, but names are text")
        if name != clipped(name):
            raise OptionError(
                f"vocoders has the name {quoted(name)}, which no report can hold; give a shorter, plain one"
            )
        if not isinstance(value, (str, os.PathLike, Vocoder)):
            raise OptionError(f"vocoders holds {kind_of(value)}, but each is a Vocoder or what melvoc.load takes")
    return found


def several(name: str, value: Any, *kinds: type) -> list[Any]:
    """One thing or several of them as a list.

    Raises:
        OptionError: neither.
    """
    if isinstance(value, kinds):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, (bytes, Tensor)):
        return list(value)
    listed = ", ".join(kind.__name__ for kind in kinds)
    raise OptionError(f"{name} is {kind_of(value)}, but it is one of these or a list of them: {listed}")


def _unspecified(value: Given) -> bool:
    return isinstance(value, str) and value == GRIFFINLIM


def _rate(files: list[str]) -> int:
    """The sample rate of the first file that can be opened."""
    problem: MelvocError | None = None
    for file in files:
        try:
            with AudioReader(file) as reader:
                return reader.sample_rate
        except MelvocError as error:
            problem = problem or error
    assert problem is not None  # there is at least one file
    raise problem
