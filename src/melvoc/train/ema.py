"""The generator as it is trained, and its running mean, which is exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import CheckpointError


class TrainableGenerator(nn.Module):
    """A generator with weight norm where its architecture's recipe says so.

    Args:
        record: its architecture.
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`.
    """

    def __init__(self, record: Architecture, config: NetworkConfig) -> None:
        super().__init__()
        self.network = record.network(config)
        self._names = tuple(self.network.state_dict())  # before weight norm takes weights apart
        if record.recipe and record.recipe.weight_norm:
            for module in record.recipe.weight_norm(self.network):
                weight_norm(module)

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel, without torch's cache of normed weights: that is the whole process's, and another
        trainer in another thread would be given these. A layer asks for its weight once, unless it has no bias."""
        return self.network(mel)  # type: ignore[no-any-return]

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Every weight and buffer without weight norm, named as in a melvoc file, detached."""
        return {name: self._tensor(name).detach() for name in self._names}

    @torch.no_grad()
    def load_folded(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Start from other weights.

        Raises:
            CheckpointError: the names or shapes are those of another generator.
        """
        mine = self.folded()
        if odd := sorted(mine.keys() ^ tensors.keys()):
            raise CheckpointError(
                f"{source}: not this generator's weights ({len(odd)} names differ, {odd[0]!r} first); "
                "its configuration is different"
            )
        for key, tensor in tensors.items():
            if tensor.shape != mine[key].shape:
                raise CheckpointError(
                    f"{source}: {key!r} is {list(tensor.shape)}, but this generator has {list(mine[key].shape)}; "
                    "omit the generator's configuration to use the file's"
                )
            owner, _, part = key.rpartition(".")
            module = self.network.get_submodule(owner)
            if parametrize.is_parametrized(module, part):
                setattr(module, part, tensor.to(mine[key]))  # the parametrization splits it into length and direction
            else:
                self._tensor(key).copy_(tensor)

    @torch.no_grad()
    def load_halves(self, tensors: Mapping[str, Tensor]) -> None:
        """Split the weights as another file does, which has the same ones: `v` in `g v / |v|` may be of any length, and
        an optimizer's moments are those of one."""
        for name, tensor in self.network.state_dict().items():
            layer, _, half = name.partition(".parametrizations.weight.original")
            for key in (
                (name, f"{layer}.weight_{'gv'[int(half)]}") if half else ()
            ):  # torch's new names, and its old ones
                if key in tensors:
                    tensor.copy_(tensors[key])

    def _tensor(self, name: str) -> Tensor:
        owner, _, part = name.rpartition(".")
        tensor: Tensor = getattr(self.network.get_submodule(owner), part)
        return tensor


class Average:
    """The running mean of a generator's folded weights, `mean = d mean + (1 - d) now`. Counts are taken as they are.

    d rises with the steps, `min(decay, (1 + step) / (10 + step))`, so that the first weights are soon forgotten.

    Args:
        generator: whose weights are averaged.
        decay: from 0 (no mean: always the current weights) to less than 1.
    """

    def __init__(self, generator: TrainableGenerator, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.clone() for name, tensor in generator.folded().items()}

    @torch.no_grad()
    def update(self, generator: TrainableGenerator, step: int) -> None:
        """Include the current weights."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.tensors[name], now) for name, now in generator.folded().items()]
        means = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in means], [now for _, now in means], weight)
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the mean by other weights."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def network(self, record: Architecture, config: NetworkConfig) -> nn.Module:
        """A generator with the mean's weights (copies), for validation and export."""
        network = record.empty(config)
        network.load_state_dict(copy.deepcopy(self.tensors), strict=True, assign=True)
        device = next(iter(self.tensors.values())).device  # constants that are no weights were made on the CPU
        return network.to(device).eval().requires_grad_(False)
