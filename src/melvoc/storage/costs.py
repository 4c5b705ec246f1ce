"""What `melvoc doctor --tune` measured on a machine: kept in melvoc's cache, read when an engine is made."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from melvoc.errors import MelvocError
from melvoc.storage.atomic import replacing
from melvoc.storage.cache import cache_folder

if TYPE_CHECKING:
    from melvoc.nn.engines.cpu.plan import CostModel

_logger = logging.getLogger(__name__)


def costs_file() -> Path:
    """Where the costs of this machine are kept."""
    return cache_folder() / "cpu-costs.json"


def machine() -> str:
    """The kind of processor that the costs are valid for."""
    from llvmlite.binding import get_host_cpu_name

    return f"{platform.machine()} {get_host_cpu_name()}"


def save_costs(costs: CostModel) -> Path:
    """Keep the costs for later engines, in this process and others.

    Raises:
        OSError: melvoc's cache cannot be written.
    """
    target = costs_file()
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "threads": torch.get_num_threads(), "costs": dataclasses.asdict(costs)}
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def tuned_costs() -> CostModel | None:
    """The saved costs; None if there are none for so many threads, or (with one warning) none that are valid here."""
    try:
        path = costs_file()
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, MelvocError):  # without a cache nothing was measured
        return None
    except (OSError, ValueError) as error:
        return _ignored(path, f"cannot be read ({error})")
    try:
        if content["machine"] != machine():
            return _ignored(path, f"is from another machine ({content['machine']}; this one is {machine()})")
        from melvoc.nn.engines.cpu.plan import CostModel

        costs, threads = CostModel(**content["costs"]), content.get("threads")
        return costs if threads in (None, torch.get_num_threads()) else None  # products are of all threads together
    except (ImportError, OSError):  # without llvmlite there are no kernels for costs to matter
        return None
    except (KeyError, TypeError, ValueError) as error:
        return _ignored(path, f"is damaged ({type(error).__name__}: {error})")


@functools.cache
def _ignored(path: Path, why: str) -> None:
    _logger.warning("%s %s and is ignored; run 'melvoc doctor --tune' again, or delete it", path, why)
