"""The command `onnxplain track`: a training looked at through its checkpoints, with no framework at all."""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.bundle import Bundle
from onnxplain.commands.chosen import ALL, named_methods, runnable
from onnxplain.commands.given import pair
from onnxplain.commands.given import settings as settings_of
from onnxplain.errors import DivergedError, ModelError, ParameterError, PictureError
from onnxplain.explainer import Explainer
from onnxplain.messages import say
from onnxplain.output import write_bytes
from onnxplain.output_folder import INDEX, output_folder
from onnxplain.presets import split_method
from onnxplain.providers import DEVICES
from onnxplain.report import ReportMap
from onnxplain.tracking.following import Followed, follow
from onnxplain.tracking.instances import InstanceTracker
from onnxplain.tracking.labelled import Labelled, Matched, labelled_pictures, matched
from onnxplain.tracking.labels import SHOWN, LabelTracker
from onnxplain.tracking.page import Told, training_page
from onnxplain.tracking.page_pictures import HardPicture
from onnxplain.tracking.scoring import SAMPLE_METRICS, find_sample_metric
from onnxplain.tracking.training import NOTHING, Training, bands_of
from onnxplain.version import __version__
from onnxplain_export.checkpoints import Checkpoint, bundles, checkpoints
from onnxplain_export.exporting import export

METHODS = ("gradient", "smoothgrad", "integrated_gradients")
EASIEST = 5
MOST_SAID = 20
"""Broken pictures that are told one by one; the page lists more."""
BOUNDS = {"std": "std", "range": "range", "none": None}
PAGE = "index.html"
FILES = {"labels": "labels.npz", "instances": "instances.npz", "samples": "samples.csv", "page": PAGE}
PLOTS = {"labels plot": "labels.png", "instances plot": "instances.png"}

