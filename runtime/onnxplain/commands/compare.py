"""`onnxplain compare`: the same method on two bundles; maps side by side, differences, rank correlation."""

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.bundle import Bundle
from onnxplain.commands import given
from onnxplain.comparing import Comparison, compare_stream
from onnxplain.errors import ParameterError, PictureError
from onnxplain.explainer import Explainer
from onnxplain.heatmap import diverging
from onnxplain.messages import say
from onnxplain.output import write_bytes
from onnxplain.output_folder import INDEX, REPORT, output_folder
from onnxplain.parameters import from_text
from onnxplain.pictures import find_pictures
from onnxplain.predictions import predictions
from onnxplain.presets import split_method
from onnxplain.providers import DEVICES
from onnxplain.report import ReportMap, ReportPicture, ReportRow, ReportSection, ReportTable, write_report
from onnxplain.result import Result

TABLE = "comparison.csv"
LISTED, MOST_REPORTED = 2, 100

DESCRIPTION = """Explain the same pictures with two bundles, of a float and a quantised network or before and after
retraining, and say how far their maps agree."""


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain compare`."""
    parser = commands.add_parser("compare", help="compare the maps of two bundles", description=DESCRIPTION)
    add = parser.add_argument
    add("first", metavar="A", help="a bundle")
    add("second", metavar="B", help="the bundle to compare it with")
    add("pictures", metavar="PICTURES", nargs="+", help="picture files, folders, or patterns")
    add("--method", default="gradient", metavar="NAME", help="a method that both bundles have; default: gradient")
    add("--target", default="top", metavar="CLASS", help="class name, number, or top: the first one's best (default)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the method")
    add("--memory", metavar="SIZE", help="bound on what a run adds to memory, as 2GB or 500MB")
    add("--device", default="auto", choices=DEVICES, help="default: CUDA where it works, else the CPU")
    add("--overwrite", action="store_true", help="replace an earlier result")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compares the pictures; 1 if some could not be read."""
    first, second = (Explainer(path, arguments.device) for path in (arguments.first, arguments.second))
    settings = _settings((first.bundle, second.bundle), arguments.method, arguments.set)
    target = given.target(arguments.target)
    found: dict[str, Comparison] = {}
    bad: dict[str, str] = {}
    with output_folder(arguments.output, arguments.overwrite) as folder:
        for picture in find_pictures(arguments.pictures):
            try:
                (found[str(picture)],) = compare_stream(
                    first, second, [picture], arguments.method, target, memory=arguments.memory, **settings
                )
            except PictureError as error:
                bad[str(picture)] = str(error)
        if not found:
            raise PictureError(f"none of the {len(bad)} pictures could be read; nothing was written")
        _write(folder, found, bad, arguments.method, (first.bundle, second.bundle))
    for line in bad.values():
        say(line)
    correlations = [each.rank_correlation for each in found.values()]
    print(
        f"{len(found)} pictures compared: rank correlation {np.mean(correlations):.3f} (mean), "
        f"{min(correlations):.3f} (least); see {arguments.output / REPORT}"
    )
    return 1 if bad else 0


def _settings(bundles: Sequence[Bundle], method: str, texts: Sequence[str]) -> dict[str, Any]:
    """The parameters, as both bundles understand them."""
    name, _ = split_method(method, None)
    for bundle in bundles:
        if name not in bundle.methods:
            raise ParameterError(f"{bundle.path} has no method {name!r}; it has: {', '.join(bundle.methods)}")
    known = bundles[0].methods[name].parameters
    settings = {}
    for text in texts:
        parameter, equals, value = text.partition("=")
        if not equals or parameter not in known:
            raise ParameterError(f"--set {text}: write NAME=VALUE; {name} has: {', '.join(known) or 'no parameters'}")
        settings[parameter] = from_text(known[parameter], value)
    return settings


def _write(
    folder: Path, found: Mapping[str, Comparison], bad: Mapping[str, str], method: str, bundles: Sequence[Bundle]
) -> None:
    lines = [_line(name, comparison, method) for name, comparison in found.items()]
    columns = ("picture", "label", "rank_correlation", "distance", "overlap", "first_probability", "second_probability")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(folder / TABLE, buffer.getvalue().encode())
    errors = [{"picture": name, "error": error} for name, error in bad.items()]
    index = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [*lines, *errors])
    write_bytes(folder / INDEX, index.encode("utf-8", "backslashreplace"))
    _write_report(folder / REPORT, found, bad, method, bundles)


def _line(name: str, comparison: Comparison, method: str) -> dict[str, Any]:
    first, second = comparison.first, comparison.second
    return {
        "picture": name,
        "method": method,
        "label": first.labels[0],
        "rank_correlation": comparison.rank_correlation,
        "distance": comparison.distance,
        "overlap": comparison.overlap,
        "first_probability": _probability(first),
        "second_probability": _probability(second),
        "files": {"table": TABLE},
        "provenance": {"first": first.provenance, "second": second.provenance},
    }


def _probability(result: Result) -> float:
    target = int(result.targets[0])
    return float(result.probabilities[0][target]) if target >= 0 and result.probabilities.ndim == 2 else float("nan")


def _write_report(
    path: Path, found: Mapping[str, Comparison], bad: Mapping[str, str], method: str, bundles: Sequence[Bundle]
) -> None:
    names = _names(bundles)
    shown = sorted(found.items(), key=lambda entry: entry[1].rank_correlation)[:MOST_REPORTED]
    numbers = {
        "rank correlation (Spearman)": [each.rank_correlation for each in found.values()],
        "distance of the maps at norm 1": [each.distance for each in found.values()],
        "overlap of the 5 % highest pixels": [each.overlap for each in found.values()],
    }
    table = ReportTable(
        "How far the maps agree",
        ("", "mean", "least", "most"),
        [[name, *(f"{value:.3f}" for value in (np.mean(v), min(v), max(v)))] for name, v in numbers.items()],
    )
    introduction = [
        f"{len(found)} pictures explained with {method} by {names[0]} and by {names[1]}, for the class that the first "
        "names, unless one was given. Pictures on which they agree least come first.",
        "The difference is the second map less the first, each scaled to norm 1: red where the second sees more.",
        *(f"Not compared: {error}" for error in bad.values()),
    ]
    pictures = [_picture(name, comparison, names, bundles) for name, comparison in shown]
    made = next(iter(found.values()))
    foot = {
        **{f"bundle {name}": f"SHA-256 {bundle.sha256}" for name, bundle in zip(names, bundles, strict=True)},
        method: ", ".join(f"{name} {value}" for name, value in made.first.provenance["parameters"].items()) or "-",
        **{name: str(version) for name, version in made.first.provenance["versions"].items()},
    }
    sections = [ReportSection(tables=[table], pictures=pictures)]
    write_report(path, f"{names[0]} and {names[1]}", sections, introduction=introduction, provenance=foot)


def _names(bundles: Sequence[Bundle]) -> tuple[str, str]:
    first, second = (bundle.name for bundle in bundles)
    if first != second:
        return first, second
    folders = [bundle.path.name for bundle in bundles]
    return (folders[0], folders[1]) if folders[0] != folders[1] else (f"{first} (A)", f"{second} (B)")


def _picture(name: str, comparison: Comparison, names: tuple[str, str], bundles: Sequence[Bundle]) -> ReportPicture:
    """The two maps and their difference side by side, under what each network says."""
    results = (comparison.first, comparison.second)
    seen = comparison.first.images[0].seen
    label = f"maps for {comparison.first.labels[0]}"
    note = (
        f"rank correlation {comparison.rank_correlation:.3f}, distance {comparison.distance:.3f}, "
        f"overlap {comparison.overlap:.0%}"
    )
    maps = [
        ReportMap(heading, result.overlay()[0], _says(bundle, result))
        for heading, bundle, result in zip(names, bundles, results, strict=True)
        if _drawn(result)
    ]
    if _drawn(comparison.first):
        share = comparison.difference / (float(np.abs(comparison.difference).max()) or 1.0)
        maps.append(ReportMap("difference", diverging(share), f"{names[1]} − {names[0]}"))
    return ReportPicture(name, seen, [ReportRow(label, maps=maps)], note)


def _says(bundle: Bundle, result: Result) -> str:
    plain = bundle.scores.activation == "none"
    best = predictions(result.scores[0], result.probabilities[0], bundle.scores, LISTED)
    return ", ".join(
        f"{each.label} {each.score:.3g}" if plain else f"{each.label} {each.probability:.1%}" for each in best
    )


def _drawn(result: Result) -> bool:
    return result.images[0].seen is not None and result.attribution.ndim == 4
