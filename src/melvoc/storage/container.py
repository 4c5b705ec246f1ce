"""The melvoc file: a vocoder's weights and everything that describes them, as safetensors.

The header is one metadata key, `melvoc`, whose value is JSON: format version, architecture and its configuration, the
mel's specification, name, licence and provenance. Weights are folded and named as in the architecture's state dict. The
same content can also be stored as bytes, or as a flat dict of plain tensors for embedding in another file.

Format 2 adds the steps after the network (`post`) and rejects unknown keys, so that nothing that changes the sound is
silently dropped. It is written only if there are such steps; format 1 will always be readable.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melvoc.errors import (
    CheckpointError,
    MissingCheckpointError,
    OptionError,
    SpecError,
    about,
    kind_of,
    quoted,
    reason,
)
from melvoc.spectrogram.file import HEADER_KEY as MEL_HEADER_KEY
from melvoc.spectrogram.spec import MelSpec
from melvoc.storage.atomic import replacing
from melvoc.storage.reading import LARGEST_TEXT, Held, is_file, opened

FORMATS = (1, 2)
KEYS = frozenset({"format", "architecture", "config", "spec", "name", "licence", "provenance", "post"})
HEADER_KEY = "melvoc"
PACKED_HEADER = "melvoc.header"
PACKED_WEIGHTS = "melvoc.weights."
LARGEST_WEIGHT = 2.0**20  # trained ones stay below 1000; products of larger ones soon leave float32's range


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A vocoder on its way to or from a file: plain data, no module.

    Attributes:
        architecture: the architecture's name, or "griffinlim".
        config: the architecture's configuration as JSON values.
        spec: the mel that the vocoder understands.
        tensors: the folded weights by name.
        name: the vocoder's name in messages.
        licence: of the weights, if known.
        provenance: where they come from: names and values, both text.
        post: the steps after the network, as JSON values (`melvoc.post`).
        source: this checkpoint's name in error messages (e.g. a path); not part of the file.
    """

    architecture: str
    config: dict[str, Any]
    spec: MelSpec
    tensors: dict[str, Tensor] = field(repr=False)
    name: str
    licence: str | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    post: list[dict[str, Any]] = field(default_factory=list)
    source: str = field(default="this checkpoint", compare=False)

    def header(self) -> str:
        """Everything but the weights, as JSON.

        Raises:
            CheckpointError: a name, a licence or a provenance that is none.
        """
        values = {
            "format": 2 if self.post else 1,
            "architecture": self.architecture,
            "config": self.config,
            "spec": self.spec.to_dict(),
            "name": self.name,
            "licence": self.licence,
            "provenance": self.provenance,
        }
        try:
            return json.dumps(values | ({"post": self.post} if self.post else {}))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.name}: not to be written ({error}); provenance is text by name") from error


def parse_header(text: str, tensors: Mapping[str, Tensor], source: str) -> Checkpoint:
    """A checkpoint from a header and its weights.

    Raises:
        CheckpointError: the header is damaged or of an unknown version.
    """
    try:
        if len(text) > LARGEST_TEXT:
            raise ValueError(f"it has {len(text)} characters, but at most {LARGEST_TEXT}")
        values = json.loads(text)
        version = values["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"{source}: the melvoc header is damaged ({error!r}); save or convert the model again"
        ) from error
    if type(version) is not int or version not in FORMATS:
        raise CheckpointError(
            f"{source}: melvoc format {quoted(version)}, but this melvoc reads formats "
            f"{' and '.join(map(str, FORMATS))}; update melvoc, or save the model again with this version"
        )
    if version > 1 and (unknown := set(values) - KEYS):
        raise CheckpointError(
            f"{source}: the melvoc header has an unknown key {quoted(min(unknown))}; update melvoc, or save the model "
            "again with this version"
        )
    try:
        return Checkpoint(
            architecture=_of_kind(values, "architecture", str),
            config=_of_kind(values, "config", dict),
            spec=MelSpec.from_dict(values["spec"]),
            tensors=dict(tensors),
            name=_of_kind(values, "name", str),
            licence=_of_kind(values, "licence", str, type(None)),
            provenance={key: str(value) for key, value in _of_kind(values, "provenance", dict).items()},
            post=_of_kind(values, "post", list) if version > 1 else [],
            source=source,
        )
    except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
        raise CheckpointError(
            f"{source}: the melvoc header is damaged ({error}); save or convert the model again"
        ) from error


