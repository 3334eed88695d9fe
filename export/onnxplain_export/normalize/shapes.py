"""Infers all shapes, and makes every padding explicit."""

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.emitter import attribute
from onnxplain_export.normalize.bodies import infer_bodies
from onnxplain_export.normalize.ceiling import leave_out_empty_windows

BATCH = "N"
"""The name of the free batch axis in every graph."""


def infer_shapes(model: ir.Model) -> None:
    """Fills in types and shapes wherever ONNX's own inference knows them."""
    passes.TopologicalSortPass()(model)
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    while leave_out_empty_windows(model):  # their sizes were wrong, and all that follow from them
        for node in model.graph.all_nodes():
            for value in node.outputs:
                value.shape = value.shape if value.is_graph_output() else None
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    infer_bodies(model.graph, dict(model.opset_imports))


def image_layout(shape: Sequence[object]) -> str | None:
    """NCHW or NHWC for a batch of images with 1, 3 or 4 channels, None for anything else."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3, 4):
        return "NCHW"
    return "NHWC" if shape[3] in (1, 3, 4) else None


def make_padding_explicit(graph: ir.Graph) -> None:
    """Replaces auto_pad (and ConvTranspose's output_shape) by the pads that it stands for."""
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"):
            continue
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER", "VALID") or "output_shape" in node.attributes:
            pads = _resolved_pads(node, mode)
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        node.attributes.pop("auto_pad", None)
        node.attributes.pop("output_shape", None)


def _resolved_pads(node: ir.Node, mode: str) -> list[int]:
    source = static_dims_but_batch(node, node.inputs[0])
    kernel = attribute(node, "kernel_shape") or static_dims_but_batch(node, node.inputs[1])
    rank = len(source)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    if mode == "VALID":
        return [0] * (2 * rank)
    if node.op_type == "ConvTranspose":
        totals = _transposed_totals(node, source, kernel, strides, dilations)
    else:
        totals = [
            max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            for size, k, stride, dilation in zip(source, kernel, strides, dilations, strict=True)
        ]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return small + large if mode == "SAME_UPPER" else large + small


def _transposed_totals(
    node: ir.Node, source: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    extra = attribute(node, "output_padding", [0] * len(source))
    goal = attribute(node, "output_shape") or [size * stride for size, stride in zip(source, strides, strict=True)]
    return [
        max(stride * (size - 1) + more + (k - 1) * dilation + 1 - out, 0)
        for size, k, stride, dilation, more, out in zip(
            source, kernel, strides, dilations, extra, goal[-len(source) :], strict=True
        )
    ]


def static_dims_but_batch(node: ir.Node, value: ir.Value | None) -> list[int]:
    """The spatial sizes of an operand [N, C, …] of `node`; refused where they aren't known."""
    shape = None if value is None or value.shape is None else list(value.shape)[2:]
    if shape is None or not all(isinstance(axis, int) for axis in shape):
        raise ModelError(f"{node.op_type} (node {node.name!r}): the size of its input isn't known at export")
    return [int(str(axis)) for axis in shape]
