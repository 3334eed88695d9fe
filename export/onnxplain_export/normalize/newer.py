"""Rewrites primitive operators that are newer than opset 20, or have learnt more since, in operators of opset 20."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.emitter import OPSET, Emitter, attribute, constant_of, dims
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.normalize.replacing import own_name, replace_node
from onnxplain_export.normalize.shapes import infer_shapes

SIGNED = frozenset({ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64})


def rewrite_newer(model: ir.Model, version: int) -> None:
    """Rewrites what of opset `version` has a form in opset 20; `model` still declares `version`."""
    if not any(node.op_type in _FORMS and node.domain == "" for node in model.graph.all_nodes()):
        return
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        replaced = [_rewrite(graph, node, version) for node in list(graph)]
        if any(replaced):
            graph.sort()


def _rewrite(graph: ir.Graph, node: ir.Node, version: int) -> bool:
    form = _FORMS.get(node.op_type) if node.domain == "" else None
    if form is None:
        return False
    known = _content(node, version) if node.op_type == "BitCast" else None
    if known is not None:
        result = add_constant(graph, f"{own_name(node)}/folded", known)
    else:
        kind = node.inputs[0].dtype if node.inputs[0] is not None else None
        floats = kind if kind is not None and kind.is_floating_point() else ir.DataType.FLOAT
        result = form(Emitter(graph, f"{own_name(node)}/rewritten", floats), node)
    if result is None:
        return False
    replace_node(graph, node, [result])
    return True


def _cum_prod(op: Emitter, node: ir.Node) -> ir.Value:
    """A Scan that multiplies; of known length it is unrolled later."""
    x, axis = node.inputs[0], constant_of(node.inputs[1])
    if x is None or axis is None:
        raise ModelError(f"CumProd (node {node.name!r}): its axis must be a constant")
    place, backwards = int(axis.item()), attribute(node, "reverse", 0)
    first = op.Gather(x, op.constant(0, np.int64), axis=place)
    start = op.Expand(op.floats(1.0), op.Shape(first))
    entries = [ir.val(f"{op.prefix}/{name}", dtype=x.dtype) for name in ("product", "entry")]
    body = ir.Graph(entries, [], nodes=[], name=f"{op.prefix}/body", opset_imports=op.graph.opset_imports)
    inner = Emitter(body, f"{op.prefix}/step", op.float_type)
    product = inner.Mul(*entries)
    body.outputs.extend([product, inner.Identity(entries[0] if attribute(node, "exclusive", 0) else product)])
    places = {"scan_input_axes": [place], "scan_output_axes": [place]}
    directions = {"scan_input_directions": [backwards], "scan_output_directions": [backwards]}
    _, products = op.Scan(start, x, body=body, num_scan_inputs=1, **places, **directions, outputs=2)
    return products


def _tensor_scatter(op: Emitter, node: ir.Node) -> ir.Value:
    """ScatterElements at the places start, start + 1, … along the axis, modulo its size in the circular mode."""
    past, update = node.inputs[:2]
    starts = node.inputs[2] if len(node.inputs) > 2 else None
    known = None if past is None else dims(past)
    if known is None or past is None:
        raise ModelError(f"TensorScatter (node {node.name!r}): the rank of its cache isn't known")
    axis = attribute(node, "axis", -2) % len(known)
    count = op.Reshape(op.Shape(update, start=axis, end=axis + 1), op.constant(np.zeros(0, np.int64)))
    numbers = op.Range(op.constant(0, np.int64), count, op.constant(1, np.int64))
    places = op.Reshape(numbers, [-1, *[1] * (len(known) - axis - 1)])
    if starts is not None:
        places = op.Add(places, op.Reshape(op.Cast(starts, to=int(ir.DataType.INT64)), [-1, *[1] * (len(known) - 1)]))
    if attribute(node, "mode", "linear") == "circular":
        places = op.Mod(places, op.Shape(past, start=axis, end=axis + 1))
    return op.ScatterElements(past, op.Expand(places, op.Shape(update)), update, axis=axis)


def _bit_cast(op: Emitter, node: ir.Node) -> ir.Value:
    """The identity between equal types."""
    x = node.inputs[0]
    if x is None or x.dtype is None or int(x.dtype) != attribute(node, "to"):
        raise ModelError(f"BitCast (node {node.name!r}) reads the bits of numbers, which has no form in opset {OPSET}")
    return op.Identity(x)


def _modulo(op: Emitter, node: ir.Node) -> ir.Value | None:
    """Of floats with the sign of the divisor (opset 28), by C's fmod: exact, unlike a − b ⌊a/b⌋."""
    a, b = node.inputs
    if attribute(node, "fmod", 0) or a is None or a.dtype is None or not a.dtype.is_floating_point():
        return None
    rest = op.Mod(a, b, fmod=1)
    other_side = op.Less(op.Mul(op.Sign(rest), op.Sign(b)), 0.0)
    return op.Where(other_side, op.Add(rest, b), rest)


def _space_to_depth(op: Emitter, node: ir.Node) -> ir.Value | None:
    """In the order column, row, depth (opset 28): the other order, then its channels transposed."""
    block = attribute(node, "blocksize")
    if attribute(node, "mode", "DCR") != "CRD":
        return None
    y = op.SpaceToDepth(node.inputs[0], blocksize=block)
    ends = [op.Shape(y, start=0, end=1), [block * block, -1], op.Shape(y, start=2, end=4)]
    apart = op.Transpose(op.Reshape(y, op.Concat(*ends, axis=0)), perm=[0, 2, 1, 3, 4])
    return op.Reshape(apart, op.Shape(y))


def _bit_shift(op: Emitter, node: ir.Node) -> None:  # noqa: ARG001 (the functions of a table have one signature)
    if node.inputs[0] is not None and node.inputs[0].dtype in SIGNED:
        raise ModelError(f"BitShift (node {node.name!r}) of signed integers has no form in opset {OPSET}")


def _content(node: ir.Node, version: int) -> np.ndarray | None:
    """What a node of one constant yields."""
    content = constant_of(node.inputs[0])
    if node.inputs[0] is None or content is None:
        return None
    feeds = {str(node.inputs[0].name): content}
    entry, result = ([onnx.helper.make_value_info(str(n), onnx.TypeProto())] for n in (*feeds, own_name(node)))
    graph = onnx.helper.make_graph([ir.to_proto(node)], "constant", entry, result)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    return np.asarray(next(iter(onnx.reference.ReferenceEvaluator(model).run(None, feeds))))


_FORMS: dict[str, Callable[[Emitter, ir.Node], Any]] = {
    "BitCast": _bit_cast,
    "BitShift": _bit_shift,
    "CumProd": _cum_prod,
    "Mod": _modulo,
    "SpaceToDepth": _space_to_depth,
    "TensorScatter": _tensor_scatter,
}
