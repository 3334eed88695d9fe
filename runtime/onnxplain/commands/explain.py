"""`onnxplain explain`: pictures in; raw maps, overlays, an index and a report out."""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.array_files import read_array
from onnxplain.bundle import EXPLAINS, Bundle
from onnxplain.commands.chosen import ALL, named_methods, runnable
from onnxplain.commands.effort import Efforts
from onnxplain.commands.given import pair, target
from onnxplain.commands.given import settings as settings_of
from onnxplain.display.comparison import ComparisonMap, ComparisonPicture, write_comparison
from onnxplain.display.from_results import comparison_pictures
from onnxplain.errors import ParameterError, PictureError
from onnxplain.explainer import Explainer
from onnxplain.messages import say
from onnxplain.output import write_bytes
from onnxplain.output_folder import INDEX, REPORT, output_folder
from onnxplain.pictures import find_pictures, write_png
from onnxplain.predictions import Prediction, predictions
from onnxplain.presets import PRESETS, split_method
from onnxplain.providers import DEVICES
from onnxplain.report import ReportMap, ReportPicture, ReportRow, ReportSection, write_report
from onnxplain.result import Result
from onnxplain.tolerance import refuse_intolerant, takes_tolerance

# A report is for looking at; one of more pictures would take long to open. The files hold them all.
MOST_REPORTED = 100
COMPARISON = "comparison.html"
# Predictions that the index and the report list, at least.
LISTED = 3

DESCRIPTION = """Explain what a network sees in pictures. The parameters of a method, such as --samples 100, are those
that `onnxplain info BUNDLE` lists."""

