"""The code in README and docs/ runs, as it stands there; what cannot run says why."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from docs_child import HIFIGAN, PUBLISHED
from hub_server import Hub, Repository
from networks import GOLDEN, VOCODERS
from safetensors.torch import load_file

import melvoc
from melvoc.architectures.bigvgan import BigVGANConfig
from melvoc.architectures.hifigan import HiFiGANConfig
from melvoc.cli import build_parser
from melvoc.registry import pins

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOCK = re.compile(
    r"(?:^<!-- (?:not run: ([^\n]+)|run with: (\w+)) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = {
    ("docs/gpu.md", "needs a GPU"),
    ("docs/bulk.md", "needs a Ray cluster"),
    ("docs/training.md", "half an hour of training"),
    ("docs/training.md", "2 GB of downloads, and a GPU"),
    ("docs/export.md", "somebody else's file"),
}
PROGRAM = re.compile(r"^(?:\w+=\S+ )*(melvoc|python|pip|apt-get|torchrun|ruff|mypy|curl|git)\b", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    package: str | None  # it runs where this is installed


def blocks_of(page: Path) -> list[Block]:
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    return [
        Block(name, text[: match.start(4)].count("\n"), match[3], match[4], match[1], match[2])
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [
    block
    for block in BLOCKS
    if block.language in ("python", "bash")
    and not block.not_run
    and (block.package is None or importlib.util.find_spec(block.package))
]


@functools.cache
def published() -> tuple[bytes, dict[str, object]]:
    """Tiny weights under a published name: the file, and the changes to its pin."""
    tensors = load_file(GOLDEN / "bigvgan_v2_tiny.safetensors")
    state = {key.removeprefix("generator."): value for key, value in tensors.items() if key.startswith("generator.")}
    buffer = io.BytesIO()
    torch.save({"generator": state}, buffer)
    config = BigVGANConfig.from_published(json.loads((GOLDEN / "bigvgan_v2_tiny.json").read_text()))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return buffer.getvalue(), {"config": config.to_dict(), "revision": COMMIT, "sha256": digest}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """Runs a page, and gives what failed."""
    weights, row = published()
    small = {"config": HiFiGANConfig.from_published(HIFIGAN).to_dict()}
    home = tmp_path_factory.mktemp("home")
    with Hub() as hub:
        hub.repositories[pins()[PUBLISHED][1].repo] = Repository({COMMIT: {"bigvgan_generator.pt": weights}})
        blob = melvoc.to_bytes(VOCODERS["vocos_tiny"])
        hub.repositories["owner/repo"] = Repository({COMMIT: {"some/folder/voc.safetensors": blob}})
        dropped = ("HF_", "MELVOC_", "XDG_CACHE_HOME", "PINS")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(dropped)} | {
            "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home / "hf"), "MELVOC_CACHE": str(home / "melvoc"),
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PINS": json.dumps({PUBLISHED: row, "hifigan_universal_v1": small}),
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "docs_child.py")], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

        def run(page: str) -> list[str]:
            blocks = [vars(block) for block in RUN if block.page == page]
            kept = [{key: block[key] for key in ("line", "language", "text")} for block in blocks]
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps({"page": page, "blocks": kept}) + "\n")
            process.stdin.flush()
            answer: list[str] = json.loads(process.stdout.readline())
            return answer

        yield run
        process.communicate(timeout=60)


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_the_code_of_a_page_runs(child: Callable[[str], list[str]], page: str) -> None:
    failures = child(page)
    assert not failures, "\n".join(failures)


def test_what_is_not_run_says_why() -> None:
    found = {(block.page, block.not_run) for block in BLOCKS if block.not_run}
    assert found == NOT_RUN, "a new reason not to run a block is written down here, too"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in ("", "python", "bash", "toml")
    if block.language == "toml":
        tomllib.loads(block.text)
    if not block.language:
        assert not PROGRAM.search(block.text), "these are commands: ```bash"
        assert "import " not in block.text, "this is code: ```python"


# Commands that are not run: their files and options exist


def commands() -> list[tuple[str, str]]:
    """Every command of the pages' blocks and of their prose, without melvoc's, which run."""
    found = []
    for block in BLOCKS:
        if block.language == "bash":
            for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
                found += [(block.page, part) for part in line.partition("  #")[0].strip().split(" && ") if part]
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
        quoted = re.findall(r"`((?:python|pip|apt-get|torchrun) [^`]+)`", prose)
        found += [(page.name, " ".join(command.split())) for command in quoted]
    return [(page, command) for page, command in found if not re.search(r"(^|\| )melvoc ", command)]


def options_of(script: Path) -> set[str]:
    return set(re.findall(r'add_argument\(\s*(?:"-\w", )?"(--[\w-]+)"', script.read_text(encoding="utf-8"))) | {"-o"}


def check_python(words: list[str]) -> None:
    if words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    elif words[0] == "-m":
        assert words[1] in ("timeit", "melvoc"), words
    else:
        script = ROOT / words[0]
        assert script.exists(), f"{words[0]} is not there"
        unknown = {word for word in words[1:] if word.startswith("-") and word.strip("-")} - options_of(script)
        assert not unknown, f"{words[0]} has no {', '.join(sorted(unknown))}"


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert words[0] == "install"
    for word in words:
        for extra in re.findall(r"\[(\w+)\]", word):
            assert extra in extras, f"there is no extra {extra}"
        if word.endswith(".txt"):
            assert (ROOT / word).exists(), f"{word} is not there"


def check_torchrun(words: list[str]) -> None:
    build_parser().parse_args(words[words.index("melvoc") + 1 :])


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "python": check_python, "pip": check_pip, "torchrun": check_torchrun,
    "apt-get": lambda words: None, "ruff": lambda words: None, "mypy": lambda words: None,
}  # fmt: skip


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_that_is_not_run_names_what_exists(page: str, command: str) -> None:
    words = shlex.split(re.sub(r"\b[A-Z_]+=(\$\(.*?\)|\S+)\s+", "", command))
    assert words[0] in CHECKS, f"{page}: `{command}` is neither run nor checked"
    CHECKS[words[0]](words[1:])
    assert "../shared" not in command, f"{page}: `{command}` needs a folder that no user has"


# Public names

MODULES = ["", "audio", "train", "testing", "metrics", "batch", "plot"]  # below melvoc; those that are there
API = ROOT / "docs" / "api.md"


def listed() -> list[str]:
    """The names of the page, of the tables' first column; one that begins with a dot belongs to the last class."""
    found, owner = [], ""
    for row in re.findall(r"^\| (`.*?) \|", API.read_text(encoding="utf-8"), re.MULTILINE):
        for name in re.findall(r"`([\w.]+)`", row):
            owner = owner if name.startswith(".") else name
            found.append(owner + name if name.startswith(".") else name)
    return found


