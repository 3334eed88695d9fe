"""Finds the scores to explain: the named or first classifying output, tapped before a trailing softmax or sigmoid."""

from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.errors import ModelError, ParameterError, unknown
from onnxplain_export.emitter import Emitter, attribute, dims

SHAPE_ONLY = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
KINDS = ("softmax", "sigmoid", "none")
EXPLAINED = "scores/explained"
"""The name of the explained scores in every graph of the bundle."""


@dataclass(frozen=True)
class Scores:
    """The explained scores [N, classes], how they become probabilities, and which model output they came from.

    `tapped` is the name of the model's own value that the scores are read from: that output, or what its softmax takes.
    """

    value: ir.Value
    classes: int
    activation: str
    output: str
    tapped: str


def explained_scores(
    graph: ir.Graph, output: str | None, score: str = "logits", activation: str | None = None
) -> Scores:
    """Appends what brings the explained output to [N, classes] and returns it.

    `score="logits"` taps before a trailing Softmax, LogSoftmax or Sigmoid; `"probabilities"` takes the output as it is.
    One logit z becomes the two scores (−z, z), so that targets 0 and 1 mean what a person expects.
    """
    if score not in ("logits", "probabilities"):
        raise ParameterError(unknown("score", score, ("logits", "probabilities")))
    if activation is not None and activation not in KINDS:
        raise ParameterError(unknown("activation", activation, KINDS))
    chosen = _choose(graph, output)
    classes = _class_count(chosen)
    head = activation_before(chosen) if score == "logits" else None
    value = chosen if head is None or head.inputs[0] is None else head.inputs[0]
    kind = _kind(head, score, activation, classes)
    op = Emitter(graph, "scores")
    flat = op.Reshape(value, [-1, classes])
    if classes == 1 and kind == "sigmoid":
        flat, classes = op.Concat(op.Neg(flat), flat, axis=1), 2
    flat.name = EXPLAINED
    return Scores(flat, classes, kind, str(chosen.name), str(value.name))


def _kind(head: ir.Node | None, score: str, activation: str | None, classes: int) -> str:
    """How scores become probabilities: as the model's own end says, else as the caller does, else softmax."""
    if score == "probabilities":
        return "none"
    if activation is not None:
        return activation
    if head is not None:
        return ACTIVATIONS[head.op_type]
    return "none" if classes == 1 else "softmax"


def _choose(graph: ir.Graph, output: str | None) -> ir.Value:
    names = [str(value.name) for value in graph.outputs]
    if output is not None:
        if output not in names:
            raise ParameterError(unknown("output", output, names))
        return graph.outputs[names.index(output)]
    for value in graph.outputs:
        if value.dtype == ir.DataType.FLOAT and _class_count(value, strict=False) > 0:
            return value
    shapes = "; ".join(f"{value.name} {value.shape}" for value in graph.outputs)
    raise ModelError(f"no output looks like class scores [N, classes] (outputs: {shapes})")


def _class_count(value: ir.Value, strict: bool = True) -> int:
    """The number of classes of an output [N], [N, classes] or [N, classes, 1, …]; 0 (or an error) for other shapes."""
    axes = dims(value)
    if axes is not None and len(axes) == 1 and not isinstance(axes[0], int):
        return 1
    if axes is not None and len(axes) >= 2 and isinstance(axes[1], int) and all(axis == 1 for axis in axes[2:]):
        return axes[1]
    if strict:
        raise ModelError(
            f"output {value.name!r} has shape {value.shape}, not [N, classes]; segmentation, detection and other "
            "outputs aren't explained yet"
        )
    return 0


def activation_before(value: ir.Value) -> ir.Node | None:
    """The Softmax, LogSoftmax or Sigmoid that made `value`, seen through operators that only change its shape."""
    node = value.producer()
    while node is not None and node.op_type in SHAPE_ONLY and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type not in ACTIVATIONS:
        return None
    axes = dims(node.outputs[0])
    over_classes = attribute(node, "axis", -1)
    if node.op_type == "Sigmoid" or axes is None:
        return node
    wide = [axis for axis in range(1, len(axes)) if axes[axis] != 1]
    return node if not wide or wide == [over_classes % len(axes)] else None
