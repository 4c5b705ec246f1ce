"""Vocoders to and from files, bytes and dicts of tensors."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from melvoc import post
from melvoc.architecture import Architecture
from melvoc.errors import CheckpointError, MelvocError, OptionError, SpecError, about, kind_of, reason
from melvoc.host import public
from melvoc.neural import HALF, NeuralVocoder, automatic_dtype
from melvoc.options import LoadOptions
from melvoc.registry import GRIFFINLIM, architecture
from melvoc.storage import container
from melvoc.storage.container import Checkpoint, check_finite
from melvoc.storage.reading import check_plain
from melvoc.vocoder import Vocoder

LARGEST_FRAME = 1 << 22  # values per mel frame inside a network; BigVGAN has 24 thousand
SPARE = 4096  # parameters that a network may have beyond four for each tensor of its file; BigVGAN has 1000


@public
def save(vocoder: Vocoder, path: str | os.PathLike[str]) -> None:
    """Write a vocoder to a melvoc file, which `melvoc.load` reads. The file is written completely or not at all.

    Raises:
        CheckpointError: a vocoder that cannot be saved, or a file that cannot be written.
    """
    with about(path):
        if Path(os.fsdecode(path)).suffix != ".safetensors":
            raise CheckpointError(
                f"{os.fsdecode(path)}: a melvoc file ends in .safetensors, so that load recognises it"
            )
        container.write(describe(vocoder), path)


def load_file(path: str | os.PathLike[str], options: LoadOptions) -> Vocoder:
    """A vocoder from a melvoc file; weights on the CPU stay on disk and are mapped into memory, unless options say so.

    Raises:
        CheckpointError: no such file, a damaged one, or one whose weights do not fit its configuration.
    """
    with about(path):
        return revive(container.read(path, mapped=options.mmap), options)


@public
def to_bytes(vocoder: Vocoder) -> bytes:
    """What `save` writes, for embedding in another file."""
    return container.to_bytes(describe(vocoder))


@public
@torch.inference_mode(False)
def from_bytes(
    data: bytes | bytearray | memoryview,
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
    seed: int | None = None,
) -> Vocoder:
    """A vocoder from `to_bytes`' result.

    Raises:
        CheckpointError: as `load`.
    """
    options = LoadOptions(device=device, dtype=dtype, engine=engine, memory=memory, seed=seed)
    return revive(container.from_bytes(data), options)


@public
def pack(vocoder: Vocoder, prefix: str = "") -> dict[str, Tensor]:
    """A flat dict of plain tensors, for `torch.save`, `torch.load(weights_only=True)` and safetensors alike.

    It is a snapshot: the tensors share no memory with the vocoder, so that they can stand in one file with it.

    Args:
        vocoder: to pack.
        prefix: before every name, so that the dict can be merged with another one.

    Raises:
        CheckpointError: a vocoder that cannot be saved.

    Example:
        >>> import melvoc
        >>> voc = melvoc.load("griffinlim")
        >>> sorted({"scale": torch.ones(1)} | melvoc.pack(voc, prefix="vocoder."))
        ['scale', 'vocoder.melvoc.header']
    """
    return container.pack(describe(vocoder), prefix=prefix)


@public
@torch.inference_mode(False)
def unpack(
    state: Mapping[str, Tensor],
    prefix: str = "",
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    engine: Literal["auto", "torch"] = "auto",
    memory: Literal["auto", "low"] = "auto",
    seed: int | None = None,
) -> Vocoder:
    """A vocoder from `pack`'s dict, with which it shares memory on the CPU.

    Args:
        state: the dict; with a prefix it may have other entries too.
        prefix: that `pack` was given.
        device: as in `load`.
        dtype: as in `load`.
        engine: as in `load`.
        memory: as in `load`.
        seed: as in `load`.

    Raises:
        CheckpointError: as `load`.
    """
    options = LoadOptions(device=device, dtype=dtype, engine=engine, memory=memory, seed=seed)
    return revive(container.unpack(state, prefix=prefix), options)


def describe(vocoder: Vocoder) -> Checkpoint:
    """The checkpoint of a vocoder: what `revive` needs to recreate it.

    Raises:
        CheckpointError: a vocoder that no architecture's record describes.
    """
    if not isinstance(vocoder, Vocoder):
        raise CheckpointError(f"{vocoder!r} is {kind_of(vocoder)}, but only a melvoc.Vocoder can be saved")
    from melvoc.griffinlim import GriffinLim

    steps = post.describe(vocoder.post)
    # Exactly these classes: a subclass may compute something else, which a file would not say.
    if type(vocoder) is GriffinLim:
        return Checkpoint(
            architecture=GRIFFINLIM,
            config=vocoder.options,
            spec=vocoder.spec,
            tensors={},
            name=vocoder.name,
            licence=vocoder.licence,
            post=steps,
        )
    if type(vocoder) is not NeuralVocoder:
        raise CheckpointError(
            f"{vocoder.name!r} is a {type(vocoder).__module__}.{type(vocoder).__qualname__}, which melvoc cannot save; "
            "save it with the package it comes from"
        )
    if vocoder.architecture is None:
        raise CheckpointError(
            f"{vocoder.name!r} is a {type(vocoder.network).__qualname__} without an architecture's record, which a "
            "file needs to name it; pass NeuralVocoder(..., architecture=...)"
        )
    return Checkpoint(
        architecture=vocoder.architecture.name,
        config=vocoder.config.to_dict(),
        spec=vocoder.spec,
        tensors=dict(vocoder.network.state_dict()),
        name=vocoder.name,
        licence=vocoder.licence,
        provenance=vocoder.provenance,
        post=steps,
    )


def revive(checkpoint: Checkpoint, options: LoadOptions) -> Vocoder:
    """A vocoder from any checkpoint.

    Raises:
        CheckpointError: a tensor is missing, unknown, of the wrong shape or type, or has NaN; or a configuration, a
            step or an option is not allowed.
    """
    source = checkpoint.source
    try:
        steps = post.revive(checkpoint.post)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error
    vocoder = _griffinlim(checkpoint, options) if checkpoint.architecture == GRIFFINLIM else build(checkpoint, options)
    vocoder.post = steps
    return vocoder


def build(checkpoint: Checkpoint, options: LoadOptions) -> NeuralVocoder:
    """A vocoder from a network's checkpoint.

    The network is built without memory for its weights (torch's meta device), and the checkpoint's tensors become its
    parameters as they are: nothing is initialised, and nothing is copied if dtype and device are right.

    Raises:
        CheckpointError: as `revive`.
    """
    record = architecture(checkpoint.architecture, checkpoint.source)
    network, place = empty_network(checkpoint, record), options.place
    kind = automatic_dtype(record, place) if options.dtype is None else options.dtype
    loaded = torch.float32 if kind in HALF else kind  # cast to half precision below, only where it does no harm
    tensors = {key: _ordinary(tensor).to(place, loaded) for key, tensor in checkpoint.tensors.items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    try:
        vocoder = NeuralVocoder(
            network.requires_grad_(False),
            name=checkpoint.name,
            spec=checkpoint.spec,
            architecture=record,
            engine=options.engine,
            memory=options.memory,
            seed=options.seed,
            licence=checkpoint.licence,
            provenance=checkpoint.provenance,
        )
    except SpecError as error:
        raise CheckpointError(f"{checkpoint.source}: its configuration and its MelSpec disagree: {error}") from error
    return vocoder.to(place, kind).eval()


def _ordinary(tensor: Tensor) -> Tensor:
    """A tensor that autograd may see: one of inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor


def empty_network(checkpoint: Checkpoint, record: Architecture) -> nn.Module:
    """The network of a checkpoint on the meta device, without weights, after checking that the checkpoint's fit.

    Raises:
        CheckpointError: as `revive`.
    """
    check_plain(checkpoint.tensors, checkpoint.source)
    network = network_of(record, checkpoint.config, len(checkpoint.tensors), checkpoint.source)
    check_tensors(checkpoint, network)
    check_finite(checkpoint)
    return network


def network_of(record: Architecture, values: Mapping[str, Any], count: int, source: str) -> nn.Module:
    """The network of a configuration on the meta device, unless it is far larger than a file of `count` tensors.

    Raises:
        CheckpointError: the configuration is not the architecture's, or asks for too much.
    """
    try:
        config = record.config.from_dict(values)
        if config.frame_values > LARGEST_FRAME:
            raise OptionError(f"it has {config.frame_values} values per mel frame, but at most {LARGEST_FRAME}")
        with _at_most(SPARE + 4 * count):
            return record.empty(config)
    except (OptionError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: too large for any memory
        raise CheckpointError(f"{source}: its configuration is not {record.name}'s: {reason(error)}") from error


def check_tensors(checkpoint: Checkpoint, network: nn.Module) -> None:
    """Compare names, shapes and types with what the network needs.

    Raises:
        CheckpointError: naming the first tensors that do not fit.
    """
    expected, tensors, source = network.state_dict(), checkpoint.tensors, checkpoint.source
    for kind, keys in (("lacks", expected.keys() - tensors.keys()), ("has unknown", tensors.keys() - expected.keys())):
        if keys:
            some = ", ".join(key[:80] for key in sorted(keys)[:3]) + (
                f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            )
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


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Stop a network that is built in this thread from having more parameters than that: a file's configuration could
    otherwise ask for millions of layers before it is compared with the file's tensors.

    Raises:
        OptionError: it has more.
    """
    thread, count = threading.get_ident(), itertools.count(1)

    def check(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if threading.get_ident() == thread and next(count) > parameters:
            raise OptionError(f"it asks for more than {parameters} parameters, far more than the tensors in the file")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _griffinlim(checkpoint: Checkpoint, options: LoadOptions) -> Vocoder:
    from melvoc.griffinlim import GriffinLim  # which a network's file does not need

    if checkpoint.tensors:
        extra = ", ".join(key[:80] for key in sorted(checkpoint.tensors)[:3])
        raise CheckpointError(f"{checkpoint.source} has unknown {extra}; Griffin-Lim has no tensors")
    try:
        given = {} if options.seed is None else {"seed": options.seed}
        vocoder = GriffinLim.from_options({**checkpoint.config, **given}, name=checkpoint.name)
    except (MelvocError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.source}: its options are not Griffin-Lim's: {error}") from error
    if vocoder.spec != checkpoint.spec:
        different = ", ".join(vocoder.spec.diff(checkpoint.spec))
        raise CheckpointError(f"{checkpoint.source}: has two different specs ({different}); save the vocoder again")
    return vocoder.to(options.place, options.dtype)
