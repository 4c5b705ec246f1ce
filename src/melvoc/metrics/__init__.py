"""How far a sound is from its recording: one metric per file, each a function of two signals.

A metric's module is named after it and has its record as `METRIC`; other packages add theirs through the entry-point
group `melvoc.metrics` (`melvoc.registry.all_metrics` has them all). No single figure says how good a sound is, so each
record says what its figure cannot hear.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from melvoc.errors import MelvocError, MissingPackageError, OptionError

Better = Literal["lower", "higher", "nearer 0"]
COLUMNS = frozenset(  # of a report that are no figures
    {"file", "vocoder", "refine", "speed", "peak_memory_mb", "parameters", "sample_rate", "file_rate", "seconds"}
    | {"channels", "speech", "undefined"}
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """A figure of merit.

    Attributes:
        name: the column of results.json; none of `COLUMNS`.
        title: its usual name, with its unit.
        function: of reference and sound (both `[N]`, float32, in [-1, 1], equally long) and the sample rate in Hz.
            Raises MelvocError, with the reason, where the figure cannot be computed; MissingPackageError for want of a
            package.
        better: the direction of a better sound.
        low: the least value that it takes.
        high: the largest.
        source: paper, equation or program that defines it.
        deaf_to: what it cannot hear, in a few words.
        speech: whether it is defined for speech only.
        reference: whether it listens to the reference at all.
        packages: what `pip install` has to bring; empty for what melvoc itself brings.
        at_frame_rate: for a figure about the frames that a sound was made of: the function with a fourth argument, the
            vocoder's frames per second. `function` itself then has to try the usual ones. None: it is about no frames.

    Raises:
        OptionError: a name that another column has, or another direction.
    """

    name: str
    title: str
    function: Callable[[Tensor, Tensor, int], float]
    better: Better
    low: float
    high: float
    source: str
    deaf_to: str
    speech: bool = False
    reference: bool = True
    packages: tuple[str, ...] = ()
    at_frame_rate: Callable[[Tensor, Tensor, int, float], float] | None = None

    def __post_init__(self) -> None:
        if self.name in COLUMNS:
            raise OptionError(f"a metric has the name {self.name!r}, which a column of reports has; give it another")
        if self.better not in get_args(Better):
            raise OptionError(f"{self.name}: better={self.better!r}, but it is one of {', '.join(get_args(Better))}")

    def measure(self, reference: Tensor, sound: Tensor, sample_rate: int, *, frame_rate: float | None = None) -> float:
        """The figure, with all that is known of the sound.

        Args:
            reference: `[N]`.
            sound: `[N]`.
            sample_rate: of both, in Hz.
            frame_rate: of the vocoder that made the sound, in Hz.

        Raises:
            MelvocError: as `function`.
        """
        if frame_rate is None or self.at_frame_rate is None:
            return self.function(reference, sound, sample_rate)
        return self.at_frame_rate(reference, sound, sample_rate, frame_rate)


def needed(module: str, package: str) -> Any:
    """An optional module, imported now.

    Args:
        module: its dotted name.
        package: what `pip install` calls it.

    Raises:
        MissingPackageError: it cannot be imported, whatever the reason: some packages import others that do not start
            beside every torch.
    """
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise MissingPackageError(f"{package} cannot be imported ({why}); pip install {package}") from error


def check_length(wave: Tensor, least: int) -> None:
    """Refuse a sound `[..., N]` of fewer samples than a figure needs.

    Raises:
        MelvocError: it is too short.
    """
    if wave.shape[-1] < least:
        raise MelvocError(f"the sound has {wave.shape[-1]} samples, but this figure needs at least {least}")


def check_sounding(*waves: Tensor) -> None:
    """Refuse silence, which the models of listeners have no figure for.

    Raises:
        MelvocError: one of the waves has no sample above -100 dB.
    """
    if any(not wave.numel() or float(wave.abs().max()) < 1e-5 for wave in waves):
        raise MelvocError("the recording or the sound is silent, and this figure is of what is heard")
