"""How held-out files sound at a checkpoint: sound files, and pictures where matplotlib is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from melvoc import plot
from melvoc.audio.files import write
from melvoc.neural import NeuralVocoder
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import log_mel
from melvoc.storage.atomic import replacing
from melvoc.train.comparison import REFINE
from melvoc.train.sounds import Sound
from melvoc.train.validate import excerpt

LONGEST_STEM = 200  # bytes of a name, which has 255 with its ending and what is added while it is written
WITHOUT_PICTURES = "matplotlib is missing, so RUN/samples has sound alone; pip install 'melvoc[plot]'"


def pictures() -> bool:
    """Whether there can be pictures."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


@torch.no_grad()
def write_samples(vocoder: NeuralVocoder, sounds: Sequence[Sound], folder: Path, *, segment: int, drawn: bool) -> None:
    """Write each sound as it was recorded, by the generator alone and with 4 rounds of refinement; and their mels.

    Args:
        vocoder: the generator.
        sounds: held out.
        folder: to write into, `1-NAME.recording.wav`, `1-NAME.wav`, `1-NAME.refine4.wav` and `1-NAME.png`.
        segment: as in `validate`.
        drawn: whether to write the pictures.

    Raises:
        MelvocError: a file cannot be written.
        OSError: the folder, or a picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = vocoder.spec
    for number, sound in enumerate(sounds, start=1):
        real, mel = excerpt(sound, spec, segment=segment, device=vocoder.device)
        copies = {
            "": vocoder.mel_to_waveform(mel, spec=spec, refine=0)[0],
            f".refine{REFINE}": vocoder.mel_to_waveform(mel, spec=spec, refine=REFINE)[0],
        }
        stem = f"{number}-{PurePosixPath(sound.name).stem}".encode()[:LONGEST_STEM].decode(errors="ignore")
        for ending, wave in {".recording": real, **copies}.items():
            write(folder / f"{stem}{ending}.wav", wave.float().cpu(), spec.sample_rate)
        if drawn:
            waves = {"recording": real, "generator": copies[""], f"with refine={REFINE}": copies[f".refine{REFINE}"]}
            _draw(folder / f"{stem}.png", waves, spec)


def _draw(path: Path, waves: Mapping[str, Tensor], spec: MelSpec) -> None:
    """Draw the mels of sounds, each beside its difference to the first; not with pyplot, whose figures all share."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    plot.compare({name: log_mel(wave.cpu(), spec) for name, wave in waves.items()}, spec, figure=figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=80)
