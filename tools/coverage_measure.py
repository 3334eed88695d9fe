"""Explains one network of the coverage table and compares it with its framework: `coverage_measure.py FOLDER`.

Reads what the network's builder left in the folder, writes result.json beside it.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from coverage_networks.case import DESCRIPTION, INPUTS, MODEL, REFERENCE
from coverage_table import THEIRS
from onnxplain import Explainer
from onnxplain.errors import NoGradientError, OnnxplainError
from onnxplain.sessions import session_options
from onnxplain_export import export

Array = NDArray[Any]

RESULT = "result.json"
LEAST_BAR = 1e-5
TIMES_OWN_ERROR = 5
FORWARD_BAR = 1e-3  # wider than needed: a wrong network is wrong by far more
# One thread, which is this one, so that its processor time can be taken, whatever else runs on the machine.
TIMED_ROWS, TIMED_THREADS = 4, 1
LEAST_ROUNDS, LEAST_SECONDS = 7, 1.0


class NotExplainedError(Exception):
    """A network that is not explained as its framework would: the stage at which that shows, and why."""

    def __init__(self, stage: str, reason: str, status: str = "fails") -> None:
        super().__init__(reason)
        self.stage, self.reason, self.status = stage, reason, status


def main(folder: Path) -> None:
    """Writes the network's result; what fails is a result too."""
    result: dict[str, Any] = {}
    try:
        result |= measured(folder, result)
        result["status"] = "passes"
    except NotExplainedError as failure:
        result |= {"status": failure.status, "stage": failure.stage, "reason": failure.reason}
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measured(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Fills `result` with operators, errors and times, as far as it comes; NotExplainedError says where that is."""
    description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    result |= {"exporter": description["exporter"], "precision": description["precision"]}
    result |= {"versions": description["versions"], "notes": description["notes"]}
    result |= operators(folder / MODEL)
    inputs, reference = dict(np.load(folder / INPUTS)), dict(np.load(folder / REFERENCE))
    own = [error(array, reference["gradient"]) for name, array in reference.items() if name.startswith("gradient32")]
    result |= {"own_error": max(own), "bar": max(LEAST_BAR, TIMES_OWN_ERROR * max(own))}
    result["source_error"] = source_error(folder / MODEL, inputs, reference.get("answers", reference["outputs"]))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        bundle = Path(scratch) / "network.explain"
        hopeless = not reference["gradient"].any()
        result["export_seconds"] = explained(folder / MODEL, bundle, description["options"], hopeless)
        result["forward_error"] = forward_error(bundle / "forward.onnx", inputs, reference["outputs"])
        result |= compared(bundle, inputs, reference)
        result |= timed(bundle, inputs, reference)
    if not result["forward_error"] <= FORWARD_BAR:
        raise NotExplainedError("scores", f"error {result['forward_error']:.1e}")
    worst = max(result["error"], result["error_alone"])
    if not worst <= result["bar"]:
        raise NotExplainedError("gradient", f"error {worst:.1e}, allowed are {result['bar']:.1e}")
    return result


def error(ours: Array, truth: Array) -> float:
    """The relative distance of two arrays in the Euclidean norm."""
    distance = np.linalg.norm(np.asarray(ours, np.float64) - truth)
    return float(distance / np.linalg.norm(truth)) if distance else 0.0


def operators(file: Path) -> dict[str, int]:
    """How many kinds of operators the file has, and how many nodes, subgraphs and functions included."""
    model = onnx.load(file, load_external_data=False)
    nodes = list(_nodes(model.graph))
    for function in model.functions:
        nodes += list(_nodes(function))
    return {"operators": len({(node.domain, node.op_type) for node in nodes}), "nodes": len(nodes)}


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                yield from _nodes(inner)


def source_error(file: Path, inputs: Mapping[str, Array], answers: Array) -> float:
    """How far the framework's own ONNX file is from the framework."""
    try:
        found = forward_error(file, inputs, answers)
    except Exception as failure:  # onnxruntime's exceptions have no common base
        reason = str(failure).splitlines()[0][:300]
        raise NotExplainedError(THEIRS, f"onnxruntime: {reason}") from failure
    if not found <= FORWARD_BAR:
        raise NotExplainedError(THEIRS, f"its ONNX file answers otherwise: error {found:.1e}")
    return found


def forward_error(file: Path, inputs: Mapping[str, Array], outputs: Array) -> float:
    """How far a file's answers are from the framework's: of its outputs of the same shape, the nearest one."""
    session = _session(file)
    rows = [dict(inputs)]
    if isinstance(session.get_inputs()[0].shape[0], int):  # a baked batch axis
        rows = [_row(inputs, i) for i in range(len(outputs))]
    answers = [np.concatenate(parts) for parts in zip(*(_answers(session, row) for row in rows), strict=True)]
    return min((error(array, outputs) for array in answers if array.shape == outputs.shape), default=float("inf"))


def _answers(session: Any, feeds: Mapping[str, Array]) -> list[Array]:
    taken = {entry.name: feeds.get(entry.name) for entry in session.get_inputs()}
    if further := [name for name, value in taken.items() if value is None]:
        raise ValueError(f"the file asks for further inputs: {', '.join(further)}")
    return [answer for answer in session.run(None, taken) if isinstance(answer, np.ndarray)]


def explained(model: Path, bundle: Path, options: Mapping[str, Any], hopeless: bool) -> float:
    """Exports the gradient bundle, and returns the seconds that this took.

    A `hopeless` model has a gradient of zero; to refuse it, and for that reason, is right.
    """
    started = time.perf_counter()
    try:
        export(model, bundle, methods=["gradient"], **options)
    except OnnxplainError as refusal:
        refused = hopeless and isinstance(refusal, NoGradientError)
        raise NotExplainedError(type(refusal).__name__, str(refusal), "refused" if refused else "fails") from refusal
    except Exception as crash:
        raise NotExplainedError("crash", f"{type(crash).__name__}: {crash}") from crash
    return round(time.perf_counter() - started, 1)


def compared(bundle: Path, inputs: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, float]:
    """The errors of our gradients of the whole batch, and of its rows one by one."""
    explainer = Explainer(bundle, device="cpu")
    together = gradient(explainer, inputs, reference)
    rows = range(len(reference["gradient"]))
    alone = [gradient(explainer, _row(inputs, i), _row(reference, i)) for i in rows]
    return {
        "error": error(together, reference["gradient"]),
        "error_alone": error(np.concatenate(alone), reference["gradient"]),
    }


def _row(arrays: Mapping[str, Array], index: int) -> dict[str, Array]:
    return {name: array[index : index + 1] for name, array in arrays.items()}


def gradient(explainer: Explainer, inputs: Mapping[str, Array], reference: Mapping[str, Array]) -> Array:
    """Our gradient of what the reference explains."""
    given = dict(inputs) if len(inputs) > 1 else next(iter(inputs.values()))
    try:
        if "targets" in reference:
            return explainer.gradient(given, targets=reference["targets"].tolist())
        return explainer.gradient(given, cotangent=reference["cotangent"].astype(np.float32))
    except OnnxplainError as refusal:
        raise NotExplainedError(type(refusal).__name__, str(refusal)) from refusal


def timed(bundle: Path, inputs: Mapping[str, Array], reference: Mapping[str, Array]) -> dict[str, float]:
    """Median milliseconds of processor time of a forward and a gradient run of a batch, in turns, and their ratio."""
    feeds = {name: _repeated(array) for name, array in inputs.items()}
    if "targets" in reference:
        feeds["target"] = _repeated(reference["targets"])[:, None]
    feeds["cotangent"] = _repeated(reference["cotangent"].astype(np.float32))[:, None]
    graphs = {name: _session(bundle / f"{name}.onnx") for name in ("forward", "gradient")}
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for session in graphs.values():
        _answers(session, feeds)
    started = time.perf_counter()
    while len(seconds["forward"]) < LEAST_ROUNDS or time.perf_counter() - started < LEAST_SECONDS:
        for name, session in graphs.items():
            before = time.thread_time()
            _answers(session, feeds)
            seconds[name].append(time.thread_time() - before)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    milliseconds = {f"{name}_ms": round(1000 * median, 3) for name, median in medians.items()}
    return {**milliseconds, "ratio": round(medians["gradient"] / medians["forward"], 3)}


def _session(file: Path) -> Any:
    return onnxruntime.InferenceSession(str(file), session_options(TIMED_THREADS), providers=["CPUExecutionProvider"])


def _repeated(array: Array) -> Array:
    """The rows over and over until there are as many as are timed."""
    return np.ascontiguousarray(array[np.arange(TIMED_ROWS) % len(array)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
