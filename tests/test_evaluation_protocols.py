"""The papers' protocols: what the vocoders get, what is measured, and how a set becomes one figure."""

from __future__ import annotations

import math

import pytest
import torch
from signals import RATE, noise, tone

from melvoc.errors import MelvocError, MissingPackageError
from melvoc.evaluation.protocols import PROTOCOLS, quantised
from melvoc.metrics import mcd
from melvoc.metrics.periodicity import Pitch
from melvoc.registry import all_metrics

BIGVGAN, VOCOS = PROTOCOLS["bigvgan"], PROTOCOLS["vocos"]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_it_names_metrics_that_there_are(protocol: object) -> None:
    known = {metric.name for metric in all_metrics()}
    assert set(protocol.metrics or ()) <= known  # type: ignore[attr-defined]
    assert set(protocol.pool) <= set(protocol.metrics or ())  # type: ignore[attr-defined]


def test_the_default_leaves_everything_as_it_is() -> None:
    wave = noise(100)[None]
    reference, rate = PROTOCOLS["default"].prepare(wave, 44100)
    assert reference is wave
    assert rate == 44100
    assert PROTOCOLS["default"].listen(wave, wave, 44100) == (wave, wave)


def test_bigvgan_prepares_whole_files_with_a_peak_of_0_95() -> None:
    stereo = torch.stack([0.2 * noise(1000), tone(100, 1000)])
    reference, rate = BIGVGAN.prepare(stereo, 24000)
    assert rate == 24000
    torch.testing.assert_close(reference, stereo * (0.95 / stereo.abs().max()))


def test_bigvgan_listens_to_16_bits() -> None:
    wave = torch.tensor([0.0, 1.6 / 32768, -1.6 / 32768, 1.0, -1.0])
    reference, sound = BIGVGAN.listen(wave, 2 * wave, 24000)
    assert (reference * 32768).tolist() == [0, 1, -1, 32767, -32768]  # towards zero, and no wrapping around
    assert (sound * 32768).tolist() == [0, 3, -3, 32767, -32768]
    assert torch.equal(quantised(reference), reference)


@pytest.mark.parametrize("rate", [22050, 24000, 44100])
def test_vocos_prepares_the_first_2_016_s_in_mono_at_minus_3_db(rate: int) -> None:
    """The peak is the whole file's, which lies behind the first two seconds here."""
    wave = torch.cat([noise(3 * rate), torch.full((10,), 0.9)]).repeat(2, 1)
    reference, same = VOCOS.prepare(wave, rate)
    assert same == rate
    assert reference.shape == (1, round(2.016 * rate))
    torch.testing.assert_close(reference, wave[:1, : round(2.016 * rate)] * (10 ** (-3 / 20) / 0.9))


def test_vocos_repeats_what_is_shorter() -> None:
    wave = tone(441, 1000)[None]
    reference, _ = VOCOS.prepare(wave, 24000)
    assert reference.shape == (1, 48384)
    torch.testing.assert_close(reference[0, :1000], reference[0, 1000:2000])


@pytest.mark.parametrize("name", ["bigvgan", "vocos"])
def test_silence_cannot_be_scaled(name: str) -> None:
    for wave in (torch.zeros(1, 1000), torch.zeros(1, 0)):
        with pytest.raises(MelvocError, match="the sound is silent, but the protocol scales it by its peak"):
            PROTOCOLS[name].prepare(wave, 24000)


# Figures of a set


@pytest.fixture
def known_pitches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of CREPE's: a sound is its own periodicity, voiced above 0.5."""

    def pitch(wave: torch.Tensor, *rate: int) -> Pitch:
        return Pitch(wave, wave > 0.5)

    def both(reference: torch.Tensor, sound: torch.Tensor, rate: int) -> tuple[Pitch, Pitch]:
        return pitch(reference), pitch(sound)

    monkeypatch.setattr("melvoc.metrics.periodicity.pitches", both)
    monkeypatch.setattr("melvoc.evaluation.protocols._vocos_pitches", both)


@pytest.mark.usefixtures("known_pitches")
def test_periodicity_is_pooled_over_frames_by_bigvgan_and_over_clips_by_vocos() -> None:
    """One clip of 10 frames with an error of 0.6, one of 30 without."""
    pairs = [(torch.ones(10), torch.full((10,), 0.4)), (torch.ones(30), torch.ones(30))]
    figures = {}
    for protocol in (BIGVGAN, VOCOS):
        pool = protocol.pool["periodicity"]
        parts = [pool.parts(*pair, 16000) for pair in pairs]
        assert [pool.figure([part]) for part in parts] == pytest.approx([0.6, 0.0])
        figures[protocol.name] = pool.figure(parts)
    assert figures["bigvgan"] == pytest.approx(math.sqrt(10 * 0.36 / 40))
    assert figures["vocos"] == pytest.approx(0.3)


@pytest.mark.usefixtures("known_pitches")
def test_voicing_is_pooled_over_all_files_by_bigvgan_and_over_batches_of_16_by_vocos() -> None:
    """16 files are right (8 voiced frames each); the 17th loses three quarters of its 4."""
    right, wrong = (torch.ones(8), torch.ones(8)), (torch.ones(4), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    figures = {}
    for protocol in (BIGVGAN, VOCOS):
        pool = protocol.pool["vuv_f1"]
        figures[protocol.name] = pool.figure([pool.parts(*pair, 16000) for pair in [right] * 16 + [wrong]])
    assert figures["bigvgan"] == pytest.approx(2 * 129 / (2 * 129 + 3))
    assert figures["vocos"] == pytest.approx((1 + 2 / 5) / 2)


def test_mcd_is_pooled_over_pairs_of_frames() -> None:
    pool = BIGVGAN.pool["mcd"]
    assert pool.figure([(10.0, 10.0), (0.0, 30.0)]) == pytest.approx(10 / math.log(10) * math.sqrt(2) / 4)
    wave, other = noise(RATE), noise(RATE, seed=2)
    assert pool.figure([pool.parts(wave, other, RATE)]) == pytest.approx(mcd.mcd(wave, other, RATE))


def test_bigvgans_pesq_is_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[torch.Tensor] = []

    def pesq(reference: torch.Tensor, sound: torch.Tensor) -> float:
        heard.extend([reference, sound])
        return 2.0 + len(heard)

    monkeypatch.setattr("melvoc.metrics.pesq.pesq_at_16_khz", pesq)
    pool = BIGVGAN.pool["pesq"]
    wave = noise(24000)
    parts = [pool.parts(wave, 0.5 * wave, 24000) for _ in range(2)]
    assert pool.figure(parts) == 5.0  # the mean of 4 and 6
    assert heard[0].dtype == torch.int16
    assert len(heard[0]) == 16000
    assert 1000 < float(heard[0].float().std()) < 4000


@pytest.mark.slow
def test_vocos_pitch_of_a_tone_of_noise_and_of_what_is_soft() -> None:
    wave = torch.cat([tone(200, RATE), noise(RATE)])
    soft = tone(200, RATE // 2, level=1e-4)
    try:
        parts = VOCOS.pool["vuv_f1"].parts(wave, wave, RATE)
    except MissingPackageError as error:
        pytest.skip(str(error))
    both, added, lost = parts
    assert (added, lost) == (0, 0)
    assert both == pytest.approx(100, abs=12)  # frames of 10 ms
    assert VOCOS.pool["periodicity"].parts(wave, wave, RATE) == (0.0,)
    assert VOCOS.pool["vuv_f1"].parts(soft, soft, RATE) == (0, 0, 0)
