"""How quiet and how loud a mel can be whose sound is in [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melvoc.spectrogram.spec import MelSpec


@lru_cache(maxsize=256)
def limits(spec: MelSpec) -> tuple[float, float]:
    """The least and the greatest value, in the spec's logarithm; see `MelSpec.limits`.

    Two bounds hold for the spectrum X of n_fft samples in [-1, 1] under a window w. No bin is beyond the window's sum,
    `|X_k| <= sum w`. And all of them share one energy (Parseval): over the bins between 0 and Nyquist, where all the
    filters are, `sum |X_k|^2 <= n_fft / 2 * sum w^2`, so that a band of weights f has at most `max f` times that of
    power, and of magnitude (Cauchy and Schwarz) the square root of `sum f^2` times that.
    """
    gain = 0.5 * spec.win_length if spec.win_length > 1 else 0.0  # a Hann window's sum, and that of its squares
    energy = spec.n_fft / 2 * (0.375 * spec.win_length if spec.win_length > 2 else spec.win_length - 1.0)
    eps = spec.magnitude_eps ** (spec.power / 2)
    quietest, loudest = math.inf, 0.0
    for weights in _filters(spec):
        total = math.fsum(weights)
        shared = max(weights) * energy if spec.power == 2.0 else math.sqrt(sum(f * f for f in weights) * energy)
        loudest = max(loudest, min(total * gain**spec.power, shared) + total * eps)
        quietest = min(quietest, total * eps)
    return _in_log(quietest, spec), _in_log(loudest, spec)


def _filters(spec: MelSpec) -> Iterator[list[float]]:
    """The weights of each band's bins, of which there is at least one."""
    edges, spacing = spec.band_edges(), spec.sample_rate / spec.n_fft
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        height = 2.0 / (high - low) if spec.norm == "slaney" else 1.0
        inside = [k * spacing for k in range(math.floor(low / spacing), math.ceil(high / spacing) + 1)]
        yield [height * max(0.0, min((f - low) / (centre - low), (high - f) / (high - centre))) for f in inside]


def _in_log(mel: float, spec: MelSpec) -> float:
    if spec.log == "log1p":
        return math.log1p(mel)
    mel = max(mel, spec.log_floor)
    if spec.log == "ln":
        return math.log(mel)
    return math.log10(mel) * (1.0 if spec.log == "log10" else 20.0 / spec.power)
