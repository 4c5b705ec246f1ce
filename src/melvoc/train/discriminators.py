"""HiFi-GAN's discriminators: multi-period and multi-scale (Kong, Kim and Bae 2020, section 2.3).

Parameters and buffers are named as in the published checkpoints (`weight_g`, `weight_v`; `weight_orig`, `weight_u`,
`weight_v` in the first scale), so state dicts are interchangeable. A divisor makes the same networks narrower.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melvoc.errors import CheckpointError

PERIODS = (2, 3, 5, 7, 11)
SCALES = 3
LEAKY_SLOPE = 0.1

# channels, taps, stride, groups of each layer
_PERIOD_LAYERS = ((32, 5, 3, 1), (128, 5, 3, 1), (512, 5, 3, 1), (1024, 5, 3, 1), (1024, 5, 1, 1))
_SCALE_LAYERS = (
    (128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16), (1024, 41, 4, 16), (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)  # fmt: skip

# torch's newer names of the same tensors
_RENAMED = (
    (re.compile(r"parametrizations\.weight\.original0$"), "weight_g"),
    (re.compile(r"parametrizations\.weight\.original1$"), "weight_v"),
    (re.compile(r"parametrizations\.weight\.original$"), "weight_orig"),
    (re.compile(r"parametrizations\.weight\.0\._u$"), "weight_u"),
    (re.compile(r"parametrizations\.weight\.0\._v$"), "weight_v"),
)

Judgement = tuple[Tensor, list[Tensor]]  # score [B, n], and every layer's output


class NormedConv(nn.Module):
    """A convolution along time whose weight is normed: `g v / |v|` (weight norm) or `w / sigma(w)` (spectral norm).

    torch's own norms would work, but the newer ones name their tensors differently from the published checkpoints, and
    the older ones are deprecated.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps, odd; stride 1 keeps the length.
        stride: from output to output.
        groups: as in `torch.nn.Conv1d`.
        columns: whether the input is made of columns (`[B, C, N, P]`), each convolved separately.
        norm: "weight" or "spectral".

    Shape:
        `[B, in_channels, N]` (or `[..., N, P]`) to `[B, out_channels, ceil(N / stride)]` (or `[..., P]`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        columns: bool = False,
        norm: Literal["weight", "spectral"] = "weight",
    ) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if columns else nn.Conv1d
        window = (kernel_size, 1) if columns else kernel_size
        plain = convolution(in_channels, out_channels, window, groups=groups)  # torch's initial weights, as published
        self.stride, self.groups, self.reach, self.columns, self.norm = stride, groups, kernel_size // 2, columns, norm
        self.weight_u: Tensor
        self.weight_v: Tensor  # the direction under weight norm, a singular vector under spectral norm
        weight: Tensor = plain.weight.detach()
        self.bias = nn.Parameter(plain.bias.detach())
        if norm == "weight":
            self.weight_g = nn.Parameter(weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1)))
            self.weight_v = nn.Parameter(weight)
        else:
            self.weight_orig = nn.Parameter(weight)
            self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0))
            self.register_buffer("weight_v", F.normalize(torch.randn(weight[0].numel()), dim=0))
            for _ in range(15):
                self._power_iteration()

    @torch.no_grad()
    def _power_iteration(self) -> None:
        """One step towards the largest singular value; new tensors, because autograd may still hold the old ones."""
        rows = self.weight_orig.flatten(1)
        self.weight_v = F.normalize(rows.T @ self.weight_u, dim=0)
        self.weight_u = F.normalize(rows @ self.weight_v, dim=0)

    def weight(self) -> Tensor:
        """The normed weight; under spectral norm, each use that trains it runs one power iteration, as published."""
        if self.norm == "weight":
            return torch._weight_norm(self.weight_v, self.weight_g, 0)
        if self.training and self.weight_orig.requires_grad:
            self._power_iteration()
        return self.weight_orig / torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if self.columns:
            return F.conv2d(x, self.weight(), self.bias, (self.stride, 1), (self.reach, 0), groups=self.groups)
        return F.conv1d(x, self.weight(), self.bias, self.stride, self.reach, groups=self.groups)


