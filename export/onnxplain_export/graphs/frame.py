"""What every graph of a bundle shares: rows in, a cotangent for each, sums out.

Inside a graph the rows are N images × K steps × T targets, in that order. `value axes` below are a single image's axes
of the value that is explained: the image itself, or a value inside the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.autodiff import differentiate, reads
from onnxplain_export.emitter import OPSET, Dim, Emitter, copied, dims
from onnxplain_export.graphs.blocked import keep_blocked
from onnxplain_export.graphs.class_layer import class_layer
from onnxplain_export.graphs.portable import make_portable
from onnxplain_export.graphs.sharing import repeat_rows, repeated_shape
from onnxplain_export.normalize import BATCH, Normalized, named_value
from onnxplain_export.normalize.precision import forget_types
from onnxplain_export.normalize.scores import EXPLAINED
from onnxplain_export.normalize.shapes import infer_shapes
from onnxplain_export.vjp import STANDARD, RuleTable

HEAD = "explainer/head"


@dataclass
class Frame:
    """A copy of the network on its way to becoming one graph of the bundle.

    All of it but the network computes in float32; a network in half precision is entered and left by Casts.

    `inputs` are the graph's own: those of the model, the image first; `entries` is where the network takes each.
    `value` [N, *shape] is what the graph works on, of the N images: the image, or a value inside the network. `entry`
    is where the network goes on from it, and `rows` what is fed there. Where the frame `shares`, an image's `targets`
    ([1], their number) share its rows; `roots` are all rows that enter, those of the other inputs too.
    """

    normalized: Normalized
    model: ir.Model
    op: Emitter
    inputs: tuple[ir.Value, ...]
    entries: tuple[ir.Value, ...]
    value: ir.Value
    shape: tuple[int, ...]
    entry: ir.Value
    scores: ir.Value
    rows: ir.Value | None = None
    shares: bool = False
    targets: ir.Value | None = None
    roots: tuple[ir.Value, ...] = ()

    @property
    def graph(self) -> ir.Graph:
        """The graph under construction."""
        return self.model.graph

    @property
    def rank(self) -> int:
        """The number of axes of one image's value."""
        return len(self.shape)

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
    """A copy of the normalised network without outputs, its inputs replaced by fresh ones of the same names."""
    model = normalized.model.clone()
    graph = model.graph
    entries = tuple(graph.inputs)
    op = Emitter(graph, "explainer")
    scores = in_float32(op, named_value(graph, EXPLAINED))
    graph.inputs.clear()
    graph.outputs.clear()
    inputs = tuple(ir.val(str(value.name), value.dtype, value.shape) for value in entries)
    for value in entries:
        value.name = f"explainer/entry/{value.name}"
    graph.inputs.extend(inputs)
    return Frame(normalized, model, op, inputs, entries, inputs[0], normalized.image_shape, entries[0], scores)


def open_at_value(normalized: Normalized, shares: bool = False) -> Frame:
    """A frame that works on the explained value; one inside the network is computed once for each image.

    With `shares`, an image's targets share its forward pass: see sharing.py.
    """
    frame = open_frame(normalized)
    frame.shares = shares
    if normalized.inside:
        frame.entry, frame.shape = named_value(frame.graph, normalized.value), normalized.value_shape
        frame.value = in_float32(frame.op, _head(frame))
    return frame


def refuse_half(normalized: Normalized, what: str) -> None:
    """ModelError where a graph of other rules than derivatives is asked for in half precision."""
    if normalized.half is not None:
        raise ModelError(f"{what} is computed in float32 only; export with precision='float32'")


def in_float32(op: Emitter, value: ir.Value) -> ir.Value:
    """`value`, cast from half precision."""
    if value.dtype != ir.DataType.FLOAT16:
        return value
    wide = op.Cast(value, to=int(ir.DataType.FLOAT))
    wide.shape, wide.type = value.shape, ir.TensorType(ir.DataType.FLOAT)
    return wide


