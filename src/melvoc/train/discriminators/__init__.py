"""Discriminators: one file for each kind, and any set of them as one module.

Parameters and buffers are named as in the published checkpoints, so state dicts are interchangeable. A divisor makes
the same networks narrower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from melvoc.errors import CheckpointError, OptionError
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

# Every kind: its name in recipes and in files of discriminators.
KINDS: Mapping[str, Callable[..., nn.Module]] = {
    "mpd": MultiPeriodDiscriminator,
    "msd": MultiScaleDiscriminator,
    "mrd": MultiResolutionDiscriminator,
}


def least_samples(names: Iterable[str]) -> int:
    """How many samples some kinds need at least."""
    return max(getattr(KINDS[name], "least", 1) for name in names)


def check_kinds(weights: object) -> None:
    """Check that these are weights of discriminators.

    Raises:
        OptionError: an unknown name, a weight that is not above 0, or no discriminator at all.
    """
    if not isinstance(weights, Mapping) or not weights or not set(weights) <= set(KINDS):
        raise OptionError(f"discriminators={weights!r}, but they are a dict of weights for some of {', '.join(KINDS)}")
    for name, weight in weights.items():
        check_number(f"discriminators.{name}", weight, above=0.0)


PUBLISHED: Mapping[str, float] = MappingProxyType({"mpd": 1.0, "msd": 1.0})


class Discriminators(nn.Module):
    """Several kinds in one module; HiFi-GAN's two have the state that a published `do_*` file holds.

    Args:
        weights: of the kinds, by name, in the losses of both sides.
        divisor: of the published channels; 1 for the published networks (70.7 M parameters), 8 for `slim`.

    Shape:
        `[B, 1, N]` to the judgements of every kind in turn (eight of HiFi-GAN's, the periods' first).
    """

    def __init__(self, weights: Mapping[str, float] = PUBLISHED, *, divisor: int = 1) -> None:
        super().__init__()
        self.weights, self.divisor = dict(weights), divisor
        for name in weights:
            self.add_module(name, KINDS[name](divisor=divisor))

    def forward(self, wave: Tensor) -> list[Judgement]:
        """All judgements."""
        return [
            judgement._replace(weight=self.weights[name])
            for name, kind in self.named_children()
            for judgement in kind(wave)
        ]

    def published_state(self) -> dict[str, dict[str, Tensor]]:
        """`{"mpd": ..., "msd": ...}` as in a published `do_*` file."""
        return {name: dict(kind.state_dict()) for name, kind in self.named_children()}

    def load_published(self, content: Mapping[str, Any], *, source: str = "these discriminators") -> None:
        """Load the weights of a `do_*` file; torch's newer names of normed weights are accepted as well.

        Args:
            content: has an entry for each kind; its other entries (optimizers, steps) are ignored.
            source: its name in error messages.

        Raises:
            CheckpointError: a missing part, or a tensor or a shape that does not fit.
        """
        for name, module in self.named_children():
            part = content.get(name)
            if not isinstance(part, Mapping):
                raise CheckpointError(f"{source}: no {name!r} in it; HiFi-GAN's do_* files hold 'mpd' and 'msd'")
            tensors = {_published_name(key): tensor for key, tensor in part.items()}
            expected = module.state_dict()
            if odd := sorted(expected.keys() ^ tensors.keys()):
                raise CheckpointError(f"{source}: {name} differs from melvoc's in {len(odd)} names, {odd[0]!r} first")
            for key, tensor in tensors.items():
                if tensor.shape != expected[key].shape:
                    raise CheckpointError(
                        f"{source}: {name}.{key} is {list(tensor.shape)}, but with divisor={self.divisor} it is "
                        f"{list(expected[key].shape)}; published discriminators need the preset 'full'"
                    )
            module.load_state_dict(tensors)


def _published_name(key: str) -> str:
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key
