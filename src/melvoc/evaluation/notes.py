"""What a reader of a report has to know before comparing its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melvoc.evaluation.wording import shortened

REFINED = (
    "Refinement works on the mel, so the distances of mels and of spectra favour refined sounds more than ears do "
    "(docs/refinement.md)."
)
STEREO = (
    "Channels were vocoded and measured one by one, and their figures averaged: no figure hears whether the stereo "
    "image holds."
)


def notes(
    rows: Sequence[Mapping[str, Any]],
    vocoders: Sequence[dict[str, Any]],
    settings: Mapping[str, Any],
    missing: Sequence[Mapping[str, str]],
) -> list[str]:
    """The notes, each a sentence or two."""
    names = shortened([entry["name"] for entry in vocoders])
    of = [entry | {"name": names[entry["name"]], "mel_of": names.get(entry["mel_of"])} for entry in vocoders]
    found = [*_rates(rows, of), *_mels(of), _speech(rows, settings)]
    if any(row["channels"] > 1 for row in rows):
        found.append(STEREO)
    if any(row["refine"] for row in rows):
        found.append(REFINED)
    speech = any(row["speech"] for row in rows)
    if speech and (gone := next((entry for entry in missing if entry["name"] == "distillmos"), None)):
        found.append(
            f"The figure that leads for speech, {gone['title']}, was not computed: {gone['how']}. Without it the "
            "choice rests on figures that Griffin-Lim can mislead."
        )
    return found


def _rates(rows: Sequence[Mapping[str, Any]], vocoders: Sequence[Mapping[str, Any]]) -> list[str]:
    """At which rates was measured, and what that leaves out."""
    if not rows:
        return []
    measured = sorted({row["sample_rate"] for row in rows})
    text = f"Measured at {_listed(measured)} Hz"
    highest = max(row["file_rate"] for row in rows)
    rates = {entry["name"]: entry["sample_rate"] for entry in vocoders}
    low = [name for name, rate in rates.items() if rate < highest]
    cut = [row for row in rows if row["sample_rate"] < row["file_rate"]]
    if not cut:  # the whole band of every file
        short = f", where {_listed(low)} cannot make all of their treble, which counts against it" if low else ""
        return [f"{text}, the whole band of the files{short}."]
    least, upto = min(row["sample_rate"] for row in cut), max(row["file_rate"] for row in cut)
    above = f"what lies above {least / 2000:.3g} kHz, in files of up to {upto} Hz, is in no figure"
    why = "" if len(measured) > 1 else f", the rate that all vocoders ({_listed(rates.values())} Hz) and files reach"
    return [
        f"{text}{why}: {above}. To have it count, measure at {highest} Hz (--sample-rate), which is hard on "
        f"{_listed(low)}, or leave those out."
        if low
        else f"{text}{why}: {above}."
    ]


def _mels(vocoders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose mels differ, so that the vocoders did not have the same to go by."""
    found = [
        f"{entry['name']} was given the mel of {entry['mel_of']}." for entry in vocoders if entry["mel_of"] is not None
    ]
    mels: dict[tuple[Any, ...], list[str]] = {}
    for entry in vocoders:
        mels.setdefault(tuple(entry["mel"].values()), []).append(entry["name"])
    if len(mels) > 1:
        groups = "; ".join(_listed(names) for names in mels.values())
        found.append(
            f"The vocoders had different mels to go by ({groups}), each its own: a finer mel is an easier task, so the "
            "figures compare each vocoder together with its mel."
        )
    return found


def _speech(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    files = {row["file"]: row["speech"] for row in rows}
    if settings["speech"] is not None:
        return (
            f"The files were taken to be {'speech' if settings['speech'] else 'no speech'}, as was asked, or as the "
            "protocol has it."
        )
    return (
        f"{sum(files.values())} of {len(files)} files sound like speech, and only those have the figures for speech. "
        "That is a guess by pitch and syllables (docs/evaluation.md); --speech and --no-speech overrule it."
    )


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