def _of_kind(values: Mapping[str, Any], key: str, *kinds: type) -> Any:
    """A header's value.

    Raises:
        KeyError: there is none.
        ValueError: it is of another kind.
    """
    if not isinstance(values[key], kinds):
        raise ValueError(f"its {key} is {quoted(values[key])}, but it is a {kinds[0].__name__}")
    return values[key]


def read(path: str | os.PathLike[str], *, mapped: bool = True) -> Checkpoint:
    """Read a melvoc file; if mapped, the weights stay on disk and are mapped into memory.

    Raises:
        CheckpointError: no such file, or one that is not safetensors, truncated, or not melvoc's.
    """
    source = os.fsdecode(path)
    with _opened(source, mapped=mapped) as file:
        text = _header_of(file, source)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
    return parse_header(text, tensors, source)


def read_header(path: str | os.PathLike[str]) -> tuple[Checkpoint, int]:
    """The header of a melvoc file without its weights, and how many parameters it has.

    Raises:
        CheckpointError: as `read`.
    """
    source = os.fsdecode(path)
    with _opened(source) as file:
        text = _header_of(file, source)
        count = sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118
    return parse_header(text, {}, source), count


def read_description(path: str | os.PathLike[str]) -> Checkpoint:
    """The header of a melvoc file, without a look at its weights.

    Raises:
        CheckpointError: as `read`.
    """
    source = os.fsdecode(path)
    with _opened(source) as file:
        return parse_header(_header_of(file, source), {}, source)


def is_melvoc_file(path: str | os.PathLike[str]) -> bool:
    """Whether a safetensors file has melvoc's header; a damaged file is an error.

    Raises:
        CheckpointError: no such file, or one that is not safetensors or is truncated.
    """
    with _opened(os.fsdecode(path)) as file:
        return HEADER_KEY in (file.metadata() or {})


