"""A quantised network as the straight-through gradient sees it: with its roundings held still."""

from collections.abc import Mapping

import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.emitter import Emitter, subgraphs
from onnxplain_export.vjp.quantized import constant_along_axis, limits
from onnxplain_export.vjp.registry import MARK, STRAIGHT_THROUGH

AT = "{}/at"
"""The name of the input that says where the roundings are taken."""


def unrounded(model: ir.Model, image: str) -> ir.Model:
    """The model with one input more, `<image>/at`: each quantisation of x is clip(x) + (quantised(at) - clip(at)).

    Where both inputs are equal, so are its outputs to those of `model`; its true gradient there, with respect to
    `image`, is the straight-through gradient of `model`, which finite differences of the rounded network can't show.
    Equal quantised numbers tie in a max pool: there a difference is a mean of slopes, off by some percent.
    """
    model = model.clone()
    graph = model.graph
    base = next(value for value in graph.inputs if value.name == image)
    moving = ir.val(image, type=base.type, shape=base.shape)
    base.name = AT.format(image)
    graph.inputs.append(moving)
    op = Emitter(graph, "unrounded")
    moved: dict[ir.Value, ir.Value] = {base: moving}
    for node in list(graph):
        if any(value in moved for value in node.inputs):
            results = _results(op, node, moved)
            moved.update(zip(node.outputs, results, strict=True))
        elif any(value in moved for held in subgraphs(node) for inner in held.all_nodes() for value in inner.inputs):
            raise ModelError(f"{node.op_type} (node {node.name!r}) reads a quantised network from inside a branch")
    for index, output in enumerate(graph.outputs):
        if output in moved:
            result = moved[output]
            name, output.name = output.name, AT.format(output.name)
            result.name = name
            graph.outputs[index] = result
    return model


def _results(op: Emitter, node: ir.Node, moved: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
    """The node's results where its inputs have moved; quantised numbers are floats that needn't be whole."""
    if node.metadata_props.get(MARK) != STRAIGHT_THROUGH:
        inputs = [None if value is None else moved.get(value, value) for value in node.inputs]
        name = f"{node.outputs[0].name}/moved"
        twin = ir.node(node.op_type, inputs, domain=node.domain, num_outputs=len(node.outputs), name=name)
        twin.attributes.update(node.attributes)
        for output, original in zip(twin.outputs, node.outputs, strict=True):
            output.name, output.type, output.shape = f"{original.name}/moved", original.type, original.shape
        op.graph.append(twin)
        return list(twin.outputs)
    x, rounded = node.inputs[0], node.outputs[0]
    if x is None:
        raise ModelError(f"{node.op_type} (node {node.name!r}) has no input")
    if node.op_type == "Round":
        return [op.Add(rounded, op.Sub(moved[x], x))]
    scale = constant_along_axis(op, node, 1)
    if node.op_type == "DequantizeLinear":
        given = len(node.inputs) > 2 and node.inputs[2] is not None
        zero = constant_along_axis(op, node, 2) if given else op.floats(0.0)
        return [op.Mul(op.Sub(moved[x], zero), scale)]
    lowest, highest = limits(op, node)
    way = op.Sub(op.Min(op.Max(moved[x], lowest), highest), op.Min(op.Max(x, lowest), highest))
    return [op.Add(op.Cast(rounded, to=int(op.float_type)), op.Div(way, scale))]
