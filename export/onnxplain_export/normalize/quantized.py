"""Quantised models: newer number types spelt out in floats, and the straight-through gradient where it is asked for.

QuantizeLinear and DequantizeLinear of 8-bit numbers stay as they are, so that a runtime computes them as it computes
the source's, integer kernels included.
"""

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.emitter import OPSET, Emitter, attribute, constant_of, dims
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.normalize.replacing import own_name, replace_node
from onnxplain_export.normalize.shapes import infer_shapes
from onnxplain_export.vjp.quantized import FLOAT8, MOVING, QUANTIZED
from onnxplain_export.vjp.registry import MARK, STRAIGHT_THROUGH, SUBSTITUTES

RANGES = {"INT16": (-(1 << 15), (1 << 15) - 1), "UINT16": (0, (1 << 16) - 1), "INT4": (-8, 7), "UINT4": (0, 15)}
RANGES |= {"INT2": (-2, 1), "UINT2": (0, 3)}
NEWER = {ir.DataType[name]: limits for name, limits in RANGES.items() if name in ir.DataType.__members__}
"""The ranges of the integers that opset 20 can't quantise to."""

PAIR = ("QuantizeLinear", "DequantizeLinear")


def pass_straight_through(model: ir.Model) -> int:
    """Lets the gradient through every quantisation as if it didn't round; returns how many there are."""
    nodes = [node for node in model.graph.all_nodes() if node.domain == "" and _quantizes(node)]
    for node in nodes:
        node.metadata_props[MARK] = STRAIGHT_THROUGH
    return sum(node.op_type != "DequantizeLinear" for node in nodes)


def spell_out_newer_types(model: ir.Model) -> None:
    """Quantisation to the types and by the blocks of opset 21 and later, in float operators of opset 20."""
    if not any(node.op_type in PAIR and node.domain == "" for node in model.graph.all_nodes()):
        return
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    graphs = (model.graph, *model.graph.subgraphs())
    nodes = [(graph, node) for graph in graphs for node in graph if node.domain == "" and node.op_type in PAIR]
    kinds = {node: _kind(node) for _, node in nodes}
    for graph, node in nodes:
        if kinds[node] in NEWER or attribute(node, "block_size", 0):
            _spell_out(graph, node, kinds[node])
        else:
            for name in ("output_dtype", "precision", "block_size"):  # what they say is float32 or the zero point's
                node.attributes.pop(name, None)
    for graph in graphs:
        graph.sort()


def _quantizes(node: ir.Node) -> bool:
    return node.op_type in SUBSTITUTES and (node.op_type in PAIR or MARK in node.metadata_props)


def _kind(node: ir.Node) -> ir.DataType | None:
    """The type of the quantised numbers."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    number = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    known = zero.dtype if zero is not None else number.dtype if number is not None else None
    given = attribute(node, "output_dtype", 0) if node.op_type == "QuantizeLinear" else 0
    kind = ir.DataType(given) if given and known is None else known
    if kind not in NEWER and kind not in QUANTIZED and kind is not None:
        raise ModelError(f"{node.op_type} (node {node.name!r}) of {kind.name.lower()} has no form in opset {OPSET}")
    return kind


def _spell_out(graph: ir.Graph, node: ir.Node, kind: ir.DataType | None) -> None:
    """q as a float: clip(round(x/s) + z), and (q - z) s; the Round is the quantisation that a gradient meets."""
    x, scale = node.inputs[:2]
    content = constant_of(x)
    if node.op_type == "DequantizeLinear" and content is not None:
        result = add_constant(graph, f"{own_name(node)}/folded", _dequantized(node, content))
        replace_node(graph, node, [result])
        return
    if kind is None or kind in FLOAT8 or kind not in NEWER or attribute(node, "block_size", 0):
        raise ModelError(f"{node.op_type} (node {node.name!r}): quantisation by blocks is read of constants only")
    floats = scale.dtype if scale is not None and scale.dtype is not None else ir.DataType.FLOAT
    op = Emitter(graph, f"{own_name(node)}/spelt_out", floats)
    step = op.floats(_along_axis(node, 1))
    zero = op.floats(_along_axis(node, 2)) if len(node.inputs) > 2 and node.inputs[2] is not None else op.floats(0.0)
    if node.op_type == "DequantizeLinear":
        replace_node(graph, node, [op.Mul(op.Sub(op.Cast(x, to=int(floats)), zero), step)])
        return
    _check_readers(node)
    whole = op.Round(op.Div(x, step))
    whole.producer().metadata_props[MARK] = "refused"
    lowest, highest = NEWER[kind]
    replace_node(graph, node, [op.Clip(op.Add(whole, zero), float(lowest), float(highest))])


def _check_readers(node: ir.Node) -> None:
    """Refuses numbers of newer types that are computed with."""
    waiting = list(node.outputs)
    while waiting:
        for reader, _ in waiting.pop().uses():
            if reader.op_type not in MOVING:
                raise ModelError(
                    f"{reader.op_type} (node {reader.name!r}) computes with the integers of {node.op_type} "
                    f"(node {node.name!r}); export the model in QDQ format"
                )
            waiting += [] if reader.op_type == "DequantizeLinear" else reader.outputs


def _dequantized(node: ir.Node, content: np.ndarray) -> np.ndarray:
    """(q - z) s of constants, in double precision and then in that of the scale."""
    scale = constant_of(node.inputs[1])
    if scale is None:
        raise ModelError(f"{node.op_type} (node {node.name!r}): its scale isn't a constant")
    step, zero = (_spread(node, index, content.shape) for index in (1, 2))
    return ((content.astype(np.float64) - zero) * step).astype(scale.dtype)


def _spread(node: ir.Node, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """The scale or the zero point for every number: each entry of a block has that of the block."""
    numbers = _along_axis(node, index, len(shape)) if len(node.inputs) > index and node.inputs[index] is not None else 0
    block = attribute(node, "block_size", 0)
    if not block or np.ndim(numbers) != len(shape):
        return np.asarray(numbers)
    axis = attribute(node, "axis", 1) % len(shape)
    return np.take(np.repeat(numbers, block, axis), np.arange(shape[axis]), axis)


def _along_axis(node: ir.Node, index: int, rank: int | None = None) -> np.ndarray:
    """One number for all, or one for each entry along the node's axis, in a shape that broadcasts."""
    content = constant_of(node.inputs[index])
    known = next((d for v in (node.inputs[0], node.outputs[0]) if v is not None and (d := dims(v)) is not None), None)
    if content is None:
        raise ModelError(f"{node.op_type} (node {node.name!r}): its scale and zero point must be constants")
    numbers = content.astype(np.float64)
    if numbers.size == 1:
        return numbers.reshape(())
    if numbers.ndim > 1:
        return numbers
    rank = rank if rank is not None else None if known is None else len(known)
    if rank is None:
        raise ModelError(f"{node.op_type} (node {node.name!r}): the rank of its input isn't known")
    return numbers.reshape([-1 if i == attribute(node, "axis", 1) % rank else 1 for i in range(rank)])
