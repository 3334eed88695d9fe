"""Folds whatever doesn't depend on the input: constant nodes, and shape arithmetic over axes that are known."""

from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
from onnxplain_export.emitter import OPSET, attribute, constant_of, dims

LARGEST = 1 << 31
"""Bytes; a constant that would grow beyond is left to the runtime."""

UNFOLDABLE = frozenset(
    {
        "If",
        "Loop",
        "Scan",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)

Partial = list[int | None]


def fold_constants(graph: ir.Graph) -> None:
    """Replaces every node whose inputs are all constants by its value, and known shapes by constants."""
    partial: dict[ir.Value, Partial] = {}
    for node in list(graph):
        known = _known_integers(node, partial)
        if known is not None and len(node.outputs) == 1:
            partial[node.outputs[0]] = known
            if None not in known:
                scalar = _is_scalar(node)
                _replace(graph, node, [np.array(known[0] if scalar else known, np.int64)])
                continue
        if node.op_type == "Reshape":
            _fix_target(graph, node, partial)
        if _foldable(node):
            _replace(graph, node, _evaluate(node))


def _foldable(node: ir.Node) -> bool:
    if node.op_type in UNFOLDABLE or node.domain not in ("", "ai.onnx"):
        return False
    contents = [constant_of(value) for value in node.inputs if value is not None]
    if any(content is None for content in contents) or any(
        a.type == ir.AttributeType.GRAPH for a in node.attributes.values()
    ):
        return False
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        return float(np.prod(np.asarray(contents[-1], np.float64))) * 8 < LARGEST
    return True


def _evaluate(node: ir.Node) -> list[np.ndarray]:
    """The node's outputs by the ONNX reference evaluator."""
    feeds = {value.name: constant_of(value) for value in node.inputs if value is not None}
    # Outputs and inputs keep their names; types are irrelevant to the evaluator.
    inputs = [onnx.helper.make_value_info(str(name), onnx.TypeProto()) for name in feeds]
    outputs = [onnx.helper.make_value_info(str(value.name), onnx.TypeProto()) for value in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "constant", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    return [np.asarray(result) for result in results]


def _replace(graph: ir.Graph, node: ir.Node, contents: list[np.ndarray]) -> None:
    for output, content in zip(node.outputs, contents, strict=True):
        array = np.ascontiguousarray(content).reshape(np.shape(content))
        name = f"{output.name}/folded"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        graph.register_initializer(value)
        if output.is_graph_output():
            identity = ir.node("Identity", [value], name=f"{node.name}/constant")
            graph.insert_after(node, identity)
            identity.outputs[0].shape, identity.outputs[0].type = output.shape, output.type
            ir.convenience.replace_all_uses_with(output, identity.outputs[0], replace_graph_outputs=True)
            identity.outputs[0].name, output.name = output.name, f"{output.name}/replaced"
        else:
            ir.convenience.replace_all_uses_with(output, value)
    graph.remove(node, safe=True)


def _is_scalar(node: ir.Node) -> bool:
    """Whether a node of known integers yields a scalar rather than a list."""
    if node.op_type == "Gather":
        index = constant_of(node.inputs[1])
        return index is not None and index.ndim == 0
    shape = node.outputs[0].shape
    return node.op_type in ("Squeeze", "Size") or (shape is not None and len(shape) == 0)


def _known_integers(node: ir.Node, partial: dict[ir.Value, Partial]) -> Partial | None:
    """The integers that shape arithmetic yields, None for each that is unknown before the graph runs."""
    if node.op_type == "Shape" and node.inputs[0] is not None:
        axes = dims(node.inputs[0])
        if axes is None:
            return None
        window = slice(attribute(node, "start", 0), attribute(node, "end", None))
        return [axis if isinstance(axis, int) else None for axis in axes][window]
    handler = _SHAPE_ARITHMETIC.get(node.op_type)
    if handler is None or not any(value in partial for value in node.inputs if value is not None):
        return None
    operands = [_integers(value, partial) for value in node.inputs]
    return handler(node, operands)


def _integers(value: ir.Value | None, partial: dict[ir.Value, Partial]) -> Partial | None:
    if value is None:
        return None
    if value in partial:
        return partial[value]
    content = constant_of(value)
    if content is None or content.ndim > 1 or not np.issubdtype(content.dtype, np.integer):
        return None
    return [int(number) for number in np.atleast_1d(content)]


def _gather(node: ir.Node, operands: list[Partial | None]) -> Partial | None:
    data, indices = operands
    return None if data is None or indices is None else [None if i is None else data[i] for i in indices]


def _slice(node: ir.Node, operands: list[Partial | None]) -> Partial | None:
    data, start, end = operands[:3]
    step = operands[4] if len(operands) > 4 and operands[4] else [1]
    if data is None or not start or not end or None in (start[0], end[0], step[0]):
        return None
    return data[slice(start[0], end[0], step[0])]


def _concat(node: ir.Node, operands: list[Partial | None]) -> Partial | None:
    return None if any(part is None for part in operands) else [number for part in operands if part for number in part]


def _same(node: ir.Node, operands: list[Partial | None]) -> Partial | None:
    return operands[0]


def _cast(node: ir.Node, operands: list[Partial | None]) -> Partial | None:
    return operands[0] if attribute(node, "to") == int(ir.DataType.INT64) else None


_SHAPE_ARITHMETIC: dict[str, Any] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _same,
    "Squeeze": _same,
    "Cast": _cast,
}


def _fix_target(graph: ir.Graph, node: ir.Node, partial: dict[ir.Value, Partial]) -> None:
    """Gives a Reshape with one unknown axis a constant target, with −1 there."""
    target = node.inputs[1]
    if target is None or target not in partial:
        return
    known = partial[target]
    if known.count(None) != 1 or any(axis is not None and axis < 1 for axis in known):
        return
    name = f"{node.outputs[0].name}/target"
    content = np.array([-1 if axis is None else axis for axis in known], np.int64)
    value = ir.val(name, const_value=ir.tensor(content, name=name))
    graph.register_initializer(value)
    node.replace_input_with(1, value)
