"""The cases of the portability table: every graph of a bundle with fixed numbers for its inputs, as raw files.

A folder of cases holds `cases.json`, a list of `{id, model, embedded, inputs, outputs}`: `model` is the graph's file in
its bundle, `embedded` the same with its weights inside, inputs are `{name, dtype, shape, file}` with the numbers as
little-endian bytes, row by row. A runner is any command `COMMAND CASES.JSON FOLDER` that runs each case and writes
`FOLDER/ID/result.json`, either `{outputs: [{name, dtype, shape, file}]}` with files beside it or `{error: TEXT}`. A
case that has a result already is left out, so a runner that crashed is started again and goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Graph, GraphInput
from onnxplain.bundle_files import read_bundle
from onnxplain.plans import find_plan, gauss_legendre
from onnxplain.segments import grid
from onnxplain.targets import TOP
from onnxplain_export.single import export_single

Array = NDArray[Any]

PICTURES = 2
TARGETS = (1, 2)
"""How many classes of each picture are explained at once: a case for each."""
SEGMENTS = 3
ATTEMPTS, SHAKES, STEADY = 12, 3, 3e-6
# A method in one file: with a Loop over its steps or unrolled, or from picture to picture.
SINGLES: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "single gradient": ("gradient", {}, {}),
    "single smoothgrad": ("smoothgrad", {"samples": 5}, {"rows": 4}),
    "single smoothgrad, unrolled": ("smoothgrad", {"samples": 5}, {"rows": 4, "unrolled": True}),
    "single integrated_gradients": ("integrated_gradients", {"steps": 5}, {"rows": 4}),
    "single occlusion": ("occlusion", {"window": 16}, {"rows": 4}),
    "single rise": ("rise", {"masks": 10}, {"rows": 4}),
    "single gradcam": ("gradcam", {}, {}),
    "single gradient, pictures": ("gradient", {}, {"picture_input": True, "picture_output": True}),
}
PARAMETERS = {"epsilon": 1e-3, "gamma": 0.25, "alpha": 2.0, "activated": 1.0}


def cases_of(name: str, bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """Writes the numbers of a bundle's cases to `folder` and describes them; `shaken` is what rounding does to each."""
    description, found = read_bundle(bundle), []
    for graph in description.graphs.values():
        embedded = folder / f"{name}.{graph.file}"
        onnx.save(onnx.load(bundle / graph.file), embedded)
        found += _of_graph(f"{name}/{graph.name}", description, graph, bundle / graph.file, embedded, folder)
    return found