def members(kind: type) -> set[str]:
    """What a class adds to its bases."""
    own = {name for name in {*vars(kind), *inspect.get_annotations(kind)} if not name.startswith("_")}
    return own - set(dir(torch.nn.Module)) if issubclass(kind, torch.nn.Module) else own


def public() -> set[str]:
    """Every public name: of the modules, of the classes of melvoc itself and of melvoc.audio, and what pages import."""
    names = set()
    for short in MODULES:
        dotted = f"melvoc.{short}".rstrip(".")
        if importlib.util.find_spec(dotted) is None:
            continue
        module = importlib.import_module(dotted)
        own = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "").startswith(dotted)
        ]  # fmt: skip
        names |= {f"{dotted}.{name}" for name in own}
        for name in own:
            kind = getattr(module, name)
            if short in ("", "audio") and isinstance(kind, type) and not issubclass(kind, BaseException):
                names |= {f"{dotted}.{name}.{member}" for member in members(kind)}
    code = "\n".join(block.text for block in BLOCKS if block.language == "python")
    for module, imported in re.findall(r"^from (melvoc[\w.]*) import ([\w, ]+)", code, re.MULTILINE):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    return names


def test_every_public_name_has_its_place_on_the_page() -> None:
    missing = public() - set(listed())
    assert not missing, f"docs/api.md lacks {', '.join(sorted(missing))}"


def test_every_name_on_the_page_exists() -> None:
    found = listed()
    assert len(found) == len(set(found)), "each once"
    for name in found:
        parts = name.split(".")
        cut = next(n for n in range(len(parts), 0, -1) if _is_module(".".join(parts[:n])))
        value = importlib.import_module(".".join(parts[:cut]))
        for part in parts[cut:]:
            there = hasattr(value, part) or part in getattr(value, "__annotations__", {})
            assert there, f"docs/api.md has {name}, which does not exist"
            value = getattr(value, part, None)


def _is_module(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


def test_links_lead_to_headings_that_exist() -> None:
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([\w./]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8")):
            text = (page.parent / target if target else page).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert heading in anchors, f"{page.name} links to #{heading} of {target or page.name}: {sorted(anchors)}"