class PeriodDiscriminator(nn.Module):
    """Judges a wave folded into columns of every p-th sample.

    Args:
        period: p.
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to a score `[B, n]` and the six layers' outputs `[B, C, m, p]`.
    """

    def __init__(self, period: int, *, divisor: int = 1) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList()
        channels = 1
        for published, taps, stride, _ in _PERIOD_LAYERS:
            width = max(1, published // divisor)
            self.convs.append(NormedConv(channels, width, taps, stride=stride, columns=True))
            channels = width
        self.conv_post = NormedConv(channels, 1, 3, columns=True)

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        missing = -wave.shape[-1] % self.period
        x = F.pad(wave, (0, missing), mode="reflect") if missing else wave
        return _judge(x.unflatten(-1, (-1, self.period)), self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Judges a wave as it is, in grouped convolutions with long kernels.

    Args:
        norm: "weight" or "spectral".
        divisor: of the published channels and groups.

    Shape:
        `[B, 1, N]` to a score `[B, n]` and the eight layers' outputs `[B, C, m]`.
    """

    def __init__(self, *, norm: Literal["weight", "spectral"] = "weight", divisor: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        channels = 1
        for published, taps, stride, groups in _SCALE_LAYERS:
            width = published // divisor
            few = max(1, groups // divisor)
            self.convs.append(NormedConv(channels, width, taps, stride=stride, groups=few, norm=norm))
            channels = width
        self.conv_post = NormedConv(channels, 1, 3, norm=norm)

    def forward(self, wave: Tensor) -> Judgement:
        """Score and features."""
        return _judge(wave, self.convs, self.conv_post)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` for each of the periods 2, 3, 5, 7 and 11.

    Args:
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to five judgements.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, divisor=divisor) for period in PERIODS)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [judge(wave) for judge in self.discriminators]


class MultiScaleDiscriminator(nn.Module):
    """One `ScaleDiscriminator` for the wave, its half and its quarter (by average pooling); the first spectral-normed.

    Args:
        divisor: of the published channels.

    Shape:
        `[B, 1, N]` to three judgements.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(norm="weight" if scale else "spectral", divisor=divisor) for scale in range(SCALES)
        )

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        judgements = []
        for scale, judge in enumerate(self.discriminators):
            wave = F.avg_pool1d(wave, 4, 2, padding=2) if scale else wave
            judgements.append(judge(wave))
        return judgements


class Discriminators(nn.Module):
    """Both kinds in one module, whose state is what a published `do_*` file holds under `mpd` and `msd`.

    Args:
        divisor: of the published channels; 1 for the published networks (70.7 M parameters), 8 for `slim`.

    Shape:
        `[B, 1, N]` to eight judgements, the periods' first.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        self.divisor = divisor
        self.mpd = MultiPeriodDiscriminator(divisor=divisor)
        self.msd = MultiScaleDiscriminator(divisor=divisor)

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        judgements: list[Judgement] = self.mpd(wave) + self.msd(wave)
        return judgements

    def published_state(self) -> dict[str, dict[str, Tensor]]:
        """`{"mpd": ..., "msd": ...}` as in a published `do_*` file."""
        return {"mpd": dict(self.mpd.state_dict()), "msd": dict(self.msd.state_dict())}

    def load_published(self, content: Mapping[str, Any], *, source: str = "these discriminators") -> None:
        """Load the weights of a `do_*` file; torch's newer names of normed weights are accepted as well.

        Args:
            content: has `mpd` and `msd`; its other entries (optimizers, steps) are ignored.
            source: its name in error messages.

        Raises:
            CheckpointError: a missing part, or a tensor or a shape that does not fit.
        """
        for name, module in (("mpd", self.mpd), ("msd", self.msd)):
            part = content.get(name)
            if not isinstance(part, Mapping):
                raise CheckpointError(f"{source}: no {name!r} in it; HiFi-GAN's do_* files hold 'mpd' and 'msd'")
            tensors = {_published_name(key): tensor for key, tensor in part.items()}
            expected = module.state_dict()
            if odd := sorted(expected.keys() ^ tensors.keys()):
                raise CheckpointError(f"{source}: {name} differs from HiFi-GAN's in {len(odd)} names, {odd[0]!r} first")
            for key, tensor in tensors.items():
                if tensor.shape != expected[key].shape:
                    raise CheckpointError(
                        f"{source}: {name}.{key} is {list(tensor.shape)}, but with divisor={self.divisor} it is "
                        f"{list(expected[key].shape)}; published discriminators need the preset 'full'"
                    )
            module.load_state_dict(tensors)


def _judge(x: Tensor, convs: nn.ModuleList, last: nn.Module) -> Judgement:
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), LEAKY_SLOPE)
        features.append(x)
    x = last(x)
    features.append(x)
    return x.flatten(1), features


def _published_name(key: str) -> str:
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key
