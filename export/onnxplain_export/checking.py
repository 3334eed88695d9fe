"""Says before any export what in a model can be differentiated, node by node."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import active_values, blocking_nodes, describe
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.source import read_source
from onnxplain_export.vjp import NO_GRADIENT, operator_name

SHOWN = 5
"""Nodes that an error lists."""
WAY_ROUND = "export with --methods occlusion, replace the operator, or add a rule in onnxplain_export/vjp/"


@dataclass(frozen=True)
class Verdict:
    """What stands between a model and its gradient.

    `operators` counts every operator with what it does to the gradient: "differentiated", "no gradient" (registered as
    such), "not on the way", or "no rule". `obstacles` lists the nodes without a rule; `zero` is True where no path
    carries a gradient at all.
    """

    name: str
    image: str
    shape: tuple[int, ...]
    classes: int
    activation: str
    integers: bool
    changes: tuple[str, ...]
    operators: dict[str, dict[str, int]]
    obstacles: tuple[dict[str, str], ...]
    zero: bool

    @property
    def differentiable(self) -> bool:
        """Whether gradient methods can be exported."""
        return not self.obstacles and not self.zero


def check(model: Any, **options: Any) -> Verdict:
    """The verdict on `model` (a path, ModelProto, ir.Model or torch module); options as `normalize` has them."""
    example = options.pop("example", None)
    normalized = normalize(read_source(model, example), **options)
    graph = normalized.model.graph
    image, scores = graph.inputs[0], normalized.scores.value
    obstacles = blocking_nodes(graph, scores, [image])
    active = active_values(list(graph), scores, [image])
    counts: dict[str, Counter[str]] = {}
    for node in graph:
        counts.setdefault(_role(node, active, obstacles), Counter())[operator_name(node)] += 1
    return Verdict(
        name=normalized.source.name,
        image=f"{normalized.image} {_shape(normalized)}",
        shape=normalized.image_shape,
        classes=normalized.scores.classes,
        activation=normalized.scores.activation,
        integers=normalized.integers,
        changes=tuple(normalized.source.changes),
        operators={role: dict(sorted(found.items())) for role, found in counts.items()},
        obstacles=tuple(_obstacle(node) for node in obstacles),
        zero=image not in active,
    )


def refuse_undifferentiable(normalized: Normalized) -> None:
    """NoGradientError with every node that stands in the way of the gradient, before anything is built."""
    graph = normalized.model.graph
    image, scores = graph.inputs[0], normalized.scores.value
    obstacles = blocking_nodes(graph, scores, [image])
    if obstacles:
        shown = "; ".join(describe(node) for node in obstacles[:SHOWN]) + ("; …" if len(obstacles) > SHOWN else "")
        raise NoGradientError(
            f"no derivative rule for {shown}; {WAY_ROUND}" if normalized.layout else f"no derivative rule for {shown}"
        )
    if image not in active_values(list(graph), scores, [image]):
        stoppers = ", ".join(sorted({operator_name(node) for node in graph} & NO_GRADIENT))
        advice = "; export with --methods occlusion" if normalized.layout else ""
        raise NoGradientError(
            f"the gradient of {normalized.scores.output!r} with respect to {normalized.image!r} is zero everywhere: "
            f"every path between them passes an operator without a gradient ({stoppers}){advice}"
        )


def _role(node: ir.Node, active: set[ir.Value], obstacles: list[ir.Node]) -> str:
    if node in obstacles:
        return "no rule"
    if any(value in active for value in node.inputs) and any(value in active for value in node.outputs):
        return "differentiated"
    return "no gradient" if operator_name(node) in NO_GRADIENT else "not on the way"


def _obstacle(node: ir.Node) -> dict[str, str]:
    return {
        "operator": operator_name(node),
        "node": str(node.name),
        "output": str(node.outputs[0].name),
        "way round": WAY_ROUND,
    }


def _shape(normalized: Normalized) -> str:
    return "[N, " + ", ".join(map(str, normalized.image_shape)) + "]"