ABOUT = """Runs the checkpoints of a training over labelled pictures, and writes a page that shows which classes lag and
which pictures are hardest, each with its maps, its label and what the network said at each checkpoint."""


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain track`."""
    parser = commands.add_parser(
        "track",
        help="look at a training through its checkpoints",
        description=ABOUT,
        epilog="\n".join(["metrics:", *(f"  {entry.name:14} {entry.summary}" for entry in SAMPLE_METRICS.values())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "checkpoints",
        metavar="CHECKPOINT",
        nargs="+",
        help="ONNX files or bundles of one network; a step is the number in the name, else the place in this list",
    )
    add(
        "--data",
        type=Path,
        required=True,
        metavar="DIR|CSV",
        help="pictures in a folder for each class, or a CSV file of path,label",
    )
    add("--metric", default="cross_entropy", metavar="NAME", help="default: cross_entropy")
    add(
        "--bounds", choices=tuple(BOUNDS), default="std", help="what the bands of the classes' curves are; default: std"
    )
    add("--hardest", type=int, default=12, metavar="N", help="pictures that are shown; default: 12")
    add("--methods", metavar="A,B", help=f"of the maps, or all; default: {', '.join(METHODS)}")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the methods")
    add("--preprocessing", metavar="PRESET", help="of ONNX files, as for export")
    add("--labels", type=Path, metavar="FILE", help="the classes' names, one a line, for ONNX files")
    add("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="where an ONNX file leaves it free")
    add("--memory", metavar="SIZE", help="bound on what the maps add to memory, as 2GB or 500MB")
    add("--device", default="auto", choices=DEVICES, help="default: CUDA where it works, else the CPU")
    add("--threads", type=int, metavar="N", help="threads of a run (default: all cores)")
    add("--overwrite", action="store_true", help="replace an earlier result")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class _State:
    """What has come of the checkpoints so far."""

    data: Labelled
    last: Checkpoint
    matched: Matched | None = None
    by_label: LabelTracker | None = None
    by_instance: InstanceTracker | None = None
    found: list[Followed] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    parameters: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Follows the checkpoints and writes the folder; 1 if some pictures could not be read."""
    find_sample_metric(arguments.metric)
    if arguments.hardest < 1:
        raise ParameterError(f"--hardest {arguments.hardest}: at least 1 picture is shown")
    named = checkpoints(arguments.checkpoints)
    _refuse_settled(named[0], arguments)
    state = _State(labelled_pictures(arguments.data), named[-1])
    with output_folder(arguments.output, arguments.overwrite) as folder, tempfile.TemporaryDirectory() as working:
        last: Explainer | None = None
        for checkpoint, bundle in bundles(
            named,
            Path(working),
            lambda model, target: _export(model, target, arguments),
            on_diverged=lambda checkpoint, error: _diverged(state, checkpoint, error, arguments),
        ):
            last = Explainer(bundle, arguments.device, threads=arguments.threads)
            if state.matched is None:
                _begin(state, last.bundle, arguments)
            _follow(state, last, checkpoint, arguments)
        assert last is not None  # there is a checkpoint
        training = _training(state, named, last.bundle, arguments.metric)
        hard = _explained(training, state, last, arguments)
        _write(folder, state, training, hard, last, arguments)
    worst = ", ".join(training.name(label) for label in training.present[:3])
    print(f"classes that lag most: {worst}; see {arguments.output / PAGE}")
    return 1 if state.bad else 0


def _refuse_settled(first: Checkpoint, arguments: argparse.Namespace) -> None:
    """ParameterError for an option that says how a model is exported, where a bundle has settled that."""
    for name in ("preprocessing", "labels", "size"):
        if not first.is_model and getattr(arguments, name) is not None:
            raise ParameterError(
                f"--{name} is for ONNX files; {first.path} is a bundle, and says how all checkpoints are read"
            )


def _export(model: Path, target: Path, arguments: argparse.Namespace) -> None:
    """Exports the first checkpoint, with the methods that are asked for."""
    asked = METHODS if arguments.methods is None else [name.strip() for name in arguments.methods.split(",")]
    export(
        model,
        target,
        methods=ALL if arguments.methods == ALL else [split_method(name, None)[0] for name in asked],
        preprocessing=arguments.preprocessing,
        labels=arguments.labels,
        size=tuple(arguments.size) if arguments.size else None,
    )
    if arguments.preprocessing is None:
        told = json.loads((target / "explainer.json").read_text("utf-8"))["preprocessing"]
        say(f"no --preprocessing was named: {told['preset']!r} is assumed, as by onnxplain export")


def _begin(state: _State, bundle: Bundle, arguments: argparse.Namespace) -> None:
    """What the first checkpoint settles: the classes' numbers, and the methods."""
    if not bundle.steps:
        raise ParameterError(
            f"{bundle.name} has no preprocessing, so it takes no pictures; see onnxplain export --help"
        )
    state.matched = matched(state.data, bundle)
    if state.matched.note:
        say(state.matched.note)
    if state.data.left_out:
        say(_left_out(state.data))
    _chosen(bundle, arguments)  # an unknown method is said before hours of work
    present = {label: state.matched.names[label] for label in np.unique(state.matched.numbers).tolist()}
    mapping = {name: label for label, name in present.items()}
    state.by_label = LabelTracker(arguments.metric, BOUNDS[arguments.bounds], mapping)
    many, few = arguments.hardest, min(EASIEST, arguments.hardest)
    high = find_sample_metric(arguments.metric).harder == "high"
    state.by_instance = InstanceTracker(arguments.metric, *((many, few) if high else (few, many)))


def _left_out(data: Labelled) -> str:
    return f"{data.left_out} pictures in {data.source} lie in no class's folder, and are left out"


def _chosen(bundle: Bundle, arguments: argparse.Namespace) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The methods of the maps and their parameters."""
    default = ",".join(name for name in METHODS if name in bundle.methods) or bundle.usual_method
    methods = named_methods(default if arguments.methods is None else arguments.methods, bundle)
    settings = settings_of(bundle, methods, map(pair, arguments.set), ())
    return runnable(bundle, methods, settings, arguments.methods == ALL), settings


class _ByName:
    """Tells an instance tracker the pictures' names in the place of their numbers."""

    def __init__(self, tracker: InstanceTracker, names: Sequence[str]) -> None:
        self._tracker, self._names = tracker, names
        self.epoch_begin, self.epoch_end = tracker.epoch_begin, tracker.epoch_end

    def update(self, indices: Any, values: Any, *, mode: str = "eval") -> None:
        self._tracker.update([self._names[index] for index in indices], values, mode=mode)


def _follow(state: _State, explainer: Explainer, checkpoint: Checkpoint, arguments: argparse.Namespace) -> None:
    """Runs one checkpoint over the pictures that could be read so far, and says what came of it."""
    assert state.matched is not None
    assert state.by_instance is not None
    good = [number for number in range(len(state.data.pictures)) if number not in state.bad]
    found = follow(
        explainer,
        [state.data.pictures[number] for number in good],
        state.matched.numbers[good],
        step=checkpoint.step,
        metric=arguments.metric,
        label_tracker=state.by_label,
        instance_tracker=_ByName(state.by_instance, _names(state.data)),
        indices=good,
        on_error=lambda number, error: _note(state, number, error),
        progress=True,
    )
    state.found.append(found)
    print(
        f"step {checkpoint.step} ({checkpoint.path.name}): {arguments.metric} {np.mean(found.values):.4g}, "
        f"{np.mean(found.right):.1%} of {len(found)} pictures right"
    )


def _diverged(state: _State, checkpoint: Checkpoint, error: DivergedError, arguments: argparse.Namespace) -> None:
    """A checkpoint of NaN metrics; not the first, which settles the classes, nor the last, which has the maps."""
    if state.matched is None or state.by_label is None or state.by_instance is None or checkpoint is state.last:
        raise error
    say(f"step {checkpoint.step}: {error}; its metrics are NaN")
    good = np.array([number for number in range(len(state.data.pictures)) if number not in state.bad], np.int64)
    labels, nothing = state.matched.numbers[good], np.full(len(good), np.nan)
    names = _names(state.data)
    for tracker, keys in ((state.by_label, labels), (state.by_instance, [names[number] for number in good])):
        tracker.epoch_begin()
        tracker.update(keys, nothing)
        tracker.epoch_end(checkpoint.step)
    said = np.full(len(good), NOTHING, np.int64)
    unsure = nothing.astype(np.float32)
    found = Followed(checkpoint.step, arguments.metric, "eval", good, labels, nothing, said, unsure, unsure)
    state.found.append(found)


def _note(state: _State, number: int, error: PictureError) -> None:
    state.bad[number] = str(error)
    if len(state.bad) <= MOST_SAID:
        say(error)
    elif len(state.bad) == MOST_SAID + 1:
        say("more pictures could not be read; the page lists them")


def _names(data: Labelled) -> list[str]:
    """The pictures by their places below the folder, or the file's folder."""
    root = data.source if data.folders else data.source.parent
    return [str(each.relative_to(root)) if each.is_relative_to(root) else str(each) for each in data.pictures]


def _training(state: _State, named: Sequence[Checkpoint], bundle: Bundle, metric: str) -> Training:
    assert state.matched is not None
    return Training(
        metric=find_sample_metric(metric),
        classes=state.matched.names,
        pictures=_names(state.data),
        labels=state.matched.numbers,
        checkpoints=[checkpoint.path.name for checkpoint in named],
        followed=state.found,
        softens=bundle.scores.activation != "none",
        bad=state.bad,
    )


def _explained(
    training: Training, state: _State, explainer: Explainer, arguments: argparse.Namespace
) -> list[HardPicture]:
    """The hardest pictures with their maps: for what the last checkpoint said, and for the label or the runner-up."""
    methods, settings = _chosen(explainer.bundle, arguments)
    given = {method: {"memory": arguments.memory, **settings[method]} for method in methods}
    return [_hard(training, state, explainer, number, given) for number in training.hardest(arguments.hardest)]


def _hard(
    training: Training, state: _State, explainer: Explainer, number: int, given: Mapping[str, Mapping[str, Any]]
) -> HardPicture:
    """One picture by itself, so that one whose maps can't be made costs no other its own."""
    picture = state.data.pictures[number]
    if training.predicted[-1, number] == NOTHING:
        return HardPicture(number, note="The network's scores are not numbers: there is no map.")
    maps: dict[int, list[ReportMap]] = {}
    seen = None
    try:
        targets = _targets(training, number, explainer.scores([picture])[0])
        for method, parameters in given.items():
            result = explainer.explain([picture], method, [targets], progress=True, **parameters)
            state.parameters[method] = result.provenance["parameters"]
            seen = result.images[0].seen
            if seen is not None and result.has_pictures:
                for target, pixels in zip(targets, result.overlay()[0], strict=True):
                    maps.setdefault(target, []).append(ReportMap(method, pixels))
    except (ModelError, PictureError) as error:
        return HardPicture(number, seen, note=f"No maps: {error}")
    return HardPicture(number, seen, [(_heading(training, number, target), each) for target, each in maps.items()])


def _targets(training: Training, number: int, scores: Any) -> list[int]:
    """What the network said, and the label, or the second best class where it said that; of one class that alone."""
    said, label = int(training.predicted[-1, number]), int(training.labels[number])
    others = [int(each) for each in np.argsort(-scores, kind="stable") if each != said]
    return [said, *([label] if label != said else others[:1])]


def _heading(training: Training, number: int, target: int) -> str:
    name, label = training.name(target), training.labels[number]
    if target == training.predicted[-1, number]:
        return f"for {name}, what it said" + (" and its label" if target == label else "")
    return f"for {name}, its label" if target == label else f"for {name}, its second best"


def _write(
    folder: Path,
    state: _State,
    training: Training,
    hard: Sequence[HardPicture],
    explainer: Explainer,
    arguments: argparse.Namespace,
) -> None:
    assert state.by_label is not None
    assert state.by_instance is not None
    state.by_label.save(folder / FILES["labels"])
    state.by_instance.save(folder / FILES["instances"])
    write_bytes(folder / FILES["samples"], training.as_csv().encode("utf-8", "backslashreplace"))
    files = dict(FILES)
    if importlib.util.find_spec("matplotlib") is None:
        say('no labels.png and instances.png without matplotlib: pip install "onnxplain[plots]"')
    else:
        title = f"{arguments.data.name}, {len(training.steps)} checkpoints"
        state.by_label.figure(folder / PLOTS["labels plot"], title=title)
        state.by_instance.figure(folder / PLOTS["instances plot"], title=title)
        files |= PLOTS
    bands = bands_of(state.by_label.history["eval"], BOUNDS[arguments.bounds], training)
    page = training_page(training, bands, hard, _told(state, training, explainer, arguments))
    write_bytes(folder / PAGE, page.encode("utf-8"))
    # The index is what says, another time, that the folder is ours to replace.
    write_bytes(folder / INDEX, (json.dumps({"files": files}) + "\n").encode())


def _told(state: _State, training: Training, explainer: Explainer, arguments: argparse.Namespace) -> Told:
    assert state.matched is not None
    many = f"{len(training.steps)} checkpoints" if len(training.steps) > 1 else "one checkpoint"
    ends = list(dict.fromkeys((training.checkpoints[0], training.checkpoints[-1])))
    introduction = [f"{len(training.followed[-1])} pictures of {arguments.data}, seen by {many}: {' to '.join(ends)}."]
    warnings = [state.matched.note] if state.matched.note else []
    warnings += [_left_out(state.data)] if state.data.left_out else []
    bounds = BOUNDS[arguments.bounds]
    return Told(
        title="Hard classes, hard pictures",
        introduction=introduction,
        warnings=warnings,
        bounds=SHOWN[bounds] if bounds else "",
        provenance={
            "last checkpoint": f"{training.checkpoints[-1]}, SHA-256 {explainer.bundle.source.get('sha256')}",
            **{method: _plain(parameters) for method, parameters in state.parameters.items()},
            "onnxplain": __version__,
        },
    )


def _plain(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "no parameters"