def _head(frame: Frame) -> ir.Value:
    """A second copy of what leads from the inputs to the explained value, for the images as they are."""
    head = copied(frame.normalized.model.graph, HEAD)
    value = named_value(head, f"{HEAD}/{frame.normalized.value}")
    for old, new in zip(head.inputs, frame.inputs, strict=True):
        ir.convenience.replace_all_uses_with(old, new)
    for constant in list(head.initializers.values()):
        kept = frame.graph.initializers[str(constant.name).removeprefix(f"{HEAD}/")]
        ir.convenience.replace_all_uses_with(constant, kept)
    nodes = _leading_to(value)
    moved = [node for node in head if node in nodes]
    head.outputs.clear()
    head.remove(moved)
    frame.graph.extend(moved)
    return value


def _leading_to(value: ir.Value) -> set[ir.Node]:
    """The nodes that `value` is computed by."""
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [source.producer() for source in reads(node) if source is not None]
    return found


def enter(frame: Frame, points: ir.Value, chosen: ir.Value) -> None:
    """Feeds `points` [N, K, …] to the network as rows, repeated for each of the T targets of `chosen` unless shared."""
    op = frame.op
    steps, targets = op.Shape(points, start=1, end=2), op.Shape(chosen, start=1, end=2)
    frame.targets = targets
    if frame.shares:
        connect(frame, op.Reshape(points, [-1, *frame.shape]), [steps])
        return
    wide = op.Concat([1, 1], targets, [1] * frame.rank, axis=0)
    rows = op.Reshape(op.Expand(op.Unsqueeze(points, [2]), wide), [-1, *frame.shape])
    connect(frame, rows, [steps, targets])


def connect(frame: Frame, rows: ir.Value, times: Sequence[ir.Value] = ()) -> None:
    """Makes `rows` what the network goes on from, and brings nodes and shapes in order for the reverse pass.

    The other inputs are repeated for each image's rows, `times` (the numbers of steps and of targets, each [1]).
    """
    if rows is not frame.value:
        rows.name = f"{frame.value.name}/rows"  # what errors call it
        rows.shape, rows.type = ir.Shape(["rows", *frame.shape]), ir.TensorType(ir.DataType.FLOAT)
    halved = frame.entry.dtype == ir.DataType.FLOAT16
    fed = frame.op.Cast(rows, to=int(ir.DataType.FLOAT16)) if halved else rows
    ir.convenience.replace_all_uses_with(frame.entry, fed)
    repeated = [
        _repeated(frame, value, entry, times)
        for value, entry in zip(frame.inputs, frame.entries, strict=True)
        if entry is not frame.entry
    ]
    frame.rows, frame.roots = rows, (rows, *repeated)
    known = {value: dims(value) or () for node in frame.graph for value in node.outputs}
    forget_types_but(frame.model, [rows, *repeated])
    infer_shapes(frame.model)
    _name_axes(frame, known)


def _name_axes(frame: Frame, known: Mapping[ir.Value, tuple[Dim, ...]]) -> None:
    """Names the axes that inference lost behind the rows as the normalised network does: 64*N is 64*rows here."""
    symbol = (dims(frame.roots[0]) or (BATCH,))[0]
    behind = set(frame.roots)
    for node in frame.graph:
        if not any(value in behind for value in reads(node)):
            continue
        behind.update(node.outputs)
        for value in node.outputs:
            found, names = dims(value), known.get(value, ())
            if found is None or len(found) != len(names):
                continue
            axes = zip(found, names, strict=True)
            value.shape = ir.Shape([axis if isinstance(axis, int) else _renamed(n, symbol) or axis for axis, n in axes])


def _renamed(name: Dim, symbol: Dim) -> Dim:
    """The name of an axis that counts rows of each image, with the rows' symbol in the place of the batch's."""
    times, star, counted = str(name).rpartition("*")
    return f"{times}{star}{symbol}" if counted == BATCH and isinstance(symbol, str) else None


