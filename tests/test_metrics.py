"""The table of metrics: every record is whole, every function pure, and other packages' metrics are as good."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from signals import RATE, bursts, noise

from melvoc import registry
from melvoc.errors import MelvocError, MissingPackageError, OptionError
from melvoc.metrics import Metric, distillmos, needed, visqol
from melvoc.registry import METRICS, all_metrics

ROOT = Path(__file__).resolve().parents[1]
OWN = {metric.name: metric for metric in all_metrics() if metric.name in METRICS.own()}
LIGHT = [metric for metric in OWN.values() if not metric.packages]


@pytest.mark.parametrize("metric", OWN.values(), ids=lambda metric: metric.name)
def test_every_record_is_whole(metric: Metric) -> None:
    assert sys.modules[f"melvoc.metrics.{metric.name}"].METRIC is metric
    assert metric.title
    assert metric.source
    assert metric.deaf_to
    assert metric.low < metric.high
    assert metric.function.__doc__


@pytest.mark.parametrize("metric", LIGHT, ids=lambda metric: metric.name)
def test_a_recording_against_itself_has_the_best_figure_and_a_worse_sound_a_worse_one(metric: Metric) -> None:
    real = bursts(0.01, 0.3)
    sound = 0.7 * real + noise(seed=5, level=0.02)
    before = real.clone(), sound.clone()
    best, worse = metric.function(real, real, RATE), metric.function(real, sound, RATE)
    assert best == pytest.approx(0, abs=1e-6)
    assert metric.low <= worse <= metric.high
    assert abs(worse) >= abs(best)
    assert worse == metric.measure(real, sound, RATE), "not pure"
    assert torch.equal(real, before[0])
    assert torch.equal(sound, before[1])


@pytest.mark.parametrize("metric", LIGHT, ids=lambda metric: metric.name)
@pytest.mark.parametrize("samples", [0, 1, 300])
def test_what_is_too_short_has_no_figure_but_a_reason(metric: Metric, samples: int) -> None:
    wave = noise(samples)
    with pytest.raises(MelvocError, match="samples|silent|LUFS"):
        metric.function(wave, wave, RATE)


def test_silence_against_silence_is_a_figure_or_a_reason(recwarn: pytest.WarningsRecorder) -> None:
    wave, found = torch.zeros(2 * RATE), {}
    for metric in LIGHT:
        with contextlib.suppress(MelvocError):
            found[metric.name] = metric.function(wave, wave, RATE)
    assert found == dict.fromkeys(("beating", "log_spectral", "mel_l1", "mr_stft", "multi_scale_mel", "tonal"), 0.0)
    assert not recwarn.list


def test_frames_reach_only_what_is_about_frames() -> None:
    def three(reference: torch.Tensor, sound: torch.Tensor, sample_rate: int) -> float:
        return 3.0

    def rate(reference: torch.Tensor, sound: torch.Tensor, sample_rate: int, frame_rate: float) -> float:
        return frame_rate

    facts: dict[str, Any] = {"better": "lower", "low": 0, "high": 9, "source": "here", "deaf_to": "much"}
    plain = Metric(name="three", title="three", function=three, **facts)
    framed = Metric(name="rate", title="rate", function=three, at_frame_rate=rate, **facts)
    wave = noise(9)
    assert plain.measure(wave, wave, 1) == plain.measure(wave, wave, 1, frame_rate=7.0) == 3
    assert framed.measure(wave, wave, 1) == 3
    assert framed.measure(wave, wave, 1, frame_rate=7.0) == 7


# Packages


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ModuleNotFoundError("No module named 'ears'"), "No module named 'ears'"),
        (OSError("libears.so: cannot open\nmore"), r"libears\.so: cannot open\)"),
        (SystemExit(3), "3"),
    ],
)
def test_any_failure_to_import_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException, said: str
) -> None:
    def fail(name: str) -> ModuleType:
        raise failure

    monkeypatch.setattr("melvoc.metrics.importlib.import_module", fail)
    with pytest.raises(MissingPackageError, match=rf"^ears cannot be imported \({said}.*pip install ears$"):
        needed("ears", "ears")


@pytest.mark.parametrize("metric", [one for one in OWN.values() if one.packages], ids=lambda metric: metric.name)
def test_without_its_package_a_metric_says_how_to_get_it(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pesq", "pystoi", "visqol", "zimtohrli", "distillmos", "distillmos.sqa", "torchcrepe"):
        monkeypatch.setitem(sys.modules, name, None)
    for cached in (visqol._programme, distillmos._network):
        monkeypatch.setattr(f"{cached.__module__}.{cached.__name__}", cached.__wrapped__)
    package = metric.packages[0]
    with pytest.raises(MissingPackageError, match=f"^{package} cannot be imported .*pip install {package}$"):
        metric.function(noise(seed=77), noise(seed=78), RATE)


# Other packages' metrics


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares objects as entry points of the group."""

    def add(**objects: object) -> None:
        class Point(EntryPoint):
            def load(self) -> object:
                if isinstance(found := objects[self.name], Exception):
                    raise found
                return found

        points = [Point(name=name, value=f"somewhere:{name}", group=METRICS.group) for name in objects]
        real = registry.entry_points
        monkeypatch.setattr(
            registry, "entry_points", lambda group: [*real(group=group), *(points if group == METRICS.group else [])]
        )

    return add