def write(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write a melvoc file: to a temporary name in the same folder, then renamed, so it is complete or not there at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.torch import save_file

    target, header = Path(os.fsdecode(path)), checkpoint.header()
    try:
        with replacing(target) as temporary:
            save_file(_savable(checkpoint.tensors), temporary, metadata={HEADER_KEY: header})
    except Exception as error:
        raise CheckpointError(
            f"{target}: cannot be written ({error}); is there room, and may you write there?", path=str(target)
        ) from error


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of a melvoc file."""
    from safetensors.torch import save

    return save(_savable(checkpoint.tensors), metadata={HEADER_KEY: checkpoint.header()})


def from_bytes(data: bytes | bytearray | memoryview, *, source: str = "these bytes") -> Checkpoint:
    """A checkpoint from the content of a melvoc file.

    Raises:
        CheckpointError: as `read`.
    """
    from safetensors import SafetensorError

    if not isinstance(data, bytes | bytearray | memoryview):
        raise CheckpointError(
            f"{source}: {quoted(data)} is {kind_of(data)}, but from_bytes takes the bytes that to_bytes made"
        )
    try:
        held = Held(bytes(data))
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: not safetensors, or damaged ({reason(error)}); make them with to_bytes"
        ) from error
    return parse_header(_header_of(held, source), held.tensors, source)


def pack(checkpoint: Checkpoint, *, prefix: str = "") -> dict[str, Tensor]:
    """A flat dict of plain tensors, including the header as UTF-8 bytes, that share memory with nothing.

    Raises:
        OptionError: the prefix is no text.
    """
    check_prefix(prefix)
    header = torch.frombuffer(bytearray(checkpoint.header().encode()), dtype=torch.uint8).clone()
    copies = {key: tensor.detach().to("cpu", copy=True) for key, tensor in checkpoint.tensors.items()}
    return {prefix + PACKED_HEADER: header} | {
        prefix + PACKED_WEIGHTS + key: tensor.contiguous() for key, tensor in copies.items()
    }


def unpack(state: Mapping[str, Tensor], *, prefix: str = "", source: str = "this state") -> Checkpoint:
    """A checkpoint from `pack`'s dict; with a prefix, from a dict that also has entries without it.

    Raises:
        CheckpointError: it has no header, a damaged one, or entries that `pack` does not make.
        OptionError: the prefix is no text.
    """
    check_prefix(prefix)
    if not isinstance(state, Mapping) or prefix + PACKED_HEADER not in state:
        found = prefixes(state if isinstance(state, Mapping) else ())
        raise CheckpointError(
            f"{source}: no {prefix + PACKED_HEADER!r} in it; unpack takes the dict that melvoc.pack returned"
            + (f", here with prefix={found}" if found else "")
        )
    if prefix:
        state = {key[len(prefix) :]: state[key] for key in state if isinstance(key, str) and key.startswith(prefix)}
    tensors = {}
    for key, tensor in state.items():
        if key == PACKED_HEADER:
            continue
        if not isinstance(key, str) or not key.startswith(PACKED_WEIGHTS) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{source}: {quoted(key)} is not an entry that melvoc.pack makes; pass its dict alone, or the prefix "
                "that it was packed with"
            )
        tensors[key.removeprefix(PACKED_WEIGHTS)] = tensor
    header = state[PACKED_HEADER]
    try:
        if header.dtype != torch.uint8 or header.dim() != 1 or header.numel() > LARGEST_TEXT:
            raise ValueError(f"it is {header.dtype} of shape {list(header.shape)}, but a row of bytes")
        text = bytes(header.tolist()).decode()
    except (AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: {PACKED_HEADER!r} is damaged ({reason(error)}); pack the vocoder again"
        ) from error
    return parse_header(text, tensors, source)


def check_prefix(prefix: str) -> None:
    """Check that a packed vocoder's prefix is a text.

    Raises:
        OptionError: it is not.
    """
    if not isinstance(prefix, str):
        raise OptionError(f"prefix={quoted(prefix)}, but it is the text that melvoc.pack was given")


def prefixes(keys: Iterable[object]) -> str:
    """The prefixes of the packed vocoders among the names in a file, for a message; "" if there are none."""
    headers = (key for key in keys if isinstance(key, str) and key.endswith(PACKED_HEADER))
    return " or ".join(quoted(key.removesuffix(PACKED_HEADER)) for key in itertools.islice(headers, 3))


def check_finite(checkpoint: Checkpoint) -> None:
    """Reject NaN, Inf and weights so large that the sound of any mel would be one of them: one pass over each tensor.

    Raises:
        CheckpointError: naming the tensor that has them.
    """
    for key, tensor in checkpoint.tensors.items():
        low, high = torch.stack(torch.aminmax(tensor)).tolist() if tensor.numel() else (0.0, 0.0)
        if -LARGEST_WEIGHT <= low <= high <= LARGEST_WEIGHT:  # false for NaN too
            continue
        what = f"values up to {max(-low, high):.3g}" if math.isfinite(low + high) else "NaN or Inf"
        raise CheckpointError(
            f"{checkpoint.source}: {quoted(key)} contains {what}, but weights are finite and at most "
            f"{LARGEST_WEIGHT:.0f}; training went wrong, or the file is damaged"
        )


@contextmanager
def _opened(source: str, *, mapped: bool = True) -> Iterator[Any]:
    """Open a safetensors file; every error names it.

    Raises:
        CheckpointError: no such file, or one that is not safetensors or is truncated.
        FileAccessError: the system does not open it.
    """
    with about(source):
        if not is_file(source):
            raise MissingCheckpointError(f"{source}: no such file; give the path of a melvoc .safetensors file")
        with opened(source, mapped=mapped) as file:
            yield file


def _header_of(file: Any, source: str) -> str:
    """The header of an open file, of the kind that `reading.opened` gives.

    Raises:
        CheckpointError: it is not melvoc's.
    """
    metadata: dict[str, str] = file.metadata() or {}
    if HEADER_KEY not in metadata:
        if found := prefixes(file.keys()):
            raise packed(source, found)
        if MEL_HEADER_KEY in metadata:
            raise CheckpointError(f"{source}: a saved mel, not a vocoder; melvoc.load_mel and `melvoc vocode` read it")
        raise CheckpointError(
            f"{source}: safetensors, but not melvoc's (no {HEADER_KEY!r} in its metadata); convert published weights "
            "to a melvoc file with `melvoc convert`"
        )
    return metadata[HEADER_KEY]


def packed(source: str, found: str) -> CheckpointError:
    """The error for a file with packed vocoders where another kind is wanted; `found` is what `prefixes` says."""
    way = "melvoc.unpack(its tensors)" if found == "''" else f"melvoc.load(..., prefix={found})"
    return CheckpointError(
        f"{source}: holds a packed vocoder, configuration and all; {way} reads it, and melvoc.save writes it to a file "
        "of its own"
    )


def _savable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, without gradients."""
    return {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
