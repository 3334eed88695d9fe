"""Folds whatever doesn't depend on the input: constant nodes, and shape arithmetic over axes that are known."""

import operator
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Dim, attribute, constant_of, dims, is_constant
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.normalize.sequences import fold_sequences
from onnxplain_export.origins import Known, folded, known

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
        "Optional",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SplitToSequence",
    }
)
"""What is drawn at random, holds graphs, or yields no tensor."""

Partial = list[int | str | None]
"""Integers that a graph computes: numbers, the symbol of an axis whose size one is, None where nothing is known."""


def fold_constants(graph: ir.Graph) -> bool:
    """Replaces nodes whose inputs are all constants by their values, and known shapes by constants; True if any was.

    Where the graph quantises what it computes, the quantised weights stay: runtimes look for them.
    """
    partial: dict[ir.Value, Partial] = {}
    kept = frozenset({"DequantizeLinear"}) if _quantizes(graph) else frozenset()
    folded = [_fold(graph, node, partial) for node in list(graph) if node.op_type not in kept]
    return any(folded) or fold_sequences(graph) > 0


def _quantizes(graph: ir.Graph) -> bool:
    return any(node.op_type == "QuantizeLinear" and not is_constant(node.inputs[0]) for node in graph)


def _fold(graph: ir.Graph, node: ir.Node, partial: dict[ir.Value, Partial]) -> bool:
    known = _known_integers(node, partial)
    if known is not None and len(node.outputs) == 1:
        partial[node.outputs[0]] = known
        numbers = [number for number in known if isinstance(number, int)]
        if len(numbers) == len(known):
            _replace(graph, node, [Known(np.array(numbers[0] if _is_scalar(node) else numbers, np.int64))])
            return True
    contents = _evaluate(node) if _is_foldable(node) else None
    if contents is not None:
        _replace(graph, node, contents)
        return True
    return node.op_type in ("Reshape", "Expand") and _fix_target(graph, node, partial)


def _is_foldable(node: ir.Node) -> bool:
    if node.op_type in UNFOLDABLE or node.domain not in ("", "ai.onnx"):
        return False
    given = [value for value in node.inputs if value is not None]
    if not all(map(is_constant, given)) or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return False
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        sizes = constant_of(given[-1])
        return float(np.prod(np.asarray(sizes, np.float64))) * 8 < LARGEST
    return True


def _evaluate(node: ir.Node) -> list[Known] | None:
    """The node's outputs by the ONNX reference evaluator; None where it can't, and the node is left to the runtime."""
    try:
        return folded(ir.to_proto(node), [known(value) for value in node.inputs])
    except Exception:  # the evaluator raises whatever its Python does; an unfolded node is as right as a folded one
        return None


def _replace(graph: ir.Graph, node: ir.Node, contents: list[Known]) -> None:
    for output, content in zip(node.outputs, contents, strict=True):
        value = add_constant(graph, f"{output.name}/folded", content)
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
        return list(axes)[window]
    if node.op_type == "Size" and node.inputs[0] in partial:
        return [len(partial[node.inputs[0]])]
    handler = _SHAPE_ARITHMETIC.get(node.op_type)
    if node.op_type == "Cast" and attribute(node, "to") != int(ir.DataType.INT64):
        return None
    if handler is None or not any(value in partial for value in node.inputs if value is not None):
        return None
    operands = [_integers(value, partial) for value in node.inputs]
    return handler(operands)


def _integers(value: ir.Value | None, partial: dict[ir.Value, Partial]) -> Partial | None:
    if value is None:
        return None
    if value in partial:
        return partial[value]
    content = constant_of(value)
    if content is None or content.ndim > 1 or not np.issubdtype(content.dtype, np.integer):
        return None
    return [int(number) for number in np.atleast_1d(content)]


def _gather(operands: list[Partial | None]) -> Partial | None:
    data, indices = operands
    places = [i for i in indices or () if isinstance(i, int)]
    if (
        data is None
        or indices is None
        or len(places) < len(indices)
        or any(not -len(data) <= i < len(data) for i in places)
    ):
        return None
    return [data[i] for i in places]


def _slice(operands: list[Partial | None]) -> Partial | None:
    data, start, end = operands[:3]
    step = operands[4] if len(operands) > 4 and operands[4] else [1]
    if data is None or not start or not end:
        return None
    bounds = [number for number in (start[0], end[0], step[0]) if isinstance(number, int)]
    return data[slice(*bounds)] if len(bounds) == 3 else None


def _concat(operands: list[Partial | None]) -> Partial | None:
    return None if any(part is None for part in operands) else [number for part in operands if part for number in part]


def _same(operands: list[Partial | None]) -> Partial | None:
    return operands[0]


def _elementwise(function: Callable[[int, int], int]) -> Callable[[list[Partial | None]], Partial | None]:
    """Arithmetic on two lists of integers, of which one may be a single number."""

    def handler(operands: list[Partial | None]) -> Partial | None:
        a, b = operands
        if a is None or b is None or not (len(a) == len(b) or 1 in (len(a), len(b))):
            return None
        size = max(len(a), len(b))
        pairs = zip(a * (size // len(a)), b * (size // len(b)), strict=True)
        return [function(x, y) if isinstance(x, int) and isinstance(y, int) else None for x, y in pairs]

    return handler


def _quotient(a: int, b: int) -> int:
    """Integer division as ONNX's Div does it, towards zero."""
    return int(a / b) if b else 0


_SHAPE_ARITHMETIC: dict[str, Any] = {
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Div": _elementwise(_quotient),
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _same,
    "Squeeze": _same,
    "Cast": _same,
}


def _fix_target(graph: ir.Graph, node: ir.Node, partial: dict[ir.Value, Partial]) -> bool:
    """Gives a Reshape or Expand a constant target where the unknown sizes are those of the input; True if it could."""
    target, source = node.inputs[1], None if node.inputs[0] is None else dims(node.inputs[0])
    if target is None or target not in partial:
        return False
    known, given = partial[target], source or ()
    fixed = _expand_target(known, given) if node.op_type == "Expand" else _reshape_target(known, given)
    if fixed is None:
        return False
    node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}/target", np.array(fixed, np.int64)))
    return True


def _reshape_target(known: Partial, source: Sequence[Dim]) -> list[int] | None:
    """0 copies an axis of the input, −1 stands for the one that is left."""
    if any(axis == 0 for axis in known):
        return None
    copied = [isinstance(axis, str) and axis == there for axis, there in zip_longest(known, source[: len(known)])]
    fixed = [0 if copy else axis if isinstance(axis, int) else -1 for axis, copy in zip(known, copied, strict=True)]
    return fixed if fixed.count(-1) <= 1 else None


def _expand_target(known: Partial, source: Sequence[Dim]) -> list[int] | None:
    """1 leaves an axis of the input as it is."""
    lead = len(known) - len(source)
    if lead < 0 or not source:
        return None
    aligned = [None] * lead + list(source)
    fixed = [1 if isinstance(axis, str) and axis == there else axis for axis, there in zip(known, aligned, strict=True)]
    return [axis for axis in fixed if isinstance(axis, int)] if all(isinstance(axis, int) for axis in fixed) else None