def _repeated(frame: Frame, value: ir.Value, entry: ir.Value, times: Sequence[ir.Value]) -> ir.Value:
    """Feeds one of the model's inputs to the network, each image's as often as it has rows."""
    axes = dims(value) or ()
    rows = value
    if axes[:1] == (BATCH,) and times:
        op = frame.op
        wide = (
            op.Concat([1], *times, [1] * (len(axes) - 1), axis=0) if len(axes) > 1 else op.Concat([1], *times, axis=0)
        )
        spread = op.Expand(op.Unsqueeze(value, list(range(1, 1 + len(times)))), wide)
        rows = op.Reshape(spread, [-1, *(int(str(axis)) for axis in axes[1:])])
        rows.shape, rows.type = ir.Shape(["rows", *axes[1:]]), value.type
    ir.convenience.replace_all_uses_with(entry, rows)
    return rows


def forget_types_but(model: ir.Model, kept: Sequence[ir.Value]) -> None:
    """Drops all recorded shapes but some, so that inference spreads their batch symbol."""
    remembered = [(value, value.shape, value.type) for value in kept]
    forget_types(model)
    for value, shape, kind in remembered:
        value.shape, value.type = shape, kind


def chosen_input(frame: Frame) -> ir.Value:
    """The input that says what is explained: `target` [N, T], or `cotangent` [N, T, …] where outputs are no classes."""
    scores = frame.normalized.scores
    if scores.free:
        return frame.input("cotangent", [BATCH, "T", *scores.shape])
    return frame.input("target", [BATCH, "T"], ir.DataType.INT64)


