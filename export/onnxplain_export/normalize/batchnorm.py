"""Folds inference BatchNormalization into the Conv, ConvTranspose or Gemm before it."""

import onnx_ir as ir

from onnxplain_export.emitter import attribute
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.origins import Known, computed, known

DOUBLE = ir.DataType.DOUBLE


def fold_batch_normalization(graph: ir.Graph) -> int:
    """Folds where the linear operator feeds nothing else and has constant weights; returns how many were folded."""
    return sum(_fold(graph, node) for node in list(graph) if node.op_type == "BatchNormalization")


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    linear = node.inputs[0].producer() if node.inputs[0] is not None else None
    if linear is None or attribute(node, "training_mode", 0) or not _absorbs(linear):
        return False
    statistics = [known(value) for value in node.inputs[1:]]
    weight = known(linear.inputs[1])
    bias_given = len(linear.inputs) > 2 and linear.inputs[2] is not None
    bias = known(linear.inputs[2]) if bias_given else None
    if weight is None or any(s is None for s in statistics) or (bias_given and bias is None):
        return False
    scale, shift, mean, variance = (_cast(s, DOUBLE) for s in statistics if s is not None)
    factor = computed("Div", scale, computed("Sqrt", computed("Add", variance, attribute(node, "epsilon", 1e-5))))
    centred = computed("Neg", mean) if bias is None else computed("Sub", _cast(bias, DOUBLE), mean)
    new_bias = computed("Add", shift, computed("Mul", factor, centred))
    shape = [1] * weight.content.ndim
    shape[_output_axis(linear)] = -1
    new_weight = computed("Mul", _cast(weight, DOUBLE), computed("Reshape", factor, shape))
    kind = ir.DataType.from_numpy(weight.content.dtype)
    _set_input(graph, linear, 1, _cast(new_weight, kind))
    _set_input(graph, linear, 2, _cast(new_bias, kind))
    ir.convenience.replace_all_uses_with(node.outputs[0], linear.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    # A name goes with its content, which `verify` compares by name.
    linear.outputs[0].name, node.outputs[0].name = node.outputs[0].name, linear.outputs[0].name
    return True


def _absorbs(linear: ir.Node) -> bool:
    """Whether the scale and shift of each output channel can move into the node's weights."""
    if len(linear.outputs[0].uses()) != 1 or linear.outputs[0].is_graph_output():
        return False
    if linear.op_type == "Conv":
        return True
    if linear.op_type == "ConvTranspose":
        return attribute(linear, "group", 1) == 1
    return linear.op_type == "Gemm" and attribute(linear, "alpha", 1.0) == 1.0 and attribute(linear, "beta", 1.0) == 1.0


def _output_axis(linear: ir.Node) -> int:
    """The axis of the weight that runs over output channels."""
    if linear.op_type == "Gemm":
        return 0 if attribute(linear, "transB", 0) else 1
    return 0 if linear.op_type == "Conv" else 1


def _cast(content: Known, kind: ir.DataType) -> Known:
    return computed("Cast", content, to=int(kind))


def _set_input(graph: ir.Graph, node: ir.Node, index: int, content: Known) -> None:
    name = f"{node.outputs[0].name}/{'weight' if index == 1 else 'bias'}/folded"
    value = add_constant(graph, name, content)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
