"""Keeps the reverse pass in the blocked layout that onnxruntime's CPU kernels for convolutions work in.

Its layout pass takes a sum or a product in as long as all operands are blocked and of provably equal shapes; a single
one that is not pushes the whole chain of masks and residual sums out, at the price of a reordering for each convolution
on it. An operand that isn't blocked is therefore led through a convolution that changes nothing.
"""

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, dims

POINTWISE = frozenset({"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Clip"})
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
TOGETHER = frozenset({"Add", "Sum", "Mul"})
BLOCK = 16
"""Channels that lie together with AVX-512; 8 elsewhere. Pools of other numbers of channels leave the layout."""


def keep_blocked(model: ir.Model) -> None:
    """Leads operands of sums and products back into the layout where the others are in it."""
    graph = model.graph
    blocked: set[ir.Value] = set()
    back: dict[ir.Value, ir.Value] = {}
    op = Emitter(graph, "blocked")
    for node in list(graph):
        if node.op_type in TOGETHER and _alike(node):
            if not any(value in blocked for value in node.inputs):
                continue
            for index, value in enumerate(node.inputs):
                if value is None or value in blocked:
                    continue
                if value not in back:
                    back[value] = _led_back(op, value)
                node.replace_input_with(index, back[value])
            blocked.add(node.outputs[0])
        elif _stays(node, blocked) or _broadcasts(node, blocked):
            blocked.add(node.outputs[0])


def _stays(node: ir.Node, blocked: set[ir.Value]) -> bool:
    """Whether onnxruntime computes the node's output in its blocked layout."""
    x = node.inputs[0] if node.inputs else None
    if x is None or len(dims(x) or ()) != 4:
        return False
    if node.op_type == "Conv":
        return True
    if node.op_type in POOLS:
        channels = (dims(x) or ())[1]
        return isinstance(channels, int) and channels % BLOCK == 0 and len(node.outputs) == 1
    if node.op_type == "Concat":
        return node.attributes["axis"].as_int() == 1 and all(value in blocked for value in node.inputs)
    return node.op_type in POINTWISE and x in blocked


def _broadcasts(node: ir.Node, blocked: set[ir.Value]) -> bool:
    """Whether the node is a sum of blocked values of several sizes, which onnxruntime takes as they are."""
    return node.op_type == "Add" and all(value in blocked for value in node.inputs)


def _alike(node: ir.Node) -> bool:
    """Whether all operands have one shape, [rows, C, H, W] with known C, H and W."""
    shapes = {dims(value) if value is not None else None for value in node.inputs}
    only = next(iter(shapes))
    return (
        len(shapes) == 1
        and only is not None
        and len(only) == 4
        and only[0] is not None
        and all(isinstance(axis, int) for axis in only[1:])
        and not any(value is not None and value.is_initializer() for value in node.inputs)
    )


def _led_back(op: Emitter, value: ir.Value) -> ir.Value:
    """The same numbers from an operator that the layout pass knows: a depthwise convolution with ones."""
    channels = (dims(value) or ())[1]
    same = op.Conv(value, op.floats(np.ones((channels, 1, 1, 1))), group=channels, kernel_shape=[1, 1])
    same.shape, same.type = value.shape, value.type
    return same
