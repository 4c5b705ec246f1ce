"""`melvoc demo`: hear what a mel keeps of a sound and what vocoders make of it, without a file of one's own."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.cli import tell
from melvoc.cli.common import add_loading, bars, load, load_each
from melvoc.errors import DownloadError
from melvoc.registry import GRIFFINLIM

RATE = 44100
SECONDS = 3.0
PEAK = 0.7
MEASURED = ("multi_scale_mel", "mr_stft", "loudness")  # at once: the page is to be heard


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="three sounds of its own, through vocoders: a page to listen to",
        description=(
            "Make a chord, a drum loop and a gliding vowel, turn them into mels and back, and write OUT/sounds and "
            "OUT/report.html, a page with players, spectrograms and figures."
        ),
    )
    parser.add_argument("-o", "--output", metavar="OUT", default="melvoc-demo", help="folder (default: melvoc-demo)")
    parser.add_argument("--overwrite", action="store_true", help="make anew what is there")
    parser.add_argument(
        "--vocoder", nargs="+", action="extend", metavar="V",
        help="a name, a melvoc file, hf://owner/repo (default: griffinlim, and what has been downloaded)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", nargs="+", action="extend", type=int, metavar="N", help="rounds of refinement (default: 0)"
    )
    add_loading(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the sounds and the page."""
    import melvoc
    from melvoc.evaluation.results import check_free

    out = Path(arguments.output)
    if not arguments.overwrite:
        check_free(out)
    vocoders = load_each(arguments, arguments.vocoder or [GRIFFINLIM])
    if not arguments.vocoder:
        vocoders |= downloaded(arguments)
    files = []
    for name, make in SOUNDS.items():
        files.append(out / "sounds" / f"{name}.wav")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        melvoc.audio.write(files[-1], levelled(make()), RATE)
    with bars() as progress:
        melvoc.evaluate(
            files, vocoders, arguments.refine or (0,), out,
            metrics=MEASURED, speech=False, device=getattr(arguments, "device", "auto"), overwrite=arguments.overwrite,
            progress=progress,
        )  # fmt: skip
    tell(f"{out / 'report.html'}: open it in a browser")
    if list(vocoders) == [GRIFFINLIM]:
        tell(f"Griffin-Lim alone; for better sound: --vocoder {melvoc.list_vocoders()[0]} (`melvoc list`)")
    return 0


def downloaded(arguments: argparse.Namespace) -> dict[str, Any]:
    """The vocoders that load without a network; not what may be loaded with further options alone."""
    import melvoc

    found: dict[str, Any] = {}
    for name in melvoc.list_vocoders():
        if melvoc.info(name, cache_dir=getattr(arguments, "cache_dir", None)).cached:
            with suppress(DownloadError):
                found[name] = load(arguments, name, local_files_only=True)
    return found


def levelled(wave: Tensor) -> Tensor:
    """`[N]` in float32, its peak at `PEAK`, with a tenth of a second of fading out."""
    end = torch.linspace(1.0, 0.0, RATE // 10, dtype=wave.dtype)
    wave = torch.cat([wave[: -len(end)], wave[-len(end) :] * end])
    return (PEAK * wave / wave.abs().max()).float()


def chord() -> Tensor:
    """Six strings, plucked one after the other: partials that decay the faster the higher they are."""
    wave, time = _silence(), _time()
    for number, pitch in enumerate((82.41, 123.47, 164.81, 207.65, 246.94, 329.63)):  # E major on a guitar
        begin = round(0.06 * number * RATE)
        for partial in range(1, 40):
            tone = torch.sin(2 * math.pi * pitch * partial * time) * torch.exp(-(0.8 + 0.35 * partial) * time)
            wave[begin:] += math.sin(math.pi * partial / 5) / partial * tone[: len(wave) - begin]
    return wave


def drums() -> Tensor:
    """A bar of kick, snare and hats: what is shorter than a frame."""
    wave, time = _silence(), _time()
    hiss = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bright = hiss - torch.cat([hiss[:1], hiss[:-1]])
    kick = torch.sin(2 * math.pi * (45 * time + 4 * (1 - torch.exp(-25 * time)))) * torch.exp(-7 * time)
    snare = (0.5 * hiss + torch.sin(2 * math.pi * 190 * time)) * torch.exp(-16 * time)
    hat = 0.25 * bright * torch.exp(-60 * time)
    for eighth in range(12):
        for hit, when in ((kick, eighth % 4 == 0), (snare, eighth % 4 == 2), (hat, True)):
            if when:
                begin = eighth * RATE // 4
                wave[begin:] += hit[: len(wave) - begin]
    return wave


def vowel() -> Tensor:
    """A voice that glides up a fifth with vibrato, from an open vowel to a closed one: partials under two formants."""
    time = _time()
    share = time / SECONDS
    pitch = 110 * 1.5**share * (1 + 0.01 * torch.sin(2 * math.pi * 5.5 * time))
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / RATE
    wave = _silence()
    for partial in range(1, 60):
        place = partial * pitch
        formants = [(700 - 400 * share, 90.0, 1.0), (1200 + 1000 * share, 120.0, 0.5), (2700 + 0 * share, 180.0, 0.2)]
        gain = sum(level / (1 + ((place - centre) / width) ** 2) for centre, width, level in formants)
        wave += gain / partial**0.5 * torch.sin(partial * phase)
    return wave


def _time() -> Tensor:
    return torch.arange(round(SECONDS * RATE), dtype=torch.float64) / RATE


def _silence() -> Tensor:
    return torch.zeros(round(SECONDS * RATE), dtype=torch.float64)


SOUNDS: Mapping[str, Callable[[], Tensor]] = {"chord": chord, "drums": drums, "vowel": vowel}
