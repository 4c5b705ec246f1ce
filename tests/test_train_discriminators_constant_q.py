"""The constant-Q discriminator against the published numbers, and its transform against nnAudio's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from melvoc import CheckpointError
from melvoc.architectures.bigvgan import PINS
from melvoc.train import Discriminators
from melvoc.train.discriminators import divisors, least_samples
from melvoc.train.discriminators.constant_q import SCALES, ConstantQTransform, octaves_below


@pytest.fixture(scope="module", params=[44100, 24000])
def golden(data_dir: Path, request: pytest.FixtureRequest) -> tuple[Discriminators, dict[str, Tensor]]:
    """The discriminator with the golden file's weights, and the file's content."""
    content = load_file(data_dir / "golden" / f"cqt_discriminator_{request.param}.safetensors")
    judges = Discriminators({"cqt": 1.0}, divisor=16, sample_rate=request.param)
    weights = {name: value for name, value in content.items() if name.startswith("discriminators.")}
    judges.load_published({"mrd": weights})
    return judges, content


def test_transform_scores_and_features_are_the_published_ones(golden: tuple[Discriminators, dict[str, Tensor]]) -> None:
    judges, content = golden
    wave = content["x"]
    for number, (judgement, part) in enumerate(zip(judges(wave), judges.cqt.discriminators, strict=True)):
        expected = content[f"cqt.{number}"]
        spectrum = part.spectrum(wave).permute(0, 3, 2, 1)
        torch.testing.assert_close(spectrum, expected, atol=2e-6 * expected.abs().max().item(), rtol=0)
        torch.testing.assert_close(judgement.score, content[f"score.{number}"].flatten(1), atol=2e-6, rtol=0)
        assert len(judgement.features) == 5
        for layer, feature in enumerate(judgement.features):
            expected = content[f"feature.{number}.{layer}.mean_abs"]
            torch.testing.assert_close(feature.abs().mean((2, 3)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bins", "hop"), SCALES)
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_values_and_gradients_of_the_transform_are_nnaudios(rate: int, bins: int, hop: int) -> None:
    cqt = pytest.importorskip("nnAudio.features.cqt", reason="needs nnaudio: pip install nnaudio")
    octaves = octaves_below(rate)
    theirs = cqt.CQT2010v2(
        sr=2 * rate, hop_length=hop, n_bins=bins * octaves, bins_per_octave=bins, output_format="Complex",
        pad_mode="constant", verbose=False,
    )  # fmt: skip
    mine = ConstantQTransform(sample_rate=2 * rate, bins=bins, hop=hop, octaves=octaves)
    published = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in mine.state_dict().items()} == published
    for samples in (512, 5000):
        wave = (0.3 * torch.randn(2, 1, samples)).requires_grad_()
        expected, found = theirs(wave), mine(wave).permute(0, 2, 3, 1)
        torch.testing.assert_close(found, expected, atol=2e-6 * expected.abs().max().item(), rtol=0)
        towards = torch.randn_like(expected)
        (expected,), (found,) = (torch.autograd.grad(out, wave, towards) for out in (expected, found))
        torch.testing.assert_close(found, expected, atol=2e-6 * expected.abs().max().item(), rtol=0)


def test_a_tone_stands_in_its_bin_alone() -> None:
    transform = ConstantQTransform(sample_rate=88200, bins=24, hop=512, octaves=9)
    times = torch.arange(88200) / 88200
    for octave in (3, 8):
        tone = torch.sin(2 * torch.pi * 32.70 * 2 ** (octave + 0.5) * times)
        magnitude = transform(tone[None, None])[0].square().sum(0).sqrt()[:, 80]
        assert magnitude.argmax() == 24 * octave + 12
        assert (magnitude > 0.1 * magnitude.max()).sum() <= 3


@pytest.mark.parametrize(("rate", "octaves"), [(8000, 7), (16000, 8), (22050, 9), (44100, 9), (192000, 9)])
def test_it_judges_at_any_rate_from_its_least_samples_on(rate: int, octaves: int) -> None:
    judges = Discriminators({"cqt": 0.5}, divisor=divisors("slim"), sample_rate=rate)
    assert len(judges.cqt.discriminators[0].conv_pres) == octaves
    for samples in (least_samples(["cqt"]), 1003):
        judgements = judges(torch.randn(2, 1, samples))
        assert [judgement.weight for judgement in judgements] == [0.5] * 3
        assert all(judgement.score.shape[0] == 2 and judgement.score.isfinite().all() for judgement in judgements)


def test_autocast_leaves_the_transform_alone() -> None:
    part = Discriminators({"cqt": 1.0}, divisor=16).cqt.discriminators[0]
    wave = torch.randn(1, 1, 2048)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = part.spectrum(wave)
    assert torch.equal(found, part.spectrum(wave))


def test_its_size_is_that_of_the_published_file() -> None:
    with torch.device("meta"):
        judges = Discriminators({"mpd": 1.0, "cqt": 1.0})
    counts = {name: sum(p.numel() for p in kind.parameters()) for name, kind in judges.named_children()}
    assert counts == {"mpd": 41_105_770, "cqt": 4_454_304}
    generator = next(pin for pin in PINS if pin.name == "bigvgan_v2_44khz_128band_512x").bytes
    filters = sum(buffer.numel() for buffer in judges.buffers())
    # AdamW keeps two moments of every weight; bigvgan_discriminator_optimizer.pt has 1525718216 bytes
    assert 2 * generator + 4 * (3 * sum(counts.values()) + filters) == pytest.approx(1525718216, rel=2e-4)


def _conv_pre(state: dict[str, Any]) -> None:
    state["mrd"]["discriminators.0.convs.0.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mrd"), r"no 'mrd' in it; .* 'mrd' \(of the kind 'cqt'\)"),
        (lambda state: state["mrd"].pop("discriminators.0.conv_pres.8.bias"), "cqt differs from melvoc's in 1 names"),
        (_conv_pre, r"cqt\.discriminators\.0\.convs\.0\.bias is \[3\], but with divisor=16 it is \[8\]"),
    ],
)
def test_a_published_file_calls_it_mrd_and_what_is_no_such_file_is_refused(change: Any, message: str) -> None:
    judges = Discriminators({"mpd": 1.0, "cqt": 1.0}, divisor=16)
    state = judges.published_state()
    assert set(state) == {"mpd", "mrd"}
    other = Discriminators({"mpd": 1.0, "cqt": 1.0}, divisor=16, sample_rate=22050)
    filters = other.cqt.discriminators[0].cqt_transform.lenghts.clone()
    other.load_published(state)
    for mine, theirs in zip(other.parameters(), judges.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(other.cqt.discriminators[0].cqt_transform.lenghts, filters), "computed for its own rate"
    change(state)
    with pytest.raises(CheckpointError, match=message):
        other.load_published(state)


def test_beside_the_other_mrd_it_keeps_its_own_name() -> None:
    judges = Discriminators({"mrd": 1.0, "cqt": 1.0}, divisor=16)
    assert set(judges.published_state()) == {"mrd", "cqt"}
    Discriminators({"mrd": 1.0, "cqt": 1.0}, divisor=16).load_published(judges.published_state())
