"""A neural network as a vocoder: device, engine and blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor

from melvoc.architectures.bigvgan import BigVGAN
from melvoc.architectures.hifigan import HiFiGAN
from melvoc.architectures.vocos import Vocos
from melvoc.errors import SpecError
from melvoc.models import check_options
from melvoc.nn.engines.mps import SAMPLES, make_mps_engine
from melvoc.nn.forks import torch_alone_after_fork
from melvoc.nn.graph import Engine, Node
from melvoc.nn.precision import HALF, float32_parameters
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.costs import tuned_costs
from melvoc.vocoder import Vocoder

# Values of the largest signal of a block on a CPU. Below, what a block costs besides its arithmetic counts; above, time
# changes little and memory grows (docs/performance.md).
BLOCK_VALUES = 1_600_000
MOST_FRAMES = 1024

Network = BigVGAN | HiFiGAN | Vocos
ARCHITECTURE_NAMES: dict[type, str] = {BigVGAN: "bigvgan", HiFiGAN: "hifigan", Vocos: "vocos"}

torch_alone_after_fork()  # a vocoder that is used on both sides of a fork would else hang in the child


class NeuralVocoder(Vocoder):
    """BigVGAN, HiFi-GAN or Vocos with its mel.

    Args:
        network: the generator; its hop length and bands are the spec's.
        name: what it is called in messages.
        spec: the mel that it was trained on.
        engine: "auto" (the fastest exact one for the device) or "torch" (plain torch).
        memory: "auto", or "low" to keep the weights and what is made from them under 1.3 times their size, slower.
        licence: of the weights, where known.
        provenance: where the weights come from, any names and values.
    """

    def __init__(
        self,
        network: Network,
        *,
        name: str,
        spec: MelSpec,
        engine: Literal["auto", "torch"] = "auto",
        memory: Literal["auto", "low"] = "auto",
        licence: str | None = None,
        provenance: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name=name, spec=spec)
        config = network.config
        if (config.hop_length, config.n_mels) != (spec.hop_length, spec.n_mels):
            raise SpecError(
                f"{name}: the network makes {config.hop_length} samples of {config.n_mels} bands a frame, but its "
                f"MelSpec says hop_length={spec.hop_length}, n_mels={spec.n_mels}; they belong to different models"
            )
        check_options(engine=engine, memory=memory)
        self.network = network
        self.engine_choice: Literal["auto", "torch"] = engine
        self.memory: Literal["auto", "low"] = memory
        self.licence = licence
        self.provenance = dict(provenance or {})
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._weights = tuple(network.parameters())

    @property
    def architecture(self) -> str:
        """ "bigvgan", "hifigan" or "vocos"."""
        return ARCHITECTURE_NAMES[type(self.network)]

    @property
    def dtype(self) -> torch.dtype:
        """The convolutions' type. In a half type, mel, ends, snakes and wave stay float32 (docs/gpu.md)."""
        kinds = {weight.dtype for weight in self._weights}
        return next(iter(kinds & set(HALF)), super().dtype)

    @property
    def mel_dtype(self) -> torch.dtype:
        """float32 where the convolutions are in a half type."""
        return torch.float32 if self.dtype in HALF else self.dtype

    def forward(self, mel: Tensor) -> Tensor:
        """The network over the whole mel, in plain torch, differentiable."""
        return self.network(mel)  # type: ignore[no-any-return]

    def graph(self) -> Node:
        """The network's expression."""
        return self.network.graph

    def engine(self) -> Engine:
        """The engine for the present device and type; it is made once, for what it prepares belongs to the weights."""
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def _make_engine(self) -> Engine:
        if self.device.type == "mps":
            return make_mps_engine(self.network, self.spec.hop_length)
        if self.engine_choice == "torch":
            return Engine()
        if self.device.type == "cpu" and self.dtype == torch.float32:
            from melvoc.nn.engines.cpu import make_cpu_engine

            return make_cpu_engine(self.memory, tuned_costs())
        if self.device.type == "cuda":
            from melvoc.nn.engines.cuda import make_cuda_engine

            return make_cuda_engine()
        return Engine()

    @property
    def block_frames(self) -> int:
        """Frames a block, at most: what stays in a CPU's caches, fills a GPU, or is what MPS gets at a time anyway."""
        if self.device.type == "cuda":
            return 2048
        if self.device.type == "mps":
            return max(1, SAMPLES // self.spec.hop_length)
        return min(MOST_FRAMES, max(16, BLOCK_VALUES // self.network.config.frame_values))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._engine = None  # moved or cast: what an engine prepared no longer belongs to these weights

        def convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            if converted.dtype in HALF and tensor.dtype not in HALF and id(tensor) in float32_parameters(self.network):
                return tensor.to(converted.device)
            return converted

        super()._apply(convert, recurse)  # type: ignore[no-untyped-call]
        self._weights = tuple(self.network.parameters())
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_engine": None}  # copies and pickles prepare their own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"_lock": threading.Lock()})  # type: ignore[no-untyped-call]