def single_cases_of(name: str, bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """The same for files that are a method in one run, of which there are a few kinds."""
    found = []
    for label, (method, parameters, options) in SINGLES.items():
        file = export_single(bundle, folder / f"{name}.{label}.onnx", method, parameters=parameters, **options)
        description = read_bundle(file)
        found += _of_graph(f"{name}/{label}", description, description.graphs["single"], file, file, folder)
    return found


def _of_graph(
    name: str, bundle: Bundle, graph: Graph, model: Path, embedded: Path, folder: Path
) -> Iterator[dict[str, Any]]:
    takes_targets = any(entry.role in ("target", "reference") for entry in graph.inputs)
    for targets in TARGETS if takes_targets else TARGETS[:1]:
        feeds, shaken = steady_feeds(bundle, graph, model, targets)
        one = described(f"{name}/{targets}", model, embedded, feeds, list(graph.outputs), folder)
        yield {**one, "shaken": shaken}


def described(
    case: str, model: Path, embedded: Path, feeds: Mapping[str, Array], outputs: list[str], folder: Path
) -> dict[str, Any]:
    """A case's entry in cases.json; its numbers are written to `folder`."""
    inputs = [_saved(folder / case, key, values) for key, values in feeds.items()]
    return {"id": case, "model": str(model), "embedded": str(embedded), "inputs": inputs, "outputs": outputs}


def steady_feeds(bundle: Bundle, graph: Graph, model: Path, targets: int) -> tuple[dict[str, Array], float]:
    """The first numbers for the inputs that lie away from kinks, and what rounding does to the outputs.

    A ReLU within rounding of 0 is on in one runtime and off in another, and both are right: the table is to show
    faults. That there is none is seen by changing the picture in its last place.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    best: tuple[dict[str, Array], float] | None = None
    for attempt in range(ATTEMPTS):
        feeds = feeds_of(bundle, graph, targets, attempt)
        shaken = _shaken(session, feeds, list(graph.outputs))
        if best is None or shaken < best[1]:
            best = feeds, shaken
        if shaken < STEADY:
            break
    assert best is not None
    return best


def _shaken(session: Any, feeds: dict[str, Array], outputs: list[str]) -> float:
    """The largest relative change of an output where the picture, or what stands for it, changes in its last place."""
    expected = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    random, worst = np.random.default_rng(1), 0.0
    for _ in range(SHAKES):
        moved = dict(feeds)
        for name in ("image", "layer"):
            if name in feeds:
                ends = np.where(random.random(feeds[name].shape) < 0.5, -np.inf, np.inf).astype(np.float32)
                moved[name] = np.nextafter(feeds[name], ends)
        worst = max(worst, difference(dict(zip(outputs, session.run(outputs, moved), strict=True)), expected))
    return worst


def feeds_of(bundle: Bundle, graph: Graph, targets: int, attempt: int = 0) -> dict[str, Array]:
    """Numbers for each of a graph's inputs by name, the same in every run of this tool."""
    return {entry.name: _values(entry, bundle, graph, targets, attempt) for entry in graph.inputs}


def _values(entry: GraphInput, bundle: Bundle, graph: Graph, targets: int, attempt: int) -> Array:
    random = np.random.default_rng([attempt, *entry.role.encode()])
    image = tuple(int(side) for side in bundle.image.shape[1:])
    height, width = image[-2:]
    if entry.role in PARAMETERS:
        return np.array([PARAMETERS[entry.role]], np.float32)
    makers: Mapping[str, Callable[[], Array]] = {
        "image": lambda: random.standard_normal((PICTURES, *image)).astype(np.float32),
        "picture": lambda: random.integers(0, 256, (PICTURES, 40, 36, 3)).astype(np.uint8),
        "target": lambda: _targets(targets, graph.tells_scores or graph.name == "single"),
        "steps": lambda: _steps(graph, height, width)[None],
        "segments": lambda: grid(SEGMENTS, height, width)[None],
        "layer": lambda: _features(bundle, attempt),
        "seed": lambda: np.array([5 + attempt], np.int64),
        "baseline": lambda: 0.1 * random.standard_normal((1, *image)),
        "fill": lambda: 0.1 * random.standard_normal((1, image[0], 1, 1)),
        "low": lambda: np.full((1, image[0], 1, 1), -3.0),
        "high": lambda: np.full((1, image[0], 1, 1), 3.0),
        "sigma": lambda: np.array([0.3, 0.6]),
        "reference": lambda: random.random((PICTURES, targets)),
    }
    made = makers[entry.role]()
    return made.astype(np.float32) if made.dtype == np.float64 else made


def _targets(count: int, tops: bool) -> Array:
    """Classes [N, T]; where the graph finds the top class, it is the first picture's first."""
    table = (np.arange(PICTURES * count).reshape(PICTURES, count) * 2 + 1) % 7
    table[0, 0] = TOP if tops else table[0, 0]
    return table


def _steps(graph: Graph, height: int, width: int) -> Array:
    """A few steps [K, columns] of every kind."""
    if graph.columns is None:  # states of segments
        return (np.arange(5 * SEGMENTS**2).reshape(5, -1) * 7 % 5 < 2).astype(np.float32)
    if graph.columns == ("alpha", "weight"):
        return gauss_legendre(3).astype(np.float32)
    plans = {
        "draws_points": {"samples": 2, "steps": 2},
        "windows": {"window": [9, 12], "stride": [7, 9]},
        "random_masks": {"masks": 5, "probability": 0.5, "cells": 4, "design": "orthogonal"},
    }
    for name, parameters in plans.items():
        if find_plan(name).columns == graph.columns:
            table = find_plan(name).rule(parameters, height, width)
            if name == "draws_points":
                table[0, 1:] = 1, 1, 0  # the gradient at a noisy picture itself, as SmoothGrad takes it
            return table
    raise ValueError(f"no steps are known for the columns {graph.columns}")


def _features(bundle: Bundle, attempt: int) -> Array:
    """What the network has at its feature layer for the pictures."""
    (layer,) = (layer for layer in bundle.layers if layer.default)
    graph = bundle.graphs[layer.graph]
    session = onnxruntime.InferenceSession(bundle.path / graph.file, providers=["CPUExecutionProvider"])
    return session.run(["layer_features"], feeds_of(bundle, graph, 1, attempt))[0]


def _saved(folder: Path, name: str, values: Array) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.bin"
    file.write_bytes(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    return {"name": name, "dtype": values.dtype.name, "shape": list(values.shape), "file": str(file)}


def read_outputs(folder: Path) -> dict[str, Array]:
    """The outputs that a runner wrote for a case, by name; KeyError where it wrote an error."""
    result = json.loads((folder / "result.json").read_text("utf-8"))
    return {
        entry["name"]: np.frombuffer((folder / entry["file"]).read_bytes(), entry["dtype"]).reshape(entry["shape"])
        for entry in result["outputs"]
    }


def difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The largest relative L2 difference of an output; infinity for one that is missing, misshapen or not finite.

    Bytes are rounded: 1 is no difference between them.
    """
    return max(_of_one(found.get(name), values) for name, values in expected.items())


def _of_one(found: Array | None, expected: Array) -> float:
    if found is None or found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    apart = np.abs(found.astype(np.float64) - expected)
    distance = np.linalg.norm(np.maximum(apart - 1, 0) if expected.dtype == np.uint8 else apart)
    return float(distance / np.linalg.norm(expected.astype(np.float64))) if distance else 0.0
