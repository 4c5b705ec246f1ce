"""Checkpoints as they lie on a disk: melvoc's own, and published weights, whatever their name, with a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from melvoc.errors import CheckpointError, MelvocError, MissingCheckpointError, unreadable
from melvoc.registry import all_architectures
from melvoc.storage import container, foreign
from melvoc.storage.pipes import STDIN, is_pipe
from melvoc.storage.reading import exists, first_bytes, is_file, is_safetensors, opened

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".tar", ".ckpt")  # of checkpoints
GRAPHS = (".onnx",)
SUFFIXES = (*WEIGHTS, *GRAPHS)  # of what `load` takes as a path, whether it exists or not
CONFIGS = ("config.json", "config.yaml", "config.yml", "hyperparams.yaml")


def find_pair(path: str) -> tuple[str, str]:
    """The weights and the configuration that a path means: those in a folder, or a file and what stands beside it.

    Raises:
        CheckpointError: there is no such pair, or several.
    """
    place = Path(expanded(path))
    if not exists(place):
        raise MissingCheckpointError(f"{path}: no such file; give the path of the published generator", path=path)
    weights = find_weights(path)
    return weights, _config_in(place if place.is_dir() else place.parent, weights)


def find_weights(path: str) -> str:
    """The weights that a path means: itself, or the only checkpoint in a folder, or the one with the published name.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    folder = Path(expanded(path))
    if not folder.is_dir():
        return expanded(path)
    found = [file.name for file in _files(folder) if _is_checkpoint(file)]
    if not found:
        raise MissingCheckpointError(
            f"{path}: no checkpoint is in this folder, which has {_listed(_names(folder)) or 'no files'}; give "
            "the checkpoint by its path (melvoc files are loaded as they are)"
        )
    return str(folder / choose_weights(found, path))


def choose_weights(names: Sequence[str], folder: str) -> str:
    """The weights among a folder's checkpoints: the only one, or the one with a published name.

    Args:
        names: of the checkpoints, at least one.
        folder: or the repository, for the message.

    Raises:
        CheckpointError: there are several.
    """
    if len(names) == 1:
        return names[0]
    published = published_among(names)
    safe = [name for name in published if name.endswith(".safetensors")]
    published = safe if len(safe) == 1 else published  # the Hub's folders often have both
    if len(published) != 1:
        raise CheckpointError(
            f"{folder}: has {len(names)} checkpoints ({_listed(names)}); give one of them by its own path"
        )
    return published[0]


def choose_config(names: Collection[str], folder: str) -> str | None:
    """The configuration among the names in a folder; None if there is none.

    Raises:
        CheckpointError: there are several.
    """
    found = [name for name in _config_names() if name in names]
    if len(found) > 1:
        raise CheckpointError(f"{folder}: has {_listed(found)}; say with --config which is the generator's")
    return found[0] if found else None


def published_among(names: Iterable[str]) -> list[str]:
    """The names under which a layout of any architecture is published; the architectures are asked once."""
    patterns = [re.compile(pattern) for pattern, _ in _published()]
    return [name for name in names if any(pattern.fullmatch(name) for pattern in patterns)]


def is_published(path: str) -> bool:
    """Whether a path is that of a checkpoint, or of a folder, that is not melvoc's.

    Raises:
        CheckpointError: a damaged safetensors file.
    """
    place = expanded(path)
    if is_folder(place):
        return not _melvoc_files(place)
    if _is_piped(place):
        return False
    if place.endswith(".safetensors"):
        return exists(place) and not container.is_melvoc_file(place)
    return place.endswith(WEIGHTS) or exists(place)


def melvoc_file(path: str) -> str:
    """The path of a melvoc file, or of the only one in a folder, expanded.

    Raises:
        CheckpointError: another kind of file, a pipe, or a folder with none or several.
    """
    place = expanded(path)
    if is_folder(place):
        return _melvoc_file_in(place)
    if _is_piped(place):
        raise CheckpointError(f"{path}: a vocoder is not read from a pipe; write it to a file first", path=place)
    if not place.endswith(".safetensors") and (place.endswith(WEIGHTS) or exists(place)):
        raise CheckpointError(_no_melvoc_file(path, "load reads melvoc's .safetensors files"), path=place)
    return place