@pytest.fixture
def crest() -> Metric:
    """The example package's metric, straight from its source."""
    file = ROOT / "tests" / "metric_example" / "src" / "melvoc_crest" / "__init__.py"
    location = importlib.util.spec_from_file_location("melvoc_crest", file)
    assert location
    assert location.loader
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    record: Metric = module.CREST
    return record


def test_a_packages_metric_stands_after_melvocs_own(install: Callable[..., None], crest: Metric) -> None:
    install(crest=crest)
    assert [metric.name for metric in all_metrics()] == [*OWN, "crest"]
    square = torch.ones(RATE)
    sine = torch.sin(torch.arange(RATE) * 0.1)
    assert crest.function(square, sine, RATE) == pytest.approx(3.01, abs=0.01)
    with pytest.raises(MelvocError, match="the sound is silent"):
        crest.function(square, 0 * square, RATE)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (ImportError("no ears"), "metric 'crest' of .* cannot be imported .*no ears"),
        (max, r"metric 'crest': .* is a builtin_function_or_method, but the contract is a melvoc\.metrics\.Metric"),
        (OWN["mel_l1"], "metric 'crest': .* has the name 'mel_l1'"),
    ],
)
def test_a_broken_one_disturbs_no_other(install: Callable[..., None], found: object, said: str) -> None:
    install(crest=found)
    with pytest.warns(UserWarning, match=f"{said}.*it is left out"):
        assert [metric.name for metric in all_metrics()] == [*OWN]


# The page


def row(metric: Metric) -> str:
    """A metric's row of docs/metrics.md."""
    low, high = (f"{value:g}".replace("inf", "∞") for value in (metric.low, metric.high))
    needs = ", ".join(f"`{package}`" for package in metric.packages)
    cells = (f"`{metric.name}`", metric.title, metric.better, f"{low} to {high}", needs, metric.deaf_to, metric.source)
    return f"| {' | '.join(cells)} |"


def test_the_page_has_a_row_for_each_metric_that_says_what_its_record_says() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    expected = "\n".join(row(metric) for metric in OWN.values())
    assert f"\n{expected}\n\n" in page, f"the table of docs/metrics.md is to be\n{expected}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "refine"}, "a metric has the name 'refine', which a column of reports has; give it another"),
        ({"better": "Lower"}, "better='Lower', but it is one of lower, higher, nearer 0"),
    ],
)
def test_a_record_that_no_report_can_hold_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        dataclasses.replace(LIGHT[0], **changes)
