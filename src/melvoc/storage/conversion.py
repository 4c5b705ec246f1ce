"""Published checkpoints (pickles with weight norm) to melvoc's.

What a generator does not need is known by name and dropped; anything else that does not fit is an error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from melvoc.architecture import Architecture, Layout, NetworkConfig
from melvoc.errors import CheckpointError, OptionError, SpecError, about
from melvoc.registry import all_architectures, known_configuration, known_pin
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage import container, foreign
from melvoc.storage.configuration import read_config, sections, signs
from melvoc.storage.container import Checkpoint, check_finite
from melvoc.storage.pair import find_pair, find_weights
from melvoc.storage.pipes import is_pipe
from melvoc.storage.reading import exists
from melvoc.storage.vocoder_file import check_tensors, network_of
from melvoc.storage.weights import find, fold, paths, read_tensors

LOG = logging.getLogger(__name__)


def convert(
    path: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    spec: MelSpec | None = None,
    name: str | None = None,
    licence: str | None = None,
    provenance: Mapping[str, str] | None = None,
    mapped: bool = True,
) -> Checkpoint:
    """Read a published generator.

    Args:
        path: the published weights: a torch file, or safetensors of the same tensors, from a file or a pipe; or the
            folder that holds them with their configuration. Weight norm may be torch's old or new kind, or already
            folded, and the generator may stand below any prefix.
        config: the configuration published with them (`config.json`, `config.yaml`): its path or content; or the name
            of a known vocoder with the same network and mel, or of a known configuration. None: the one beside the
            weights.
        spec: the mel that it was trained on, where the configuration does not say it.
        name: of the vocoder. None: the checkpoint's folder or file, or of a pipe, which has none, the architecture's.
        licence: of the weights, if known.
        provenance: where they come from.
        mapped: whether weights that are folded already may stay on disk, mapped into memory. False: they are read.

    Returns:
        Weights folded and checked against the architecture.

    Raises:
        CheckpointError: a file that is damaged, asks to run code, or does not match the configuration.
    """
    given = os.fsdecode(path)
    with about(given):
        said = config if config is None or isinstance(config, Mapping) else os.fsdecode(config)
        source, values = find_pair(given) if said is None else (find_weights(given), said)
        record, settings, spec, layout = _described(values, spec, source)
        _check_name(record, settings, source)
        return assemble(
            source,
            record=record,
            config=settings.to_dict(),
            spec=spec,
            name=name or (record.name if is_pipe(source) else Path(source).resolve().parent.name or Path(source).stem),
            licence=licence,
            provenance=provenance,
            layout=layout,
            mapped=mapped,
        )


def _described(
    given: str | Mapping[str, Any], spec: MelSpec | None, source: str
) -> tuple[Architecture, NetworkConfig, MelSpec, Layout | None]:
    """What a configuration, or a known vocoder's name, says: architecture, network, mel, and the weights' layout.

    Raises:
        CheckpointError: it is not one, or it does not fit itself or the mel that was given.
    """
    if isinstance(given, str) and not exists(given) and (entry := known_pin(given)):
        record, pin = entry
        _check_given(spec, pin.spec, f"{given} has")
        return record, pin.config, pin.spec, None
    values = given if isinstance(given, Mapping) else _named(given, source) or read_config(given)
    record, layout, section = recognise(values, source)
    try:
        settings = layout.config(section)
    except OptionError as error:
        known = foreign.looks_like(signs(values))
        why = f"it looks like {known}" if known and not known.startswith(record.title) else error
        raise CheckpointError(f"the configuration of {source} is not {record.title}'s: {why}") from error
    spec = _spec(layout, section, spec, source)
    if not settings.keeps_time(spec):
        raise CheckpointError(
            f"the configuration of {source} upsamples by {settings.hop_length}, but its hop size is "
            f"{spec.hop_length}; it is not the one the model was trained with"
        )
    if settings.n_mels != spec.n_mels:
        raise CheckpointError(
            f"the configuration of {source} has a network for {settings.n_mels} bands and a mel of {spec.n_mels}; "
            "they belong to different models"
        )
    return record, settings, spec, layout


def _check_name(record: Architecture, config: NetworkConfig, source: str) -> None:
    """Check that a configuration is that of the weights by the name of their file.

    Raises:
        CheckpointError: it says otherwise.
    """
    if record.check_name:
        try:
            record.check_name(config, Path(source).name)
        except OptionError as error:
            raise CheckpointError(f"{source}: {error}") from error


def _named(name: str, source: str) -> Mapping[str, Any] | None:
    """The configuration that stands in published code under a name, which no file has.

    Raises:
        CheckpointError: it needs to know more than the name of the weights' file says.
    """
    try:
        return None if exists(name) else known_configuration(name, Path(source).name)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _spec(layout: Layout, values: Mapping[str, Any], given: MelSpec | None, source: str) -> MelSpec:
    """The mel that the configuration says, or the given one where it says none.

    Raises:
        CheckpointError: neither says one, or they say different ones.
    """
    try:
        said = layout.spec(values)
    except SpecError as error:
        if given is not None:
            return given
        raise CheckpointError(
            f"the configuration of {source} has no mel that melvoc can make: {error} (--spec PRESET or FILE; spec=...)"
        ) from error
    _check_given(given, said, f"the configuration of {source} says")
    return said


def _check_given(given: MelSpec | None, said: MelSpec, who: str) -> None:
    """Check that a mel that was given is the known one.

    Raises:
        CheckpointError: it is another.
    """
    if given is not None and (different := said.diff(given)):
        listed = "; ".join(f"{name}: {one!r}, given {other!r}" for name, (one, other) in different.items())
        raise CheckpointError(f"{who} another mel than was given ({listed}); omit the spec")


def recognise(values: Mapping[str, Any], source: str) -> tuple[Architecture, Layout, Mapping[str, Any]]:
    """The architecture and layout of a published configuration, and the part of it that describes the network: the
    configuration itself, or the one section (`model.init_args`, for example) that a layout recognises.

    Where several recognise it, because one network's configuration has all that another's has and more, it is the first
    that can read it, else the last, whose error will be shown.

    Raises:
        CheckpointError: not one that melvoc or an installed package knows, or several.
    """
    records = list(all_architectures())
    for level in sections(values):
        found = [
            (path, (record, layout, section))
            for path, section in level
            for record in records
            if (layout := next((one for one in record.layouts if one.takes(section)), None))
        ]
        if len({path for path, _ in found}) > 1:
            raise CheckpointError(
                f"the configuration of {source} describes several networks ({', '.join(path for path, _ in found)}); "
                "give one of these sections alone"
            )
        if found:
            return next((entry for _, entry in found[:-1] if _reads(entry[1], entry[2])), found[-1][1])
    known = foreign.looks_like(signs(values))
    titles = ", ".join(layout.title for record in records for layout in record.layouts)
    advice = f"it looks like {known}" if known else "give the configuration that was published with the model"
    raise CheckpointError(f"the configuration of {source} is none of {titles}; {advice}")


def _reads(layout: Layout, section: Mapping[str, Any]) -> bool:
    try:
        layout.config(section)
    except OptionError:
        return False
    return True


def assemble(
    path: str | os.PathLike[str],
    *,
    record: Architecture,
    config: dict[str, Any],
    spec: MelSpec,
    name: str,
    licence: str | None,
    provenance: Mapping[str, str] | None,
    layout: Layout | None = None,
    mapped: bool = True,
) -> Checkpoint:
    """The weights of a published file with an already known configuration, checked against each other.

    Args:
        path: of the file.
        record: of the architecture.
        config: of the network.
        spec: its mel.
        name: of the vocoder.
        licence: of the weights.
        provenance: where they come from. None: the file's name. What the generator stands below there is added.
        layout: of the file. None: whichever of the architecture's finds the most of the network in it.
        mapped: as `convert`.

    Raises:
        CheckpointError: as `convert`.
    """
    source = os.fsdecode(path)
    content = read_tensors(path, mapped=mapped)
    inside = list(paths(content, source))
    if found := container.prefixes(key for key, _ in inside):
        raise container.packed(source, found)
    network = network_of(record, config, len(inside), source)
    names = network.state_dict().keys()
    layouts = (layout,) if layout else record.layouts or (None,)
    parts = [(find(content, names, one, source), one) for one in layouts]
    part, layout = min(parts, key=lambda entry: entry[0].missing)
    try:
        tensors = fold(part.tensors, source)
        if layout and layout.adapt:
            tensors = _adapted(layout.adapt, tensors, record.config.from_dict(config), source)
        checkpoint = Checkpoint(
            architecture=record.name,
            config=config,
            spec=spec,
            tensors=tensors,
            name=name,
            licence=licence,
            provenance=dict(provenance or {"converted from": Path(source).name})
            | ({"found below": part.prefix} if part.prefix else {}),
            source=source,
        )
        check_tensors(checkpoint, network)
    except CheckpointError as error:
        known = foreign.looks_like(foreign.signs_of_keys(key for key, _ in inside))
        if known and (part.missing or part.unknown):
            raise CheckpointError(f"{source} is not {record.title}'s generator; it looks like {known}") from error
        raise
    check_finite(checkpoint)
    if part.prefix:
        LOG.info("%s: the generator stands below %r; %d other tensors are left out", source, part.prefix, part.others)
    return checkpoint


def _adapted(
    adapt: Callable[[dict[str, Tensor], NetworkConfig], dict[str, Tensor]],
    tensors: dict[str, Tensor],
    config: NetworkConfig,
    source: str,
) -> dict[str, Tensor]:
    try:
        return adapt(tensors, config)
    except OptionError as error:
        raise CheckpointError(f"{source}: {error}") from error
