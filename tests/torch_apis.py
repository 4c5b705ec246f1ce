"""The names of torch's that melvoc uses, and those that the oldest torch has.

Run with that torch, `python tests/torch_apis.py` writes its names to tests/golden/torch_oldest.json. What this does not
see: arguments, behaviour, attributes of objects other than tensors, and names that are put together at run time.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

SOURCE = Path(__file__).resolve().parents[1] / "src"
OLDEST = Path(__file__).parent / "golden" / "torch_oldest.json"
TENSOR = "torch.Tensor"


def dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """`F.conv1d` as "torch.nn.functional.conv1d"; None if it does not begin with a name of torch's."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, aliases)):
        return f"{before}.{node.attr}"
    return None


def names_in(tree: ast.AST) -> Iterator[str]:
    """Torch's names in a file: whole paths, and attributes of other things as `*.name`, which may be a tensor's."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = {one.asname or "torch": one.name if one.asname else "torch" for one in node.names}
            imported = {alias: name for alias, name in found.items() if name.split(".")[0] == "torch"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            imported = {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        else:
            continue
        aliases |= imported
        yield from imported.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield dotted(node, aliases) or f"*.{node.attr}"


def in_use() -> dict[str, str]:
    """Every name in src, and one file that uses it."""
    return {
        name: path.relative_to(SOURCE).as_posix()
        for path in sorted(SOURCE.rglob("*.py"))
        for name in names_in(ast.parse(path.read_text(encoding="utf-8")))
    }


def split(name: str, known: Collection[str] = ()) -> tuple[str, str]:
    """The module, or torch.Tensor, that a name belongs to, and its name there ("": the module itself).

    Args:
        name: as `names_in` gives it.
        known: modules that need not be there to be imported.
    """
    parts = name.split(".")
    if parts[0] == "*" or name.startswith(f"{TENSOR}."):
        return TENSOR, parts[-1]
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            if module not in known:
                importlib.import_module(module)
        except ImportError:
            continue
        return module, parts[count] if count < len(parts) else ""
    raise AssertionError(f"{name} is no name of this torch")


def owned(place: str) -> list[str]:
    """The names in a module, or of a tensor."""
    owner = torch.Tensor if place == TENSOR else importlib.import_module(place)
    return sorted(set(dir(owner)))


if __name__ == "__main__":
    used = [split(name) for name in in_use()]
    private = {own for _, own in used if own.startswith("_")}
    table = {
        place: " ".join(own for own in owned(place) if not own.startswith("_") or own in private)
        for place in sorted({place for place, _ in used})
    }
    OLDEST.write_text(json.dumps({"torch": torch.__version__.partition("+")[0], "names": table}, indent=1) + "\n")
