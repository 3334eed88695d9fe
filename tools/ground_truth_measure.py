"""Measures one method on the networks of tools/ground_truth.py: against closed forms, by metrics, and what it costs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo_report import PREPROCESSING, read_samples
from ground_truth_networks import KNOWN, STEPS, Exact
from onnxplain import Explainer, Result
from onnxplain.bundle_files import read_bundle
from onnxplain.errors import ParameterError
from onnxplain.metrics import Subject, Summary, find_metric, layers_of, masks_for, reweighted, subjects_of
from onnxplain.metrics.correlation import spearman
from onnxplain.metrics.registry import check_settings
from onnxplain.metrics.statistics import summarise
from onnxplain.metrics.subject import missing
from onnxplain_export import export
from onnxplain_export.methods import METHODS

MODELS = Path(__file__).resolve().parent.parent / "models"
SHIPPED = {"honest": "digit", "shortcut": "patch"}  # where each of them looks
CASES = (*KNOWN, *SHIPPED)
LOCALISED = ("planted", *SHIPPED)

LOCALISATION = ("pointing_game", "iosr", "relevance_rank", "relevance_mass")
FAITHFULNESS = ("deletion", "insertion", "faithfulness", "infidelity", "completeness")
SETTINGS: dict[str, dict[str, Any]] = {
    # The default radius is meant for photographs of 500 pixels.
    "pointing_game": {"radius": 2},
    "deletion": {"steps": 25},
    "insertion": {"steps": 25},
    "faithfulness": {"steps": 25},
    # Scaled, since many methods' maps have no unit; the same changes for all, whatever their baseline.
    "infidelity": {"samples": 40, "scaled": True, "fill": 0.0},
    "completeness": {"relative": True},
}
# Metrics that explain again, many times: on the first pictures of some networks alone.
AGAIN = ("class_sensitivity",)
METRICS = (*LOCALISATION, *FAITHFULNESS, *AGAIN, "sparseness")
AGAIN_ON = ("planted", "honest")
AGAIN_PICTURES = 6
STAGES = 4  # of the weights, re-drawn from the output down
# Draws of the weights and pictures: one draw may resemble what was learned by chance. Fewer where a map costs much.
DRAWS, DRAWN_PICTURES = 4, 3
FEWER_DRAWS, FEWER_PICTURES, MUCH = 3, 2, 400
OURS = "explainer"  # the layer of constants that export adds: tables of noise, no weights of the network

SQUARES = ("smoothgrad_squared",)  # of gradients: their root is compared
# A spread, which is 0 on any linear network; a product of two things; shares of a variance.
UNCOMPARED = ("vargrad", "guided_gradcam", "sobol", "hsic")
# Of graphs whose maps don't set out to add up to the score, nor does a map of regions.
INCOMPLETE = ("layer", "masked", "xrai")
# Their maps are scores, whose lowest value means nothing: they are measured from there, as their papers draw them.
SCORES = ("rise", "rise_plus", "reciprocam")

# The most that a parameter may be where the default would take this tool's whole time, and with --fast.
MOST: dict[str, dict[str, int]] = {"rise": {"masks": 1000}}
MOST_FAST = {"masks": 100, "samples": 5, "steps": 8, "channels": 16}
FAST_PICTURES = 3
TIMED = 5
TIMED_PICTURES = 3

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network with pictures, of which the top classes are explained: masks by name and which is right, exact maps."""

    name: str
    explainer: Explainer
    pictures: Sequence[Any]
    masks: Mapping[str, Sequence[NDArray[np.bool_]]] = field(default_factory=dict)
    right: str = ""
    exact: Mapping[str, Exact] = field(default_factory=dict)


def export_case(name: str, folder: Path) -> Path:
    """Exports a network of CASES with every method; returns its bundle."""
    target = folder / f"{name}.explain"
    if name in KNOWN:
        return export(KNOWN[name]().model, target, methods="all", preprocessing=STEPS, name=name, overwrite=True)
    labels = MODELS / "labels.txt"
    return export(
        MODELS / f"{name}.onnx", target, methods="all", preprocessing=PREPROCESSING, labels=labels, overwrite=True
    )


def is_current(name: str, folder: Path) -> bool:
    """Whether the folder has the network's bundle, and it says of every method that it carries it or why not."""
    target = folder / f"{name}.explain"
    if not target.exists():
        return False
    bundle = read_bundle(target, verify=False)
    return set(METHODS) <= {*bundle.methods, *bundle.left_out}