def packed_file(path: str) -> str:
    """The path of a file that holds a packed vocoder among other things, or of the only checkpoint in a folder.

    Raises:
        CheckpointError: there is none, or there are several in the folder.
    """
    place = expanded(path)
    if not exists(place):
        raise MissingCheckpointError(
            f"{path}: no such file; give the path of the file that the packed vocoder is in", path=place
        )
    return find_weights(path)


def expanded(path: str) -> str:
    """A path whose `~` is the home folder."""
    return os.path.expanduser(path) if path.startswith("~") else path  # noqa: PTH111 - a Path would drop "./"


def is_folder(path: str) -> bool:
    """Whether there is such a folder."""
    return os.path.isdir(expanded(path))  # noqa: PTH112 - a name that no file can have is no folder


def _is_piped(path: str) -> bool:
    return path == STDIN or is_pipe(path)


def _melvoc_files(folder: str) -> list[Path]:
    return [file for file in _files(Path(folder)) if _is_melvocs(file)]


def _melvoc_file_in(folder: str) -> str:
    """The only melvoc file in a folder.

    Raises:
        CheckpointError: there is none, or one that is damaged, or there are several.
    """
    found = _melvoc_files(folder)
    if len(found) > 1:
        raise CheckpointError(
            f"{folder}: has {len(found)} melvoc files ({_listed([file.name for file in found])}); give one by its path",
            path=folder,
        )
    if not found:
        files = _names(Path(folder))
        if not files:
            raise MissingCheckpointError(f"{folder}: has no files; give a melvoc .safetensors file", path=folder)
        for file in files:
            if file.endswith(".safetensors"):
                container.is_melvoc_file(Path(folder, file))  # of one that is damaged nobody knows whose it is
        raise CheckpointError(
            _no_melvoc_file(folder, f"load reads melvoc's .safetensors files, but it has {_listed(files)}"), path=folder
        )
    return str(found[0])


def _no_melvoc_file(path: str, what: str) -> str:
    return (
        f"{path}: {what}; convert a published checkpoint with `melvoc convert`, or pass allow_unverified=True if you "
        "trust it; of a packed vocoder, pass the prefix="
    )


def _published() -> list[tuple[str, str]]:
    """Under which names every layout is published: a pattern for the weights', and the configuration's."""
    return [names for record in all_architectures() for layout in record.layouts for names in layout.files]


def _config_names() -> list[str]:
    return list(dict.fromkeys((*CONFIGS, *(config for _, config in _published()))))


def _config_in(folder: Path, weights: str) -> str:
    if is_file(weights) and _is_melvocs(Path(weights)):
        raise CheckpointError(f"{weights}: a melvoc file already, not a published one; load it as it is")
    found = choose_config([name for name in _config_names() if (folder / name).is_file()], str(folder))
    if found is None:
        _check_unpacked(weights)
        head = first_bytes(weights, foreign.HEAD) if is_file(weights) else b""  # a pipe can be read only once
        known = foreign.looks_like(foreign.signs_of_file(weights, head))
        advice = f"it looks like {known}" if known else "give it with --config (config=...)"
        raise MissingCheckpointError(f"{weights}: no {', '.join(CONFIGS[:2])} or {CONFIGS[3]} beside it; {advice}")
    return str(folder / found)


def _check_unpacked(weights: str) -> None:
    """Check that safetensors, which are quickly looked into, hold no packed vocoder.

    Raises:
        CheckpointError: they do.
    """
    if is_file(weights) and is_safetensors(first_bytes(weights, 16)):
        with opened(weights) as file:
            if found := container.prefixes(file.keys()):
                raise container.packed(weights, found)


def _files(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden.

    Raises:
        FileAccessError: the folder may not be read.
    """
    try:
        return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _names(folder: Path) -> list[str]:
    return [file.name for file in _files(folder)]


def _is_checkpoint(file: Path) -> bool:
    """Whether a file may be published weights, by its name or by how it begins."""
    head = first_bytes(file, 16)
    safe = is_safetensors(head)
    begins = safe or head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    return (begins or file.name.endswith(WEIGHTS)) and not (safe and _is_melvocs(file))


def _is_melvocs(file: Path) -> bool:
    try:
        return is_safetensors(first_bytes(file, 16)) and container.is_melvoc_file(file)
    except MelvocError:
        return False  # damaged: whoever reads it says so


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
