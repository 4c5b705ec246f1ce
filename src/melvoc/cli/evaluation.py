"""`melvoc evaluate`: how good vocoders are on sounds of your own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from melvoc.cli import tell
from melvoc.cli.common import add_loading, bars, load_each, named


def add_parser(commands: Any) -> None:
    """Add the command; its options are added when it is chosen, because they need melvoc.evaluation."""
    parser = commands.add_parser("evaluate", help="how good vocoders are on your sounds: figures, and a report to hear")
    parser.later = add_options
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options."""
    from melvoc.evaluation.protocols import PROTOCOLS

    parser.usage = "%(prog)s AUDIO [AUDIO ...] -o REPORT --vocoder V [V ...] [options]"
    parser.description = (
        "Turn recordings into mels and back with each vocoder and each refinement, and measure what comes back; "
        "REPORT gets report.html, results.json and results.csv."
    )
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help="sound files and folders; - for standard input")
    parser.add_argument("-o", "--output", metavar="REPORT", required=True, help="folder for the report")
    parser.add_argument("--overwrite", action="store_true", help="overwrite a report that is there")
    parser.add_argument(
        "--vocoder", nargs="+", action="extend", required=True, metavar="V",
        help="a name, a melvoc file, hf://owner/repo; give it for each vocoder",
    )  # fmt: skip
    parser.add_argument(
        "--refine", nargs="+", action="extend", type=int, metavar="N", help="rounds of refinement (default: 0)"
    )
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="default", help="how it is measured (default: default)"
    )
    parser.add_argument(
        "--metric", nargs="+", action="extend", metavar="NAME", help="what is measured (default: all there is)"
    )
    parser.add_argument(
        "--speech", action=argparse.BooleanOptionalAction,
        help="whether the files are speech (default: what each sounds like)",
    )  # fmt: skip
    parser.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="measure at this rate (default: the lowest of file and vocoders)"
    )
    parser.add_argument(  # not load's option of that name, which a vocoder without noise refuses
        "--seed", type=int, default=0, dest="drawn", metavar="N",
        help="of Griffin-Lim's phases, and of what plugins draw from torch (default: 0)",
    )  # fmt: skip
    add_loading(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, and say in a sentence what came out."""
    import melvoc

    vocoders = load_each(arguments, arguments.vocoder)
    with bars() as progress:
        found = melvoc.evaluate(
            [named(place) for place in arguments.audio], vocoders, arguments.refine or (0,), arguments.output,
            protocol=arguments.protocol, metrics=arguments.metric, speech=arguments.speech,
            sample_rate=arguments.sample_rate, device=getattr(arguments, "device", "auto"), seed=arguments.drawn,
            overwrite=arguments.overwrite, progress=progress,
        )  # fmt: skip
    tell(f"{found.headline} {found.grounds}".strip())
    for entry in found.missing:
        tell(f"not measured: {entry['title']} ({entry['how']})")
    tell(str(Path(arguments.output) / "report.html"))
    for failure in found.failed:
        by = "" if failure["vocoder"] is None else f" by {failure['vocoder']}"
        text = " ".join(str(failure["error"]).removeprefix(f"{failure['file']}: ").split())
        print(f"melvoc: error: {failure['file']}{by}: {text}", file=sys.stderr)
    return 1 if found.failed else 0
