"""`melvoc list`, `info`, `download` and `convert`: which vocoders there are, and how to get them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

import melvoc
from melvoc.cli.common import add_fetching, load, named, read_spec
from melvoc.errors import MelvocError, clipped
from melvoc.storage.container import Checkpoint


def add_parser(commands: Any) -> None:
    """Add the four commands."""
    listing = commands.add_parser("list", help="the names of all vocoders")
    listing.set_defaults(run=run_list)

    info = commands.add_parser("info", help="what is known about a vocoder; downloads nothing")
    info.add_argument("name", metavar="NAME", help="a registered name, or a melvoc file")
    info.set_defaults(run=run_info)

    download = commands.add_parser("download", help="fetch a published vocoder, verify and convert it")
    download.add_argument("name", metavar="NAME", help="a registered name, or hf://owner/repo[@revision][/file]")
    add_fetching(download)
    download.set_defaults(run=run_download)

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
    """Names, one per line."""
    print("\n".join(melvoc.list_vocoders()))
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """One field per line; the spec's fields below."""
    info = melvoc.info(arguments.name)
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if value is None:
            continue
        if field.name == "spec":
            print("spec:")
            for name, part in info.spec.to_dict().items() if info.spec else ():
                print(f"    {name}: {part}")
        else:
            text = f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())
            print(clipped(f"{field.name}: {text}"))  # a file's name and origin are a stranger's words
    return 0


def run_download(arguments: argparse.Namespace) -> int:
    """Load once, so that it is in the cache and known to be intact."""
    vocoder = load(arguments, arguments.name, device="cpu")
    print(f"{vocoder.name} is in the cache: melvoc.load({arguments.name!r}) needs no network now")
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
    checkpoint = describe(melvoc.load(arguments.checkpoint, device="cpu", dtype=torch.float32, allow_unverified=True))
    return dataclasses.replace(
        checkpoint, name=arguments.name or checkpoint.name, licence=arguments.licence or checkpoint.licence
    )
