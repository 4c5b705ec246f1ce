"""Fixtures that every test module shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real weights and audio: the folder MELVOC_TEST_DATA names, else `shared` beside the checkout."""
    folder = Path(os.environ.get("MELVOC_TEST_DATA") or ROOT.parent / "shared")
    if not (folder / "golden").is_dir():
        pytest.skip(f"needs the real weights and audio: no {folder} (name it in MELVOC_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Small golden files that ship with the repository."""
    return ROOT / "tests" / "golden"


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator of random numbers."""
    return torch.Generator().manual_seed(20261123)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Torch's, in each test, whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: on a busy machine each of its small parallel regions takes up to 50 ms."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