@lru_cache
def open_case(name: str, folder: Path, fast: bool = False) -> Case:
    """A network of CASES, exported to the folder before; with `fast`, few of its pictures."""
    explainer = Explainer(folder / f"{name}.explain", device="cpu", threads=1)
    some = slice(FAST_PICTURES if fast else None)
    if name in KNOWN:
        known = KNOWN[name]()
        masks = {part: list(each[some]) for part, each in known.masks.items()}
        right = "pattern" if masks else ""
        return Case(name, explainer, list(known.pictures[some]), masks, right, known.exact)
    samples = read_samples()[some]
    masks = {part: [getattr(sample, part) for sample in samples] for part in SHIPPED.values()}
    return Case(name, explainer, [sample.path for sample in samples], masks, SHIPPED[name])


def measure_method(method: str, folder: Path, cases: Sequence[str], fast: bool = False) -> Figures:
    """All figures of one method on the named networks, as plain data; what a network doesn't allow is said so."""
    figures: Figures = {"networks": {}}
    for name in cases:
        case = open_case(name, folder, fast)
        bundle = case.explainer.bundle
        if method not in bundle.methods:
            figures["networks"][name] = {"left_out": bundle.left_out[method]}
            continue
        entry, parameters = bundle.methods[method], parameters_of(case.explainer, method, fast)
        figures.update(measures=entry.measures, explains=entry.explains, parameters=parameters)
        found = compared(case, method, parameters)
        if name in LOCALISED:
            with counted(case.explainer) as passes:
                result = case.explainer.explain(case.pictures, method, **parameters)
            subject = subject_of(case, result)
            adds_up = not entry.graph.startswith(INCOMPLETE) and method not in INCOMPLETE
            found["metrics"] = measured(case, subject, adds_up)
            if name == "honest":
                found["randomisation"] = randomised(subject, sum(passes.values()) / len(case.pictures))
                figures["cost"] = cost(case, method, parameters, passes)
        figures["networks"][name] = found
    return figures


def parameters_of(explainer: Explainer, method: str, fast: bool = False) -> dict[str, Any]:
    """The parameters that keep a method within this tool's time, where its defaults wouldn't."""
    most = MOST_FAST if fast else MOST.get(method, {})
    known = explainer.bundle.methods[method].parameters
    counts = {name: entry.default for name, entry in known.items() if entry.kind == "int" and name in most}
    return {name: most[name] for name, default in counts.items() if not 0 < default <= most[name]}


def compared(case: Case, method: str, parameters: Mapping[str, Any]) -> Figures:
    """The map against the exact one, if that is known of what the method measures; medians over the pictures.

    "error" is the relative L2 distance and "scaled_error" that of the map times the number that fits best.
    """
    entry = case.explainer.bundle.methods[method]
    kind = "layer" if entry.graph.startswith("layer") else "contribution"
    kind = "gradient" if kind != "layer" and entry.measures == "sensitivity" else kind
    if kind not in case.exact or method in UNCOMPARED:
        return {}
    score = "logits" if case.explainer.takes_score(method) else None
    result = case.explainer.explain(case.pictures, method, score=score, **parameters)
    exact = case.exact[kind](case.explainer.values(case.pictures).astype(np.float64), result.targets)
    ours = result.attribution.astype(np.float64)
    ours = np.sqrt(ours) if method in SQUARES else ours
    if result.parameters.get("relu"):
        exact = np.maximum(exact, 0)
    if kind == "contribution":
        ours, exact = ours.sum(axis=1), exact.sum(axis=1)
    elif ours.shape != exact.shape or method in SQUARES:
        ours, exact = np.abs(ours).sum(axis=1), np.abs(exact).sum(axis=1)
    ours, exact = ours.reshape(len(ours), -1), exact.reshape(len(exact), -1)
    size = np.linalg.norm(exact, axis=1)
    power = (ours * ours).sum(axis=1)
    factor = (ours * exact).sum(axis=1) / np.where(power > 0, power, 1)
    return {
        "exact": {
            "of": kind,
            "error": float(np.median(np.linalg.norm(ours - exact, axis=1) / size)),
            "scaled_error": float(np.median(np.linalg.norm(factor[:, None] * ours - exact, axis=1) / size)),
            "spearman": float(np.median(spearman(ours, exact))),
        }
    }


def subject_of(case: Case, result: Result) -> Subject:
    """What the metrics measure, with the masks of where the network looks."""
    masks = masks_for(case.masks[case.right], result.images, case.explainer.bundle)
    (subject,) = subjects_of(case.explainer, result, masks=masks)
    if result.method in SCORES:
        axes = tuple(range(1, subject.maps.ndim))
        return replace(subject, maps=subject.maps - subject.maps.min(axis=axes, keepdims=True))
    return subject


