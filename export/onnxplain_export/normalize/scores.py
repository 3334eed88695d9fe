"""Finds the scores to explain: the named or first classifying output, tapped before a trailing softmax or sigmoid."""

from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.errors import ModelError, ParameterError, unknown
from onnxplain_export.emitter import Dim, Emitter, attribute, dims

SHAPE_ONLY = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
KINDS = ("softmax", "sigmoid", "none")
EXPLAINED = "scores/explained"
"""The name of the explained scores in every graph of the bundle."""


@dataclass(frozen=True)
class Scores:
    """The explained scores [N, *shape], how they become probabilities, and which model output they came from.

    A classifier's are [N, classes], and a target is a class. Others (segmentation, boxes, sequences), and a
    classifier's where the caller wants it so, are `free`: a cotangent of their shape says what is explained.
    `class_axis` is the axis of [N, *shape] that runs over classes, None where none does. `tapped` is the name of the
    model's own value that the scores are read from: that output, or what its softmax takes.
    """

    value: ir.Value
    shape: tuple[int, ...]
    class_axis: int | None
    activation: str
    output: str
    tapped: str
    free: bool = False

    @property
    def classes(self) -> int | None:
        """The number of classes, None for an output without any."""
        return None if self.class_axis is None else self.shape[self.class_axis - 1]


def explained_scores(
    graph: ir.Graph,
    output: str | None,
    score: str = "logits",
    activation: str | None = None,
    *,
    assumed: str | None = None,
    layout: str | None = None,
    free: bool = False,
) -> Scores:
    """Appends what brings the explained output into its form and returns it.

    `score="logits"` taps before a trailing Softmax, LogSoftmax or Sigmoid; `"probabilities"` takes the output as it is.
    One logit z of a classifier becomes the two scores (−z, z), so that targets 0 and 1 mean what a person expects.
    Where neither the model's end nor the caller names an activation, the `assumed` one is taken. The image's `layout`
    says where a segmentation's classes are.
    """
    if score not in ("logits", "probabilities"):
        raise ParameterError(unknown("score", score, ("logits", "probabilities")))
    if activation is not None and activation not in KINDS:
        raise ParameterError(unknown("activation", activation, KINDS))
    chosen = _choose(graph, output)
    classes = class_count(chosen)
    if classes and not free:
        return _class_scores(graph, chosen, classes, score, activation, assumed)
    return _free_scores(graph, chosen, score, activation, assumed, layout)


def _class_scores(
    graph: ir.Graph, chosen: ir.Value, classes: int, score: str, activation: str | None, assumed: str | None
) -> Scores:
    head = activation_before(chosen) if score == "logits" else None
    value = chosen if head is None or head.inputs[0] is None else head.inputs[0]
    kind = _kind(head, score, activation, assumed, classes)
    op = Emitter(graph, "scores")
    flat = op.Reshape(value, [-1, classes])
    if classes == 1 and kind == "sigmoid":
        flat, classes = op.Concat(op.Neg(flat), flat, axis=1), 2
    flat.name = EXPLAINED
    return Scores(flat, (classes,), 1, kind, str(chosen.name), str(value.name))


def _free_scores(
    graph: ir.Graph, chosen: ir.Value, score: str, activation: str | None, assumed: str | None, layout: str | None
) -> Scores:
    axes = dims(chosen)
    if axes is None or not axes or isinstance(axes[0], int) or not all(isinstance(axis, int) for axis in axes[1:]):
        raise ModelError(
            f"output {chosen.name!r} has shape {chosen.shape}; every axis after the batch must be known at export "
            "(explain a value before the selection that makes it vary: --score-output NAME)"
        )
    head = chosen.producer() if score == "logits" else None
    head = head if head is not None and head.op_type in ACTIVATIONS else None
    class_axis = _class_axis(axes, head, layout)
    value = chosen if head is None or head.inputs[0] is None else head.inputs[0]
    classes = 1 if class_axis is None else int(axes[class_axis] or 1)
    kind = _kind(head, score, activation, assumed, classes)
    result = Emitter(graph, "scores").Identity(value)
    result.name = EXPLAINED
    shape = tuple(int(str(axis)) for axis in axes[1:])
    return Scores(result, shape, class_axis, kind, str(chosen.name), str(value.name), free=True)


def _class_axis(axes: tuple[Dim, ...], head: ir.Node | None, layout: str | None) -> int | None:
    """Where the classes are: where a softmax runs, else behind the batch in [N, classes], as an image's channels."""
    if head is not None and head.op_type != "Sigmoid":
        axis = attribute(head, "axis", -1) % len(axes)
        return int(axis) or None
    if len(axes) == 2:
        return 1
    return {"NCHW": 1, "NHWC": 3}.get(layout or "") if len(axes) == 4 else None


def _kind(head: ir.Node | None, score: str, activation: str | None, assumed: str | None, classes: int) -> str:
    """How scores become probabilities: as the model's own end says, else as the caller does, else softmax."""
    if score == "probabilities":
        return "none"
    if activation is not None:
        return activation
    if head is not None:
        return ACTIVATIONS[head.op_type]
    return assumed or ("none" if classes == 1 else "softmax")


def _choose(graph: ir.Graph, output: str | None) -> ir.Value:
    """The named output, else the first that holds class scores, else the first of numbers for every image."""
    names = [str(value.name) for value in graph.outputs]
    if output is not None:
        if output not in names:
            raise ParameterError(unknown("output", output, names))
        return graph.outputs[names.index(output)]
    floats = [value for value in graph.outputs if value.dtype == ir.DataType.FLOAT]
    for value in floats:
        if class_count(value):
            return value
    for value in floats:
        axes = dims(value)
        if axes and not isinstance(axes[0], int) and all(isinstance(axis, int) for axis in axes[1:]):
            return value
    shapes = "; ".join(f"{value.name} {value.shape}" for value in graph.outputs)
    raise ModelError(f"no output looks like scores, [N, classes] or [N, …] of known sizes (outputs: {shapes})")


def class_count(value: ir.Value) -> int:
    """The number of classes of an output [N], [N, classes] or [N, classes, 1, …]; 0 for other shapes."""
    axes = dims(value)
    if axes is not None and len(axes) == 1 and not isinstance(axes[0], int):
        return 1
    if axes is not None and len(axes) >= 2 and isinstance(axes[1], int) and all(axis == 1 for axis in axes[2:]):
        return axes[1]
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
