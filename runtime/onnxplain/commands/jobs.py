"""`onnxplain jobs`: explains whole data sets into a folder, goes on after any interruption, checks what is there."""

import argparse
import json
from pathlib import Path
from typing import Any

from onnxplain.bundle import EXPLAINS
from onnxplain.bundle_files import read_bundle
from onnxplain.commands import given
from onnxplain.commands.chosen import ALL, named_methods, runnable
from onnxplain.errors import ParameterError
from onnxplain.jobs import Job, Limits, Output, status, verify
from onnxplain.jobs.description import DTYPES, FORMATS, KINDS
from onnxplain.jobs.job import ENGINES
from onnxplain.jobs.report import REPORT
from onnxplain.jobs.summary import FAILURES
from onnxplain.messages import say
from onnxplain.planner import parse_memory
from onnxplain.providers import DEVICES

DESCRIPTION = """Explain whole data sets. The same command again goes on where an earlier one ended, however it did."""
COLUMNS = ("image", "label", "name")


def add_command(commands: Any) -> None:
    """Adds the parsers of `onnxplain jobs`."""
    parser = commands.add_parser("jobs", help="explain whole data sets", description=DESCRIPTION, allow_abbrev=False)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)
    start = actions.add_parser("run", help="begin a job, or go on with it", description=DESCRIPTION, allow_abbrev=False)
    _add_arguments(start.add_argument)
    start.set_defaults(run=run)
    for name, text, function in (
        ("status", "say where a job stands", show_status),
        ("verify", "read and check every byte of what is finished", check),
    ):
        other = actions.add_parser(name, help=text, allow_abbrev=False)
        other.add_argument("folder", metavar="DIR", type=Path, help="what jobs run wrote")
        other.set_defaults(run=function)


def _add_arguments(add: Any) -> None:
    output, limits = Output(), Limits()
    add("bundle", metavar="BUNDLE", help="what onnxplain export wrote")
    add(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="folders (with all below them), patterns, lists of files (.txt), WebDataset archives (.tar), Parquet",
    )
    add("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write, or to go on with")
    add("--method", metavar="A,B", help="one or more methods of the bundle, or all; default: gradient")
    add("--targets", default="top", metavar="CLASS", help="top (default), true, or a class name or number for all")
    add(
        "--labels",
        metavar="HOW",
        help="true classes: folders (the names of the pictures' folders), none, or a CSV file",
    )
    for column in COLUMNS:
        add(f"--{column}-column", metavar="NAME", help=f"of a Parquet file: where the {column} is")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter; METHOD.NAME=VALUE of one method")
    add("--score", choices=EXPLAINS, help="what perturbation methods explain")
    add("--maps", choices=KINDS, default=output.maps, help="as the network takes pictures (default), or over channels")
    add("--dtype", choices=DTYPES, default=output.dtype, help="of the maps; float16 with a scale for each")
    add("--format", choices=FORMATS, default=output.format, help="of the maps")
    add("--shard-size", type=int, default=output.shard_size, metavar="N", help="pictures in a shard (%(default)s)")
    add("--overlays", action="store_true", help="a PNG file for each map, too")
    add("--no-thumbnails", action="store_true", help="leave the small pictures of the report out")
    add("--max-failures", metavar="N", help="end once more pictures failed: a count, or a share as 0.01 or 1%%")
    add("--max-bytes", default=limits.bytes, metavar="SIZE", help="of a picture's file (50MB)")
    add("--max-pixels", type=int, default=limits.pixels, metavar="N", help="of a picture (%(default)s)")
    add("--max-seconds", type=float, default=limits.seconds, metavar="S", help="to decode a picture (%(default)s)")
    add("--memory", metavar="SIZE", help="bound on what the runs of all lanes add to memory (2GB for each lane)")
    add("--rows", type=int, metavar="N", help="images times steps in a run")
    add("--lanes", type=int, metavar="N", help="runs at the same time (default: one for each core; one on a GPU)")
    add("--threads", type=int, metavar="N", help="threads of a run (default: 1)")
    add("--workers", type=int, metavar="N", help="processes that decode pictures (default: one for each core)")
    add("--device", default="auto", choices=DEVICES, help="default: CUDA where it works, else the CPU")
    add("--engine", default=ENGINES[0], choices=ENGINES, help="who does the work")


def run(arguments: argparse.Namespace) -> int:
    """Does the job, or what is left of it; 1 if some pictures couldn't be explained."""
    bundle = read_bundle(arguments.bundle, verify=False)  # the job checks it
    methods = named_methods(arguments.method, bundle)
    settings = given.settings(bundle, methods, map(given.pair, arguments.set), ())
    methods = runnable(bundle, methods, settings, arguments.method == ALL)
    targets = arguments.targets if arguments.targets in ("top", "true") else given.target(arguments.targets)
    columns = {column: getattr(arguments, f"{column}_column") for column in COLUMNS}
    job = Job(
        arguments.bundle,
        arguments.source,
        arguments.out,
        {method: settings[method] for method in methods},
        targets,
        labels=arguments.labels,
        columns={column: name for column, name in columns.items() if name is not None},
        score=arguments.score,
        output=Output(
            arguments.shard_size,
            arguments.dtype,
            arguments.maps,
            arguments.format,
            not arguments.no_thumbnails,
            arguments.overlays,
        ),
        limits=Limits(parse_memory(arguments.max_bytes), arguments.max_pixels, arguments.max_seconds),
        max_failures=_failures(arguments.max_failures),
        memory=arguments.memory,
        rows=arguments.rows,
        lanes=arguments.lanes,
        threads=arguments.threads,
        workers=arguments.workers,
        device=arguments.device,
        engine=arguments.engine,
    )
    summary = job.run(progress=True)
    print(f"{summary['explained']:,} of {summary['pictures']:,} pictures explained; see {arguments.out / REPORT}")
    if summary["failed"]:
        say(f"{summary['failed']:,} pictures failed; see {arguments.out / FAILURES}")
    return 1 if summary["failed"] else 0


def show_status(arguments: argparse.Namespace) -> int:
    """Prints where a job stands, as JSON."""
    print(json.dumps(status(arguments.folder), indent=1))
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Checks what a job has finished; 1 if something is wrong with it."""
    found = verify(arguments.folder)
    for line in found:
        say(line)
    if found:
        say("run the same job again: it makes these shards anew")
        return 1
    print(f"all of {arguments.folder} is as it was written")
    return 0


def _failures(text: str | None) -> int | float | None:
    if text is None:
        return None
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ParameterError(f"--max-failures {text}: write a count, or a share as 0.01 or 1%") from None
