"""`melvoc export`: a vocoder as a file for another runtime."""

from __future__ import annotations

import argparse
from typing import Any

import melvoc
from melvoc.cli.common import add_loading, load


def add_parser(commands: Any) -> None:
    """Add the command."""
    export = commands.add_parser("export", help="write a vocoder for another runtime: ONNX, torch.export, sherpa-onnx")
    export.add_argument(
        "vocoder", metavar="VOCODER", help="what melvoc.load takes: a name, a melvoc file, hf://owner/repo"
    )
    export.add_argument("-o", "--output", required=True, help="the file, ending in .onnx or .pt2")
    export.add_argument("--target", choices=("onnx", "sherpa"), default="onnx", help="who reads it (default: onnx)")
    export.add_argument("--refine", type=int, metavar="N", help="rounds of refinement inside the graph")
    export.add_argument("--streaming", action="store_true", help="the step of a stream, its state beside it")
    add_loading(export)
    export.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Load, and write."""
    vocoder = load(arguments, arguments.vocoder)
    melvoc.export(
        vocoder, arguments.output, target=arguments.target, refine=arguments.refine, streaming=arguments.streaming
    )
    return 0
