"""Made-up figures, and small sounds, for several test modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import melvoc
from melvoc.metrics import Better, Metric


def metric(name: str, better: Better = "lower", **more: Any) -> Metric:
    """A metric of this name whose function is never called."""
    return Metric(
        name=name, title=f"the {name}", function=lambda *signals: 0.0, better=better, low=-100.0, high=100.0,
        source="nowhere", deaf_to=f"what {name} misses", **more,
    )  # fmt: skip


def table(figures: Mapping[str, Mapping[str, Sequence[float | None]]], *, refine: int = 0) -> list[dict[str, Any]]:
    """Rows from `{vocoder: {metric: values by file}}`."""
    rows = []
    for vocoder, columns in figures.items():
        for number, values in enumerate(zip(*columns.values(), strict=True)):
            rows.append(
                {
                    "file": f"{number}.wav",
                    "vocoder": vocoder,
                    "refine": refine,
                    **dict(zip(columns, values, strict=True)),
                }
            )
    return rows


def sound(path: Path, *, rate: int = 22050, seconds: float = 0.5, channels: int = 1, seed: int = 0) -> Path:
    """A decaying chord with noise, as a file."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * rate)) / rate
    wave = torch.stack([torch.sin(2 * torch.pi * 220 * (seed + 2) * (c + 1) * time) for c in range(channels)])
    noise = torch.randn(wave.shape, generator=generator)
    melvoc.audio.write(path, (0.4 * wave + 0.05 * noise) * torch.exp(-2 * time), rate)
    return path
