"""The discriminators against the published layout: names, shapes and numbers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from melvoc import CheckpointError
from melvoc.train import Discriminators
from melvoc.train.discriminators import least_samples

PERIOD = [(1, 32, 3), (32, 128, 3), (128, 512, 3), (512, 1024, 3), (1024, 1024, 1)]
SCALE = [
    (1, 128, 15, 1, 1), (128, 128, 41, 2, 4), (128, 256, 41, 2, 16), (256, 512, 41, 4, 16), (512, 1024, 41, 4, 16),
    (1024, 1024, 41, 1, 16), (1024, 1024, 5, 1, 1),
]  # fmt: skip


class Published(nn.Module):
    """One discriminator as the paper's tables and the published code describe it, with torch's old norms."""

    def __init__(self, layers: list[nn.Module], last: nn.Module, norm: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(norm(layer) for layer in layers)
        self.conv_post = norm(last)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return [*features, self.conv_post(x)]


def published_period(divisor: int) -> Published:
    shrunk = [(a if a == 1 else a // divisor, b // divisor, s) for a, b, s in PERIOD]
    layers = [nn.Conv2d(a, b, (5, 1), (s, 1), (2, 0)) for a, b, s in shrunk]
    return Published(layers, nn.Conv2d(1024 // divisor, 1, (3, 1), 1, (1, 0)), weight_norm)


def published_scale(divisor: int, norm: Any) -> Published:
    layers = [
        nn.Conv1d(a if a == 1 else a // divisor, b // divisor, k, s, k // 2, groups=max(1, g // divisor))
        for a, b, k, s, g in SCALE
    ]
    return Published(layers, nn.Conv1d(1024 // divisor, 1, 3, 1, 1), norm)


def published(divisor: int) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """The multi-period and the multi-scale discriminator's parts, under the published names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        periods = nn.ModuleList(published_period(divisor) for _ in range(5))
        scales = nn.ModuleList(published_scale(divisor, weight_norm if i else spectral_norm) for i in range(3))
    return nn.ModuleDict({"discriminators": periods}), nn.ModuleDict({"discriminators": scales})


def test_full_size_states_have_the_published_names_shapes_and_count() -> None:
    with torch.device("meta"):
        mpd, msd = published(1)
        mine = Discriminators()
    for theirs, part in ((mpd, mine.mpd), (msd, mine.msd)):
        assert {k: v.shape for k, v in theirs.state_dict().items()} == {
            k: v.shape for k, v in part.state_dict().items()
        }
    assert sum(p.numel() for p in mine.parameters()) == 70_724_591


def test_published_weights_give_the_published_scores_and_features() -> None:
    torch.manual_seed(0)
    mpd, msd = published(16)
    mpd.eval(), msd.eval()
    mine = Discriminators(divisor=16).eval()
    mine.load_published({"mpd": mpd.state_dict(), "msd": msd.state_dict(), "optim_d": {}, "steps": 3})
    wave = torch.randn(2, 1, 2310 + 7) * 0.3
    judgements = mine(wave)
    for period, net, (score, features, _) in zip((2, 3, 5, 7, 11), mpd["discriminators"], judgements[:5], strict=True):
        x = F.pad(wave, (0, -wave.shape[-1] % period), mode="reflect")
        for expected, feature in zip(net(x.view(2, 1, -1, period)), features, strict=True):
            torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(score, features[-1].flatten(1))
    x = wave
    for number, (net, (_, features, _)) in enumerate(zip(msd["discriminators"], judgements[5:], strict=True)):
        x = F.avg_pool1d(x, 4, 2, padding=2) if number else x
        for expected, feature in zip(net(x), features, strict=True):
            torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-4)


