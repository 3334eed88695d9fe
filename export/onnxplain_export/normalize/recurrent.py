"""Frees recurrent layers from the batch size that their constant first states and lengths were written with."""

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.normalize.replacing import own_name

LENGTHS, STATES = 4, (5, 6)
"""The inputs of RNN, GRU and LSTM that have a batch axis besides the sequence; LSTM alone has the last."""


def free_states(graph: ir.Graph) -> int:
    """Drops zero states and full lengths, which are the default, and repeats other constants for every sample.

    Returns the number of inputs that were changed. Constants that differ between the samples stay.
    """
    changed = 0
    for node in list(graph):
        if node.domain == "" and node.op_type in ("RNN", "GRU", "LSTM"):
            changed += _free_lengths(graph, node) + sum(_free_state(graph, node, index) for index in STATES)
    if changed:
        graph.sort()
    return changed


def _free_lengths(graph: ir.Graph, node: ir.Node) -> bool:
    lengths, x = _constant_input(node, LENGTHS), node.inputs[0]
    known = None if x is None else dims(x)
    if lengths is None or x is None:
        return False
    steps = None if known is None else known[_batch_first(node)]
    if isinstance(steps, int) and (lengths == steps).all():
        node.replace_input_with(LENGTHS, None)
        return True
    if not (lengths == lengths[:1]).all():
        return False
    op = Emitter(graph, f"{own_name(node)}/lengths")
    node.replace_input_with(LENGTHS, op.Expand(lengths[:1], _batch(op, node, x)))
    return True


def _free_state(graph: ir.Graph, node: ir.Node, index: int) -> bool:
    state, x = _constant_input(node, index), node.inputs[0]
    if state is None or x is None:
        return False
    if not state.any():
        node.replace_input_with(index, None)
        return True
    axis = 0 if _batch_first(node) else 1
    one = np.take(state, [0], axis=axis)
    if not (state == one).all():
        return False
    op = Emitter(graph, f"{own_name(node)}/state_{index}")
    size = [op.constant([length], np.int64) for length in one.shape]
    size[axis] = _batch(op, node, x)
    node.replace_input_with(index, op.Expand(one, op.Concat(*size, axis=0)))
    return True


def _constant_input(node: ir.Node, index: int) -> np.ndarray | None:
    return constant_of(node.inputs[index]) if index < len(node.inputs) else None


def _batch_first(node: ir.Node) -> int:
    return 1 if attribute(node, "layout", 0) else 0


def _batch(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value:
    """The number of samples, as a list of one."""
    axis = 1 - _batch_first(node)
    return op.Shape(x, start=axis, end=axis + 1)
