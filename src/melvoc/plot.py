"""Plots of mels and comparisons of them; needs matplotlib: `pip install 'melvoc[plot]'`.

Axes are in seconds and Hz, with librosa.display's mel axis (linear up to 1 kHz, logarithmic above), and levels in dB.
Nothing is shown or saved: the caller has the axes and figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch import Tensor

from melvoc.errors import MissingPackageError, SpecError
from melvoc.spectrogram.check import rows_of
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.transform import DB_PER_NEPER, nepers_per_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANGE = 80.0  # dB below the loudest point that are told apart
SWING = 20.0  # dB of a difference's strongest colour
_FAINTEST = 1e-10  # of the linear mel behind a log1p, which reaches down to 0


def mel(mel: Tensor, spec: MelSpec, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Plot a mel over time and frequency.

    Args:
        mel: `[n_mels, T]`, `[1, n_mels, T]` or `[1, 1, n_mels, T]`.
        spec: of the mel.
        ax: to plot into. None: one of a new figure.
        title: above it.

    Returns:
        The axes, in seconds and Hz, with a colour bar in dB.

    Raises:
        MissingPackageError: matplotlib is missing.
        SpecError: a mel of another shape, or several.

    Example:
        >>> import melvoc.plot
        >>> axes = melvoc.plot.mel(voc.mel(waveform, sample_rate=48000), voc.spec)  # doctest: +SKIP
        >>> axes.figure.savefig("mel.png")  # doctest: +SKIP
    """
    return _levels(mel, spec, ax, title)


def difference(
    mel: Tensor, reference: Tensor, spec: MelSpec, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Plot how far a mel is above a reference or below it; what is 80 dB below the reference's loudest point is equal.

    Args:
        mel: as in `mel`.
        reference: another mel of the same spec; the longer one is cut.
        spec: of both.
        ax: as in `mel`.
        title: as in `mel`.

    Returns:
        As `mel`.

    Raises:
        MissingPackageError: matplotlib is missing.
        SpecError: as `mel`.
    """
    levels = [_decibels(_single(one, spec), spec) for one in (mel, reference)]
    low, frames = _top(levels[1]) - RANGE, min(level.shape[-1] for level in levels)
    level, other = (one[:, :frames].clamp(min=low) for one in levels)
    return _drawn(level - other, spec, ax, title, "RdBu_r", (-SWING, SWING))


def compare(mels: Mapping[str, Tensor], spec: MelSpec, *, figure: Figure | None = None) -> Figure:
    """Plot mels above each other, and beside each its difference to the first.

    Args:
        mels: by title, of one spec: the reference first.
        spec: of all.
        figure: to plot into, an empty one. None: a new one of pyplot's.

    Returns:
        The figure.

    Raises:
        MissingPackageError: matplotlib is missing.
        SpecError: as `mel`, or no mels.
    """
    if not mels:
        raise SpecError("mels is empty; give at least a reference, as {'recording': mel}")
    reference = next(iter(mels.values()))
    figure = _pyplot().figure(layout="constrained") if figure is None else figure
    figure.set_size_inches(11, 1 + 2.2 * len(mels))
    rows = figure.subplots(len(mels), 2, squeeze=False, sharex=True, sharey=True)
    for number, ((title, one), (left, right)) in enumerate(zip(mels.items(), rows, strict=True)):
        _levels(one, spec, left, title)
        if number:
            difference(one, reference, spec, ax=right, title=f"{title}, less {next(iter(mels))}")
        else:
            right.set_axis_off()
    for axes in rows.flat:
        axes.label_outer()
    return figure


def _levels(mel: Tensor, spec: MelSpec, ax: Axes | None, title: str | None) -> Axes:
    level = _decibels(_single(mel, spec), spec)
    top = _top(level)
    return _drawn(level, spec, ax, title, "magma", (top - RANGE, top))


def _top(level: Tensor) -> float:
    """The loudest level.

    Raises:
        SpecError: NaN or Inf, beside which nothing could be seen.
    """
    if not bool(level.isfinite().all()):
        raise SpecError("the mel contains NaN or Inf, which no colour shows; find out where they come from")
    return float(level.max())


def _drawn(
    values: Tensor, spec: MelSpec, ax: Axes | None, title: str | None, colours: str, limits: tuple[float, float]
) -> Axes:
    """Draw `[n_mels, T]`: each band to where its slopes cross its neighbours', each frame a hop wide."""
    plt = _pyplot()
    axes: Axes = plt.subplots(layout="constrained")[1] if ax is None else ax
    corners = spec.band_edges()
    middles = [(low + high) / 2 for low, high in pairwise(corners)]
    heights = [corners[0], *middles[1:-1], corners[-1]]
    times = [frame * spec.hop_length / spec.sample_rate for frame in range(values.shape[1] + 1)]
    picture = axes.pcolormesh(
        times, heights, values.cpu().numpy(), cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    axes.set_yscale("symlog", linthresh=1000.0, base=2)
    axes.yaxis.set_major_formatter(plt.ScalarFormatter())
    axes.set(xlabel="Time (s)", ylabel="Hz", ylim=(heights[0], heights[-1]), title=title or "")
    axes.figure.colorbar(picture, ax=axes, label="dB")
    return axes


def _single(mel: Tensor, spec: MelSpec) -> Tensor:
    """`[n_mels, T]` of a mel of any accepted shape.

    Raises:
        SpecError: another shape, several mels, or none.
    """
    rows = rows_of(mel, spec)
    if rows.shape[0] != 1 or not rows.shape[-1]:
        raise SpecError(f"the mel is {list(mel.shape)}, but one plot has one mel of at least one frame; plot mel[row]")
    return rows[0].detach().float()


def _decibels(mel: Tensor, spec: MelSpec) -> Tensor:
    """A mel of any logarithm as levels in dB."""
    per_power = DB_PER_NEPER / spec.power
    if spec.log == "log1p":
        return per_power * mel.expm1().clamp(min=_FAINTEST).log()
    return per_power * nepers_per_unit(spec.log, spec.power) * mel


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingPackageError(f"plots need matplotlib ({error}); pip install 'melvoc[plot]'") from error
    return pyplot
