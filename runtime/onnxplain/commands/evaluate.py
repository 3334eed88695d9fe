"""`onnxplain evaluate`: methods measured by metrics over pictures; a table, values, means and plots out."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from onnxplain.bundle import Bundle
from onnxplain.commands.chosen import ALL, has_no, named_methods, plain_method, runnable
from onnxplain.commands.given import target
from onnxplain.errors import ParameterError, PictureError, unknown
from onnxplain.explainer import Explainer
from onnxplain.images import read_images
from onnxplain.messages import say
from onnxplain.metrics import METRICS, Evaluation, Metric, evaluate, find_metric, mask_files
from onnxplain.metrics.places import REDUCTIONS
from onnxplain.metrics.registry import setting_from_text
from onnxplain.metrics.tables import FILES, NO_PLOT
from onnxplain.output import write_bytes
from onnxplain.output_folder import INDEX, output_folder
from onnxplain.parameters import from_text
from onnxplain.pictures import find_pictures
from onnxplain.providers import DEVICES

DEFAULT_METRICS = "deletion,insertion"


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure how good a bundle's explanations are",
        description="Measure the methods of a bundle by metrics over pictures.",
        epilog="\n".join(["metrics:", *(f"  {entry.name:17} {entry.summary}" for entry in METRICS.values())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="what onnxplain export wrote")
    add("pictures", metavar="PICTURES", nargs="+", help="picture files, folders, or patterns")
    add("--method", default="all", metavar="A,B", help="one or more methods of the bundle, or all (default)")
    add("--metric", default=DEFAULT_METRICS, metavar="X,Y", help=f"one or more metrics (default: {DEFAULT_METRICS})")
    add(
        "--masks",
        metavar="DIR",
        help="PNG files named as the pictures, any pixel but black inside; or a pattern, DIR/{name}.digit.png",
    )
    add("--target", default="top", metavar="CLASS", help="class name, number, or top (default) of each picture")
    add("--preset", metavar="SYSTEM", help="that system's form of the metrics, such as mindspore")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the methods, or METRIC.NAME=VALUE a setting of a metric, as deletion.steps=20",
    )
    add("--reduction", choices=REDUCTIONS, help="how a map's channels become one number")
    add("--classes", action="store_true", help="print the means of each class too")
    add("--memory", metavar="SIZE", help="bound on what a run adds to memory, as 2GB or 500MB")
    add("--device", default="auto", choices=DEVICES, help="default: CUDA where it works, else the CPU")
    add("--threads", type=int, metavar="N", help="threads of a run (default: all cores)")
    add("--no-verify", action="store_true", help="skip the check of the bundle's hashes")
    add("--overwrite", action="store_true", help="replace an earlier result")
    add("-o", "--output", type=Path, metavar="OUT", help="folder to write; without it the table alone is printed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table of means, and writes the folder; 1 if some pictures could not be read."""
    explainer = Explainer(arguments.bundle, arguments.device, threads=arguments.threads, verify=not arguments.no_verify)
    methods = named_methods(arguments.method, explainer.bundle)
    metrics = _metrics(arguments.metric)
    entries = [find_metric(name, arguments.preset) for name in metrics]
    parameters, settings = _given(explainer.bundle, methods, entries, arguments.set)
    methods = runnable(explainer.bundle, methods, parameters, arguments.method == ALL)
    parameters = {name: given for name, given in parameters.items() if name in methods}
    found = find_pictures(arguments.pictures)
    pictures = _readable(found, explainer.bundle)
    masks = None if arguments.masks is None else mask_files(arguments.masks, pictures)
    if arguments.output is None:
        evaluation = _evaluated(explainer, pictures, methods, metrics, arguments, masks, parameters, settings)
    else:
        with output_folder(arguments.output, arguments.overwrite) as folder:
            evaluation = _evaluated(explainer, pictures, methods, metrics, arguments, masks, parameters, settings)
            files = evaluation.write(folder)
            # The index is what says, another time, that the folder is ours to replace.
            write_bytes(folder / INDEX, (json.dumps({"files": files}) + "\n").encode())
    print(evaluation.table(classes=arguments.classes))
    if arguments.output is not None:
        if "plot" not in files:
            say(NO_PLOT)
        print(f"see {arguments.output / FILES['values']} and the files beside it")
    return 1 if len(pictures) < len(found) else 0


def _readable(pictures: Sequence[Path], bundle: Bundle) -> list[Path]:
    """The pictures that can be read; of the others it is said why they can't."""
    bad: dict[str, PictureError] = {}
    for picture in pictures:
        read_images([picture], bundle, lambda name, error: bad.update({name: error}))
    for error in bad.values():
        say(error)
    if len(bad) == len(pictures):
        raise PictureError(f"none of the {len(pictures)} pictures could be read; nothing was written")
    return [picture for picture in pictures if str(picture) not in bad]


def _evaluated(
    explainer: Explainer,
    pictures: Sequence[Path],
    methods: Sequence[str],
    metrics: Sequence[str],
    arguments: argparse.Namespace,
    masks: Sequence[Path] | None,
    parameters: dict[str, dict[str, Any]],
    settings: dict[str, dict[str, Any]],
) -> Evaluation:
    return evaluate(
        explainer,
        pictures,
        methods,
        metrics,
        target(arguments.target),
        masks,
        preset=arguments.preset,
        parameters=parameters,
        settings=settings,
        reduction=arguments.reduction,
        memory=arguments.memory,
        progress=True,
    )


def _metrics(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ParameterError("--metric names no metric")
    return list(dict.fromkeys(found))


def _given(
    bundle: Bundle, methods: Sequence[str], entries: Sequence[Metric], texts: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The parameters of the methods and the settings of the metrics, by their names."""
    parameters: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text}: write NAME=VALUE, or METRIC.NAME=VALUE")
        owner, dot, setting = name.strip().replace("-", "_").rpartition(".")
        if dot and owner not in methods:
            entry = next((entry for entry in entries if entry.name == owner), None)
            if entry is None:
                known = [*methods, *(entry.name for entry in entries)]
                raise ParameterError(f"--set {text}: " + unknown("method or metric of this evaluation", owner, known))
            settings.setdefault(owner, {})[setting] = setting_from_text(entry, setting, value)
            continue
        asked = [owner] if dot else methods
        owners = [method for method in asked if setting in plain_method(bundle, method).parameters]
        if not owners:
            raise ParameterError(f"--set {text}: {has_no(asked, setting)}")
        for method in owners:
            parameter = plain_method(bundle, method).parameters[setting]
            parameters.setdefault(method, {})[setting] = from_text(parameter, value)
    return parameters, settings