def told_scores(frame: Frame, chosen: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The scores [N, …] of the images as they are, which are the rows, and `chosen` with no target left open.

    A target -1 is the image's top class, of equal scores the first.
    """
    op, shape = frame.op, frame.normalized.scores.shape
    scores = frame.scores
    if not frame.shares:  # the rows are repeated for the targets
        counts = op.Shape(chosen, start=0, end=2)
        scores = op.Gather(op.Reshape(scores, op.Concat(counts, list(shape), axis=0)), op.constant(0, np.int64), axis=1)
    if frame.normalized.scores.free:
        return scores, chosen
    top = op.ArgMax(scores, axis=1, keepdims=1)
    return scores, op.Where(op.Less(chosen, op.constant(0, np.int64)), top, chosen)


def row_cotangent(frame: Frame, chosen: ir.Value, weight: ir.Value | None = None) -> ir.Value:
    """The cotangent [N·K·T, …] of each row, times `weight` [N or 1, K] unless `weighted_rows` does that."""
    op, scores = frame.op, frame.normalized.scores
    if scores.free:
        cotangent = op.Unsqueeze(chosen, [1])
    else:
        classes = op.constant(np.arange(scores.shape[0]), np.int64)
        cotangent = op.Cast(op.Equal(op.Unsqueeze(chosen, [1, 3]), classes), to=int(ir.DataType.FLOAT))
    if weight is not None and frame.normalized.half is None:
        # The reverse pass is linear in the cotangent: weighting it there costs nothing.
        cotangent = op.Mul(cotangent, op.Unsqueeze(weight, list(range(2, 3 + len(scores.shape)))))
    elif weight is not None:
        steps = op.Concat([1], op.Shape(weight, start=1, end=2), [1] * (1 + len(scores.shape)), axis=0)
        cotangent = op.Expand(cotangent, steps)
    return op.Reshape(cotangent, [-1, *scores.shape])


def gradient_at_rows(frame: Frame, cotangent: ir.Value, rules: RuleTable = STANDARD) -> ir.Value:
    """The gradient of ⟨cotangent, scores⟩ at the rows that enter the network, [rows, …].

    In half precision the cotangent goes through the network times the scale, lest small gradients underflow.
    """
    rows = frame.rows
    if rows is None:
        raise RuntimeError("the network's rows aren't connected")
    of, size = frame.scores, None
    if frame.normalized.half is not None:
        size = _size_of_cotangent(frame, cotangent)
        cotangent = frame.op.Mul(cotangent, frame.normalized.half.scale)
        cotangent = cotangent if size is None else frame.op.Div(cotangent, size)
    elif rules is STANDARD and not frame.normalized.scores.free:
        layer = class_layer(of, rows)
        if layer is not None:
            cotangent = layer.cotangent(frame.op, cotangent, frame.targets if frame.shares else None)
            of = layer.features
    cotangent.shape = of.shape
    cotangent.type = ir.TensorType(ir.DataType.FLOAT)
    forward = list(frame.graph)
    found = differentiate(frame.graph, of, [rows], cotangent, rules)[0]
    if frame.shares and frame.targets is not None:
        infer_shapes(frame.model)
        repeat_rows(frame.op, forward, frame.roots, cotangent, found, frame.targets)
        cotangent.shape = repeated_shape(cotangent)
    return found if frame.normalized.half is None else _unscaled(frame, found, size)


def _size_of_cotangent(frame: Frame, cotangent: ir.Value) -> ir.Value | None:
    """The largest number in each row of a free cotangent, [rows, 1, …], 1 where it is 0; a class has cotangent 1."""
    op, scores = frame.op, frame.normalized.scores
    if not scores.free:
        return None
    axes = list(range(1, 1 + len(scores.shape)))
    largest = op.ReduceMax(op.Abs(cotangent), axes, keepdims=1) if axes else op.Abs(cotangent)
    return op.Where(op.Equal(largest, 0.0), 1.0, largest)


def _unscaled(frame: Frame, found: ir.Value, size: ir.Value | None) -> ir.Value:
    """A gradient that went through a network in half precision, in float32 and without the scale."""
    op, half = frame.op, frame.normalized.half
    gradient = op.Mul(in_float32(op, found), 1.0 / (half.scale if half else 1.0))
    return gradient if size is None else op.Mul(gradient, op.Reshape(size, [-1, *[1] * frame.rank]))


def weighted_rows(frame: Frame, rows: ir.Value, chosen: ir.Value, steps: ir.Value, weight: ir.Value) -> ir.Value:
    """Gradients of weighted cotangents as [N, K, T, …]: in half precision the weights come last, in float32."""
    split = split_rows(frame, rows, chosen, steps)
    if frame.normalized.half is None:
        return split
    return frame.op.Mul(split, frame.op.Unsqueeze(weight, list(range(2, 3 + frame.rank))))


def split_rows(frame: Frame, value: ir.Value, chosen: ir.Value, steps: ir.Value | None) -> ir.Value:
    """Rows [N·K·T, …] as [N, K, T, …] (K is 1 where there are no steps)."""
    op = frame.op
    count = op.Shape(steps, start=1, end=2) if steps is not None else op.constant([1], np.int64)
    images, targets = op.Shape(chosen, start=0, end=1), op.Shape(chosen, start=1, end=2)
    return op.Reshape(value, op.Concat(images, count, targets, list(frame.shape), axis=0))


def column(frame: Frame, steps: ir.Value, index: int) -> ir.Value:
    """One column of the step table, [N or 1, K]."""
    return frame.op.Gather(steps, frame.op.constant(index, np.int64), axis=2)


def over_value(frame: Frame, value: ir.Value) -> ir.Value:
    """[N or 1, K] → [N or 1, K, 1, …], to broadcast over the value axes."""
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
    if frame.normalized.half is None:  # forms for CPUs, by constants that onnxruntime can't fold in half precision
        keep_blocked(model)
        make_portable(model)
    passes.TopologicalSortPass()(model)
    return model
