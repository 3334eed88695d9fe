"""What every graph of a bundle shares: rows in, a one-hot cotangent, sums out.

Inside a graph the rows are N images × K steps × T targets, in that order. `image axes` below are a single image's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain_export.autodiff import differentiate
from onnxplain_export.emitter import OPSET, Dim, Emitter
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.normalize.precision import forget_types
from onnxplain_export.normalize.scores import EXPLAINED
from onnxplain_export.normalize.shapes import infer_shapes
from onnxplain_export.vjp import STANDARD, RuleTable


@dataclass
class Frame:
    """A copy of the network on its way to becoming one graph of the bundle.

    `image` is the graph's input [N, …]; `entry` is where the network took its input and `rows` what feeds it instead.
    """

    normalized: Normalized
    model: ir.Model
    op: Emitter
    image: ir.Value
    entry: ir.Value
    scores: ir.Value
    rows: ir.Value | None = None

    @property
    def graph(self) -> ir.Graph:
        """The graph under construction."""
        return self.model.graph

    @property
    def rank(self) -> int:
        """The number of axes of one image."""
        return len(self.normalized.image_shape)

    def input(self, name: str, shape: Sequence[Dim], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """A new required input of the graph."""
        value = ir.val(name, dtype, list(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, shape: Sequence[Dim], dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        """Makes `value` an output of the graph under `name`."""
        result = self.op.Identity(value)
        result.name, result.shape, result.type = name, ir.Shape(list(shape)), ir.TensorType(dtype)
        self.graph.outputs.append(result)


def open_frame(normalized: Normalized) -> Frame:
    """A copy of the normalised network without outputs, its input replaced by a fresh one of the same name."""
    model = normalized.model.clone()
    graph = model.graph
    entry = graph.inputs[0]
    scores = _named(graph, EXPLAINED)
    graph.inputs.clear()
    graph.outputs.clear()
    entry.name = "explainer/entry"
    image = ir.val(normalized.image, ir.DataType.FLOAT, [BATCH, *normalized.image_shape])
    graph.inputs.append(image)
    return Frame(normalized, model, Emitter(graph, "explainer"), image, entry, scores)


def enter(frame: Frame, points: ir.Value, target: ir.Value) -> None:
    """Feeds `points` [N, K, …] to the network as rows, repeated for each of the T targets."""
    op, shape = frame.op, frame.normalized.image_shape
    wide = op.Concat([1, 1], op.Shape(target, start=1, end=2), [1] * len(shape), axis=0)
    connect(frame, op.Reshape(op.Expand(op.Unsqueeze(points, [2]), wide), [-1, *shape]))


def connect(frame: Frame, rows: ir.Value, batch: str = "rows") -> None:
    """Makes `rows` the network's input, and brings nodes and shapes in order for the reverse pass."""
    if rows is not frame.image:
        rows.name = f"{frame.image.name}/rows"  # what errors call it
    rows.shape = ir.Shape([batch, *frame.normalized.image_shape])
    rows.type = ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(frame.entry, rows)
    frame.rows = rows
    forget_types_but(frame.model, rows)
    infer_shapes(frame.model)


def forget_types_but(model: ir.Model, kept: ir.Value) -> None:
    """Drops all recorded shapes but one, so that inference spreads that one's batch symbol."""
    shape, kind = kept.shape, kept.type
    forget_types(model)
    kept.shape, kept.type = shape, kind


def one_hot(frame: Frame, target: ir.Value, weight: ir.Value | None = None) -> ir.Value:
    """The cotangent [N·K·T, classes] that selects each row's target, times `weight` [N or 1, K]."""
    op = frame.op
    classes = op.constant(np.arange(frame.normalized.scores.classes), np.int64)
    chosen = op.Cast(op.Equal(op.Unsqueeze(target, [1, 3]), classes), to=int(ir.DataType.FLOAT))
    if weight is not None:
        chosen = op.Mul(chosen, op.Unsqueeze(weight, [2, 3]))
    return op.Reshape(chosen, [-1, frame.normalized.scores.classes])


def gradient_at_rows(frame: Frame, cotangent: ir.Value, rules: RuleTable = STANDARD) -> ir.Value:
    """The gradient of ⟨cotangent, scores⟩ at the rows that enter the network, [rows, …]."""
    rows = frame.rows
    if rows is None:
        raise RuntimeError("the network's rows aren't connected")
    cotangent.shape = frame.scores.shape
    cotangent.type = ir.TensorType(ir.DataType.FLOAT)
    return differentiate(frame.graph, frame.scores, [rows], cotangent, rules)[0]


def split_rows(frame: Frame, value: ir.Value, target: ir.Value, steps: ir.Value | None) -> ir.Value:
    """Rows [N·K·T, …] as [N, K, T, …] (K is 1 where there are no steps)."""
    op = frame.op
    count = op.Shape(steps, start=1, end=2) if steps is not None else op.constant([1], np.int64)
    sizes = op.Shape(target)
    first, last = op.Slice(sizes, [0], [1]), op.Slice(sizes, [1], [2])
    tail = op.Shape(value, start=1)
    return op.Reshape(value, op.Concat(first, count, last, tail, axis=0))


def column(frame: Frame, steps: ir.Value, index: int) -> ir.Value:
    """One column of the step table, [N or 1, K]."""
    return frame.op.Gather(steps, frame.op.constant(index, np.int64), axis=2)


def over_image(frame: Frame, value: ir.Value) -> ir.Value:
    """[N or 1, K] → [N or 1, K, 1, …], to broadcast over the image axes."""
    return frame.op.Unsqueeze(value, list(range(2, 2 + frame.rank)))


def per_image(frame: Frame, value: ir.Value) -> ir.Value:
    """A parameter [N or 1, …] with the image's rank → [N or 1, 1, …], to broadcast over steps."""
    return frame.op.Unsqueeze(value, [1])


def weight_norm(frame: Frame, weight: ir.Value) -> ir.Value:
    """Σ of the steps' weights, [N or 1, 1, 1, …], to divide `total` by."""
    summed = frame.op.ReduceSum(weight, [1], keepdims=1)
    return frame.op.Unsqueeze(summed, list(range(2, 2 + frame.rank)))


def close_frame(frame: Frame, name: str) -> ir.Model:
    """The finished graph: sorted, without dead nodes, its shapes inferred."""
    model = frame.model
    model.graph.name = name
    model.producer_name, model.producer_version = "onnxplain", None
    model.opset_imports[""] = OPSET
    model.functions.clear()
    ir.passes.Sequential(
        passes.TopologicalSortPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.NameFixPass(),
    )(model)
    infer_shapes(model)
    return model


def _named(graph: ir.Graph, name: str) -> ir.Value:
    for node in graph:
        for value in node.outputs:
            if value.name == name:
                return value
    raise RuntimeError(f"no value named {name!r}")
