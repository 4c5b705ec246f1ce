"""One process of several: what `torchrun` sets, and the few things that processes agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from melvoc.errors import MelvocError
from melvoc.options import pick_device


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of one training run.

    Attributes:
        rank: of this process, from 0.
        size: total number of processes.
        device: of this process.
        owned: whether this object opened the process group, and so closes it.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    owned: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            with self._together():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def average_gradients(self, module: nn.Module) -> None:
        """Average the module's gradients over the processes, in one exchange.

        torch's DistributedDataParallel would send while the backward pass still runs. It is not used: gloo's threads
        outlive the group with it, and one of them aborts about one process in thirty at exit (torch 2.13).
        """
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with self._together():
            dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes; NaN in one is NaN in all, so that all stop together."""
        if self.size > 1:
            with self._together():
                dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process passes True; all get the same answer."""
        if self.size == 1:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        with self._together():
            dist.all_reduce(said, op=dist.ReduceOp.MAX)
            return bool(said.item())

    def first_says(self, *values: float) -> tuple[float, ...]:
        """The first process's numbers, in every process."""
        if self.size == 1:
            return values
        said = torch.tensor(values, dtype=torch.float32, device=self.device)
        with self._together():
            dist.broadcast(said, 0)
            return tuple(said.tolist())

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def close(self) -> None:
        """Leave the group."""
        if self.owned and dist.is_initialized():
            with suppress(RuntimeError):  # of a process that is gone
                dist.destroy_process_group()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """An exchange with the other processes.

        Raises:
            MelvocError: one of them is gone.
        """
        try:
            yield
        except RuntimeError as error:
            raise MelvocError(
                f"process {self.rank} of {self.size} stops, since another one has ended or does not answer; see what "
                "that one said, and resume from the last checkpoint (--resume)"
            ) from error


def join(device: str) -> World:
    """The world that `torchrun` (RANK, WORLD_SIZE, LOCAL_RANK) or an open process group describes.

    Args:
        device: "auto" or a torch device; with several processes and "auto" or "cuda", each gets its local rank's GPU.

    Raises:
        MelvocError: a device that is not available, or a group that cannot be opened.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = pick_device(device)
    if size == 1 and not (dist.is_available() and dist.is_initialized()):
        return World(device=place)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
    owned = not dist.is_initialized()
    if owned:
        try:
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise MelvocError(f"the processes cannot find each other ({error}); start them with torchrun") from error
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=place, owned=owned)