def measured(case: Case, subject: Subject, adds_up: bool) -> dict[str, Figures]:
    """Every metric that the maps allow, and the relevance that lies in the other masks."""
    figures = {}
    for name in METRICS:
        entry = find_metric(name)
        if missing(entry, subject) or (name in AGAIN and case.name not in AGAIN_ON):
            continue
        if name == "completeness" and not adds_up:
            continue
        asked = first(subject, AGAIN_PICTURES) if name in AGAIN else subject
        found = entry.measure(asked, **check_settings(entry, SETTINGS.get(name, {})))
        figures[name] = plain(summarise(found.values))
    for name in set(case.masks) - {case.right}:
        other = replace(subject, masks=np.stack(case.masks[name]))
        figures[f"relevance_mass_{name}"] = plain(summarise(find_metric("relevance_mass").measure(other).values))
    return figures


def randomised(subject: Subject, passes: float) -> Figures:
    """How like the maps stay while ever more of the network's weights are re-drawn, from the output down.

    "curve" are means of the rank correlation after each stage, over pictures and draws; "mean" is that over the stages,
    its interval over the draws. `passes` are those that a map costs.
    """
    draws, pictures = (FEWER_DRAWS, FEWER_PICTURES) if passes > MUCH else (DRAWS, DRAWN_PICTURES)
    some = first(subject, pictures)
    found = np.array([[_alike(some, stage / STAGES, seed) for stage in range(1, STAGES + 1)] for seed in range(draws)])
    curve = [round(float(value), 4) for value in found.mean(axis=0)]
    return {"curve": curve, "mean": plain(summarise(found.mean(axis=1)))}


def _alike(subject: Subject, share: float, seed: int) -> float:
    """The mean rank correlation of the maps with those after a share of the layers was re-drawn."""
    if subject.bundle is None or subject.reopened is None:
        raise ParameterError("only the maps of a bundle can be compared with those of other weights")
    layers = [layer for layer in layers_of(subject.bundle.path) if layer != OURS][::-1]
    with TemporaryDirectory(prefix="onnxplain.") as folder:
        chosen = layers[: round(share * len(layers))]
        other = reweighted(subject.bundle.path, Path(folder) / "reweighted.explain", layers=chosen, seed=seed)
        maps = subject.reopened(other)(subject.rows, np.arange(len(subject)), subject.targets)
    before, after = (subject.pixels_of(each).reshape(len(subject), -1) for each in (subject.maps, maps))
    return float(spearman(before, after).mean())


def first(subject: Subject, count: int) -> Subject:
    """The subject's first pictures."""
    some = slice(count)
    masks = None if subject.masks is None else subject.masks[some]
    return replace(
        subject,
        names=subject.names[some],
        rows=subject.rows[some],
        targets=subject.targets[some],
        maps=subject.maps[some],
        masks=masks,
    )


def cost(case: Case, method: str, parameters: Mapping[str, Any], passes: Mapping[str, int]) -> Figures:
    """Network passes for each picture, beside the one for its scores, and the time as a multiple of `gradient`'s."""
    count = len(case.pictures)
    forward, gradient = passes["forward"] / count - 1, passes["gradient"] / count
    ratio = _seconds(case, method, parameters) / _seconds(case, "gradient", {})
    return {"forward": round(forward, 2), "gradient": round(gradient, 2), "time": round(ratio, 2)}


def _seconds(case: Case, method: str, parameters: Mapping[str, Any]) -> float:
    """The median time of explaining some pictures."""
    taken: list[float] = []
    while len(taken) < TIMED and sum(taken) < 1:
        started = time.perf_counter()
        case.explainer.explain(case.pictures[:TIMED_PICTURES], method, **parameters)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


@contextmanager
def counted(explainer: Explainer) -> Iterator[dict[str, int]]:
    """Counts the rows that the network is run on: "forward" alone, and with its "gradient"."""
    sessions = explainer._sessions  # every run goes through it; there is no other place to count at
    passes, run = {"forward": 0, "gradient": 0}, sessions.run

    def counting(graph: Any, outputs: Any, feeds: Any) -> Any:
        (image,) = [entry.name for entry in graph.inputs if entry.role in ("image", "layer")]
        (table,) = [entry.name for entry in graph.inputs if entry.role == "steps"] or [""]
        steps = feeds[table].shape[1] if table else 1
        kind = "forward" if graph.name.startswith(("forward", "masked", "tail")) else "gradient"
        passes[kind] += len(feeds[image]) * steps
        return run(graph, outputs, feeds)

    sessions.run = counting  # type: ignore[method-assign]
    try:
        yield passes
    finally:
        del sessions.run  # type: ignore[method-assign]


def plain(summary: Summary) -> Figures:
    """A summary as JSON holds it."""
    numbers = {"mean": summary.mean, "low": summary.low, "high": summary.high}
    rounded = {name: None if value is None else round(value, 4) for name, value in numbers.items()}
    return {**rounded, "count": summary.count}
