"""Other forms of operators that stay in float32, which may be in half precision: no Casts of whole feature maps."""

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.half_statistics import normalizes


def use_half_forms(graph: ir.Graph) -> None:
    """Means over all places of maps become average pools, which divide before they leave float32; constant
    normalisations become products and sums."""
    op = Emitter(graph, "half")
    for node in list(graph):
        result = None
        if node.op_type == "ReduceMean":
            result = _pooled(op, node)
        elif node.op_type == "BatchNormalization":
            result = _weighed(op, node)
        if result is not None:
            _put_in_place(graph, node, result)
    graph.sort()


def _pooled(op: Emitter, node: ir.Node) -> ir.Value | None:
    """The mean over the places of feature maps [N, C, H, W], as in squeeze-and-excitation gates; None for others, and
    for those of normalisations, which need float32's range."""
    x, axes = node.inputs[0], constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or axes is None or len(dims(x) or ()) != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        return None
    if normalizes(node):
        return None
    pooled: ir.Value = op.GlobalAveragePool(x)
    if attribute(node, "keepdims", 1):
        return pooled
    pooled.type, pooled.shape = x.type, ir.Shape([*list(x.shape or ())[:2], 1, 1])
    squeezed: ir.Value = op.Squeeze(pooled, [2, 3])
    return squeezed


def _weighed(op: Emitter, node: ir.Node) -> ir.Value | None:
    """a x + b of a normalisation whose statistics are constants."""
    x, known = node.inputs[0], [constant_of(value) for value in node.inputs[1:]]
    rank = len((x and dims(x)) or ())
    if x is None or rank < 2 or any(content is None for content in known):
        return None
    scale, bias, mean, variance = (np.asarray(content, np.float64) for content in known)
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    along = [-1, *[1] * (rank - 2)]
    product = op.Mul(x, op.floats(factor.reshape(along)))
    product.type, product.shape = x.type, x.shape
    total: ir.Value = op.Add(product, op.floats((bias - mean * factor).reshape(along)))
    return total


def _put_in_place(graph: ir.Graph, node: ir.Node, result: ir.Value) -> None:
    """Gives the result the name, the type and the readers of the node's output."""
    output = node.outputs[0]
    result.type, result.shape = output.type, output.shape
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    result.name, output.name = output.name, f"{output.name}/replaced"
    graph.remove(node, safe=True)
