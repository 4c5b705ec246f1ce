"""Checks for a vocoder of your own: that it keeps every promise that melvoc makes of vocoders.

- `check_vocoder`: raises a `ConformanceError` at the first promise that is broken.
- `case`: the vocoder, a mel for it, and how results are compared.
- `sound`: what is promised of the sound; `host`: of the process around it.
"""

from __future__ import annotations

from collections.abc import Callable

from melvoc.errors import ConformanceError, kind_of, quoted
from melvoc.host import public
from melvoc.testing import host, sound
from melvoc.testing.case import Case
from melvoc.vocoder import Vocoder

__all__ = ["ConformanceError", "check_vocoder"]

_CHECKS: dict[str, Callable[[Case], None]] = {
    "description": sound.description,
    "shapes": sound.shapes,
    "determinism": sound.determinism,
    "batch": sound.batch,
    "lengths": sound.lengths,
    "streams": sound.streams,
    "finiteness": sound.finiteness,
    "refinement": sound.refinement,
    "resampling": sound.resampling,
    "saving": sound.saving,
    "errors": sound.errors,
    "threads": host.threads,
    "fork": host.fork,
}


@public
def check_vocoder(vocoder: Vocoder) -> None:
    """Check a vocoder, on the device and in the dtype that it is in.

    Shapes, lengths, dtypes, range and finiteness; that a batch is each mel by itself, the pieces of a stream the whole,
    and the same call the same sound, in several threads and in a forked child too; conditions, refinement, resampling
    and saving; the errors for what does not fit; and that nothing else changes: neither mel, nor weights, nor what the
    host has set. A small network takes a second or two.

    Args:
        vocoder: of any class.

    Raises:
        ConformanceError: the first promise that is broken, with what was found and what to do. It is an AssertionError.

    Example:
        >>> import melvoc
        >>> spec = melvoc.MelSpec(sample_rate=16000, n_fft=512, hop_length=128, n_mels=20)
        >>> melvoc.testing.check_vocoder(melvoc.load("griffinlim", spec=spec, n_iter=2, device="cpu"))
    """
    if not isinstance(vocoder, Vocoder):
        raise ConformanceError(
            f"{quoted(vocoder)} is {kind_of(vocoder)}; a vocoder subclasses melvoc.Vocoder", check="description"
        )
    case, weights = Case(vocoder), host.weights(vocoder)
    for name, check in _CHECKS.items():
        case.check, before = name, host.settings()
        try:
            check(case)
        except ConformanceError:
            raise
        except Exception as error:
            raise ConformanceError(
                f"{vocoder.name}: {name}: a call that must work raised {type(error).__name__}: {error}", check=name
            ) from error
        case.check = "host"
        changed = [what for what, value in host.settings().items() if value != before[what]]
        case.require(
            not changed, f"the calls of {name!r} have changed {', '.join(changed)}; leave the host's as they are"
        )
        changed = [what for what, value in host.weights(vocoder).items() if value != weights.get(what)]
        case.require(
            not changed, f"the calls of {name!r} have changed its {', '.join(changed)}; synthesis changes nothing"
        )
