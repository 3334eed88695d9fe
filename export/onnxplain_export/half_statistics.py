"""Which nodes compute a normalization's statistics: in half precision they would leave its range unseen.

A square does from 256 on, a variance that has become infinite divides all to 0, and a map of zeros looks proper.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import constant_of, static_dims

MEANS = frozenset({"GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
MOVING = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
FORMS = MEANS | MOVING | {"Abs", "Clip", "Max"}
"""What a statistic goes through on its way to a root."""
BY_CONSTANTS = frozenset({"Add", "Div", "Mul"})
"""It goes through these too where the other operand is a constant."""


def of_statistics(graph: ir.Graph, moved: Collection[ir.Value], products: Collection[str]) -> set[ir.Node]:
    """The nodes of a sorted graph that compute squares, means that normalise and what follows from these alone, and
    those that shift or scale a map by roots or quotients of these.

    `moved` are the values that aren't constants; behind `products` statistics are features again.
    """
    statistics: set[ir.Value] = set()
    roots: set[ir.Value] = set()
    found: set[ir.Node] = set()
    for node in graph:
        read = [value for value in node.inputs if value in moved and value is not None]
        follows = bool(read) and node.op_type not in products and all(value in statistics for value in read)
        rooted = any(value in roots for value in read)
        if follows or is_square(node) or normalizes(node):
            statistics.update(node.outputs)
            found.add(node)
            if follows and (rooted or _is_steep(node, moved)):
                roots.update(node.outputs)
        elif rooted and node.op_type in ("Add", "Mul", "Sub"):
            found.add(node)
    return found


def is_square(node: ir.Node) -> bool:
    """x², written as a power, or as a product of a value with itself or with its like."""
    if node.op_type == "Pow":
        exponent = constant_of(node.inputs[1])
        return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2
    if node.op_type != "Mul":
        return False
    if node.inputs[0] is node.inputs[1]:
        return True
    one, other = (None if value is None else value.producer() for value in node.inputs)
    if one is None or other is None:
        return False
    return one.op_type == other.op_type == "Sub" and one.inputs == other.inputs


def normalizes(node: ir.Node) -> bool:
    """Whether a mean or a sum is one of a normalisation: of squares or differences, or on the way to being subtracted,
    squared, put under a root or a quotient, or kept from 0 by an ε."""
    if node.op_type not in MEANS:
        return False
    before = _without_moves(node.inputs[0])
    if before is not None and (before.op_type == "Sub" or is_square(before)):
        return True
    ahead, seen = [node.outputs[0]], set()
    while ahead:
        value = ahead.pop()
        for reader in value.consumers():
            if _normalizes_by(reader, value):
                return True
            if reader not in seen and (reader.op_type in FORMS or _is_by_constant(reader, value)):
                seen.add(reader)
                ahead.append(reader.outputs[0])
    return False


def _without_moves(value: ir.Value | None) -> ir.Node | None:
    """What computed the numbers of a value, wherever they were then put."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in MOVING | {"Abs"}:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node


def _normalizes_by(reader: ir.Node, value: ir.Value) -> bool:
    if reader.op_type in ("Pow", "Reciprocal", "Sqrt", "Sub") or is_square(reader):
        return True
    if reader.op_type == "Div":
        return reader.inputs[1] is value
    others = [other for other in reader.inputs if other is not None and other is not value]
    return reader.op_type == "Add" and any(
        other.is_initializer() and np.prod(static_dims(other) or ()) == 1 for other in others
    )


def _is_by_constant(reader: ir.Node, value: ir.Value) -> bool:
    others = [other for other in reader.inputs if other is not None and other is not value]
    return reader.op_type in BY_CONSTANTS and all(other.is_initializer() for other in others)


def _is_steep(node: ir.Node, moved: Collection[ir.Value]) -> bool:
    """Whether small numbers become large: a root, a power or a quotient."""
    return node.op_type in ("Pow", "Reciprocal", "Sqrt") or (node.op_type == "Div" and node.inputs[1] in moved)
