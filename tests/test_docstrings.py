"""Every public name is documented, and every link and command in docs/ names a file that is there."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import melvoc

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    module.name for module in pkgutil.walk_packages(melvoc.__path__, "melvoc.") if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", ["melvoc", *MODULES])
def test_examples_run(name: str) -> None:
    source = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")  # type: ignore
    if ">>>" not in source:
        assert ast.get_docstring(ast.parse(source)), f"{name} has no docstring"
        return
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failures == 0


def test_public_names_exist_and_are_documented() -> None:
    for name in melvoc.__all__:
        assert getattr(melvoc, name).__doc__ or name == "__version__", name


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "NOTICE", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_and_commands_of_a_page_point_at_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
    for file in re.findall(r"\b(?:src|tests|benchmarks|docs)/[\w/]+\.(?:py|md|json)\b", text):
        assert (ROOT / file).exists(), f"{page.name} names {file}, which is not there"
