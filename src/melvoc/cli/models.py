"""`melvoc list`, `info`, `download`, `cache` and `convert`: which vocoders there are, and how to get them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

import melvoc
from melvoc.cli.common import add_fetching, bars, named, read_spec
from melvoc.cli.options import given
from melvoc.errors import MelvocError, clipped
from melvoc.options import LoadOptions
from melvoc.registry import GRIFFINLIM
from melvoc.storage.container import Checkpoint


def add_parser(commands: Any) -> None:
    """Add the commands."""
    listing = commands.add_parser("list", help="all vocoders: what they are made for, and which are here")
    listing.add_argument("--names", action="store_true", help="the names alone, one per line, for scripts")
    listing.set_defaults(run=run_list)

    info = commands.add_parser("info", help="what is known about a vocoder; downloads nothing")
    info.add_argument("name", metavar="NAME", help="a registered name, a melvoc file, or hf://owner/repo")
    info.set_defaults(run=run_info)

    download = commands.add_parser("download", help="fetch a published vocoder, verify and convert it")
    download.add_argument("name", metavar="NAME", help="a registered name, or hf://owner/repo[@revision][/file]")
    add_fetching(download)
    download.set_defaults(run=run_download)

    cache = commands.add_parser("cache", help="the files of downloaded vocoders: list them, or free what no load needs")
    actions = cache.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, text in (
        ("list", run_cache_list, "the cached files: melvoc's own, and those in the Hub's cache that melvoc loads"),
        ("prune", run_cache_prune, "remove second copies and the remains of interrupted downloads"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--cache-dir", help="root of both caches, instead of the Hub's and melvoc's own")
        action.set_defaults(run=run)

    convert = commands.add_parser("convert", help="turn a published checkpoint into a melvoc file")
    convert.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="the published weights, the folder that has them, or hf://owner/repo[@revision]; - is standard input",
    )
    convert.add_argument(
        "--config",
        help="its config.json or config.yaml (default: the one beside it; - is standard input), or a known vocoder's "
        "name",
    )
    convert.add_argument("--spec", help="its mel, if the config has none: a preset's name, or a file of MelSpec fields")
    convert.add_argument("-o", "--output", required=True, help="the melvoc file, ending in .safetensors")
    convert.add_argument("--name", help="name of the vocoder (default: the checkpoint's folder)")
    convert.add_argument("--licence", help="licence of the weights, stored in the file")
    convert.set_defaults(run=run_convert)


def run_list(arguments: argparse.Namespace) -> int:
    """A row for each vocoder, or its name alone."""
    names = melvoc.list_vocoders()
    if arguments.names:
        print("\n".join(names))
        return 0
    rows = [("name", "rate", "bands", "hop", "parameters", "speed", "cached"), *map(_row, names)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells))
    return 0


def _row(name: str) -> tuple[str, ...]:
    """What the table says of a vocoder; "-" is unknown before it is loaded."""
    try:
        known = melvoc.info(name)
    except MelvocError:  # two packages claim the name; `melvoc info` says it
        return (name, *"------")
    spec, anything = known.spec, "any" if known.architecture == GRIFFINLIM else "-"
    mel = (str(spec.sample_rate), str(spec.n_mels), str(spec.hop_length)) if spec else (anything,) * 3
    size = {None: "-", 0: "none"}.get(known.parameters, f"{(known.parameters or 0) / 1e6:.1f} M")
    return (name, *mel, size, known.speed or "-", {None: "-", True: "yes", False: "no"}[known.cached])


def run_info(arguments: argparse.Namespace) -> int:
    """One field per line; the spec's fields below."""
    info = melvoc.info(arguments.name)
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if value is None or value == {}:
            continue
        if field.name in ("spec", "provenance"):
            print(f"{field.name}:")
            for name, part in (value if field.name == "provenance" else value.to_dict()).items():
                print(clipped(f"    {name}: {' '.join(str(part).split())}"))
        else:
            number = isinstance(value, int) and not isinstance(value, bool)
            text = f"{value:,}" if number else " ".join(str(value).split())
            print(clipped(f"{field.name}: {text}"))  # a file's name and origin are a stranger's words
    return 0


def run_download(arguments: argparse.Namespace) -> int:
    """Fetch, verify and convert."""
    with bars() as progress:
        path = melvoc.download(arguments.name, progress=progress, **given(arguments, LoadOptions))
    print(
        f"{arguments.name} is in the cache ({path}, {path.stat().st_size / 1e6:.1f} MB): "
        f"melvoc.load({arguments.name!r}) needs no network now"
    )
    return 0


def run_cache_list(arguments: argparse.Namespace) -> int:
    """A line for each file."""
    total = 0
    for name, files in melvoc.cached(cache_dir=arguments.cache_dir).items():
        for path in files:
            size = path.stat().st_size
            total += size
            print(f"{size / 1e6:9.1f} MB  {name}  {path}")
    print(f"{total / 1e6:9.1f} MB  in total")
    return 0


def run_cache_prune(arguments: argparse.Namespace) -> int:
    """A line for each file or folder that was removed."""
    from melvoc.storage.inventory import prune

    freed = prune(cache_dir=arguments.cache_dir)
    for path, size in freed.items():
        print(f"{size / 1e6:9.1f} MB  {path}")
    print(f"{sum(freed.values()) / 1e6:9.1f} MB  freed" if freed else "nothing to free: no file lies there twice")
    return 0


def run_convert(arguments: argparse.Namespace) -> int:
    """Convert, and print what came out."""
    from melvoc.storage.container import write
    from melvoc.storage.conversion import convert

    if Path(arguments.output).suffix != ".safetensors":
        raise MelvocError(f"--output {arguments.output}: a melvoc file ends in .safetensors")
    if arguments.checkpoint == arguments.config == "-":
        raise MelvocError(
            "CHECKPOINT and --config are both -, but standard input is one file; give the other by its path"
        )
    spec = read_spec(arguments.spec) if arguments.spec else None
    if arguments.checkpoint.startswith("hf://"):
        checkpoint = _from_hub(arguments)
    else:
        checkpoint = convert(
            named(arguments.checkpoint),
            config=named(arguments.config) if arguments.config else None,
            spec=spec,
            name=arguments.name,
            licence=arguments.licence,
        )
    write(checkpoint, arguments.output)
    size = Path(arguments.output).stat().st_size / 1e6
    below = checkpoint.provenance.get("found below")
    print(
        f"{arguments.output}: {checkpoint.architecture}, {len(checkpoint.tensors)} tensors"
        + (f" (found below {clipped(below)!r})" if below else "")
        + f", {size:.1f} MB"
    )
    return 0


def _from_hub(arguments: argparse.Namespace) -> Checkpoint:
    """A repository's vocoder as `load` gets it; to convert it by name is to trust it."""
    from melvoc.storage.vocoder_file import describe

    if arguments.config or arguments.spec:
        raise MelvocError(
            f"{arguments.checkpoint}: --config and --spec are for files; download the repository's, and convert them"
        )
    with bars() as progress:
        vocoder = melvoc.load(
            arguments.checkpoint, device="cpu", dtype=torch.float32, allow_unverified=True, progress=progress
        )
    checkpoint = describe(vocoder)
    return dataclasses.replace(
        checkpoint, name=arguments.name or checkpoint.name, licence=arguments.licence or checkpoint.licence
    )
