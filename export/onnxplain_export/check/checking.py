"""Says before any export what in a model can be differentiated, node by node."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain.errors import ModelError, NoGradientError
from onnxplain_export.autodiff import FLOATS, active_values, blocking_nodes, describe, reads
from onnxplain_export.check.suggestions import advice_on, advice_on_error, is_known_obstacle, suggestion
from onnxplain_export.graphs import GRAPHS
from onnxplain_export.normalize import BATCH, Normalized, normalize
from onnxplain_export.sources import Source, read_source
from onnxplain_export.vjp import operator_name
from onnxplain_export.vjp.registry import passes_gradient

SHOWN = 5
"""Nodes that an error lists."""
CANDIDATES = 3
"""Values that a suggestion names."""


@dataclass(frozen=True)
class Verdict:
    """What stands between a model and its gradient.

    `operators` counts every operator with what it does to the gradient: "differentiated", "no gradient" (registered as
    such), "not on the way", "no rule", or "not examined" where the model can't be brought into the one form at all:
    `error` says why, or what a rule has against a node. `obstacles` lists the nodes in the way, with why and what to do
    about them; `zero` is True where no path carries a gradient.
    """

    name: str
    image: str
    shape: tuple[int, ...]
    explained: str
    output: str
    classes: int | None
    activation: str
    integers: bool
    changes: tuple[str, ...]
    operators: dict[str, dict[str, int]]
    obstacles: tuple[dict[str, str], ...]
    zero: bool
    error: str | None = None
    advice: str | None = None

    @property
    def differentiable(self) -> bool:
        """Whether gradient methods can be exported."""
        return not self.obstacles and not self.zero and self.error is None


def check(model: Any, **options: Any) -> Verdict:
    """The verdict on `model` (whatever `read_source` takes); options as `normalize` has them, and `example`.

    Raises ModelError where there is no model to examine, and ParameterError for options that don't fit it.
    """
    source = read_source(model, options.pop("example", None))
    try:
        normalized = normalize(source, **options)
    except ModelError as error:
        return _unexamined(source, error)
    graph, value, scores = normalized.model.graph, normalized.explained, normalized.scores
    blocking = blocking_nodes(graph, scores.value, [value])
    active = active_values(list(graph), scores.value, [value])
    zero = value not in active
    counts: dict[str, Counter[str]] = {}
    for node in graph:
        counts.setdefault(_role(node, active, blocking), Counter())[operator_name(node)] += 1
    names = _names(source.model.graph)
    refusal = None if zero or blocking else _refusal(normalized)
    return Verdict(
        name=source.name,
        image=f"{normalized.image} {_shape(normalized.image_shape)}",
        shape=normalized.image_shape,
        explained=f"{normalized.value} {_shape(normalized.value_shape)}",
        output=f"{scores.output} {_shape(scores.shape)}",
        classes=scores.classes,
        activation=scores.activation,
        integers=normalized.integers,
        changes=tuple(source.changes),
        operators={role: dict(sorted(found.items())) for role, found in counts.items()},
        obstacles=tuple(
            _obstacle(node, names) for node in (_stoppers(graph, scores.value, value) if zero else blocking)
        ),
        zero=zero,
        error=refusal,
        advice=None if refusal is None else advice_on_error(refusal),
    )


def _refusal(normalized: Normalized) -> str | None:
    """What a rule says against the very use that the model makes of its operator, found by differentiating it."""
    try:
        GRAPHS["gradient"](normalized)
    except NoGradientError as error:
        return str(error)
    return None


def _unexamined(source: Source, error: ModelError) -> Verdict:
    """What can be said of a model that normalisation refuses: its operators, and those known to stop gradients."""
    graph = source.model.graph
    nodes = list(graph.all_nodes())
    entry = next(iter(graph.inputs), None)
    image = "" if entry is None else f"{entry.name} {entry.shape}"
    names = _names(graph)
    return Verdict(
        name=source.name,
        image=image,
        shape=(),
        explained=image,
        output=", ".join(str(value.name) for value in graph.outputs),
        classes=None,
        activation="none",
        integers=False,
        changes=tuple(source.changes),
        operators={"not examined": dict(sorted(Counter(map(operator_name, nodes)).items()))},
        obstacles=tuple(_obstacle(node, names) for node in nodes if is_known_obstacle(node)),
        zero=False,
        error=str(error),
        advice=advice_on_error(str(error), _embeddings(graph)),
    )


def refuse_undifferentiable(normalized: Normalized) -> None:
    """NoGradientError with every node that stands in the way of the gradient, before anything is built."""
    graph, names = normalized.model.graph, _names(normalized.source.model.graph)
    value, scores = normalized.explained, normalized.scores.value
    blocking = blocking_nodes(graph, scores, [value])
    if blocking:
        shown = "; ".join(map(describe, blocking[:SHOWN])) + ("; …" if len(blocking) > SHOWN else "")
        raise NoGradientError(f"no derivative rule for {shown}; {_advice(blocking[0], names)}")
    if value not in active_values(list(graph), scores, [value]):
        stoppers = _stoppers(graph, scores, value)
        listed = ", ".join(sorted({operator_name(node) for node in stoppers}))
        advice = f"; {_advice(stoppers[0], names)}" if stoppers else ""
        raise NoGradientError(
            f"the gradient of {normalized.scores.output!r} with respect to {normalized.value!r} is zero everywhere: "
            f"every path between them passes an operator without a gradient ({listed}){advice}"
        )


def _role(node: ir.Node, active: set[ir.Value], blocking: Sequence[ir.Node]) -> str:
    if node in blocking:
        return "no rule"
    if any(value in active for value in reads(node)) and any(value in active for value in node.outputs):
        return "differentiated"
    return "not on the way" if passes_gradient(node) else "no gradient"


def _stoppers(graph: ir.Graph, scores: ir.Value, value: ir.Value) -> list[ir.Node]:
    """Where every path from `value` to `scores` ends: the operators that read what a gradient could still come from."""
    leading = {scores}
    for node in reversed(list(graph)):
        if any(output in leading for output in node.outputs):
            leading.update(found for found in reads(node) if found is not None)
    reached, found = {value}, []
    for node in graph:
        used = [output for output in node.outputs if output in leading]
        if not used or node.op_type in ("Shape", "Size") or not any(entry in reached for entry in reads(node)):
            continue
        passed = [output for output in node.outputs if output.dtype is None or output.dtype in FLOATS]
        if not passes_gradient(node) or not any(output in passed for output in used):
            found.append(node)
        else:
            reached.update(passed)
    return found


def _obstacle(node: ir.Node, names: set[str]) -> dict[str, str]:
    return {
        "operator": operator_name(node),
        "node": str(node.name),
        "output": str(node.outputs[0].name),
        "why": suggestion(node).why,
        "advice": _advice(node, names),
    }


def _advice(node: ir.Node, names: set[str]) -> str:
    """What to do about a node, with the values that it computes with where these are named as in the user's model."""
    values = [value for value in node.inputs if value is not None and not value.is_initializer()]
    floats = [value for value in values if value.dtype is None or value.dtype in FLOATS]
    known = [str(value.name) for value in floats if value.name in names and not value.is_graph_input()]
    return advice_on(node, known[:CANDIDATES])


def _embeddings(graph: ir.Graph) -> list[str]:
    """What is looked up in tables of floats: where token numbers become something with a gradient."""
    found = [
        str(node.outputs[0].name)
        for node in graph
        if node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].is_initializer()
        if node.inputs[0].dtype in FLOATS and node.inputs[1] is not None and not node.inputs[1].is_initializer()
    ]
    return found[:CANDIDATES]


def _names(graph: ir.Graph) -> set[str]:
    """The names that the user's own file gives to values."""
    return {str(value.name) for node in graph for value in node.outputs}


def _shape(axes: Iterable[int]) -> str:
    return "[" + ", ".join([BATCH, *map(str, axes)]) + "]"
