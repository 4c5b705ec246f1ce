"""An architecture's network as a vocoder: device, dtype, engine and blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from melvoc.architecture import Architecture, NetworkConfig
from melvoc.errors import OptionError, SpecError
from melvoc.nn.engines import block_frames, engine_name, make_engine
from melvoc.nn.forks import ForkLock
from melvoc.nn.graph import Engine, Node
from melvoc.options import LoadOptions
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.costs import tuned_costs
from melvoc.vocoder import Vocoder

HALF = (torch.float16, torch.bfloat16)


class NeuralVocoder(Vocoder):
    """A network with its mel.

    In float16 or bfloat16, only the inside of the network has that type: the mel, the wave and the layers that the
    architecture's record names stay float32 (docs/gpu.md).

    Args:
        network: the generator; its hop length and bands must be the spec's. It streams if it has a `graph`.
        name: its name in messages.
        spec: the mel that it was trained on.
        architecture: the network's record. None: it has none, and cannot be saved.
        engine: "auto" (the fastest exact one for the device) or "torch" (plain torch).
        memory: "auto", or "low" to keep the weights and what is made from them under 1.3 times their size, but slower.
        seed: of the noise that the network draws. None: 0, or that it draws none.
        licence: of the weights, if known.
        provenance: where the weights come from, as arbitrary names and values.

    Raises:
        SpecError: network and spec belong to different models.
        OptionError: an unknown engine or memory, or a seed for a network that draws no noise.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        spec: MelSpec,
        architecture: Architecture | None = None,
        engine: Literal["auto", "torch"] = "auto",
        memory: Literal["auto", "low"] = "auto",
        seed: int | None = None,
        licence: str | None = None,
        provenance: dict[str, str] | None = None,
    ) -> None:
        super().__init__(name=name, spec=spec)
        LoadOptions(device="cpu", engine=engine, memory=memory, seed=seed)  # checked there
        self.config: NetworkConfig = network.config  # type: ignore[assignment]
        self.architecture = architecture
        _check_fit(self.config, spec, name)
        self.network = network
        if seed is not None:
            _reseed(network, seed, name)
        self.engine_choice: Literal["auto", "torch"] = engine
        self.memory: Literal["auto", "low"] = memory
        self.licence = licence
        self.provenance = dict(provenance or {})
        self._lock = ForkLock()
        self._engine: Engine | None = None
        self._weights = tuple(network.parameters())

    @property
    def channels(self) -> int:
        """Channels of the sound."""
        return self.config.channels

    @property
    def samples_per_frame(self) -> int:
        """Samples of sound per mel frame."""
        return self.config.hop_length

    @property
    def sample_rate(self) -> int:
        """Sample rate of the sound in Hz."""
        return self.config.sample_rate or self.spec.sample_rate

    @property
    def dtype(self) -> torch.dtype:
        """The convolutions' dtype."""
        kinds = {weight.dtype for weight in self._weights}
        return next(iter(kinds & set(HALF)), super().dtype)

    @property
    def mel_dtype(self) -> torch.dtype:
        """float32 if the convolutions are in half precision."""
        return torch.float32 if self.dtype in HALF else self.dtype

    @property
    def can_stream(self) -> bool:
        """Whether the network is an expression of nodes."""
        return hasattr(self.network, "graph")

    def forward(self, mel: Tensor) -> Tensor:
        """The network over the whole mel, in plain torch, differentiable."""
        return self.network(mel)  # type: ignore[no-any-return]

    def graph(self) -> Node:
        """The network's expression.

        Raises:
            MelvocError: it has none.
        """
        return self.network.graph if self.can_stream else super().graph()  # type: ignore[return-value]

    def engine(self) -> Engine:
        """The engine for the current device and dtype; made once, because what it prepares belongs to the weights."""
        with self._lock:
            if self._engine is None:
                self._engine = make_engine(
                    self.network,
                    device=self.device,
                    dtype=self.dtype,
                    hop_length=self.samples_per_frame,
                    choice=self.engine_choice,
                    memory=self.memory,
                    costs=tuned_costs,
                )
            return self._engine

    @property
    def engine_name(self) -> str:
        """The engine's name; "torch" also where another was asked for and found to lack its compiler."""
        chosen = engine_name(self.device, self.dtype, self.engine_choice)
        return "torch" if type(self._engine) is Engine else chosen

    @property
    def block_frames(self) -> int:
        """Mel frames per block of long input."""
        return block_frames(self.device, hop_length=self.samples_per_frame, frame_values=self.config.frame_values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._engine = None  # moved or cast: what an engine prepared no longer belongs to these weights
        kept: set[int] | None = None

        def convert(tensor: Tensor) -> Tensor:
            nonlocal kept
            converted = fn(tensor)
            if converted.dtype in HALF and tensor.dtype not in HALF:
                kept = float32_tensors(self.network, self.architecture) if kept is None else kept
                return tensor.to(converted.device) if id(tensor) in kept else converted
            return converted

        super()._apply(convert, recurse)  # type: ignore[no-untyped-call]
        self._weights = tuple(self.network.parameters())
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_engine": None}  # copies and pickles prepare their own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"_lock": ForkLock()})  # type: ignore[no-untyped-call]


def automatic_dtype(architecture: Architecture, device: torch.device) -> torch.dtype:
    """The dtype that `dtype=None` means: float32, but on CUDA the architecture's `cuda_dtype`."""
    return architecture.cuda_dtype if device.type == "cuda" else torch.float32


def float32_tensors(network: nn.Module, architecture: Architecture | None) -> set[int]:
    """The parameters and constants that must stay float32, by `id`.

    With the others in half precision, the network takes a float32 mel and returns a float32 wave.

    Raises:
        OptionError: a network that has no half form.
    """
    if architecture is None or architecture.float32 is None:
        title = architecture.title if architecture else type(network).__name__
        raise OptionError(f"{title} does not run in float16 or bfloat16 (no half form of it is known); omit dtype")
    layers = list(architecture.float32(network))
    return {id(tensor) for layer in layers for tensor in (*layer.parameters(), *layer.buffers())}


def _reseed(network: nn.Module, seed: int, name: str) -> None:
    """Let the network draw the noise of a seed.

    Raises:
        OptionError: it draws none.
    """
    reseed: Callable[[int], None] | None = getattr(network, "reseed", None)
    if reseed is None:
        raise OptionError(f"{name} takes no option 'seed': it draws no noise, and always gives the same sound; omit it")
    reseed(seed)


def _check_fit(config: NetworkConfig, spec: MelSpec, name: str) -> None:
    """Check that a mel frame lasts as long as the samples made from it.

    Raises:
        SpecError: it does not, the bands differ, or the network takes another mel only.
    """
    if not config.keeps_time(spec) or config.n_mels != spec.n_mels:
        rate = config.sample_rate or spec.sample_rate
        raise SpecError(
            f"{name}: the network makes {config.hop_length} samples at {rate} Hz from {config.n_mels} bands per frame, "
            f"but its MelSpec says hop_length={spec.hop_length}, n_mels={spec.n_mels} at {spec.sample_rate} Hz; they "
            "belong to different models"
        )
    if config.spec not in (None, spec):
        listed = ", ".join(f"{field} ({mine!r}, {other!r})" for field, (mine, other) in config.spec.diff(spec).items())
        raise SpecError(f"{name}: the network is for another mel than its MelSpec says: {listed}; omit spec")