class PublishedResolution(nn.Module):
    """One resolution as Vocos' and DAC's code describe it, with torch's old norm."""

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.window, bins = window, window // 2 + 1
        shares = [(0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
        self.bands = [(int(low * bins), int(high * bins)) for low, high in shares]
        self.band_convs = nn.ModuleList(
            nn.ModuleList(
                weight_norm(layer)
                for layer in (
                    nn.Conv2d(2, channels, (3, 9), 1, (1, 4)),
                    *(nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)),
                    nn.Conv2d(channels, channels, 3, 1, 1),
                )
            )
            for _ in self.bands
        )
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, 3, 1, 1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        x = wave[:, 0] - wave[:, 0].mean(-1, keepdim=True)
        x = 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)
        window = torch.hann_window(self.window)
        x = torch.view_as_real(torch.stft(x, self.window, self.window // 4, window=window, return_complex=True))
        features, ends = [], []
        for (low, high), convs in zip(self.bands, self.band_convs, strict=True):
            band = x.permute(0, 3, 2, 1)[..., low:high]
            for number, conv in enumerate(convs):
                band = F.leaky_relu(conv(band), 0.1)
                features += [band] if number else []
            ends.append(band)
        return [*features, self.conv_post(torch.cat(ends, -1))]


def test_the_multi_resolution_discriminator_is_the_published_one() -> None:
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = nn.ModuleDict(
            {"discriminators": nn.ModuleList(PublishedResolution(window, 4) for window in (2048, 1024, 512))}
        )
    mine = Discriminators({"mrd": 0.1}, divisor=8)
    mine.load_published({"mrd": theirs.state_dict()})
    wave = 0.3 * torch.randn(2, 1, 3000) + 0.2
    judgements = mine(wave)
    for net, judgement in zip(theirs["discriminators"], judgements, strict=True):
        assert judgement.weight == 0.1
        for expected, feature in zip(net(wave), judgement.features, strict=True):
            torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(judgement.score, judgement.features[-1].flatten(1))
    louder = mine(3 * wave - 0.1)[0].score
    torch.testing.assert_close(louder, judgements[0].score, atol=1e-4, rtol=1e-3)
    assert len(Discriminators({"mrd": 1.0})(wave[..., : least_samples(["mrd"])])) == 3
    with torch.device("meta"):
        assert sum(p.numel() for p in Discriminators({"mrd": 1.0}).parameters()) == 1_413_990


def test_states_go_there_and_back_under_torchs_new_names_too() -> None:
    torch.manual_seed(1)
    first, second = Discriminators(divisor=32), Discriminators(divisor=32)
    renamed = {
        part: {
            key.replace("weight_orig", "parametrizations.weight.original")
            .replace("weight_g", "parametrizations.weight.original0")
            .replace("weight_u", "parametrizations.weight.0._u")
            .replace(
                "weight_v",
                "parametrizations.weight.0._v"
                if part == "msd" and key.startswith("discriminators.0.")
                else "parametrizations.weight.original1",
            ): value
            for key, value in state.items()
        }
        for part, state in first.published_state().items()
    }
    second.load_published(renamed)
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_the_spectral_norm_is_the_largest_singular_value_and_is_followed_only_while_training() -> None:
    torch.manual_seed(2)
    conv = Discriminators(divisor=32).msd.discriminators[0].convs[6]
    for _ in range(100):
        conv.weight()
    assert torch.linalg.matrix_norm(conv.weight().flatten(1), 2).item() == pytest.approx(1.0, abs=1e-2)
    conv.requires_grad_(False)
    before = conv.weight_u.clone()
    conv.weight()
    assert torch.equal(conv.weight_u, before)  # frozen in the generator's turn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("msd"), "no 'msd' in it"),
        (lambda state: state["mpd"].pop("discriminators.0.convs.0.bias"), "mpd differs from melvoc's in 1 names"),
        (
            lambda state: state["mpd"].update({"discriminators.0.convs.0.bias": torch.zeros(3)}),
            r"is \[3\].* preset 'full'",
        ),
    ],
)
def test_other_weights_are_refused(change: Any, message: str) -> None:
    mine = Discriminators(divisor=32)
    state = {part: dict(tensors) for part, tensors in mine.published_state().items()}
    change(state)
    with pytest.raises(CheckpointError, match=message):
        mine.load_published(state)
