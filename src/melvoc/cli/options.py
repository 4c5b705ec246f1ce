"""Command-line options from dataclasses: names, types, defaults and texts are defined in one place."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from melvoc.errors import OptionError

V = TypeVar("V")


def add_fields(parser: Any, options: type, names: Iterable[str]) -> None:
    """Add an option for each field. One that is not given is missing from the parsed arguments.

    Args:
        parser: of a command, or a group of its options.
        options: a dataclass whose docstring has `Attributes:`.
        names: of its fields; a `bool` becomes a flag, `--no-...` if it is true by default.
    """
    texts, kinds = attributes(options), typing.get_type_hints(options)
    defaults = {entry.name: entry.default for entry in dataclasses.fields(options)}
    for name in names:
        flag, kind, default = name.replace("_", "-"), _plain(kinds[name]), defaults[name]
        if kind is bool:
            spelled, action = (f"--no-{flag}", "store_false") if default else (f"--{flag}", "store_true")
            text = f"do not {texts[name]}" if default else texts[name]
            parser.add_argument(spelled, dest=name, action=action, default=argparse.SUPPRESS, help=text)
        else:
            shown = "" if default is None else f" (default: {default})"
            parser.add_argument(f"--{flag}", type=kind, default=argparse.SUPPRESS, help=texts[name] + shown)


def given(arguments: argparse.Namespace, options: type) -> dict[str, Any]:
    """The fields of a dataclass that were given."""
    names = {entry.name for entry in dataclasses.fields(options)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def pairs(text: str, value: Callable[[str], V], example: str) -> dict[str, V]:
    """The entries of `NAME=VALUE,NAME=VALUE`.

    Args:
        text: as it was given.
        value: of what stands after the equals sign; raises ValueError where it is none.
        example: for the message.

    Raises:
        OptionError: something else.
    """
    found: dict[str, V] = {}
    for entry in text.split(","):
        name, _, word = entry.partition("=")
        try:
            found[name.strip()] = value(word.strip())
        except ValueError as error:
            raise OptionError(f"{entry!r} in {text!r} is not NAME=VALUE; write for example {example}") from error
    return found


def attributes(options: type) -> dict[str, str]:
    """A docstring's attribute descriptions as help texts: without backquotes, and "None: ..." as the default."""
    section = (inspect.getdoc(options) or "").partition("Attributes:\n")[2]
    section = re.split(r"\n\S", section)[0]
    texts = {}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        head, _, default = " ".join(text.split()).replace("`", "").replace("%", "%%").partition(" None: ")
        texts[name] = f"{head.rstrip('.')} (default: {default.rstrip('.')})" if default else head.rstrip(".")
    return texts


def _plain(kind: Any) -> Any:
    """The type that turns a word into a value of an annotation: None is ignored, a path or a choice stays a word."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    return kind if kind in (int, float, bool) else str
