"""Everything is computed in float32: half and double precision are converted, integer images explained as floats."""

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.emitter import Emitter, attribute, static_dims
from onnxplain_export.normalize.replacing import own_name, replace_node

OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

MOVING = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Identity", "Concat", "Split"})
"""Operators that mean the same on integers and floats."""


def to_float32(model: ir.Model) -> str | None:
    """Turns every float type of the graph into float32; returns the name of the type that was replaced, if any."""
    replaced: set[ir.DataType] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        replaced |= _values_to_float32(graph)
    for node in model.graph.all_nodes():
        replaced |= _node_to_float32(node)
    forget_types(model)
    return ", ".join(sorted(kind.name.lower() for kind in replaced)) or None


def _values_to_float32(graph: ir.Graph) -> set[ir.DataType]:
    replaced: set[ir.DataType] = set()
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in OTHER_FLOATS:
            replaced.add(value.const_value.dtype)
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in [*graph.inputs, *graph.outputs]:
        if value.dtype in OTHER_FLOATS:
            replaced.add(ir.DataType(value.dtype))
            value.type = ir.TensorType(ir.DataType.FLOAT)
    return replaced


def explain_at_float(model: ir.Model, image: ir.Value) -> bool:
    """Makes an integer image input float32 and removes what made it so inside; True if it was an integer.

    Refused where the model computes with the integers themselves: a gradient at tokens or table indices means nothing.
    """
    if image.dtype is None or image.dtype.is_floating_point():
        return False
    casts = _casts_of(model.graph, image)
    image.type = ir.TensorType(ir.DataType.FLOAT)
    forget_types(model)
    for node in casts:
        if node.op_type == "DequantizeLinear":
            _compute_in_floats(model.graph, node)
        elif node.inputs[0] is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0], replace_graph_outputs=False)
    return True


def _compute_in_floats(graph: ir.Graph, node: ir.Node) -> None:
    """(x - zero point) · scale of a picture of integers, which is now one of floats; one scale for all of it."""
    scale = node.inputs[1]
    if scale is None or static_dims(scale) not in ((), (1,)):
        raise ModelError(f"DequantizeLinear (node {node.name!r}) scales the picture by more than one number")
    op = Emitter(graph, f"{own_name(node)}/in_floats")
    x = node.inputs[0]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        x = op.Sub(x, op.Cast(node.inputs[2], to=int(ir.DataType.FLOAT)))
    replace_node(graph, node, [op.Mul(x, scale)])
    graph.sort()


def _casts_of(graph: ir.Graph, image: ir.Value) -> list[ir.Node]:
    """The Casts and dequantisations of the integer image, seen through operators that only move its elements."""
    integers, casts = {image}, []
    for node in graph:
        if node.op_type == "Shape" or not any(value in integers for value in node.inputs):
            continue
        if node.op_type == "Cast" and attribute(node, "to") != int(ir.DataType.BOOL):
            casts.append(node)
            if attribute(node, "to") != int(ir.DataType.FLOAT):
                integers.add(node.outputs[0])
        elif node.op_type == "DequantizeLinear" and node.inputs[0] in integers:
            casts.append(node)
        elif node.op_type in MOVING and node.inputs[0] in integers:
            integers.update(node.outputs)
        else:
            raise ModelError(
                f"{node.op_type} (node {node.name!r}) computes with the integers of input {image.name!r}; "
                "only models that cast them to floats first are explained"
            )
    return casts


def forget_types(model: ir.Model) -> None:
    """Drops the recorded types and shapes of computed values, for a new inference to fill in."""
    for node in model.graph.all_nodes():
        for output in node.outputs:
            if not output.is_graph_output():
                output.type = None
            output.shape = None


def _node_to_float32(node: ir.Node) -> set[ir.DataType]:
    replaced: set[ir.DataType] = set()
    for name in ("to", "dtype"):
        kind = attribute(node, name)
        if kind in {int(other) for other in OTHER_FLOATS}:
            replaced.add(ir.DataType(kind))
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR and value.value.dtype in OTHER_FLOATS:
        replaced.add(value.value.dtype)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.value.numpy().astype(np.float32)))
    # A Cast to double inside shape arithmetic says nothing about the model's own precision.
    return replaced - {ir.DataType.DOUBLE}
