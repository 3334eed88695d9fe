"""Simpler forms of what exporters write in many operators, where they only move entries.

Each form gives the same numbers in the same place; the last value of each keeps its name.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import attribute, constant_of, dims
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.origins import known


def simplify_views(graph: ir.Graph) -> int:
    """Joins pieces of one value into a Split, transpositions of merged axes into one; how many forms were found.

    Shapes must have been inferred. What nothing reads any more is left for the caller to remove.
    """
    found = sum(_drop_empty_padding(node) for node in list(graph))
    found += sum(_transpose_unmerged(node) for node in list(graph))
    found += sum(_scale_first(graph, node) for node in list(graph))
    return found + sum(_split_pieces(graph, value) for value in list(_values(graph)))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _drop_empty_padding(node: ir.Node) -> bool:
    """A Pad by nothing is left out."""
    pads = constant_of(node.inputs[1]) if node.op_type == "Pad" and len(node.inputs) > 1 else None
    if pads is None or pads.any() or node.inputs[0] is None or node.outputs[0].is_graph_output():
        return False
    ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
    return True


def _transpose_unmerged(node: ir.Node) -> bool:
    """Reshape [a, b, m, n] to [a·b, m, n], Transpose, Reshape to [a, b, n, m]: the last two axes are exchanged."""
    source = _merged_and_turned(node) if node.op_type == "Reshape" else None
    before, after = (None if value is None else dims(value) for value in (source, node.outputs[0]))
    if source is None or not before or not after or len(before) != len(after) or len(before) < 3:
        return False
    if (*before[1:-2], before[-1], before[-2]) != after[1:] or not all(isinstance(axis, int) for axis in after[1:]):
        return False
    rank = len(before)
    node.op_type = "Transpose"
    node.resize_inputs(1)
    node.replace_input_with(0, source)
    node.attributes.clear()
    node.attributes["perm"] = ir.AttrInt64s("perm", [*range(rank - 2), rank - 1, rank - 2])
    node.outputs[0].shape = None
    return True


def _merged_and_turned(node: ir.Node) -> ir.Value | None:
    """What a Reshape to three axes and a Transpose of the last two made the input of `node` of."""
    turn = node.inputs[0].producer() if node.inputs[0] is not None else None
    if turn is None or turn.op_type != "Transpose" or attribute(turn, "perm") != [0, 2, 1]:
        return None
    merge = turn.inputs[0].producer() if turn.inputs[0] is not None else None
    source = merge.inputs[0] if merge is not None and merge.op_type == "Reshape" else None
    before, merged = (None if value is None else dims(value) for value in (source, turn.inputs[0]))
    return source if before and merged and before[-2:] == merged[-2:] else None


def _scale_first(graph: ir.Graph, node: ir.Node) -> bool:
    """A transposition times a number is the transposition of the product, next to the MatMul that may take it in."""
    if node.op_type != "Mul" or len(node.inputs) != 2 or node.outputs[0].is_graph_output():
        return False
    for index, value in enumerate(node.inputs):
        turn, number = None if value is None else value.producer(), known(node.inputs[1 - index])
        if value is None or turn is None or number is None or turn.op_type != "Transpose" or number.content.size != 1:
            continue
        source, axes = turn.inputs[0], dims(value)
        if source is None or axes is None or number.content.ndim > len(axes) or "perm" not in turn.attributes:
            continue
        scaled = ir.node("Mul", [source, node.inputs[1 - index]], name=f"{node.name}/scaled")
        scaled.outputs[0].name = f"{node.outputs[0].name}/scaled"
        graph.insert_before(node, scaled)
        node.op_type = "Transpose"
        node.resize_inputs(1)
        node.replace_input_with(0, scaled.outputs[0])
        node.attributes["perm"] = turn.attributes["perm"]
        return True
    return False


def _split_pieces(graph: ir.Graph, value: ir.Value) -> bool:
    """Slices and Gathers that together read every entry along one axis once become one Split."""
    shape = dims(value)
    readers = [(node, _piece(node, shape)) for node, index in value.uses() if index == 0 and shape]
    pieces = [(piece, node) for node, piece in readers if piece is not None]
    for axis in {axis for (axis, _, _), _ in pieces}:
        along = sorted(((start, end, node) for (at, start, end), node in pieces if at == axis), key=lambda p: p[:2])
        size = shape[axis] if shape else None
        ends = [end for _, end, _ in along]
        if len(along) > 1 and [start for start, _, _ in along] == [0, *ends[:-1]] and ends[-1] == size:
            _split(graph, value, axis, [(end - start, node) for start, end, node in along])
            return True
    return False


def _piece(node: ir.Node, shape: tuple[int | str | None, ...] | None) -> tuple[int, int, int] | None:
    """(axis, first, last + 1) of what a Slice along one axis in steps of 1, or a Gather of one index, reads."""
    if not shape or node.op_type not in ("Slice", "Gather") or node.outputs[0].is_graph_output():
        return None
    given = [constant_of(value) for value in node.inputs[1:]]
    if node.op_type == "Gather":
        axis, index = attribute(node, "axis", 0) % len(shape), given[0]
        size = shape[axis]
        if index is None or index.ndim or not isinstance(size, int):
            return None
        first = int(index) % size
        return axis, first, first + 1
    numbers = [int(content.item()) for content in given if content is not None and content.size == 1]
    if len(numbers) < len(given):
        return None
    start, end, axis, step = (*numbers, *(0, 1)[len(numbers) - 2 :])
    size = shape[axis % len(shape)]
    if step != 1 or not isinstance(size, int):
        return None
    first, last, _ = slice(start, end).indices(size)
    return axis % len(shape), first, last


def _split(graph: ir.Graph, value: ir.Value, axis: int, pieces: list[tuple[int, ir.Node]]) -> None:
    """Replaces the nodes that read the pieces, whose results keep their names."""
    name = f"{value.name}/pieces"
    sizes = add_constant(graph, f"{name}/sizes", np.array([size for size, _ in pieces], np.int64))
    split = ir.node("Split", [value, sizes], {"axis": axis}, num_outputs=len(pieces), name=name)
    first = min((node for _, node in pieces), key=list(graph).index)
    graph.insert_before(first, split)
    for index, (output, (_, node)) in enumerate(zip(split.outputs, pieces, strict=True)):
        old, new = node.outputs[0], output
        output.name = f"{name}/{index}"
        if node.op_type == "Gather":
            axes = add_constant(graph, f"{name}/axes", np.array([axis], np.int64))
            squeeze = ir.node("Squeeze", [output, axes], name=f"{node.name}/squeezed")
            graph.insert_before(node, squeeze)
            new = squeeze.outputs[0]
        ir.convenience.replace_all_uses_with(old, new)
        graph.remove(node, safe=True)
        new.name, new.type = old.name, old.type
