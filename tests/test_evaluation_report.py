"""The report as a page: what is on it, and that a browser shows, plays and sorts it without a network."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from browser import browser, resize
from evaluations import metric, sound, table
from test_evaluation_runner import griffinlim

import melvoc
from melvoc.evaluation.gallery import Gallery
from melvoc.evaluation.report import _best_by_file, _overview
from melvoc.evaluation.results import Evaluation

COSTS = {"speed": 1.0, "peak_memory_mb": None, "parameters": 1}
NASTY = "<img src=x onerror=alert(1)> & \"quotes\" 'n' $dollar.wav"


class Reader(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """Three sounds, one with a nasty name and two channels, one that fails; two vocoders, two refinements."""
    folder = tmp_path_factory.mktemp("evaluation")
    files = [sound(folder / NASTY, channels=2), sound(folder / "b.wav", seed=1, seconds=1.2), folder / "bad.wav"]
    files[2].write_bytes(b"RIFF")
    other = griffinlim("<b>bold</b>")
    other.post = ()
    found = melvoc.evaluate(
        files,
        [griffinlim("gl"), other],
        (0, 1),
        folder / "r",
        metrics=["mel_l1", "mr_stft", "loudness", "log_spectral"],
    )
    return found, folder / "r" / "report.html"


def test_the_page_is_whole_and_asks_for_nothing(report: tuple[Evaluation, Path]) -> None:
    found, path = report
    page = path.read_text(encoding="utf-8")
    read = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert found.headline in read.text
    for name in ("src", "href"):
        links = [attributes[name] for _, attributes in read.tags if name in attributes]
        assert all(link and link.startswith("data:") for link in links), links
    assert not re.search(r"https?://|@import|url\(", page.split("Where the figures are defined")[0])
    policy = next(entry["content"] for entry in read.all("meta") if "http-equiv" in entry)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert [entry for entry in read.all("meta") if entry.get("name") == "viewport"]


def test_names_are_escaped(report: tuple[Evaluation, Path]) -> None:
    page = report[1].read_text(encoding="utf-8")
    read = Reader(page)
    assert "<img src=x" not in page
    assert "<b>bold</b>" not in page
    assert NASTY in read.text
    assert not [entry for entry in read.all("img") if "onerror" in entry]


def test_players_have_the_samples_that_were_measured(report: tuple[Evaluation, Path], tmp_path: Path) -> None:
    found, path = report
    players = Reader(path.read_text(encoding="utf-8")).all("audio")
    assert len(players) == 2 * (1 + 4), "of each file that could be read, the recording and four copies"
    waves = []
    for player in players:
        assert player["aria-label"]
        assert player["src"]
        kind, _, content = player["src"].partition(",")
        assert kind == "data:audio/flac;base64"
        waves.append(soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32", always_2d=True))
    recording, rate = melvoc.audio.read(next(iter(found.clips)))
    assert torch.equal(torch.from_numpy(waves[0][0].T), recording), "a 16-bit recording is bit for bit what it was"
    copy = griffinlim().resynthesize(recording, sample_rate=rate)[:, 0]
    assert (torch.from_numpy(waves[1][0].T) - copy).abs().max() < 1e-3
    assert {wave[0].shape for wave in waves[:5]} == {(11025, 2)}


def test_pictures_and_tables_can_be_read_aloud(report: tuple[Evaluation, Path]) -> None:
    read = Reader(report[1].read_text(encoding="utf-8"))
    pictures = read.all("img")
    assert len(pictures) == 2 * (5 + 4), "a spectrogram of each sound, a difference of each copy"
    assert all(
        (entry["alt"] or "").startswith(("Spectrogram: ", "Difference of its spectrogram")) for entry in pictures
    )
    tables = len(read.all("table"))
    assert len(read.all("caption")) == tables == 3
    assert all(entry["scope"] in ("row", "col") for entry in read.all("th"))
    assert len(read.all("button")) == sum("aria-sort" in entry for entry in read.all("th"))
    assert len(read.all("html")) == 1
    assert read.all("html")[0]["lang"] == "en"


def test_the_best_are_marked_and_dashes_have_reasons(report: tuple[Evaluation, Path]) -> None:
    found, path = report
    page = path.read_text(encoding="utf-8")
    overview = page[page.index("<h2>In short</h2>") : page.index("<h2>Listen and look</h2>")]
    best = min(row["mel_l1"] for row in found.means().values())
    assert f'<td class="best" data-v="{best!r}">' in overview
    assert "cannot be read as sound" in Reader(page).text
    row = found.rows[0] | {"mel_l1": None, "undefined": "mel_l1: too short"}
    again = Evaluation(rows=[row], metrics=found.metrics, settings=found.settings)
    again.save(path.parent)
    page = path.read_text(encoding="utf-8")
    found.save(path.parent)
    assert '<td class="none" data-v="" title="mel_l1: too short">\u2013</td>' in page
    assert "mel_l1: too short (1 row)" in Reader(page).text


def test_five_hundred_files_stay_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, wave = Gallery(), 0.1 * torch.randn(1, 12 * 8000)
    for number in range(500):
        if gallery.open(str(number)):
            gallery.add(str(number), "copy", wave, wave, 8000)
        gallery.close(str(number))
    assert list(gallery.clips) == [str(number) for number in range(12)]
    assert {len(soundfile.read(io.BytesIO(clip.sound))[0]) for clips in gallery.clips.values() for clip in clips} == {
        80000
    }
    first = gallery.clips["0"]
    size = sum(len(clip.sound) + len(clip.picture) + len(clip.difference or b"") for clip in first)
    for room, kept in ((1, ["0"]), (round(3.5 * size * 4 / 3), ["0", "1", "2"])):
        monkeypatch.setattr("melvoc.evaluation.gallery.MOST_BYTES", room)
        small = Gallery()
        for number in range(6):
            if small.open(str(number)):
                small.add(str(number), "copy", wave, wave, 8000)
            small.close(str(number))
        assert list(small.clips) == kept, "the first in any case, and no other that is too much"


def test_a_file_whose_copies_all_failed_has_no_place() -> None:
    gallery = Gallery()
    gallery.open("a")
    gallery.close("a")
    assert gallery.clips == {}


@pytest.mark.slow
def test_in_a_browser(report: tuple[Evaluation, Path]) -> None:
    with browser() as driver:
        for width, scheme in ((1280, "light"), (390, "dark")):
            resize(driver, width, 844, scheme)
            driver.get(report[1].as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width, "it scrolls sideways"
            ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall(r"\d+", ground)[0]) < 128) == (scheme == "dark")
        assert driver.execute_script("return [...document.images].every(i => i.complete && i.naturalHeight === 128)")
        _check_players(driver)
        _check_sorting(driver)
        assert driver.get_log("browser") == []
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith(("data:", "file:")) for url in asked)
        assert len([url for url in asked if url.startswith("file:")]) == 2, "the page itself, twice"


def _check_players(driver: Any) -> None:
    loaded = driver.execute_async_script(
        "const done = arguments[0], all = [...document.querySelectorAll('audio')];"
        "Promise.all(all.map(a => a.readyState > 0 ? 0 : new Promise(r => {"
        " a.addEventListener('loadedmetadata', r); a.addEventListener('error', r); a.load(); })))"
        ".then(() => done(all.map(a => [a.readyState, a.duration, a.error && a.error.message])));"
    )
    assert [round(duration, 2) for _, duration, _ in loaded] == 5 * [0.5] + 5 * [1.2], loaded
    playing = driver.execute_async_script(
        "const done = arguments[0], all = [...document.querySelectorAll('audio')];"
        "all[0].play().then(() => all[1].play()).then(() => done([all[0].paused, all[1].paused]));"
    )
    assert playing == [True, False], "one at a time"


def _check_sorting(driver: Any) -> None:
    column = "return [...document.querySelectorAll('table.sorted tbody tr')].map(r => r.cells[arguments[0]].dataset.v)"
    heads = driver.find_elements("css selector", "table.sorted thead th button")
    for number, key in ((2, float), (0, str)):
        before = driver.execute_script(column, number)
        heads[number].send_keys("\ue007")  # Enter: it works from the keyboard
        assert driver.execute_script(column, number) == sorted(before, key=key)
        heads[number].send_keys("\ue007")
        assert driver.execute_script(column, number) == sorted(before, key=key, reverse=True)
    states = driver.execute_script("return [...document.querySelectorAll('th[aria-sort]')].map(h => h.ariaSort)")
    assert states == ["descending"] + ["none"] * (len(heads) - 1)


def test_the_best_is_the_best_of_what_is_shown() -> None:
    """Under a protocol that is the figure over the set, whichever way the mean of the files' figures points."""
    columns = {"x": {"mcd": [5.0, 1.0]}, "y": {"mcd": [1.0, 2.0]}}
    found = Evaluation(rows=[row | COSTS for row in table(columns)], metrics=[metric("mcd")])
    found.pooled = {("x", 0): {"mcd": 1.04}, ("y", 0): {"mcd": 1.99}}
    assert '<td class="best" data-v="1.04">' in _overview(found, "mcd")
    assert '<td class="best" data-v="1.99">' not in _overview(found, "mcd")


def test_equals_are_no_best_of_a_file() -> None:
    columns = {"a": {"tonal": [0.0, 0.0, 1.0]}, "b": {"tonal": [0.0, 1.0, 1.0]}, "c": {"tonal": [0.0, 0.0, 1.0]}}
    found = Evaluation(rows=table(columns), metrics=[metric("tonal", "nearer 0")])
    assert _best_by_file(found) == {("1.wav", "tonal"): [("a", 0), ("c", 0)]}
