"""Configurations that were published with a checkpoint: JSON or YAML, from a file or a pipe."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from melvoc.errors import CheckpointError, MissingCheckpointError, kind_of, reason, unreadable
from melvoc.storage import foreign
from melvoc.storage.reading import read_text

LARGEST_CONFIG = 1 << 14  # values in a configuration; the published ones have a few dozen
SECTIONS_DEEP = 4  # sections inside sections that are looked at
MOST_SECTIONS = 100  # of them, for what a configuration looks like
LONGEST_WORD = 80  # characters of a key or a value in a message or a sign


def read_config(path: str | os.PathLike[str], *, advice: str = "give the model's configuration") -> dict[str, Any]:
    """A configuration in JSON or YAML; nothing in it is imported or executed.

    Args:
        path: of the file, or of a pipe; without `.yaml` or `.json` at its end it may be either.
        advice: what to do if there is none, for the message.

    Raises:
        CheckpointError: no such file, or not a JSON or YAML object.
    """
    source = Path(os.path.expanduser(os.fsdecode(path)))  # noqa: PTH111 - of a user who is not there, it is as it is
    text = ""
    try:
        text = read_text(source)
        values = _parser(source, text)(text)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingCheckpointError(f"{source}: cannot be read ({error.strerror}); {advice}") from error
    except OSError as error:
        raise unreadable(source, error) from error
    except Exception as error:  # yaml's errors have no base class that can be named without importing it
        tags = (f"config: {tag}" for tag in re.findall(r"!\w+:[\w.]+", text))
        known = foreign.looks_like([*tags, f"bytes: {text}" if text[:1] != "{" else ""])
        raise CheckpointError(
            f"{source}: not valid {source.suffix or 'JSON or YAML'} ({reason(error)}); "
            + (f"it looks like {known}" if known else advice)
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{source}: holds {kind_of(values)}, but a configuration is an object of keys and values")
    return values


def sections(values: Mapping[str, Any]) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """A configuration, then the sections in it, then the sections in those, each with the path of its keys."""
    level: list[tuple[str, Mapping[str, Any]]] = [("", values)]
    for _ in range(SECTIONS_DEEP):
        yield level
        level = [
            (f"{path}{str(key)[:LONGEST_WORD]}.", value)
            for path, section in level
            for key, value in section.items()
            if isinstance(value, Mapping)
        ]


def signs(values: Mapping[str, Any]) -> Iterator[str]:
    """The signs of a configuration (`foreign`): its keys, those in its sections included, with values that are text."""
    every = itertools.chain.from_iterable(sections(values))
    for path, section in itertools.islice(every, MOST_SECTIONS):
        for key, value in section.items():
            word = value[:LONGEST_WORD] if isinstance(value, str) else ""
            yield f"config: {path}{str(key)[:LONGEST_WORD]}={word}"


def _parser(source: Path, text: str) -> Callable[[str], Any]:
    if source.suffix in (".yaml", ".yml"):
        return _yaml
    return json.loads if source.suffix == ".json" or text.lstrip()[:1] in ("{", "[", "") else _yaml


def _yaml(text: str) -> Any:
    """The content of a YAML text whose aliases, written out, stay small.

    Raises:
        ValueError: they do not.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:  # in nodes, each counted as often as it is meant
        if id(node) not in sizes:
            if node.tag.endswith(":int") and len(node.value) > 100:  # hexadecimal: Python would not even write it out
                raise ValueError(f"it has a number of {len(node.value)} digits")
            sizes[id(node)] = math.inf  # until it is known: a node inside itself never ends
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(map(size, flat))
        return sizes[id(node)]

    if root is None or size(root) > LARGEST_CONFIG:
        raise ValueError(f"it is empty, or its aliases stand for more than {LARGEST_CONFIG} values")
    return loader.construct_document(root)
