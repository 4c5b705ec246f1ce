"""Architectures, one a file, and the way from a checkpoint to a vocoder and back.

Architectures are named here as strings and imported when a checkpoint asks for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from melvoc.errors import CheckpointError, MelvocError, SpecError
from melvoc.nn.precision import HALF, automatic_dtype
from melvoc.storage.container import Checkpoint, check_finite
from melvoc.vocoder import Vocoder

if TYPE_CHECKING:
    from melvoc.neural import NeuralVocoder

# architecture: module, configuration, network
ARCHITECTURES = {
    "bigvgan": ("melvoc.architectures.bigvgan", "BigVGANConfig", "BigVGAN"),
    "hifigan": ("melvoc.architectures.hifigan", "HiFiGANConfig", "HiFiGAN"),
    "vocos": ("melvoc.architectures.vocos", "VocosConfig", "Vocos"),
}


def architecture(name: str, source: str = "this checkpoint") -> tuple[Any, type[nn.Module]]:
    """The configuration's and the network's class.

    Raises:
        CheckpointError: an architecture that melvoc does not have.
    """
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{source}: architecture {name!r}, but melvoc has {', '.join(ARCHITECTURES)} and griffinlim; update melvoc"
        )
    module_name, config, network = ARCHITECTURES[name]
    module = importlib.import_module(module_name)
    return getattr(module, config), getattr(module, network)


def pick_device(device: str | torch.device) -> torch.device:
    """The device, "auto" being the best there is: cuda, then mps, then the CPU.

    Raises:
        MelvocError: a device that torch does not know or does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise MelvocError(f"device={device!r} is not to be had here ({error}); use 'auto' or 'cpu'") from error


def build(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
) -> NeuralVocoder:
    """A vocoder of a checkpoint of a neural architecture.

    The network is built without memory for its weights (torch's meta device), and the checkpoint's tensors become its
    parameters as they are: nothing is initialised, and nothing copied where type and device are right.

    Args:
        checkpoint: what to build.
        device: where; "auto" for the best there is.
        dtype: of the weights and the computation; None: the automatic choice.
        engine: as in `NeuralVocoder`.
        memory: as in `NeuralVocoder`.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape or type, or has NaN.
    """
    from melvoc.neural import NeuralVocoder

    network = empty_network(checkpoint)
    place = pick_device(device)
    kind = automatic_dtype(checkpoint.architecture, place) if dtype is None else floating(dtype)
    loaded = torch.float32 if kind in HALF else kind  # a half type is taken on below, where it does no harm
    tensors = {key: tensor.to(place, loaded) for key, tensor in checkpoint.tensors.items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    try:
        vocoder = NeuralVocoder(
            network.eval().requires_grad_(False),  # type: ignore[arg-type]
            name=checkpoint.name,
            spec=checkpoint.spec,
            engine=engine,
            memory=memory,
            licence=checkpoint.licence,
            provenance=checkpoint.provenance,
        )
    except SpecError as error:
        raise CheckpointError(f"{checkpoint.source}: its configuration and its MelSpec disagree: {error}") from error
    return vocoder.to(place, kind).eval()


def empty_network(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint on the meta device, without weights, after a look at whether the checkpoint's fit.

    Raises:
        CheckpointError: as `build`.
    """
    config_class, network_class = architecture(checkpoint.architecture, checkpoint.source)
    try:
        config = config_class.from_dict(checkpoint.config)
        with torch.device("meta"):
            network = network_class(config)
    except (CheckpointError, TypeError, RuntimeError) as error:  # RuntimeError: sizes beyond any memory
        raise CheckpointError(
            f"{checkpoint.source}: its configuration is not {checkpoint.architecture}'s: {error}"
        ) from error
    check_tensors(checkpoint, network)
    check_finite(checkpoint)
    return network


def check_tensors(checkpoint: Checkpoint, network: nn.Module) -> None:
    """Compare names, shapes and types with what the network needs.

    Raises:
        CheckpointError: the first tensors that do not fit.
    """
    expected, tensors, source = network.state_dict(), checkpoint.tensors, checkpoint.source
    for kind, keys in (("lacks", expected.keys() - tensors.keys()), ("has unknown", tensors.keys() - expected.keys())):
        if keys:
            some = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise CheckpointError(
                f"{source} {kind} {some}; {checkpoint.architecture} with its configuration has {len(expected)} "
                "tensors. The file and its configuration belong to different models, or the file is damaged"
            )
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key!r} has shape {list(tensor.shape)}, but the configuration makes it "
                f"{list(expected[key].shape)}; they belong to different models"
            )
        if not tensor.is_floating_point():
            raise CheckpointError(f"{source}: {key!r} is {tensor.dtype}, but weights are floating-point numbers")


def describe(vocoder: Vocoder) -> Checkpoint:
    """The checkpoint of a vocoder: what `build` needs to make it again.

    Raises:
        CheckpointError: a vocoder that is not melvoc's own.
    """
    from melvoc.griffinlim import GriffinLim
    from melvoc.neural import NeuralVocoder

    # Exactly these classes: a subclass may compute something else, which a file would not say.
    if type(vocoder) is GriffinLim:
        return Checkpoint(
            architecture="griffinlim", config=vocoder.options, spec=vocoder.spec, tensors={}, name=vocoder.name
        )
    if not isinstance(vocoder, Vocoder):
        raise CheckpointError(f"{vocoder!r} is a {type(vocoder).__name__}, but only a melvoc.Vocoder can be saved")
    if type(vocoder) is not NeuralVocoder:
        raise CheckpointError(
            f"{vocoder.name!r} is a {type(vocoder).__module__}.{type(vocoder).__qualname__}, which melvoc cannot save; "
            "save it with the package it comes from"
        )
    return Checkpoint(
        architecture=vocoder.architecture,
        config=vocoder.network.config.to_dict(),
        spec=vocoder.spec,
        tensors=dict(vocoder.network.state_dict()),
        name=vocoder.name,
        licence=vocoder.licence,
        provenance=vocoder.provenance,
    )


def check_options(*, engine: object, memory: object) -> None:
    """What the neural vocoders' factories take, before anything is downloaded or read.

    Raises:
        MelvocError: another engine or memory.
    """
    if engine not in ("auto", "torch"):
        raise MelvocError(f"engine={engine!r}, but it is 'auto' or 'torch'")
    if memory not in ("auto", "low"):
        raise MelvocError(f"memory={memory!r}, but it is 'auto' or 'low'")


def floating(dtype: torch.dtype) -> torch.dtype:
    """The type, after a look.

    Raises:
        MelvocError: no floating-point type.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise MelvocError(f"dtype={dtype!r}, but it is a floating-point torch.dtype, or None")
    return dtype
