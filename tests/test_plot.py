"""Plots have axes in seconds and Hz, and are left to the caller."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

import melvoc
from melvoc.errors import MissingPackageError, SpecError

SPEC = melvoc.MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80)


@pytest.fixture(autouse=True)
def backend() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'melvoc[plot]'").use("Agg")


def tone(frequency: float, spec: melvoc.MelSpec = SPEC) -> Tensor:
    time = torch.arange(22050) / 22050
    return melvoc.MelSpectrogram(spec)(0.5 * torch.sin(2 * torch.pi * frequency * time))


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 5000.0])
def test_a_tone_is_at_its_frequency(frequency: float) -> None:
    mel = tone(frequency)
    axes = melvoc.plot.mel(mel, SPEC, title="a tone")
    mesh = axes.collections[0]
    corners = mesh.get_coordinates()
    band = int(torch.from_numpy(mesh.get_array().reshape(80, -1)).mean(1).argmax())
    assert corners[band, 0, 1] <= frequency * 1.02
    assert corners[band + 1, 0, 1] >= frequency * 0.98
    assert corners[-1, -1, 0] == pytest.approx(mel.shape[-1] * 256 / 22050)
    assert axes.get_ylim() == (0.0, 11025.0)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("Time (s)", "Hz", "a tone")
    axes.figure.canvas.draw()
    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert {"0", "1024", "4096"} <= labels


@pytest.mark.parametrize(
    "fields", [{}, {"log": "log10"}, {"log": "db", "power": 2.0}, {"log": "log1p", "power": 2.0}, {"power": 2.0}]
)
def test_levels_are_in_db_whatever_the_logarithm(fields: dict[str, object]) -> None:
    spec = melvoc.MelSpec(sample_rate=22050, n_fft=1024, hop_length=256, n_mels=80, **fields)  # type: ignore[arg-type]
    loud, time = tone(1000.0, spec), torch.arange(22050) / 22050
    soft = melvoc.MelSpectrogram(spec)(0.05 * torch.sin(2 * torch.pi * 1000 * time))
    values = [melvoc.plot.mel(mel, spec).collections[0].get_array().max() for mel in (loud, soft)]
    assert values[0] - values[1] == pytest.approx(20.0, abs=0.1)


def test_a_difference_and_a_comparison() -> None:
    mel, other = tone(1000.0), tone(1000.0)[..., :-3] + 0.5
    axes = melvoc.plot.difference(other, mel, SPEC)
    assert axes.collections[0].get_array().max() == pytest.approx(0.5 * 8.686, abs=0.01)
    figure = melvoc.plot.compare({"recording": mel, "copy": other}, SPEC)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["recording", "copy", "copy, less recording"]


def test_a_plot_into_given_axes() -> None:
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    assert melvoc.plot.mel(tone(1000.0)[0], SPEC, ax=axes) is axes
    pyplot.close("all")


def test_mistakes() -> None:
    with pytest.raises(SpecError, match=r"one plot has one mel of at least one frame; plot mel\[row\]"):
        melvoc.plot.mel(tone(1000.0).expand(2, -1, -1), SPEC)
    holed = tone(1000.0)[0].clone()
    holed[3, 2] = float("nan")
    for draw in (lambda: melvoc.plot.mel(holed, SPEC), lambda: melvoc.plot.difference(tone(1000.0)[0], holed, SPEC)):
        with pytest.raises(SpecError, match="the mel contains NaN or Inf, which no colour shows"):
            draw()
    with pytest.raises(SpecError, match="mels is empty; give at least a reference"):
        melvoc.plot.compare({}, SPEC)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"plots need matplotlib .*; pip install 'melvoc\[plot\]'"):
        melvoc.plot.mel(tone(1000.0), SPEC)
