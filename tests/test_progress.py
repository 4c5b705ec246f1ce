"""What a progress function is told, in which thread, and that what it raises ends the call."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import VOCODERS, randomised

import melvoc
from melvoc.architectures.hifigan import HiFiGAN, HiFiGANConfig
from melvoc.cli import common
from melvoc.neural import NeuralVocoder
from melvoc.progress import STAGES, Report, checkpoint, watched

Event = tuple[str, int, int]
SPEC = melvoc.MelSpec(sample_rate=16000, n_fft=256, hop_length=64, n_mels=20)


class Told(list[Event]):
    """A progress function that keeps what it is told (and is falsy while that is nothing)."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.append((stage, done, total))


class StoppedError(Exception):
    """What a progress function raises."""


def stopping(stage: str, least: int = 0) -> Callable[[str, int, int], None]:
    def progress(now: str, done: int, total: int) -> None:
        if now == stage and done >= least:
            raise StoppedError(stage)

    return progress


def test_the_page_has_every_stage() -> None:
    page = (Path(__file__).parents[1] / "docs" / "applications.md").read_text(encoding="utf-8")
    table = page.partition("| stage |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(STAGES)


def test_without_a_function_the_work_runs_where_it_is_called() -> None:
    assert watched(None, "load", 1, lambda report: threading.current_thread()) is threading.current_thread()


def test_it_is_told_the_beginning_each_block_and_the_end() -> None:
    told = Told()

    def work(report: Report) -> str:
        assert told == [("read", 0, 3)], "before any work"
        for done in (1, 2):
            report(done)
        return "made"

    assert watched(told, "read", 3, work) == "made"
    assert told == [("read", 0, 3), ("read", 1, 3), ("read", 2, 3), ("read", 3, 3)]


def test_a_silent_stage_gives_signs_of_life() -> None:
    told, enough = Told(), threading.Event()

    def progress(stage: str, done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        told(stage, done, total)
        if len(told) == 4:
            enough.set()

    assert watched(progress, "load", 1, lambda report: enough.wait(30))
    assert told == [("load", 0, 1)] * 4 + [("load", 1, 1)]


def test_the_work_sees_the_callers_context() -> None:
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="no")
    mine.set("yes")

    def seen(report: Report) -> tuple[str, bool, bool]:
        return mine.get(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.no_grad():
        assert watched(Told(), "load", 1, seen) == ("yes", False, False)
    with torch.inference_mode():
        assert watched(Told(), "load", 1, seen)[2] is True
    assert watched(Told(), "load", 1, seen) == ("yes", True, False)


def test_an_error_of_the_work_is_the_callers() -> None:
    told = Told()
    with pytest.raises(KeyError, match="lost"):
        watched(told, "load", 1, lambda report: {}["lost"])
    assert told == [("load", 0, 1)], "what failed is not said to be done"


def test_a_call_within_the_work_ends_at_its_next_block_too() -> None:
    blocks = list[int]()

    def inner(report: Report) -> None:
        for done in range(1000):
            blocks.append(done)
            time.sleep(0.01)
            report(done)

    with pytest.raises(StoppedError):
        watched(stopping("evaluate", 1), "evaluate", 2, lambda report: [report(1), watched(None, "load", 1, inner)])
    assert len(blocks) < 500


def test_what_it_raises_ends_the_work_at_its_next_block() -> None:
    ended = []

    def work(report: Report) -> None:
        try:
            for done in range(1, 10_000):
                report(done)
                time.sleep(0.001)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    with pytest.raises(StoppedError):
        watched(stopping("read", 3), "read", 10_000, work)
    assert ended == ["Cancelled"]
    checkpoint()  # nothing is left of it in this thread


def test_what_waits_can_be_interrupted() -> None:
    ended = threading.Event()

    def work(report: Report) -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        watched(interrupted_at(2), "find", 1, work, interrupt=True)
    assert ended.wait(10)


def interrupted_at(call: int) -> Callable[[str, int, int], None]:
    told = Told()

    def progress(stage: str, done: int, total: int) -> None:
        told(stage, done, total)
        if len(told) == call:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("value", [3, "download", [print]])
def test_what_is_no_function_is_refused(value: Any) -> None:
    voc = melvoc.load("griffinlim", spec=SPEC, n_iter=1)
    calls: list[Callable[[], object]] = [
        lambda: melvoc.load("griffinlim", progress=value),
        lambda: melvoc.download("vocos_mel_24khz", progress=value),
        lambda: voc.mel_to_waveform(torch.zeros(20, 3) - 3, progress=value),
        lambda: voc.resynthesize(torch.zeros(500), sample_rate=16000, progress=value),
        lambda: voc.prepare(progress=value),
        lambda: melvoc.evaluate("a.wav", voc, progress=value),
    ]
    for call in calls:
        with pytest.raises(melvoc.OptionError, match=r"progress=.*, but it is a function of \(stage, done, total\)"):
            call()


# Vocoders


def test_synthesis_says_each_block() -> None:
    voc, told = VOCODERS["bigvgan_resblock2_snake_tiny"], Told()
    mel = torch.randn(1, voc.spec.n_mels, 30) - 4
    made = voc.mel_to_waveform(mel, spec=voc.spec, block_frames=10, progress=told)
    assert list(dict.fromkeys(told)) == [("synthesise", done, 30) for done in (0, 10, 20, 30)]
    assert torch.equal(made, voc.mel_to_waveform(mel, spec=voc.spec, block_frames=10))
    assert not made.requires_grad


def test_a_batch_with_lengths_counts_the_frames_of_its_groups() -> None:
    voc, told = VOCODERS["bigvgan_resblock2_snake_tiny"], Told()
    mel = torch.randn(3, voc.spec.n_mels, 30) - 4
    made = voc.mel_to_waveform(mel, spec=voc.spec, lengths=[30, 20, 30], block_frames=10, progress=told)
    assert [event[1] for event in dict.fromkeys(told)] == [0, 10, 20, 30, 40, 50]
    assert {event[2] for event in told} == {50}
    torch.testing.assert_close(made, voc.mel_to_waveform(mel, spec=voc.spec, lengths=[30, 20, 30], block_frames=10))


def test_resynthesis_counts_samples() -> None:
    voc, told = VOCODERS["bigvgan_resblock2_snake_tiny"], Told()
    wave = torch.rand(9000) - 0.5
    made = voc.resynthesize(wave, sample_rate=16000, block_frames=16, progress=told)
    assert torch.equal(made, voc.resynthesize(wave, sample_rate=16000, block_frames=16))
    assert (told[0], told[-1]) == (("synthesise", 0, 9000), ("synthesise", 9000, 9000))
    assert len({event[1] for event in told}) > 3


def test_a_warning_of_the_work_shows_the_callers_line() -> None:
    voc = VOCODERS["bigvgan_resblock2_snake_tiny"]
    with pytest.warns(UserWarning, match=r"samples are in \[-1, 1\]") as caught:
        voc.resynthesize(torch.full((2000,), 3.0), sample_rate=voc.spec.sample_rate, progress=Told())
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("least", [0, 10, 30])
def test_synthesis_is_cancelled_and_the_vocoder_stays_usable(least: int) -> None:
    voc = VOCODERS["bigvgan_resblock2_snake_tiny"]
    mel = torch.randn(1, voc.spec.n_mels, 30) - 4
    before = voc.mel_to_waveform(mel, spec=voc.spec, block_frames=10)
    with pytest.raises(StoppedError):
        voc.mel_to_waveform(mel, spec=voc.spec, block_frames=10, progress=stopping("synthesise", least))
    assert torch.equal(voc.mel_to_waveform(mel, spec=voc.spec, block_frames=10), before)


def test_griffin_lim_is_cancelled_between_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    voc, rounds, begun = melvoc.load("griffinlim", spec=SPEC, n_iter=1000), [], threading.Event()

    def counted(self: object, *_: object) -> None:
        rounds.append(1)
        begun.set()
        time.sleep(0.01)

    monkeypatch.setattr("melvoc.griffinlim.GriffinLim._correct", counted)

    def progress(stage: str, done: int, total: int) -> None:
        if begun.is_set():
            raise StoppedError

    with pytest.raises(StoppedError):
        voc.mel_to_waveform(torch.zeros(20, 50) - 3, spec=SPEC, progress=progress)
    assert 1 <= len(rounds) < 500


# Loading


def test_loading_a_file_has_one_stage(tmp_path: Path) -> None:
    melvoc.save(VOCODERS["bigvgan_resblock2_snake_tiny"], tmp_path / "v.safetensors")
    told = Told()
    voc = melvoc.load(tmp_path / "v.safetensors", device="cpu", progress=told)
    assert (told[0], told[-1]) == (("load", 0, 1), ("load", 1, 1))
    assert not any(parameter.is_inference() for parameter in voc.parameters())
    with pytest.raises(StoppedError):
        melvoc.load(tmp_path / "v.safetensors", device="cpu", progress=stopping("load"))


def test_every_stage_is_in_the_list() -> None:
    told = Told()
    melvoc.load("griffinlim", spec=SPEC, n_iter=1, progress=told).prepare(progress=told)
    assert {event[0] for event in told} == {"load", "compile"} <= set(STAGES)


# Warm-up


def test_prepare_makes_what_the_first_call_needs() -> None:
    network = randomised(HiFiGAN(HiFiGANConfig(n_mels=20, upsample_rates=(8, 8), upsample_kernel_sizes=(16, 16),
                                               upsample_initial_channel=32)))  # fmt: skip
    voc = NeuralVocoder(network, name="mine", spec=SPEC)
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            voc.prepare()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    mel = torch.randn(1, 20, 40) - 4
    beside = voc.mel_to_waveform(mel, spec=SPEC)
    for thread in threads:
        thread.join()
    assert not errors
    assert torch.equal(voc.mel_to_waveform(mel, spec=SPEC), beside)


def test_prepare_works_for_any_vocoder() -> None:
    class Pitched(melvoc.Vocoder):
        seen: list[torch.Tensor]

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            self.seen.append(mel)
            return mel.new_zeros(mel.shape[0], 1, mel.shape[-1] * 64)

        @property
        def conditions(self) -> dict[str, melvoc.Condition]:
            return {"f0": melvoc.Condition(unit="Hz", low=50.0, high=800.0)}

    voc = Pitched(name="pitched", spec=SPEC)
    voc.seen = []
    voc.prepare()
    assert voc.seen
    assert all(mel.shape[:2] == (1, 21) and bool((mel[:, 20] == 50.0).all()) for mel in voc.seen)


# The command line's bars


def test_bars_are_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with common.bars() as progress:
        assert progress is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with common.bars() as progress:
        assert progress is not None
        progress("download", 0, 2_000_000)
        time.sleep(0.6)  # what is over sooner shows nothing
        progress("download", 1_000_000, 2_000_000)
        progress("download", 2_000_000, 2_000_000)
        progress("load", 0, 1)
        progress("load", 1, 1)
    said = capsys.readouterr().err
    assert "download:  50%" in said
    assert "1.00M/2.00M" in said
    assert " load:" not in said.replace("\r", " ")
