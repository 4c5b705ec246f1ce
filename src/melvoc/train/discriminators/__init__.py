"""Discriminators: one file for each kind, and any set of them as one module.

Parameters and buffers are named as in the published checkpoints, so state dicts are interchangeable. A divisor makes
the same networks narrower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from melvoc.errors import CheckpointError, OptionError
from melvoc.train.discriminators.constant_q import LEAST, MultiScaleSubbandCQTDiscriminator
from melvoc.train.discriminators.normed import Judgement
from melvoc.train.discriminators.periods import MultiPeriodDiscriminator
from melvoc.train.discriminators.resolutions import MultiResolutionDiscriminator
from melvoc.train.discriminators.scales import MultiScaleDiscriminator
from melvoc.train.ranges import check_number

# torch's newer names of the same tensors
_RENAMED = (
    (re.compile(r"parametrizations\.weight\.original0$"), "weight_g"),
    (re.compile(r"parametrizations\.weight\.original1$"), "weight_v"),
    (re.compile(r"parametrizations\.weight\.original$"), "weight_orig"),
    (re.compile(r"parametrizations\.weight\.0\._u$"), "weight_u"),
    (re.compile(r"parametrizations\.weight\.0\._v$"), "weight_v"),
)

# What a published file holds beside the weights: filters, which melvoc computes for the run's own rate.
_COMPUTED = re.compile(r"\.(cqt_transform|resample)\.")

SIZES: Mapping[str, int] = {"full": 1, "slim": 8}  # what the channels are divided by


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of discriminator.

    Attributes:
        make: it, of a divisor of the published channels and the sample rate of the waves.
        least: samples that it needs.
        published: its name in published files, where that is not its own.
    """

    make: Callable[[int, int], nn.Module]
    least: int = 1
    published: str | None = None


# Every kind: its name in recipes and in a run's files.
KINDS: Mapping[str, Kind] = {
    "mpd": Kind(make=lambda divisor, _: MultiPeriodDiscriminator(divisor=divisor)),
    "msd": Kind(make=lambda divisor, _: MultiScaleDiscriminator(divisor=divisor)),
    "mrd": Kind(
        make=lambda divisor, _: MultiResolutionDiscriminator(divisor=divisor), least=MultiResolutionDiscriminator.least
    ),
    "cqt": Kind(
        make=lambda divisor, rate: MultiScaleSubbandCQTDiscriminator(sample_rate=rate, divisor=divisor),
        least=LEAST,
        published="mrd",  # BigVGAN's, "for backward compatibility"
    ),
}


def least_samples(names: Iterable[str]) -> int:
    """How many samples some kinds need at least."""
    return max(KINDS[name].least for name in names)


def check_kinds(weights: object) -> None:
    """Check that these are weights of discriminators.

    Raises:
        OptionError: an unknown name, a weight that is not above 0, or no discriminator at all.
    """
    if not isinstance(weights, Mapping) or not weights or not set(weights) <= set(KINDS):
        raise OptionError(f"discriminators={weights!r}, but they are a dict of weights for some of {', '.join(KINDS)}")
    for name, weight in weights.items():
        check_number(f"discriminators.{name}", weight, above=0.0)


def check_preset(preset: object) -> None:
    """Check that this is the size of all discriminators, or of some by name.

    Raises:
        OptionError: another size, or an unknown name.
    """
    sizes = preset if isinstance(preset, Mapping) else {"mpd": preset}
    if not set(sizes) <= set(KINDS) or not all(isinstance(size, str) and size in SIZES for size in sizes.values()):
        raise OptionError(
            f"preset={preset!r}, but it is one of {', '.join(map(repr, SIZES))}, or a dict of them for some of "
            f"{', '.join(KINDS)}"
        )


def divisors(preset: str | Mapping[str, str]) -> dict[str, int]:
    """What the channels of every kind are divided by; one that a preset by name leaves out is whole."""
    return {name: SIZES[preset if isinstance(preset, str) else preset.get(name, "full")] for name in KINDS}


PUBLISHED: Mapping[str, float] = MappingProxyType({"mpd": 1.0, "msd": 1.0})


class Discriminators(nn.Module):
    """Several kinds in one module; HiFi-GAN's two, or BigVGAN-v2's, have the state that a published `do_*` file holds.

    Args:
        weights: of the kinds, by name, in the losses of both sides.
        divisor: of the published channels; 1 for the published networks (70.7 M parameters), 8 for `slim`; or one for
            each kind, by name.
        sample_rate: of the waves; only "cqt" needs to know it.

    Shape:
        `[B, 1, N]` to the judgements of every kind in turn (eight of HiFi-GAN's, the periods' first).
    """

    def __init__(
        self,
        weights: Mapping[str, float] = PUBLISHED,
        *,
        divisor: int | Mapping[str, int] = 1,
        sample_rate: int = 44100,
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.divisors = {name: divisor if isinstance(divisor, int) else divisor[name] for name in weights}
        for name in weights:
            self.add_module(name, KINDS[name].make(self.divisors[name], sample_rate))

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [
            judgement._replace(weight=self.weights[name])
            for name, kind in self.named_children()
            for judgement in kind(wave)
        ]

    def published_state(self) -> dict[str, dict[str, Tensor]]:
        """`{"mpd": ..., "msd": ...}` as in a published `do_*` file, where BigVGAN-v2 calls "cqt" "mrd"."""
        return {self._key(name): dict(kind.state_dict()) for name, kind in self.named_children()}

    def _key(self, name: str) -> str:
        """A kind's name in files."""
        published = KINDS[name].published
        return name if published is None or published in self.weights else published

    def load_published(self, content: Mapping[str, Any], *, source: str = "these discriminators") -> None:
        """Load the weights of a `do_*` file; torch's newer names of normed weights are accepted as well.

        Args:
            content: has an entry for each kind; its other entries (optimizers, steps) are ignored.
            source: its name in error messages.

        Raises:
            CheckpointError: a missing part, or a tensor or a shape that does not fit.
        """
        for name, module in self.named_children():
            part = content.get(name, content.get(self._key(name)))
            if not isinstance(part, Mapping):
                raise CheckpointError(
                    f"{source}: no {self._key(name)!r} in it; do_* files hold 'mpd' and 'msd', or 'mpd' and 'mrd' "
                    "(of the kind 'cqt')"
                )
            tensors = {_published_name(key): value for key, value in part.items() if not _COMPUTED.search(key)}
            expected = {key: value for key, value in module.state_dict().items() if not _COMPUTED.search(key)}
            if odd := sorted(expected.keys() ^ tensors.keys()):
                raise CheckpointError(f"{source}: {name} differs from melvoc's in {len(odd)} names, {odd[0]!r} first")
            for key, tensor in tensors.items():
                if tensor.shape != expected[key].shape:
                    raise CheckpointError(
                        f"{source}: {name}.{key} is {list(tensor.shape)}, but with divisor={self.divisors[name]} it is "
                        f"{list(expected[key].shape)}; published discriminators need the preset 'full'"
                    )
            module.load_state_dict(tensors, strict=False)  # the names have been compared


def _published_name(key: str) -> str:
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key
