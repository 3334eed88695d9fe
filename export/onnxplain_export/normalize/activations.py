"""Softmax and sigmoid as exporters spell them out: named again, so that the scores before them can be explained."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims

VIEWS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
Spelling = Callable[[Emitter, ir.Node], ir.Value | None]


def name_activations(model: ir.Model) -> None:
    """Where an output [N, classes] is a softmax or sigmoid in simpler operators, makes it one operator.

    The proof that ends every export compares the result with the model as it was.
    """
    graph = model.graph
    for index, output in enumerate(graph.outputs):
        node = _maker(output)
        spelling = SPELLINGS.get(node.op_type) if node is not None else None
        shape = dims(output)
        if node is None or spelling is None or shape is None or len(shape) != 2 or not isinstance(shape[1], int):
            continue
        before = len(graph)
        new = spelling(Emitter(graph, f"{output.name}/activation"), node)
        if new is None:
            graph.remove(list(graph)[before:])
            continue
        new.name, output.name = output.name, f"{output.name}/before"
        new.shape, new.type = output.shape, output.type
        graph.outputs[index] = new
    passes.TopologicalSortPass()(model)
    passes.RemoveUnusedNodesPass()(model)


def softmax_of_logarithms(op: Emitter, node: ir.Node) -> ir.Value | None:
    """exp(z − log Σ exp z), as the naive Bayes models have it."""
    less = _maker(node.inputs[0])
    if less is None or less.op_type != "Sub":
        return None
    z, total = less.inputs
    sum_ = _maker(total)
    if z is None or sum_ is None or sum_.op_type != "ReduceLogSumExp" or sum_.inputs[0] is not z:
        return None
    return op.Softmax(z, axis=1) if _over_classes(sum_) else None


def softmax_of_ratios(op: Emitter, node: ir.Node) -> ir.Value | None:
    """exp(z) / Σ exp z, with or without the greatest z taken off first."""
    powers, sum_ = _maker(node.inputs[0]), _maker(node.inputs[1])
    if powers is None or sum_ is None or powers.op_type != "Exp" or sum_.op_type != "ReduceSum":
        return None
    if _maker(sum_.inputs[0]) is not powers or not _over_classes(sum_) or powers.inputs[0] is None:
        return None
    return op.Softmax(powers.inputs[0], axis=1)


def two_sigmoids(op: Emitter, node: ir.Node) -> ir.Value | None:
    """(1 − p, p) with p = σ(z) is σ of (−z, z)."""
    if len(node.inputs) != 2 or attribute(node, "axis") not in (1, -1):
        return None
    less, sigmoid = _maker(node.inputs[0]), _maker(node.inputs[1])
    if less is None or sigmoid is None or less.op_type != "Sub" or sigmoid.op_type != "Sigmoid":
        return None
    one, z = constant_of(less.inputs[0]), sigmoid.inputs[0]
    if one is None or not np.all(one == 1) or _maker(less.inputs[1]) is not sigmoid or z is None:
        return None
    z = op.Reshape(z, [-1, 1])
    return op.Sigmoid(op.Concat(op.Neg(z), z, axis=1))


SPELLINGS: dict[str, Spelling] = {
    "Exp": softmax_of_logarithms,
    "Div": softmax_of_ratios,
    "Concat": two_sigmoids,
}
"""By the operator that a spelling ends with."""


def _over_classes(node: ir.Node) -> bool:
    """Whether a reduction of [N, classes] goes over the classes."""
    given = constant_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    return given is not None and [int(axis) for axis in np.ravel(given)] in ([1], [-1])


def _maker(x: ir.Value | None) -> ir.Node | None:
    """The node that made x, seen through what only changes its shape or type."""
    node = None if x is None else x.producer()
    while node is not None and node.op_type in VIEWS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node
