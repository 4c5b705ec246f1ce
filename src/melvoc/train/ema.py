"""The generator with weight norm during training, and its running mean, which is exported."""

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
    """A generator with weight norm on every convolution, as published for HiFi-GAN.

    Args:
        record: its architecture.
        config: its hyperparameters.

    Shape:
        mel `[B, n_mels, T]` to wave `[B, 1, T * hop_length]`.
    """

    def __init__(self, record: Architecture, config: NetworkConfig) -> None:
        super().__init__()
        self.network = record.network(config)
        for module in convolutions(self.network):
            weight_norm(module)

    def forward(self, mel: Tensor) -> Tensor:
        """Run on a complete mel; each weight is normed once."""
        with parametrize.cached():
            return self.network(mel)  # type: ignore[no-any-return]

    def folded(self) -> dict[str, Tensor]:
        """The weights without weight norm, named as in a melvoc file, detached."""
        with torch.no_grad():
            return {
                f"{name}.{part}": getattr(module, part).detach()
                for name, module in self.network.named_modules()
                if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
                for part in ("weight", "bias")
            }

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
        modules = dict(self.network.named_modules())
        for key, tensor in tensors.items():
            if tensor.shape != mine[key].shape:
                raise CheckpointError(
                    f"{source}: {key!r} is {list(tensor.shape)}, but this generator has {list(mine[key].shape)}; "
                    "omit the generator's configuration to use the file's"
                )
            name, _, part = key.rpartition(".")
            target = getattr(modules[name], part)
            if part == "weight":
                modules[name].weight = tensor.to(target)  # the parametrization splits it into length and direction
            else:
                target.copy_(tensor)


class Average:
    """The running mean of a generator's folded weights, `mean = d mean + (1 - d) now`.

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
        now = generator.folded()
        torch._foreach_lerp_(list(self.tensors.values()), [now[name] for name in self.tensors], weight)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the mean by other weights."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def network(self, record: Architecture, config: NetworkConfig) -> nn.Module:
        """A generator with the mean's weights (copies), for validation and export."""
        network = record.empty(config)
        network.load_state_dict(copy.deepcopy(self.tensors), strict=True, assign=True)
        return network.eval().requires_grad_(False)


def convolutions(network: nn.Module) -> list[nn.Module]:
    """Every convolution of a network."""
    return [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