SET_HELP = "a parameter, as --NAME VALUE; METHOD.NAME=VALUE that of one method"


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain explain`."""
    parser = commands.add_parser("explain", help="explain pictures", description=DESCRIPTION, allow_abbrev=False)
    _add_arguments(parser)
    parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    add = parser.add_argument
    return [
        add("bundle", metavar="BUNDLE", help="what onnxplain export wrote"),
        add(
            "pictures",
            metavar="PICTURES",
            nargs="+",
            help="picture files, folders, or patterns; of networks that take other things, .npy or .npz files",
        ),
        add("--method", metavar="A,B", help="one or more methods of the bundle, or all; default: gradient"),
        add("--target", action="append", metavar="CLASS", help="class name, number, or top (default); repeatable"),
        add("--cotangent", type=Path, metavar="FILE", help="a .npy array: the weighted sum of the output to explain"),
        add("--top", type=int, metavar="N", help="explain each picture's N best classes"),
        add("--set", action="append", default=[], metavar="NAME=VALUE", help=SET_HELP),
        add("--score", choices=EXPLAINS, help="what perturbation methods explain"),
        add("--preset", choices=tuple(PRESETS), help="that system's parameters, or its form of the methods"),
        add("--tolerance", type=float, metavar="X", help="go on until each map is known to X, as 0.02 for 2 %%"),
        add("--memory", metavar="SIZE", help="bound on what a run adds to memory, as 2GB or 500MB"),
        add("--device", default="auto", choices=DEVICES, help="default: CUDA where it works, else the CPU"),
        add("--threads", type=int, metavar="N", help="threads of a run (default: all cores)"),
        add("--no-verify", action="store_true", help="skip the check of the bundle's hashes"),
        add(
            "--original", action="store_true", help="draw overlays on the whole pictures, not on what the network sees"
        ),
        add("--overwrite", action="store_true", help="replace an earlier result"),
        add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write"),
    ]


def split_parameters(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Command-line arguments without the options that argparse doesn't know, and those as (name, value)."""
    options = _add_arguments(argparse.ArgumentParser())
    known = {name for action in options for name in action.option_strings} | {"--help", "--"}
    kept: list[str] = []
    parameters: list[tuple[str, str]] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name in known:
            kept.append(argument)
            if argument == "--":
                kept.extend(rest)
            continue
        text = value if equals else next(rest, None)
        if text is None or (not equals and _is_option(text)):
            raise ParameterError(f"{name} needs a value")
        parameters.append((name.removeprefix("--").replace("-", "_"), text))
    return kept, parameters


def _options() -> set[str]:
    """The names of the options, without dashes."""
    actions = _add_arguments(argparse.ArgumentParser())
    return {option.lstrip("-") for action in actions for option in action.option_strings} - {"o"}


def _is_option(text: str) -> bool:
    """Whether an argument is an option, not a value: it begins with a dash, and is no negative number."""
    try:
        float(text)
    except ValueError:
        return text.startswith("-")
    return False


@dataclass(slots=True)
class _Reported:
    """What the report will show of one picture."""

    seen: NDArray[np.uint8]
    predictions: list[Prediction]
    maps: list[ReportMap] = field(default_factory=list)


@dataclass(slots=True)
class _Outcome:
    """What has come of the pictures so far: lines of the index, pictures of the two pages, errors by picture.

    `several` methods are compared on a page of their own.
    """

    several: bool
    lines: list[dict[str, Any]] = field(default_factory=list)
    reported: dict[str, _Reported] = field(default_factory=dict)
    compared: dict[str, dict[str, ComparisonMap]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    efforts: Efforts = field(default_factory=Efforts)


def run(arguments: argparse.Namespace) -> int:
    """Explains the pictures; 1 if some could not be read."""
    if sum(given is not None for given in (arguments.top, arguments.target, arguments.cotangent)) > 1:
        raise ParameterError("--top, --target and --cotangent each say what is explained; give one of them")
    explainer = Explainer(arguments.bundle, arguments.device, threads=arguments.threads, verify=not arguments.no_verify)
    methods = named_methods(arguments.method, explainer.bundle)
    given = [*map(pair, arguments.set), *arguments.parameters]
    settings = settings_of(explainer.bundle, methods, given, _options())
    methods = runnable(explainer.bundle, methods, settings, arguments.method == ALL)
    if arguments.score and not any(explainer.takes_score(method) for method in methods):
        raise ParameterError(f"--score is for perturbation methods, not for {', '.join(methods)}")
    if arguments.tolerance is not None:
        refuse_intolerant(explainer.bundle, methods, arguments.preset)
    pictures = find_pictures(arguments.pictures)
    outcome = _Outcome(several=len(methods) > 1)
    with output_folder(arguments.output, arguments.overwrite) as folder:
        for method in methods:
            _explain_all(explainer, pictures, method, settings[method], arguments, folder, outcome)
        if len(outcome.bad) == len(pictures):
            _report_bad(outcome)
            raise PictureError(f"none of the {len(pictures)} pictures could be read; nothing was written")
        lines = [*outcome.lines, *({"picture": name, "error": error} for name, error in outcome.bad.items())]
        index = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_bytes(folder / INDEX, index.encode("utf-8", "backslashreplace"))
        _write_report(folder / REPORT, explainer.bundle, outcome, len(pictures))
        if outcome.several and outcome.compared:
            _write_comparison(folder / COMPARISON, explainer.bundle, outcome)
    _report_bad(outcome)
    outcome.efforts.report()
    done = len(pictures) - len(outcome.bad)
    print(f"{done} of {len(pictures)} pictures explained; see {arguments.output / REPORT}")
    return 1 if outcome.bad else 0


def _explain_all(
    explainer: Explainer,
    pictures: Sequence[Path],
    method: str,
    settings: Mapping[str, Any],
    arguments: argparse.Namespace,
    folder: Path,
    outcome: _Outcome,
) -> None:
    """Writes one method's files for every picture. Method by method, since few graphs stay open at a time."""
    names = dict(zip(map(str, pictures), _file_names(pictures), strict=True))
    results = explainer.stream(
        [picture for picture in pictures if str(picture) not in outcome.bad],
        method,
        _targets(arguments.target),
        memory=arguments.memory,
        progress=True,
        score=arguments.score if explainer.takes_score(method) else None,
        top=arguments.top,
        cotangent=_cotangent(arguments.cotangent),
        preset=arguments.preset,
        tolerance=arguments.tolerance if takes_tolerance(explainer.bundle, method, arguments.preset) else None,
        on_error=lambda name, error: outcome.bad.update({name: str(error)}),
        **settings,
    )
    output = explainer.bundle.scores
    for result in results:
        files = _write_files(folder, names[result.images[0].name], result, arguments.original)
        if outcome.several and result.images[0].seen is not None:
            files["comparison"] = COMPARISON
        outcome.efforts.note(result)
        found = predictions(result.scores[0], result.probabilities[0], output, max(LISTED, arguments.top or 0))
        outcome.lines.append(_index_line(result, found, files))
        _note_for_report(outcome, result, found)


def _cotangent(file: Path | None) -> Any:
    return None if file is None else read_array(file)


def _report_bad(outcome: _Outcome) -> None:
    for error in outcome.bad.values():
        say(error)


def _targets(texts: Sequence[str] | None) -> Any:
    """One class for all pictures, a list of several, or None for the top class."""
    chosen = [target(text) for text in texts or ["top"]]
    return chosen if len(chosen) > 1 else chosen[0]


def _file_names(pictures: Sequence[Path]) -> list[str]:
    """A name for each picture's files: its own without suffix, numbered where several pictures share it."""
    taken: set[str] = set()
    names = []
    for picture in pictures:
        name, number = picture.stem, 2
        # Case folded, since some file systems don't tell A from a.
        while name.casefold() in taken:
            name, number = f"{picture.stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _write_files(folder: Path, name: str, result: Result, original: bool) -> dict[str, str]:
    files = {"map": f"{name}.{result.method}.npy"}
    buffer = io.BytesIO()
    np.save(buffer, result.attribution[0], allow_pickle=False)
    write_bytes(folder / files["map"], buffer.getvalue())
    if result.images[0].seen is None:
        return files  # what the network takes is no picture
    files["overlay"] = f"{name}.{result.method}.png"
    drawn = result.overlay(original=True)[0] if original else result.overlay()[0]
    write_png(folder / files["overlay"], np.hstack(list(drawn)) if drawn.ndim == 4 else drawn)
    return files


def _index_line(result: Result, predictions: Sequence[Prediction], files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "picture": result.images[0].name,
        "method": result.method,
        "targets": np.atleast_1d(result.targets[0]).tolist(),
        "labels": list(np.atleast_1d(result.labels[0])),
        "predictions": [
            {"class": each.target, "label": each.label, "score": each.score, "probability": each.probability}
            for each in predictions
        ],
        "box": result.images[0].box,
        **({"tokens": result.tokens()[0].tolist()} if result.has_tokens else {}),
        "files": dict(files),
        "provenance": result.provenance,
    }


def _note_for_report(outcome: _Outcome, result: Result, predictions: list[Prediction]) -> None:
    image = result.images[0]
    if image.seen is None or (image.name not in outcome.reported and len(outcome.reported) == MOST_REPORTED):
        return
    entry = outcome.reported.setdefault(image.name, _Reported(image.seen, predictions))
    for picture in comparison_pictures({result.method: result}):
        outcome.compared.setdefault(image.name, {}).update(picture.maps)
    drawn, names = result.overlay()[0], result.labels[0]
    several = [(drawn, names)] if drawn.ndim == 3 else zip(drawn, names, strict=True)
    entry.maps += [ReportMap(result.method, pixels, f"for {name}") for pixels, name in several]


def _write_report(path: Path, bundle: Bundle, outcome: _Outcome, total: int) -> None:
    plain = bundle.scores.activation == "none"
    pictures = [
        ReportPicture(name, entry.seen, [ReportRow(bundle.name, _values(entry.predictions, plain), entry.maps, plain)])
        for name, entry in outcome.reported.items()
    ]
    done = total - len(outcome.bad)
    introduction = [f"{done} of {total} pictures explained with {bundle.name}."]
    if not pictures:
        introduction.append(f"The network takes no pictures: the maps are in the .npy files that {INDEX} lists.")
    elif done > len(pictures):
        introduction.append(f"The first {len(pictures)} are shown here; {INDEX} lists them all.")
    introduction += [f"Not explained: {error}" for error in outcome.bad.values()]
    made = outcome.lines[0]["provenance"]
    used = {line["method"]: _used(line["provenance"]) for line in outcome.lines}
    versions = {name: str(version) for name, version in made["versions"].items()}
    foot = {"bundle": f"{bundle.name}, SHA-256 {bundle.sha256}", **used, "provider": made["provider"], **versions}
    section = ReportSection(pictures=pictures)
    write_report(path, f"What {bundle.name} sees", [section], introduction=introduction, provenance=foot)


def _write_comparison(path: Path, bundle: Bundle, outcome: _Outcome) -> None:
    pictures = [
        ComparisonPicture(Path(name).name, outcome.reported[name].seen, maps) for name, maps in outcome.compared.items()
    ]
    shown = {method for picture in pictures for method in picture.maps}
    every = set(bundle.methods) <= {split_method(method, None)[0] for method in shown}
    by = "every method" if every else f"{len(shown)} methods"
    write_comparison(path, pictures, title=f"What {bundle.name} sees, by {by}")


def _used(made: Mapping[str, Any]) -> str:
    """A method's parameters and what it explained, for the foot of the report."""
    return ", ".join(
        [*(f"{name} {value}" for name, value in made["parameters"].items()), f"explains {made['explains']}"]
    )


def _values(predictions: Sequence[Prediction], plain: bool) -> list[tuple[str, float]]:
    return [(each.label, each.score if plain else each.probability) for each in predictions]
