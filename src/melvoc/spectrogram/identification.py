"""Which convention made a mel, found out from a sound whose mel it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from melvoc.arrays import as_tensor
from melvoc.audio.resampling import resampled_length, whole_rate
from melvoc.errors import SpecError
from melvoc.host import public
from melvoc.spectrogram.check import finite_mel
from melvoc.spectrogram.presets import PRESETS
from melvoc.spectrogram.spec import MelSpec
from melvoc.spectrogram.traits import neper
from melvoc.spectrogram.transform import MelSpectrogram, batch_wave, least_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLACK = 2  # frames that another's padding may add or drop


class Candidate(NamedTuple):
    """A preset, and how far its mel of a sound is from the mel in question.

    Attributes:
        preset: its name.
        distance: mean absolute difference, in nepers of amplitude (8.7 dB each).
    """

    preset: str
    distance: float


@public
def identify(mel: Tensor | NDArray[Any], audio: Tensor | NDArray[Any], sample_rate: int) -> list[Candidate]:
    """See `MelSpec.identify`."""
    mel, wave = as_tensor(mel, "the mel").detach().cpu(), batch_wave(audio).detach().cpu()
    sample_rate = whole_rate(sample_rate)
    names: dict[MelSpec, list[str]] = {}
    for name in PRESETS:
        names.setdefault(MelSpec.preset(name), []).append(name)
    found = []
    for spec, equal in names.items():
        distance = _distance(mel, wave, sample_rate, spec)
        found += [] if distance is None else [Candidate(name, distance) for name in equal]
    if not found:
        raise SpecError(
            f"the mel is {list(mel.shape)}, and no preset makes so many bands and frames ([..., n_mels, T]) of "
            f"{wave.shape[-1]} samples at {sample_rate} Hz; give the whole sound, at its own rate, or compare with a "
            "MelSpec of your own: melvoc.MelSpectrogram(spec)(audio, sample_rate=...)"
        )
    return sorted(found, key=lambda candidate: candidate.distance)


def _distance(mel: Tensor, wave: Tensor, sample_rate: int, spec: MelSpec) -> float | None:
    """How far a mel is from a spec's of a wave `[B, N]`; None where the shape rules the spec out."""
    if mel.dim() < 2 or mel.shape[-2] != spec.n_mels:
        return None
    samples = resampled_length(wave.shape[-1], sample_rate, spec.sample_rate)
    if samples < least_samples(spec) or abs(spec.frames(samples) - mel.shape[-1]) > _SLACK:
        return None
    rows = finite_mel(mel, spec)
    if rows.shape[0] != wave.shape[0]:
        raise SpecError(f"the mel has {rows.shape[0]} rows, but the audio has {wave.shape[0]}; give each mel its sound")
    made = MelSpectrogram(spec)(wave, sample_rate=sample_rate)
    frames = min(made.shape[-1], rows.shape[-1])
    return float((rows[..., :frames].to(made) - made[..., :frames]).abs().mean()) / neper(spec)
