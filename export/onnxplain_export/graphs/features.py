"""The penultimate features of a classifier: what its last linear layer before the scores takes."""

import onnx_ir as ir

from onnxplain.errors import ModelError, unknown
from onnxplain_export.emitter import attribute, dims, is_constant
from onnxplain_export.graphs.frame import Frame, close_frame, connect, open_frame
from onnxplain_export.normalize import BATCH, Normalized, named_value

LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
PASSED = frozenset(
    {
        "Add",
        "AveragePool",
        "Cast",
        "Clip",
        "Concat",
        "Dropout",
        "Div",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "LeakyRelu",
        "Mul",
        "Neg",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)
"""What may lie between the last linear layer and the scores."""


def penultimate(normalized: Normalized, name: str | None = None) -> tuple[str, int]:
    """The value that holds a classifier's features, and their axis; the other axes are places, to be averaged.

    It is the one called `name`, or else the input of the last linear layer before the scores. Raises ModelError where
    there is none.
    """
    graph = normalized.model.graph
    if name is not None:
        known = {own_name(value): value for node in graph for value in node.outputs}
        if own_name(name) not in known:
            raise ModelError(unknown("value inside the network", name, known))
        value = known[own_name(name)]
        rank = len(dims(value) or ())
        if rank < 2:
            raise ModelError(f"{name!r} can't hold features: it has no axis behind the batch")
        return str(value.name), 1 if rank in (2, 4, 5) else rank - 1
    node = normalized.scores.value.producer()
    while node is not None and node.op_type in PASSED:
        source = _computed(node)
        node = None if source is None else source.producer()
    features = None if node is None or node.op_type not in LINEAR else _computed(node)
    if node is None or features is None or features.producer() is None or attribute(node, "transA", 0):
        raise ModelError("no last linear layer is found before the scores; name the features' value with features=")
    rank = len(dims(features) or ())
    return str(features.name), 1 if node.op_type in ("Conv", "Gemm") else rank - 1


def own_name(value: ir.Value | str) -> str:
    """What the source calls a value: normalisation puts `model/` before names of ours, a second one puts it twice."""
    name = value if isinstance(value, str) else str(value.name)
    while name.startswith("model/"):
        name = name.removeprefix("model/")
    return name


def _computed(node: ir.Node) -> ir.Value | None:
    """The first of a node's inputs that isn't constant."""
    return next((value for value in node.inputs if value is not None and not is_constant(value)), None)


def features_graph(normalized: Normalized, name: str, axis: int) -> ir.Model:
    """image → features [N, F], averaged over all places, and the scores."""
    frame = open_frame(normalized)
    value = named_value(frame.graph, name)
    connect(frame, frame.value)
    features = pooled(frame, value, axis)
    frame.output("features", features, [BATCH, (dims(value) or ())[axis]])
    frame.output("scores", frame.scores, [BATCH, *normalized.scores.shape])
    return close_frame(frame, "features")


def pooled(frame: Frame, features: ir.Value, axis: int) -> ir.Value:
    """Features [rows, F]: the mean over all places of a value whose features lie along `axis`."""
    rank = len(dims(features) or ())
    places = [each for each in range(1, rank) if each != axis]
    return frame.op.ReduceMean(features, places, keepdims=0) if places else features
